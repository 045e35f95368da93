"""The shared client of local models: find the files, have them loaded in a child process, share the cores, stream.

Backends of local models are a few lines each: they name their runtime and what it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

from ..errors import BackendError, InvalidParameter, MultimodelError
from ..hardware import llama_on_gpu
from ..locate import Located, stamp
from ..memory import MemoryPlan
from ..pool import Pool
from ..provenance import revision_of
from ..settings import Settings
from ..types import (
    ON_HUB,
    Capabilities,
    Chunk,
    DType,
    LoadOptions,
    Message,
    ModelId,
    ModelSpec,
    Prompt,
    PromptSize,
    SamplingParams,
    Sent,
    Stage,
    Usage,
)
from ..workers.client import Worker
from ..workers.protocol import Facts, Frame, logprobs_from

LONG = 1500
"""Characters of a conversation below which it fits any context worth chatting in (512 tokens)."""

MEMORY_EVERY = 0.5
"""Seconds between two looks at the memory of a model that answers."""

Locate = Callable[[ModelSpec, Settings], Generator[Chunk, None, Located]]


class LocalBackend:
    """A model in a child process. The first answer loads it; a child that died is started anew by the next one."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: Settings,
        pool: Pool,
        *,
        runtime: str,
        locate: Locate,
        takes: frozenset[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`runtime`: the module under `workers` that runs it. `takes`: the sampling parameters it honours.

        `environment`: variables that its process has beside those that all have. Raises InvalidParameter.
        """
        if refusal := without_effect(spec, runtime, pool):
            raise refusal
        self.model = spec.id
        self.capabilities = Capabilities(params=takes, local=True, prefill=True)
        self._spec = resolved(spec, settings)
        self._anyway = spec.load.anyway
        self._asked = spec.load.context_length
        self._settings = settings
        self._pool = pool
        self._place = pool.place(self._spec)
        self._runtime = runtime
        self._locate = locate
        self._environment = environment
        self._fresh = False

    def afresh(self) -> Self:
        """The same model, which then evaluates every prompt whole, whatever a cache holds of it."""
        other = copy(self)
        other._fresh = True
        return other

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """Stages while the model is found and loaded, then the answer. Raises MultimodelError.

        The chunk with stage "reading" and a time in `at` says when the request was admitted: TTFT counts from there.
        """
        params = params.only(self.capabilities.params)  # loading may show that it takes fewer, which is then a note
        try:
            with self._place.hold(self._anyway):
                worker = yield from self._place.ready(self._bring_in)
                if (facts := worker.facts) and (note := shortened(self._asked, facts.context_length)):
                    yield Chunk(note=note)  # with every answer: who asks now may not be who had it loaded
                with self._pool.cores.share(worker.set_threads):
                    yield from self._answer(worker, messages, params)
                self._place.weigh()
        except BackendError as error:
            error.model = str(self.model)
            raise

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        """The size of a prompt; None for a short one while the model is not loaded, or would have to be downloaded.

        A long prompt loads a model that is at hand: it is about to be asked, and only its tokenizer knows.
        """
        try:
            with self._place.hold():
                worker = self._place.worker
                if not worker and sum(len(m.content) for m in messages) >= LONG:
                    worker = self._at_hand()
                return worker.measure(messages) if worker else None
        except MultimodelError:
            return None  # asking for an answer will say why

    def inspect(self, messages: Sequence[Message], params: SamplingParams, *, load: bool = False) -> Prompt | None:
        """What the model would read; None while it is not loaded, or too busy to say. Raises MultimodelError.

        `load`: bring it in where its files are here.
        """
        with self._place.hold():
            worker = self._place.worker or (self._at_hand() if load else None)
            return worker.inspect(messages, params.only(self.capabilities.params)) if worker else None

    def _at_hand(self) -> Worker | None:
        """The loaded worker, unless its files are not here yet."""
        with closing(self._place.ready(self._bring_in)) as stages:
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
        worker = self._place.worker
        return worker.facts if worker else None

    @property
    def in_use(self) -> bool:
        """Whether an answer uses it, or waits for it."""
        return self._place.held > 0

    def close(self) -> None:
        """Unload: the process ends and gives every byte back. An answer under way ends with WorkerCrashed."""
        self._place.unload()

    def _answer(self, worker: Worker, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        waiting, looked = Chunk(stage=Stage("queued", "waiting for a free place")), 0.0
        with closing(worker.generate(messages, params, self._fresh)) as events:
            for event in events:
                chunk, now = chunk_of(event) if event else waiting, time.monotonic()
                if event and event["event"] == "started":
                    waiting, chunk = Chunk(), replace(chunk, sent=self._sent(worker))
                if event and (chunk.finish_reason or now - looked > MEMORY_EVERY):
                    chunk, looked = replace(chunk, memory=worker.memory() or None), now
                yield chunk

    def _sent(self, worker: Worker) -> Sent:
        facts = worker.facts
        assert facts  # it is loaded
        loaded = replace(
            worker.files,
            device=facts.device,
            dtype=facts.dtype,
            context_length=facts.context_length,
            kv_type=self._spec.load.kv_type or "",
            threads=worker.threads,
            template=facts.template,
        )
        return Sent(loaded=loaded)

    def _bring_in(self) -> Generator[Chunk, None, Worker]:
        """Find the files, make room and load them in a new child, which is ended where this is closed or fails."""
        located = yield from self._locate(self._spec, self._settings)
        yield from (Chunk(note=note) for note in located.notes)
        yield Chunk(stage=Stage("starting"))
        plan = self._pool.plan(located.path, self._spec)
        self._place.make_room(plan)
        if note := squeezed(plan, self._spec.load):
            yield Chunk(note=note)
        worker = self._place.start(self._environment)
        worker.files = stamp(located.path)
        try:
            with closing(worker.load(self._runtime, located.path, self._options(plan))) as events:
                yield from (chunk_of(event) for event in events)
        except BaseException:  # GeneratorExit too: nobody waits any more
            worker.close(grace=0)
            raise
        if facts := worker.facts:
            self._place.loaded(plan, facts)
            if not facts.tools:  # only its chat template tells
                self.capabilities = replace(self.capabilities, params=self.capabilities.params - {"tools"})
            yield from (Chunk(note=note) for note in facts.notes)
        return worker

    def _options(self, plan: MemoryPlan) -> LoadOptions:
        """How to load it, as it was planned."""
        return replace(
            self._spec.load,
            dtype=cast(DType, plan.dtype),
            sequences=plan.request.sequences,
            flash_attention=self._place.flash_attention(plan),
            anyway=self._place.anyway > 0,
        )


def squeezed(plan: MemoryPlan, load: LoadOptions) -> str:
    """What to tell of a model whose number format memory chose; empty where it is the usual one, or was asked for."""
    dtype, usual = plan.dtype, plan.request.target.dtype
    if load.dtype != "auto" or dtype not in ("int8", "bfloat16") or dtype == usual:
        return ""
    words = {"int8": "in 8 bits (int8), because 16 do", "bfloat16": "as bfloat16, because float32 does"}[dtype]
    return f"Loaded {words} not fit into memory."


def without_effect(spec: ModelSpec, runtime: str, pool: Pool) -> InvalidParameter | None:
    """Why an option could change nothing here; whether a backend takes it at all, its row in the registry says."""
    load, device = spec.load, spec.load.device
    if runtime == "torch" and device in ("cuda", "mps") and pool.device(device).kind != device:
        message = f"This machine has no device {device} that PyTorch can use."
        return InvalidParameter(message, hint="Choose the device auto or cpu.")
    if load.gpu_layers and (device == "cpu" or not llama_on_gpu()):
        why = "the device is cpu" if device == "cpu" else "llama.cpp is built without a GPU here"
        return InvalidParameter(f"gpu_layers is {load.gpu_layers}, but {why}.", hint="Leave gpu_layers out.")
    if load.adapter is None and load.adapter_scale != 1:
        message = f"adapter_scale is {load.adapter_scale:g}, but there is no adapter."
        return InvalidParameter(message, hint="Name an adapter, or leave adapter_scale out.")
    if load.revision and load.revision != revision_of(Path(spec.id.name)) and not on_hub(spec.id):
        hint = "Leave revision out, or name a repository of the Hub."
        return InvalidParameter(f"{spec.id} lies on this machine, where it has no revisions.", hint=hint)
    return None


def on_hub(model: ModelId) -> bool:
    """Whether the name means a repository of the Hub, as `locate` reads it."""
    repository = model.name.partition(":")[0]
    return bool(ON_HUB.fullmatch(repository)) and not Path(model.name).expanduser().exists()


def shortened(asked: int | None, given: int) -> str:
    """What to tell of a context that is shorter than a person asked for; empty where it is not.

    >>> shortened(100_000, 1024)
    'The context holds 1,024 tokens, not 100,000: this model goes no further.'
    """
    if not asked or asked <= given:
        return ""
    return f"The context holds {given:,} tokens, not {asked:,}: this model goes no further."


def resolved(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """What a spec means under these settings: two that mean the same are one loaded model."""
    context = spec.load.context_length or settings.models.context_length
    return replace(spec, load=replace(spec.load, context_length=context, anyway=False))


def chunk_of(event: Frame | None) -> Chunk:
    """What an event of the child means for the answer; None, a heartbeat, is the empty chunk."""
    if event is None:
        return Chunk()
    match event:
        case {"event": "progress", "stage": name, "fraction": fraction, "detail": detail}:
            return Chunk(stage=Stage(name, detail, fraction))
        case {"event": "started", "at": at}:
            return Chunk(stage=Stage("reading"), at=at)
        case {"event": "prompt", "digest": prompt, "dropped": dropped}:
            return Chunk(sent=Sent(prompt=prompt, dropped=dropped))
        case {"event": "reading", "fraction": fraction}:
            return Chunk(stage=Stage("reading", fraction=fraction))
        case {"event": "text", "text": text, "at": at}:
            return Chunk(text, at=at, logprobs=logprobs_from(event.get("logprobs", ())))
        case {"event": "note", "text": text}:
            return Chunk(note=text)
        case {"event": "done", "finish_reason": reason, "usage": usage, "at": at}:
            return Chunk(finish_reason=reason, usage=Usage(**usage), at=at)
    return Chunk()
