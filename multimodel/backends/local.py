"""The shared client of local models: find the files, load them once in a child process, share the cores, stream.

Backends of local models are a few lines each: they name their runtime and what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from threading import Lock
from typing import cast

from ..compute import Cores
from ..errors import BackendError, MultimodelError, WorkerCrashed
from ..locate import Located
from ..settings import Settings
from ..types import Capabilities, Chunk, LoadOptions, Message, ModelSpec, PromptSize, SamplingParams, Stage, Usage
from ..workers.client import HEARTBEAT, Worker
from ..workers.protocol import Facts, Frame, error_frame, error_from

LONG = 1500
"""Characters of a conversation below which it fits any context worth chatting in (512 tokens)."""

Locate = Callable[[ModelSpec, Settings], Generator[Chunk, None, Located]]


class LocalBackend:
    """A model in a child process. The first answer loads it; a child that died is started anew by the next one."""

    def __init__(
        self, spec: ModelSpec, settings: Settings, cores: Cores, *, runtime: str, locate: Locate, takes: frozenset[str]
    ) -> None:
        """`runtime`: the module under `workers` that runs it. `takes`: the sampling parameters it honours."""
        self.model = spec.id
        self.capabilities = Capabilities(params=takes, local=True)
        self._spec = spec
        self._settings = settings
        self._cores = cores
        self._runtime = runtime
        self._locate = locate
        self._lock = Lock()  # between the threads of concurrent answers and the one that closes
        self._worker: Worker | None = None
        self._load: _Load | None = None

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """Stages while the model is found and loaded, then the answer. Raises MultimodelError.

        The chunk with stage "reading" and a time in `at` says when the request was admitted: TTFT counts from there.
        """
        try:
            worker = yield from self._ready()
            with self._cores.share(worker.set_threads):
                yield from self._answer(worker, messages, params.only(self.capabilities.params))
        except BackendError as error:
            error.model = str(self.model)
            raise

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        """The size of a prompt; None for a short one while the model is not loaded, or would have to be downloaded.

        A long prompt loads a model that is at hand: it is about to be asked, and only its tokenizer knows.
        """
        try:
            worker = self._worker
            if not (worker and worker.alive):
                worker = self._at_hand() if sum(len(m.content) for m in messages) >= LONG else None
            return worker.measure(messages) if worker else None
        except MultimodelError:
            return None  # asking for an answer will say why

    def _at_hand(self) -> Worker | None:
        """The loaded worker, unless its files are not here yet."""
        with closing(self._ready()) as stages:
            while True:
                try:
                    chunk = next(stages)
                except StopIteration as end:
                    return cast(Worker, end.value)
                if chunk.stage and chunk.stage.name == "downloading":
                    return None

    @property
    def facts(self) -> Facts | None:
        """What is known of the model; None while it is not loaded."""
        worker = self._worker
        return worker.facts if worker and worker.alive else None

    def memory(self) -> int:
        """Resident bytes of its process; 0 while there is none."""
        worker = self._worker
        return worker.memory() if worker else 0

    def close(self) -> None:
        """Unload: the process ends and gives every byte back. An answer under way ends with WorkerCrashed."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker:
            worker.close()

    def _answer(self, worker: Worker, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        waiting = Chunk(stage=Stage("queued", "waiting for a free place"))
        with closing(worker.generate(messages, params)) as events:
            for event in events:
                if event and event["event"] == "started":
                    waiting = Chunk()
                yield chunk_of(event) if event else waiting

    def _ready(self) -> Generator[Chunk, None, Worker]:
        """A loaded worker. Concurrent callers share one load and see the same stages; the last to leave ends it."""
        with self._lock:
            if self._worker and self._worker.alive:
                return self._worker
            load = self._load = self._load or _Load(self._bring_in())
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

    def _leave(self, load: _Load) -> None:
        with self._lock:
            load.waiting -= 1
            last = not load.waiting
            if self._load is load and (load.over or last):
                self._load, self._worker = None, load.worker
        if last:
            load.close()

    def _bring_in(self) -> Generator[Chunk, None, Worker]:
        """Find the files and load them in a new child, which is ended where this is closed or fails."""
        located = yield from self._locate(self._spec, self._settings)
        yield from (Chunk(note=note) for note in located.notes)
        yield Chunk(stage=Stage("starting"))
        worker = Worker(str(self.model), threads=self._cores.total)
        try:
            with closing(worker.load(self._runtime, located.path, self._options())) as events:
                yield from (chunk_of(event) for event in events)
        except BaseException:  # GeneratorExit too: nobody waits any more
            worker.close(grace=0)
            raise
        yield from (Chunk(note=note) for note in (worker.facts.notes if worker.facts else ()))
        return worker

    def _options(self) -> LoadOptions:
        load = self._spec.load
        return load if load.context_length else replace(load, context_length=self._settings.models.context_length)


class _Load:
    """One load, advanced by whoever waits for it, so that it needs no thread and stops when nobody is left."""

    def __init__(self, steps: Generator[Chunk, None, Worker]) -> None:
        self.waiting = 0  # callers; guarded by the backend's lock
        self.newest = Chunk()
        self.notes: list[str] = []
        self.worker: Worker | None = None
        self._steps = steps
        self._turn = Lock()  # between the threads of the callers
        self._error: MultimodelError | None = None

    @property
    def over(self) -> bool:
        return self.worker is not None or self._error is not None

    def advance(self) -> None:
        """Take a turn, or wait a heartbeat while another caller takes it."""
        if not self._turn.acquire(timeout=HEARTBEAT):
            return
        try:
            if not self.over:
                self._take(next(self._steps))
        except StopIteration as end:
            self.worker = end.value
        except Exception as error:  # kept for everyone who waits
            self._error = error if isinstance(error, MultimodelError) else error_from(error_frame(None, error))
        finally:
            self._turn.release()

    def result(self) -> Worker:
        """The worker; raises what ended the load."""
        if self.worker:
            return self.worker
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


def chunk_of(event: Frame | None) -> Chunk:
    """What an event of the child means for the answer; None, a heartbeat, is the empty chunk."""
    match event:
        case {"event": "progress", "stage": name, "fraction": fraction, "detail": detail}:
            return Chunk(stage=Stage(name, detail, fraction))
        case {"event": "started", "at": at}:
            return Chunk(stage=Stage("reading"), at=at)
        case {"event": "reading", "fraction": fraction}:
            return Chunk(stage=Stage("reading", fraction=fraction))
        case {"event": "text", "text": text, "at": at}:
            return Chunk(text, at=at)
        case {"event": "note", "text": text}:
            return Chunk(note=text)
        case {"event": "done", "finish_reason": reason, "usage": usage, "at": at}:
            return Chunk(finish_reason=reason, usage=Usage(**usage), at=at)
    return Chunk()
