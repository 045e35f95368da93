"""Running a fair lane: a thread of the server asks one model after another, and waits until the machine is free."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import fmean
from threading import Event, Lock, Thread
from typing import Literal, Protocol

from .errors import BadRequest
from .fairlane import FairLane, FairModel, FairUpdate, Sample
from .pool import Pool
from .types import Backend, Capabilities, Message, ModelSpec, SamplingParams, Snapshot

BEAT = 0.2  # seconds between two looks at whether the machine is free
PATIENCE = 60.0  # seconds that a sample waits for other work, before it is taken beside it and marked
WARM_UP = 8  # tokens of an answer that is not counted

Step = Literal["cold", "warm-up", "warm"]
Sampling = Generator[str, None, Sample]
"""What a sample is waiting for, again and again; then the sample."""


class Machine(Protocol):
    """What it needs of the engine, whose words these are."""

    pool: Pool

    def ask(
        self, model: ModelSpec, messages: Sequence[Message], params: SamplingParams, *, fresh: bool
    ) -> Generator[Snapshot]: ...

    def backend(self, model: ModelSpec) -> Backend: ...

    def capabilities(self, model: ModelSpec) -> Capabilities | None: ...

    def release(self, model: ModelSpec) -> None: ...

    def answering(self) -> bool: ...

    def before_close(self, work: Callable[[], object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What is repeated: the request behind an answer of the comparison."""

    key: str  # of the column
    turn: int
    spec: ModelSpec
    messages: tuple[Message, ...]
    params: SamplingParams
    answer: Snapshot


class Measuring:
    """All measurements of the server. Only one at a time asks models of this machine."""

    def __init__(self, engine: Machine, patience: float = PATIENCE) -> None:
        self._engine = engine
        self._patience = patience
        self._turn = Lock()  # held by the measurement that asks a model of this machine
        self._running: list[Measurement] = []
        engine.before_close(self.close)

    def start(
        self, lane: FairLane, asks: Sequence[Ask], *, cold: bool, tell: Callable[[FairLane], object] = lambda lane: None
    ) -> Measurement:
        """Measure these models. `cold`: unload each first where nobody else uses it. `tell`: gets what is new."""
        self._running = [other for other in self._running if other.active]
        self._running.append(Measurement(self._measured(lane, asks, cold), FairUpdate(lane), tell))
        return self._running[-1]

    def close(self) -> None:
        """Stop all."""
        for measurement in self._running:
            measurement.stop()
            measurement.join(2.0)

    def _measured(self, lane: FairLane, asks: Sequence[Ask], cold: bool) -> Generator[FairUpdate]:
        plans = [self._plan(ask, lane.repeats, cold) for ask in asks]
        pace = Pace([ask.answer for ask in asks], [len(plan) for plan in plans])
        for number, (ask, plan) in enumerate(zip(asks, plans, strict=True)):
            for step in plan:
                began = time.perf_counter()
                sampling = self._sampled(ask, step, fresh=not lane.cached)
                sample = yield from _told(sampling, lambda doing, lane=lane: pace.update(lane, doing))  # type: ignore[misc]
                lane = _with(lane, number, step, sample)
                pace.ended(number, time.perf_counter() - began)
                if sample.error:  # it would be the same again
                    pace.gave_up(number)
                yield pace.update(lane)
                if sample.error:
                    break
        yield pace.update(lane.ended("done"))

    def _plan(self, ask: Ask, repeats: int, cold: bool) -> list[Step]:
        first: list[Step] = ["cold" if cold and self._loads(ask) else "warm-up"] if self._local(ask) else []
        warm: list[Step] = ["warm"] * repeats
        return first + warm

    def _local(self, ask: Ask) -> bool:
        capabilities = self._engine.capabilities(ask.spec)
        return bool(capabilities and capabilities.local)

    def _loads(self, ask: Ask) -> bool:
        return hasattr(self._engine.backend(ask.spec), "facts")

    def _sampled(self, ask: Ask, step: Step, *, fresh: bool) -> Sampling:
        """Ask once. Closing it ends the answer."""
        if not self._local(ask):
            return (yield from self._asked(ask, ask.params, fresh, lambda mine: False))
        while not self._turn.acquire(timeout=BEAT):
            yield "waiting for another measurement"
        try:
            yield from self._until_free()
            if step == "cold":
                self._engine.release(ask.spec)
            params = ask.params if step == "warm" else _short(ask.params)
            return (yield from self._asked(ask, params, fresh, self._busy))
        finally:
            self._turn.release()

    def _asked(self, ask: Ask, params: SamplingParams, fresh: bool, busy: Callable[[int], bool]) -> Sampling:
        alone, last = not busy(0), ask.answer
        with closing(self._engine.ask(ask.spec, ask.messages, params, fresh=fresh)) as snapshots:
            for snapshot in snapshots:
                alone, last = alone and not busy(1), snapshot  # one share is its own
                yield f"asking {ask.spec.id}"
        return Sample.of(last, alone=alone)

    def _until_free(self) -> Generator[str]:
        deadline = time.monotonic() + self._patience
        while self._busy() and time.monotonic() < deadline:
            yield "waiting until this machine is free"
            time.sleep(BEAT)

    def _busy(self, mine: int = 0) -> bool:
        """Whether anything but `mine` answers, trains or predicts on this machine."""
        return self._engine.pool.cores.held > mine or self._engine.answering()


class Measurement:
    """A fair lane being run by a thread of the server."""

    def __init__(
        self, source: Generator[FairUpdate], first: FairUpdate, tell: Callable[[FairLane], object] = lambda lane: None
    ) -> None:
        self._newest = first
        self._tell = tell
        self._stop = Event()
        self._lock = Lock()  # between the measurement's thread, the one that stops it and those that watch
        self._listeners: list[Callable[[], object]] = []
        tell(first.lane)
        self._thread = Thread(target=self._work, args=(source,), name="fairlane", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> FairUpdate:
        """The measurement as it stands now."""
        return self._newest

    @property
    def active(self) -> bool:
        return self._newest.lane.state == "running"

    def stop(self) -> None:
        """End it at once; what was measured stays. The model is free within a heartbeat."""
        self._stop.set()
        with self._lock:
            if self.active:
                self._publish(replace(self._newest, lane=self._newest.lane.ended("stopped"), doing=""))

    def join(self, timeout: float | None = None) -> None:
        """Wait until its thread has ended."""
        self._thread.join(timeout)

    def on_change(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` after every update, from other threads; returns the function that ends this."""
        with self._lock:
            self._listeners.append(listener)

        def forget() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return forget

    def _work(self, source: Generator[FairUpdate]) -> None:
        with closing(source):
            for update in source:
                with self._lock:
                    if self._stop.is_set():
                        return
                    if update != self._newest:
                        self._publish(update)

    def _publish(self, update: FairUpdate) -> None:
        """The caller holds the lock."""
        news = update.lane != self._newest.lane
        self._newest = update
        if news:
            self._tell(update.lane)
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:  # a page that is gone must not end it
                self._listeners.remove(listener)


class Pace:
    """How far a measurement is, and how long it will still take."""

    def __init__(self, answers: Sequence[Snapshot], steps: Sequence[int]) -> None:
        """`answers`: of the comparison, by which the time of a model is judged until it was measured."""
        self._expected = [(answer.timing.total or 1.0) + answer.timing.loading for answer in answers]
        self._took: list[deque[float]] = [deque(maxlen=3) for _ in answers]
        self._left = list(steps)
        self._done, self._total = 0, sum(steps)

    def ended(self, number: int, seconds: float) -> None:
        """A sample of a model has been taken."""
        self._done += 1
        self._left[number] -= 1
        self._took[number].append(seconds)

    def gave_up(self, number: int) -> None:
        """Nothing more is asked of a model."""
        self._total -= self._left[number]
        self._left[number] = 0

    def update(self, lane: FairLane, doing: str = "") -> FairUpdate:
        """The measurement as it stands."""
        each = (fmean(took) if took else expected for took, expected in zip(self._took, self._expected, strict=True))
        left = sum(seconds * count for seconds, count in zip(each, self._left, strict=True))
        return FairUpdate(lane, self._done, self._total, doing, round(left, 1))


def _told(sampling: Sampling, update: Callable[[str], FairUpdate]) -> Generator[FairUpdate, None, Sample]:
    """What a sample is waiting for, as updates."""
    with closing(sampling):
        while True:
            try:
                doing = next(sampling)
            except StopIteration as end:
                sample: Sample = end.value
                return sample
            yield update(doing)


def _with(lane: FairLane, number: int, step: Step, sample: Sample) -> FairLane:
    """The lane with one sample more."""
    model = lane.models[number]
    if step == "warm" or sample.error:
        model = replace(model, warm=(*model.warm, sample))
    elif step == "cold":
        note = "" if sample.loading >= BEAT else "Somebody else used it: it was not unloaded."
        model = replace(model, cold=None if note else sample, note=note)
    return replace(lane, models=(*lane.models[:number], model, *lane.models[number + 1 :]))


def _short(params: SamplingParams) -> SamplingParams:
    return replace(params, max_tokens=min(params.max_tokens or WARM_UP, WARM_UP))


def lane_of(asks: Sequence[Ask], number: int, at: float, prompt: str, repeats: int, cached: bool) -> FairLane:
    """A measurement that has not begun. Raises BadRequest where there is nothing to repeat, InvalidParameter."""
    if not asks:
        raise BadRequest("There is no answer to compare with yet.", hint="Send a prompt first.")
    models = tuple(FairModel(a.key, a.turn, a.spec.id, Sample.of(a.answer, alone=len(asks) == 1)) for a in asks)
    return FairLane(number, at, prompt, repeats, cached, models)
