"""The connected models. One engine per process, made at the front door and handed to whoever needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Self

from . import registry
from .chat import ask, go_on, refused
from .errors import MultimodelError
from .hardware import Device, Hardware, cores, gpu_possible, memory, probe, without_gpu
from .pool import Pool
from .pricelist import PriceList
from .prices import tokens
from .retry import RetryPolicy
from .runs import Run
from .settings import Settings
from .types import (
    Backend,
    Cached,
    Capabilities,
    Message,
    ModelId,
    ModelSpec,
    Prompt,
    PromptSize,
    SamplingParams,
    Sent,
    Snapshot,
    Timing,
)
from .versions import versions

if TYPE_CHECKING:
    from .downloads import Downloads
    from .finetune.jobs import Jobs
    from .finetune.predict import Predictors
    from .measuring import Measuring
    from .memory.estimator import Estimator
    from .store import Store

Connect = Callable[[ModelSpec, Settings, Pool], Backend]
Model = ModelId | ModelSpec
"""A model as it is, or with the options it is to be loaded with; one loaded in two ways is two loaded models."""


class Engine:
    """Connects a model once, keeps it, and asks it.

    >>> with Engine() as engine:
    ...     *_, last = engine.ask(ModelId.parse("echo:any"), [Message("user", "hello there")])
    >>> last.text, last.finish_reason
    ('hello there', 'stop')
    """

    def __init__(self, settings: Settings | None = None, *, connect: Connect = registry.connect) -> None:
        self.settings = settings or Settings.load()
        performance = self.settings.performance
        # one core is left to the page: an engine whose threads wait for a core that is busy elsewhere all but stops
        threads = performance.threads or cores() - 1
        self.pool = Pool(
            threads,
            device=self.device,
            estimator=lambda: self.estimator,
            idle_after=60 * performance.idle_minutes or None,
        )
        self.prices = PriceList(self.settings)
        self._connect = connect
        self._backends: dict[ModelSpec, Backend] = {}
        self._guard = Lock()  # between the threads of the runs
        self._connecting: dict[ModelSpec, Lock] = {}
        self._runs: list[Run] = []
        self._before_close: list[Callable[[], object]] = []
        self._probing = Lock()  # between the pages that open
        self._hardware: Hardware | None = None
        self.closed = False

    def hardware(self) -> Hardware:
        """The devices of this machine and why each is used as it is; the first call takes seconds."""
        with self._probing:
            if self._hardware is None:
                self._hardware = probe()
            return self._hardware

    def device(self, name: str = "auto") -> Device:
        """The device of a name, "auto" or a kind, with the memory that is free now; the processor where there is none.

        Of a GPU of its own memory, what was free when the app looked for it first: the pool knows what came since.
        """
        found = self._hardware or (self.hardware() if gpu_possible() else without_gpu())
        device = found.of(name) or found.devices[-1]
        return device if device.kind == "cuda" else replace(device, free=min(device.total, memory().free))

    @cached_property
    def jobs(self) -> Jobs:
        """The fine-tuning runs of this machine."""
        module = import_module("multimodel.finetune.jobs")  # imported on first use
        jobs: Jobs = module.Jobs(self.settings, self.pool.cores, device=lambda name: self.device(name).kind)
        return jobs

    @cached_property
    def predictors(self) -> Predictors:
        """The fine-tuned models in use, each in a process that stays warm."""
        module = import_module("multimodel.finetune.predict")
        predictors: Predictors = module.Predictors(self.settings, self.pool.cores)
        return predictors

    @cached_property
    def downloads(self) -> Downloads:
        """The downloads of this server."""
        downloads: Downloads = import_module("multimodel.downloads").Downloads(self.settings)
        return downloads

    @cached_property
    def measuring(self) -> Measuring:
        """The measurements of models alone."""
        measuring: Measuring = import_module("multimodel.measuring").Measuring(self)
        return measuring

    @cached_property
    def estimator(self) -> Estimator:
        """What says how much memory a model takes."""
        module = import_module("multimodel.memory.estimator")
        estimator: Estimator = module.Estimator(self.settings, device=self.device)
        return estimator

    @cached_property
    def store(self) -> Store:
        """The conversations that are kept."""
        store: Store = import_module("multimodel.store").Store(self.settings.chat.data_dir)
        return store

    def backend(self, model: Model) -> Backend:
        """The model, connected at most once however many ask. Raises ConfigError or LoadError."""
        spec = _spec(model)
        with self._guard:
            connecting = self._connecting.setdefault(spec, Lock())
        with connecting:
            if spec not in self._backends:
                self._backends[spec] = self._connect(spec, self.settings, self.pool)
            return self._backends[spec]

    def ask(
        self,
        model: Model,
        messages: Sequence[Message],
        params: SamplingParams = SamplingParams(),
        *,
        fresh: bool = False,
    ) -> Generator[Snapshot]:
        """Connect if needed, then answer. Every error is the last snapshot's; nothing is raised.

        `fresh`: a model of this machine evaluates the prompt whole, whatever its cache holds.
        """
        started, id = time.perf_counter(), _spec(model).id
        yield Snapshot(id, "", Timing(started))
        try:
            backend = self.backend(model)
            backend = backend.afresh() if fresh and isinstance(backend, Cached) else backend
        except Exception as error:
            yield refused(id, error, started)
        else:
            self.prices.prepare(id)
            policy = RetryPolicy(attempts=self.settings.api.retries + 1)
            sent = Sent(versions=versions(id.backend))
            with closing(ask(backend, messages, params, policy=policy, sent=sent)) as answer:
                for now in answer:
                    yield self._priced(messages, now) if now.done else now

    def start(
        self,
        model: Model,
        messages: Sequence[Message],
        params: SamplingParams = SamplingParams(),
        *,
        before: Snapshot | None = None,
    ) -> Run:
        """The same answer as a run of the server: it goes on whoever follows it. `before`: a text that it continues."""
        answer, first = self.ask(model, messages, params), Snapshot(_spec(model).id, "", Timing(time.perf_counter()))
        if before:
            answer, first = go_on(answer, before), replace(first, text=before.text, reasoning=before.reasoning)
        run = Run(answer, first, lambda now: self._priced(messages, now, first.text + first.reasoning))
        with self._guard:
            self._runs = [other for other in self._runs if other.active] + [run]
        return run

    def _priced(self, messages: Sequence[Message], answer: Snapshot, before: str = "") -> Snapshot:
        """An answer that has ended, and its cost. `before`: what of it had been said already."""
        return replace(answer, cost=self.prices.cost(answer.model, messages, answer, before))

    def capabilities(self, model: Model) -> Capabilities | None:
        """What a model takes; None where it cannot be connected."""
        try:
            return self.backend(model).capabilities
        except MultimodelError:
            return None

    def measure(self, model: Model, messages: Sequence[Message]) -> PromptSize | None:
        """The size of a prompt where it is known without asking anyone; of a service's models an estimate."""
        try:
            return self.backend(model).measure(messages) or self._estimated(_spec(model).id, messages)
        except MultimodelError:
            return None

    def _estimated(self, model: ModelId, messages: Sequence[Message]) -> PromptSize | None:
        """By letters, of the context that the kept library of prices knows."""
        context = getattr(self.prices.of(model), "context", None)
        return PromptSize(tokens(m.content for m in messages), context, estimated=True) if context else None

    def inspect(
        self, model: Model, messages: Sequence[Message], params: SamplingParams, *, load: bool = False
    ) -> Prompt | None:
        """What a local model would read; None of others, and while it is not loaded. Raises MultimodelError.

        `load`: bring it in where its files are here.
        """
        inspect = getattr(self.backend(model), "inspect", None)
        found: Prompt | None = inspect(messages, params, load=load) if inspect else None
        return found

    def unload(self, model: Model) -> None:
        """Give back a model's memory or connections; the next question connects it again."""
        with self._guard:
            backend = self._backends.pop(_spec(model), None)
        if backend:
            backend.close()

    def release(self, model: Model) -> None:
        """The same, unless an answer uses it just now."""
        backend = self._backends.get(_spec(model))
        if backend and not getattr(backend, "in_use", False):
            self.unload(model)

    def answering(self) -> bool:
        """Whether a run answers with a model of this machine just now."""
        with self._guard:
            models = {run.newest.snapshot.model for run in self._runs if run.active}
        return any(spec.id in models and backend.capabilities.local for spec, backend in tuple(self._backends.items()))

    def before_close(self, work: Callable[[], object]) -> None:
        """Have `work` called when this closes, before any model is given back."""
        self._before_close.append(work)

    def close(self) -> None:
        """Stop every answer and give everything back. Safe to call twice."""
        while self._before_close:
            self._before_close.pop()()
        with self._guard:
            self.closed = True  # before the answers end: what waits for their ends is not to be asked any more
            runs, self._runs = self._runs, []
        for run in runs:
            run.stop()
        for run in runs:
            run.join(2.0)
        for spec in tuple(self._backends):
            self.unload(spec)
        self.pool.close()
        for name in ("jobs", "predictors", "downloads", "estimator", "store"):
            if name in vars(self):
                getattr(self, name).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spec(model: Model) -> ModelSpec:
    return model if isinstance(model, ModelSpec) else ModelSpec(model)
