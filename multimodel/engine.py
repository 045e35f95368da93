"""The connected models. One engine per process, made at the front door and handed to whoever needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from threading import Lock
from typing import Self

from . import registry
from .chat import ask, refused
from .compute import Cores
from .errors import MultimodelError
from .hardware import Hardware, cores, probe
from .retry import RetryPolicy
from .runs import Run
from .settings import Settings
from .types import (
    Backend,
    Capabilities,
    LoadOptions,
    Message,
    ModelId,
    ModelSpec,
    PromptSize,
    SamplingParams,
    Snapshot,
    Timing,
)

Connect = Callable[[ModelSpec, Settings, Cores], Backend]


class Engine:
    """Connects a model once, keeps it, and asks it.

    >>> with Engine() as engine:
    ...     *_, last = engine.ask(ModelId.parse("echo:any"), [Message("user", "hello there")])
    >>> last.text, last.finish_reason
    ('hello there', 'stop')
    """

    def __init__(self, settings: Settings | None = None, *, connect: Connect = registry.connect) -> None:
        self.settings = settings or Settings.load()
        # one core is left to the page: an engine whose threads wait for a core that is busy elsewhere all but stops
        self.cores = Cores(self.settings.performance.threads or cores() - 1)
        self._connect = connect
        self._backends: dict[ModelId, Backend] = {}
        self._guard = Lock()  # between the threads of the runs
        self._connecting: dict[ModelId, Lock] = {}
        self._runs: list[Run] = []
        self._probing = Lock()  # between the pages that open
        self._hardware: Hardware | None = None

    def hardware(self) -> Hardware:
        """The devices of this machine and why each is used as it is; the first call takes seconds."""
        with self._probing:
            if self._hardware is None:
                self._hardware = probe()
            return self._hardware

    def backend(self, model: ModelId) -> Backend:
        """The model, connected at most once however many ask. Raises ConfigError or LoadError."""
        with self._guard:
            connecting = self._connecting.setdefault(model, Lock())
        with connecting:
            if model not in self._backends:
                load = LoadOptions(context_length=self.settings.models.context_length)
                self._backends[model] = self._connect(ModelSpec(model, load), self.settings, self.cores)
            return self._backends[model]

    def ask(
        self, model: ModelId, messages: Sequence[Message], params: SamplingParams = SamplingParams()
    ) -> Generator[Snapshot]:
        """Connect if needed, then answer. Every error is the last snapshot's; nothing is raised."""
        started = time.perf_counter()
        yield Snapshot(model, "", Timing(started))
        try:
            backend = self.backend(model)
        except Exception as error:
            yield refused(model, error, started)
        else:
            policy = RetryPolicy(attempts=self.settings.api.retries + 1)
            yield from ask(backend, messages, params, policy=policy)

    def start(self, model: ModelId, messages: Sequence[Message], params: SamplingParams = SamplingParams()) -> Run:
        """The same answer as a run of the server: it goes on whoever follows it."""
        run = Run(self.ask(model, messages, params), Snapshot(model, "", Timing(time.perf_counter())))
        with self._guard:
            self._runs = [other for other in self._runs if other.active] + [run]
        return run

    def capabilities(self, model: ModelId) -> Capabilities | None:
        """What a model takes; None where it cannot be connected."""
        try:
            return self.backend(model).capabilities
        except MultimodelError:
            return None

    def measure(self, model: ModelId, messages: Sequence[Message]) -> PromptSize | None:
        """The size of a prompt where it is known without asking anyone."""
        try:
            return self.backend(model).measure(messages)
        except MultimodelError:
            return None

    def unload(self, model: ModelId) -> None:
        """Give back a model's memory or connections; the next question connects it again."""
        with self._guard:
            backend = self._backends.pop(model, None)
        if backend:
            backend.close()

    def close(self) -> None:
        """Stop every answer and give everything back. Safe to call twice."""
        with self._guard:
            runs, self._runs = self._runs, []
        for run in runs:
            run.stop()
        for run in runs:
            run.join(2.0)
        for model in tuple(self._backends):
            self.unload(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
