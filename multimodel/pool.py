"""The local models in memory: each is loaded once however many ask, and leaves when its room is needed or nobody asks.

A place is where one model, loaded in one way, lives: empty, being filled, or with a worker that answers. Whether a
model fits is decided by its memory plan before it is loaded. The system counts mapped weights as free memory, and a
model that is being loaded has not taken all of its own yet: what a plan promises and its process does not hold is
spoken for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, Literal

from .compute import Cores
from .errors import MultimodelError, TooLarge, WorkerCrashed
from .hardware import Device, Kind, without_torch
from .memory.context import SLOTS
from .memory.plan import MemoryPlan, Request, gb, gb_apart
from .memory.target import target_of
from .types import Chunk, ModelSpec
from .workers.client import HEARTBEAT, Worker
from .workers.protocol import Facts, Status, error_frame, error_from

if TYPE_CHECKING:
    from .memory.estimator import Estimator  # comes with the Hub's library

Estimates = Callable[[], "Estimator"]
State = Literal["loading", "answering", "idle"]
BringIn = Callable[[], Generator[Chunk, None, Worker]]


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in the pool as it stands. Memory in bytes."""

    key: str  # of its place
    spec: ModelSpec
    state: State
    predicted: int  # by the memory plan; 0 until it is made
    measured: int  # resident in its process
    taken: int  # what the pool counts it for: the larger of prediction and truth
    device: Kind
    facts: Facts | None = None  # None while it loads
    status: Status | None = None  # what the process last said
    idle: float = 0.0  # seconds since its last answer; 0 while it answers


class Pool:
    """The places of all models, the memory they share and the cores."""

    def __init__(
        self,
        cores: int = 1,
        *,
        device: Callable[[str], Device] = lambda name: without_torch("").best,
        estimator: Estimates | None = None,
        idle_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`device`: the one of a name, "auto" or a kind, as it stands now. `estimator`: says what a model takes; None:
        nothing is known, and every model fits. `idle_after`: seconds; None: models stay."""
        self.cores = Cores(cores)
        self._make_estimator = estimator
        self._estimator: Estimator | None = None
        self.device = device
        self.clock = clock
        self.lock = RLock()  # all places: between the threads of answers, the one that sees idle models off, the page
        self._idle_after = idle_after
        self._places: dict[ModelSpec, Place] = {}
        self._departing: list[tuple[Kind, Worker]] = []  # processes that are ending and give back their memory
        self._closed = Event()
        self._watch: Thread | None = None

    def place(self, spec: ModelSpec) -> Place:
        """The one place of a model loaded in that way."""
        with self.lock:
            return self._places.setdefault(spec, Place(self, spec))

    def residents(self) -> tuple[Resident, ...]:
        """The models that are loaded or on their way, the longest used first."""
        with self.lock:
            taken = [place for place in self._places.values() if place.taken]
        found = [place.resident() for place in taken]
        return tuple(resident for resident in found if resident)

    def unload(self, key: str) -> None:
        """End the process of a place, whatever it is doing; a key of none is ignored."""
        with self.lock:
            found = [place for place in self._places.values() if place.key == key]
        self._see_off(found)
        self._end()

    def spare(self, kind: Kind, besides: Place | None = None) -> int:
        """Bytes that are free on a device and not spoken for by a model that is loaded or on its way."""
        with self.lock:
            others = [p for p in self._places.values() if p.taken and p.kind == kind and p is not besides]
            coming = sum(worker.own_memory() for there, worker in self._departing if there == kind)
            return self.device(kind).free + coming - sum(place.owed for place in others)

    def plan(self, path: Path, spec: ModelSpec) -> MemoryPlan:
        """What a model that lies here will take. Raises LoadError."""
        device = self.device(spec.load.device)
        if not (estimator := self._estimates()):
            sequences = spec.load.sequences or SLOTS
            request = Request(sequences=sequences, target=target_of(device), dtype=spec.load.dtype)
            return MemoryPlan(model=str(spec.id), request=request, terms=())
        device = replace(device, free=max(0, self.spare(device.kind)))
        return estimator.planned(path, spec, device, partial(self.admits, self.place(spec)))

    def admits(self, place: Place, plan: MemoryPlan) -> bool:
        """Whether there is room for a plan, once the idle models have left."""
        kind = plan.request.target.kind
        with self.lock:
            gain = sum(idle.size for idle in self._idle(kind))
            return plan.safe_total <= self.spare(kind, besides=place) + gain

    def learn(self, plan: MemoryPlan, measured: int) -> None:
        """Keep what a model really took, in bytes, for the plans to come."""
        if estimator := self._estimates():
            estimator.loaded(plan, measured)

    def flash_attention(self, plan: MemoryPlan) -> bool | None:
        """Whether a model is known to be quicker with flash attention; None where that is to be tried."""
        estimator = self._estimates()
        return estimator.flash_attention(plan) if estimator else None

    def tried(self, plan: MemoryPlan, flash: bool) -> None:
        """Keep what the load of a GGUF model found."""
        if estimator := self._estimates():
            estimator.tried(plan, flash)

    def make_room(self, place: Place, plan: MemoryPlan) -> None:
        """Speak for the memory of a plan; idle models leave where that is needed, the least recently used first.

        Raises TooLarge where it does not help; then nobody leaves, unless the model is to be loaded anyway.
        """
        with self.lock:
            kind = plan.request.target.kind
            spare, idle = self.spare(kind, besides=place), self._idle(kind)
            if not self.admits(place, plan) and not place.anyway:
                raise too_large(plan, spare, idle, self._busy(kind, place))
            place.plan = plan
            self._see_off(_leaving(idle, plan.safe_total - spare))
        self._end()

    def sweep(self) -> float | None:
        """See off the models that have been idle for too long; seconds until the next may be due, None for never."""
        if self._idle_after is None:
            return None
        with self.lock:
            taken = [place for place in self._places.values() if place.taken]
            due = {place: self._idle_after - place.idle for place in taken}
            self._see_off(place for place, left in due.items() if left <= 0 and not place.held)
        self._end()
        return min((max(0.0, left) for place, left in due.items() if place.taken), default=None)

    def watch(self) -> None:
        """See to it that idle models leave, from now on until none is left."""
        with self.lock:
            if self._idle_after is not None and not self._watch and not self._closed.is_set():
                self._watch = Thread(target=self._sweep_in_time, name="pool", daemon=True)
                self._watch.start()

    def close(self) -> None:
        """End every process. Safe to call twice."""
        self._closed.set()
        self._see_off(self._places.values())
        self._end()

    def _estimates(self) -> Estimator | None:
        with self.lock:
            if not self._estimator and self._make_estimator:
                self._estimator = self._make_estimator()
            return self._estimator

    def _sweep_in_time(self) -> None:
        while not self._closed.is_set():
            wait = self.sweep()
            with self.lock:
                if not any(place.taken for place in self._places.values()):
                    self._watch = None
                    return
            self._closed.wait(wait)

    def _see_off(self, places: Iterable[Place]) -> None:
        """Empty these places; `_end` then ends the processes, which takes a moment, outside the lock."""
        with self.lock:
            for place in places:
                kind = place.kind
                if worker := place.vacate():
                    self._departing.append((kind, worker))

    def _end(self) -> None:
        with self.lock:
            departing = tuple(self._departing)
        for leaving in departing:
            leaving[1].close()
            with self.lock, suppress(ValueError):  # another thread may have been quicker
                self._departing.remove(leaving)

    def _idle(self, kind: Kind) -> list[Place]:
        """Who may leave a device, the least recently used first."""
        here = [p for p in self._places.values() if p.taken and not p.held and p.kind == kind]
        return sorted(here, key=lambda place: place.used)

    def _busy(self, kind: Kind, besides: Place) -> list[Place]:
        return [p for p in self._places.values() if p.taken and p.held and p.kind == kind and p is not besides]


class Place:
    """Where one model, loaded in one way, lives in the pool."""

    def __init__(self, pool: Pool, spec: ModelSpec) -> None:
        self.key = secrets.token_hex(4)
        self.spec = spec
        self.plan: MemoryPlan | None = None  # of the model that is here or on its way
        self.held = 0  # answers that use it or wait for it
        self.used = 0.0  # when the last of them ended, by the pool's clock
        self.anyway = 0  # of those answers, how many want it loaded even where it does not fit
        self._pool = pool
        self._process: Worker | None = None
        self._load: _Load | None = None
        self._status: Status | None = None
        self._weighed = False
        self._flash: bool | None = None  # attention, as the first load here found it quicker

    @property
    def worker(self) -> Worker | None:
        """The loaded model; None while there is none that can be asked."""
        process = self._process
        return process if process and process.alive and process.facts else None

    @property
    def taken(self) -> bool:
        """Whether a model is here or on its way."""
        return bool(self._load or self.worker)

    @property
    def kind(self) -> Kind:
        """The kind of device whose memory it takes."""
        return self.plan.request.target.kind if self.plan else "cpu"

    @property
    def size(self) -> int:
        """Bytes that would be free without it."""
        return max(self._own, self.plan.total if self.plan else 0)

    @property
    def owed(self) -> int:
        """Bytes it was promised and that the system still counts as free."""
        return self.size - self._own

    @property
    def idle(self) -> float:
        """Seconds since anybody used it."""
        return 0.0 if self.held else self._pool.clock() - self.used

    @contextmanager
    def hold(self, anyway: bool = False) -> Generator[None]:
        """While it lasts, the model does not leave to make room or for being idle."""
        with self._pool.lock:
            self.held += 1
            self.anyway += anyway
        try:
            yield
        finally:
            with self._pool.lock:
                self.held -= 1
                self.anyway -= anyway
                self.used = self._pool.clock()
            self._pool.watch()

    def ready(self, bring_in: BringIn) -> Generator[Chunk, None, Worker]:
        """A loaded worker. Concurrent callers share one load and see the same stages; the last to leave ends it."""
        with self._pool.lock:
            if worker := self.worker:
                return worker
            load = self._load = self._load or _Load(bring_in())
            load.waiting += 1
        try:
            while not load.over:
                load.advance()
                yield load.newest
        finally:
            self._leave(load)
        for note in load.notes:
            yield Chunk(note=note)
        return load.result()

    def make_room(self, plan: MemoryPlan) -> None:
        """Speak for the memory of a plan before the model is loaded. Raises TooLarge."""
        self._pool.make_room(self, plan)

    def flash_attention(self, plan: MemoryPlan) -> bool | None:
        """Whether to use flash attention; None where the load is to try it. The same for every load, or a greedy text
        would not be."""
        asked, known = self.spec.load.flash_attention, self._pool.flash_attention(plan)
        return next((found for found in (asked, known, self._flash) if found is not None), None)

    def loaded(self, plan: MemoryPlan, facts: Facts) -> None:
        """Take note of what a load decided that its plan left open, and keep it for the plans to come."""
        self._flash = facts.flash_attention
        if plan.engine == "llama.cpp" and plan.request.target.kind == "cpu":
            if self.spec.load.flash_attention is None:
                self._pool.tried(plan, facts.flash_attention)
            self.plan = plan.at(flash_attention=facts.flash_attention)

    def start(self, more: Mapping[str, str] | None = None) -> Worker:
        """A new process for the model of this place; `more`: variables of its environment."""
        worker = Worker(str(self.spec.id), threads=self._pool.cores.total, more=more)
        with self._pool.lock:
            self._process = worker
        return worker

    def vacate(self) -> Worker | None:
        """Take the worker out, for the caller to end it; the next answer starts another one."""
        with self._pool.lock:
            worker, self._process, self.plan, self._status = self._process, None, None, None
            self._weighed = False
            return worker

    def unload(self) -> None:
        """End its process. An answer under way ends with WorkerCrashed."""
        self._pool.unload(self.key)

    def weigh(self) -> None:
        """Tell the plans to come what the model took, once it has answered for the first time."""
        with self._pool.lock:
            worker, plan, weighed, self._weighed = self.worker, self.plan, self._weighed, True
        if worker and plan and not weighed and self.kind != "cuda":  # how much of a GPU a process has is not known
            self._pool.learn(plan, worker.memory())

    def resident(self) -> Resident | None:
        """What is here; None where that has just left."""
        process, plan = self._process, self.plan
        if not self.taken:
            return None
        if worker := self.worker:
            self._status = _status(worker) or self._status
        state: State = "loading" if not worker else "answering" if self.held else "idle"
        return Resident(
            key=self.key,
            spec=self.spec,
            state=state,
            predicted=plan.total if plan else 0,
            measured=process.memory() if process else 0,
            taken=self.size,
            device=self.kind,
            facts=process.facts if process else None,
            status=self._status,
            idle=self.idle if worker else 0.0,
        )

    @property
    def _own(self) -> int:
        """Bytes that are its own by the system's count; on a GPU they are known from the plan alone."""
        process = self._process
        return process.own_memory() if process and self.kind != "cuda" else 0

    def _leave(self, load: _Load) -> None:
        with self._pool.lock:
            load.waiting -= 1
            last = not load.waiting
            if self._load is load and (load.over or last):
                self._load = None
        if last:
            load.close()


class _Load:
    """One load, advanced by whoever waits for it, so that it needs no thread and stops when nobody is left."""

    def __init__(self, steps: Generator[Chunk, None, Worker]) -> None:
        self.waiting = 0  # callers; guarded by the pool's lock
        self.newest = Chunk()
        self.notes: list[str] = []
        self._worker: Worker | None = None
        self._steps = steps
        self._turn = Lock()  # between the threads of the callers
        self._error: MultimodelError | None = None

    @property
    def over(self) -> bool:
        return self._worker is not None or self._error is not None

    def advance(self) -> None:
        """Take a turn, or wait a heartbeat while another caller takes it."""
        if not self._turn.acquire(timeout=HEARTBEAT):
            return
        try:
            if not self.over:
                self._take(next(self._steps))
        except StopIteration as end:
            self._worker = end.value
        except Exception as error:  # kept for everyone who waits
            self._error = error if isinstance(error, MultimodelError) else error_from(error_frame(None, error))
        finally:
            self._turn.release()

    def result(self) -> Worker:
        """The worker; raises what ended the load."""
        if self._worker:
            return self._worker
        raise self._error or WorkerCrashed("The model was not loaded.")

    def close(self) -> None:
        """Stop it where it has not ended: the download is interrupted, the child is killed."""
        with self._turn:
            self._steps.close()

    def _take(self, chunk: Chunk) -> None:
        if chunk.note:
            self.notes.append(chunk.note)
        elif chunk.stage:
            self.newest = Chunk(stage=chunk.stage)


def _leaving(idle: Sequence[Place], short: int) -> Iterator[Place]:
    """The first of those who may leave that bring `short` bytes together, or all."""
    for place in idle:
        if short <= 0:
            return
        short -= place.size  # before it goes, and takes nothing
        yield place


def too_large(plan: MemoryPlan, spare: int, idle: Sequence[Place], busy: Sequence[Place]) -> TooLarge:
    """Why a plan does not fit into `spare` bytes, though the idle models would leave, and what would help."""
    takes, free = gb_apart(plan.safe_total, max(0, spare))
    sentences = [f"{plan.model} takes {takes} of memory, {free} is free."]
    gain = sum(place.size for place in idle)
    if idle:
        sentences.append(f"Unloading {_names(idle)} would free {gb(gain)}, which is not enough.")
    if using := [place for place in busy if place.size]:
        sentences.append(f"{_names(using)} {'is' if len(using) == 1 else 'are'} in use.")
    verdict = plan.fit(replace(plan.request.target, usable=max(0, spare + gain)))
    helps = [help.text for help in verdict.helps[:2]] or ["Choose a smaller model, or close other programs."]
    return TooLarge(" ".join(sentences), hint=" ".join(helps))


def _names(places: Sequence[Place]) -> str:
    return ", ".join(f"{place.spec.id} ({gb(place.size)})" for place in places)


def _status(worker: Worker) -> Status | None:
    try:
        return worker.status()
    except MultimodelError:
        return None
