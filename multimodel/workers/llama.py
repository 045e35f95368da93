"""GGUF models through llama.cpp: one context, several answers in a forward pass, prefixes computed once.

Each sequence of the KV cache is a slot. A slot keeps what it has evaluated after its answer has ended;
a new prompt begins where the longest common prefix of any slot ends, and waits where another is reading the same
beginning just now. An answer is a row of tokens still to be evaluated: at first the prompt, later one token at a time,
so reading and decoding are the same thing here and share a batch. Answers that only decode have a pass each where that
is quicker.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from ..errors import BadRequest, BrokenFile, MissingDependency, TooLarge
from ..hardware import memory
from ..memory.context import CACHE_TYPES, packed
from ..memory.plan import gb_apart
from ..tools import Tools, in_words
from ..types import FinishReason, LoadOptions, Message, Prompt, PromptSize
from .attention import quicker_with_flash
from .constraint import DEAD_END, Constraint, constraint_from
from .even import evened
from .fit import Fitted, Reading, fit, left_out, measured, reading, reserve
from .llama_native import DOWNLOAD_AGAIN, Context, Model, Sampler, device
from .logprobs import check_bias, check_number, logprob_frame
from .pages import worth_copying
from .passes import Passes
from .prefill import Chunks
from .prompt import PLAIN_NOTE, common_prefix, opening, plain_prompt, render, shorter, tools_of, without_specials
from .protocol import SLOTS, Facts, Frame, Progress, Request, error_frame, prompt_frame
from .text import HALF, TextStream

WORTH_COPYING = 4  # tokens; reading fewer again costs no more
WORTH_WAITING = 16  # tokens that another answer is about to read: waiting for them makes a pass more
DEFAULT_CONTEXT = 4096
CACHE_SHARE = 0.25  # of the free memory, for the KV cache; it decides how many answers there are at once
HEADER = 24  # bytes of the smallest GGUF: magic, version, two counts


def load(path: Path, options: LoadOptions, threads: int, progress: Progress) -> LlamaRuntime:
    """The model of a GGUF file. Raises LoadError, or MissingDependency where it is to run on a GPU without one."""
    free = spare_memory(path, anyway=options.anyway)
    if options.device in ("cuda", "mps") and device() == "cpu":
        hint = "Choose the device auto or cpu, or install llama-cpp-python built for your GPU."
        raise MissingDependency("This build of llama.cpp uses no GPU.", hint=hint)
    gpu_layers = 0 if options.device == "cpu" else -1 if options.gpu_layers is None else options.gpu_layers
    told = _throttled(lambda done: progress("loading", done, ""))
    mapped = device() != "cpu" or not worth_copying(path.stat().st_size, free)
    model = Model(path, gpu_layers, told, options.chat_template, mapped=mapped)
    if not model.generates:
        raise BrokenFile(f"{path.name} is not a model that writes text.", hint="Choose a chat model.")
    if model.train_context < 1:
        says = f"its context would hold {model.fact('context_length')} tokens"
        raise BrokenFile(f"{path.name} is damaged: {says}.", hint=DOWNLOAD_AGAIN)
    length = min(options.context_length or DEFAULT_CONTEXT, int(model.train_context * options.rope_factor))
    slot = length * model.cache_bytes * CACHE_TYPES[options.kv_type or "f16"][1] / CACHE_TYPES["f16"][1]
    slots = options.sequences or slots_within(free, int(slot), anyway=options.anyway)
    if options.flash_attention is None and device() == "cpu" and not packed(options.kv_type or "f16"):
        options = replace(options, flash_attention=quicker_with_flash(model, length))
    return LlamaRuntime(model, length, slots, threads, options)


def spare_memory(path: Path, *, anyway: bool = False) -> int:
    """Bytes that are free beside the weights. Raises BrokenFile where it is no GGUF file, TooLarge."""
    size = path.stat().st_size if path.is_file() else 0
    if size < HEADER or not _has_magic(path):
        raise BrokenFile(f"{path.name} is not a complete GGUF file.", hint="Download it again, or choose another file.")
    free = memory().free
    if size > free and not anyway:
        needs, has = gb_apart(size, free)
        raise TooLarge(
            f"{path.name} needs {needs} of memory, {has} are free.",
            hint="Choose a smaller model or quantisation, or close other models and programs.",
        )
    return max(0, free - size)


def slots_within(free: int, slot: int, *, anyway: bool = False) -> int:
    """How many answers at once, for `slot` bytes of KV cache each. Raises TooLarge where not even one fits.

    >>> slots_within(8 << 30, 512 << 20), slots_within(1 << 30, 512 << 20), slots_within(8 << 30, 1 << 20)
    (4, 1, 8)
    """
    if slot > free and not anyway:
        needs, has = gb_apart(slot, free)
        raise TooLarge(
            f"The context needs {needs} of memory, {has} are free beside the weights.",
            hint="Choose a shorter context length, or close other models and programs.",
        )
    return max(1, min(SLOTS, int(free * CACHE_SHARE) // max(1, slot)))


@dataclass(eq=False)
class Answer:
    """A request under way."""

    id: int
    pending: list[int]  # tokens to evaluate next
    sampler: Sampler
    text: TextStream
    prompt_tokens: int
    limit: int  # tokens it may write
    reused_tokens: int = 0
    leader: tuple[Slot, Answer, int] | None = None  # it reads so many tokens of the same beginning
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    finish: FinishReason | None = None
    written: int = 0
    logits: int | None = None  # where in the batch its next token is decided

    @property
    def reading(self) -> bool:
        return self.written == 0

    @property
    def waiting(self) -> bool:
        """Whether the leader has yet to read what both share."""
        if not self.leader:
            return False
        slot, answer, shared = self.leader
        return slot.answer is answer and len(slot.tokens) < shared


@dataclass(eq=False)
class Slot:
    """One sequence of the KV cache: the tokens it holds, and the answer that is adding to them."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    answer: Answer | None = None
    prompt: int = 0  # how many tokens its newest prompt has
    used: int = 0  # larger: more recently


TAIL = 8  # prompt tokens that may begin the model's thoughts


class LlamaRuntime:
    """See `protocol.Runtime`."""

    def __init__(
        self, model: Model, context_length: int, slots: int, threads: int, options: LoadOptions = LoadOptions()
    ) -> None:
        self._model = model
        self._length = context_length
        self._context = Context(model, context_length, slots, threads, options)
        self._slots = [Slot(i) for i in range(slots)]
        self._clock = itertools.count(1)
        self._chunks = Chunks()
        self._passes = Passes()
        self.facts = Facts(
            context_length=context_length,
            device=device(),
            dtype=model.format,
            parameters=model.parameters,
            template="own" if model.template else "plain",
            memory=int(psutil.Process().memory_info().rss),
            slots=slots,
            flash_attention=self._context.flash_attention,
            tools="tools" in (model.template or ""),
        )

    def admit(self, request: Request) -> list[Frame]:
        """See `protocol.Runtime`."""
        check_bias(request.params, self._model.vocab_size)
        constraint = constraint_from(request.params, lambda: self._model.vocabulary)
        tools, said = tools_of(request, self.facts.tools)
        _, dropped, prompt = self._fit(request, tools)
        leader = None if request.fresh else self._leader(prompt)
        slot = self._spare() if leader or request.fresh else self._place(prompt)
        if leader or request.fresh:
            self._cut(slot, 0)
        slot.prompt, reused = len(prompt), 0 if leader else len(slot.tokens)
        room = self._length - len(prompt)
        slot.answer = Answer(
            id=request.id,
            pending=prompt[reused:],
            leader=leader,
            sampler=Sampler(request.params, self._model, prompt, self._length),
            text=TextStream(self._model.decode, [], request.params.stop or ()),
            prompt_tokens=len(prompt),
            reused_tokens=reused,
            limit=min(request.params.max_tokens or room, room),
            constraint=constraint,
            top_logprobs=request.params.top_logprobs,
        )
        said += [left_out(dropped)] if dropped else []
        said += [] if self._model.template else [PLAIN_NOTE]
        frames: list[Frame] = [{"event": "note", "id": request.id, "text": note} for note in said]
        frames.append(prompt_frame(request.id, prompt, dropped))
        begun = opening(self._model.decode(prompt[-TAIL:])) if request.messages[-1].role != "assistant" else ""
        return [*frames, {"event": "text", "id": request.id, "text": begun}] if begun else frames

    def inspect(self, request: Request) -> Prompt:
        """See `protocol.Runtime`."""
        tools, _ = tools_of(request, self.facts.tools)
        kept, dropped, read = self._fit(request, tools)
        tokens = tuple((token, self._model.name(token)) for token in read)
        clean = self._clean(kept)
        return Prompt(self._rendered(clean, tools), tokens, dropped, shorter(kept, clean))

    def step(self) -> list[Frame]:
        """See `protocol.Runtime`."""
        for slot in self._slots:
            self._follow(slot)
        shares = self._shares()
        reading = [slot.answer.reading for slot, _ in shares if slot.answer]
        decoding, others = not any(reading), not all(reading)
        together = not decoding or self._passes.together(len(shares))
        began = time.perf_counter()
        events = [event for group in ([shares] if together else [[s] for s in shares]) for event in self._pass(group)]
        took = time.perf_counter() - began
        if decoding:
            self._passes.took(len(shares), together, took)
            self._chunks.rested(took)
        else:
            self._chunks.took(sum(count for _, count in shares), took, shared=others)
        return events

    def drop(self, id: int) -> None:
        """See `protocol.Runtime`."""
        for slot in self._slots:
            if slot.answer and slot.answer.id == id:
                slot.answer.sampler.close()
                slot.answer = None
                slot.used = next(self._clock)

    def active(self) -> int:
        """See `protocol.Runtime`."""
        return sum(slot.answer is not None for slot in self._slots)

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        """See `protocol.Runtime`."""
        return measured(messages, self._reading, self._length)

    def set_threads(self, count: int) -> None:
        """See `protocol.Runtime`."""
        self._context.set_threads(count)
        self._passes.restart()

    def cached(self) -> int:
        """See `protocol.Runtime`."""
        return sum(len(slot.tokens) for slot in self._slots)

    def trial(self) -> None:
        """See `protocol.Runtime`."""
        self._context.clear()
        self._context.add([max(0, self._model.bos)], 0, 0, want_logits=True)
        self._context.decode()
        self._context.cut(0, 0)

    def close(self) -> None:
        """Free the context and the model."""
        self._context.close()
        self._model.close()

    # The prompt

    def _fit(self, request: Request, tools: Tools) -> Fitted:
        spare = reserve(request.params.max_tokens, self._length)
        return fit(request.messages, lambda some: self._reading(some, tools), self._length, spare)

    def _reading(self, messages: Sequence[Message], tools: Tools = None) -> Reading:
        return reading(self._rendered(self._clean(messages), tools), self._model.tokens, self._length)

    def _clean(self, messages: Sequence[Message]) -> Sequence[Message]:
        return without_specials(messages if self.facts.tools else in_words(messages), self._model.specials)

    def _rendered(self, clean: Sequence[Message], tools: Tools) -> str:
        if not self._model.template:
            return plain_prompt(clean)
        return render(lambda some: self._model.apply_template(some, tools), clean)

    # The cache

    def _place(self, prompt: Sequence[int]) -> Slot:
        """A free slot that holds as much of the prompt's beginning as any slot did, at least its last token missing."""
        source = max(
            self._slots,
            key=lambda slot: (self._reusable(slot, prompt), slot.answer is None, self._repeats(slot, prompt)),
        )
        shared = self._reusable(source, prompt)
        if source.answer is None and (2 * shared >= len(source.tokens) or self._repeats(source, prompt)):
            slot = source  # little is lost by cutting it back
        else:
            slot = self._spare()
            shared = self._copy(source, slot, shared)
        self._cut(slot, shared)
        return slot

    def _repeats(self, slot: Slot, prompt: Sequence[int]) -> bool:
        """Whether a prompt is the newest of a slot once more, which then holds nothing else but an answer to it."""
        return slot.prompt == len(prompt) == self._reusable(slot, prompt) + 1

    def _spare(self) -> Slot:
        """The free slot that is missed least."""
        free = (slot for slot in self._slots if not slot.answer)
        return min(free, key=lambda slot: (bool(slot.tokens), slot.used))

    def _leader(self, prompt: Sequence[int]) -> tuple[Slot, Answer, int] | None:
        """Who reads the longest beginning of a prompt just now, and how long it is, where waiting saves work."""
        held, leader = max(self._reusable(slot, prompt) for slot in self._slots), None
        for slot in sorted(self._slots, key=lambda slot: bool(slot.answer and slot.answer.leader)):  # twins of one
            if slot.answer and slot.answer.reading:
                its = slot.tokens + slot.answer.pending
                twin = its == prompt and len(its) > WORTH_COPYING  # it has no pass of its own
                shared = len(its) if twin else min(common_prefix(its, prompt), len(prompt) - 1)
                if shared > held + (1 if twin else WORTH_WAITING) and (leader is None or shared > leader[2]):
                    leader = slot, slot.answer, shared
        return leader

    def _follow(self, slot: Slot) -> None:
        """Take over what a leader has read, once it has; a leader that is gone has left it in its slot."""
        answer = slot.answer
        if not answer or not answer.leader or answer.waiting:
            return
        answer.leader, prompt = None, answer.pending
        source = max(self._slots, key=lambda other: self._reusable(other, prompt))
        shared = self._copy(source, slot, self._reusable(source, prompt))
        self._cut(slot, shared)
        answer.pending, answer.reused_tokens = prompt[len(slot.tokens) :], len(slot.tokens)

    def _copy(self, source: Slot, target: Slot, shared: int) -> int:
        """Bring shared tokens into another slot; how many of them are there then."""
        if source is not target and shared >= WORTH_COPYING:
            self._cut(target, 0)
            self._context.copy(source.sequence, target.sequence)
            target.tokens = source.tokens[:]
            return shared
        return shared if source is target else 0

    def _reusable(self, slot: Slot, prompt: Sequence[int]) -> int:
        """How many tokens of the prompt this slot's cache can stand for."""
        shared = min(common_prefix(slot.tokens, prompt), len(prompt) - 1)
        lost = self._model.window and self._context.first(slot.sequence) > max(0, shared - self._model.window)
        return 0 if lost else shared

    def _cut(self, slot: Slot, length: int) -> None:
        kept = self._context.cut(slot.sequence, length)
        slot.tokens = slot.tokens[:length] if kept else []

    # One step

    def _shares(self) -> list[tuple[Slot, int]]:
        """Who gets how many tokens of the next batch: decoders one each, then the prompts, shortest first."""
        answers = ((slot, slot.answer) for slot in self._slots if slot.answer and not slot.answer.waiting)
        busy = sorted(answers, key=lambda pair: len(pair[1].pending))
        left = self._chunks.size(shared=any(not answer.reading for _, answer in busy))
        shares = []
        for slot, answer in busy:
            count = min(len(answer.pending), left) if answer.reading else 1
            left -= count if answer.reading else 0
            shares.append((slot, count))
        return [share for share in shares if share[1]]

    def _pass(self, shares: Sequence[tuple[Slot, int]]) -> list[Frame]:
        """Evaluate everyone's share at once; what it brought them, and those who wait for the same."""
        self._evaluate(shares)
        ready = [slot for reader, _ in shares for slot in (reader, *self._twins(reader))]
        return [event for slot in ready if slot.answer for event in self._advance(slot.answer)]

    def _twins(self, slot: Slot) -> list[Slot]:
        """Those whose whole prompt this slot has just read: they begin with the same logits."""
        leader = slot.answer
        if not leader or not leader.reading or leader.logits is None:
            return []
        found = [other for other in self._slots if other.answer and _same(other.answer, leader, slot.tokens)]
        for other in found:
            if twin := other.answer:
                self._copy(slot, other, len(slot.tokens))
                twin.leader, twin.pending, twin.logits = None, [], leader.logits
                twin.reused_tokens = len(slot.tokens)
        return found

    def _evaluate(self, shares: Sequence[tuple[Slot, int]]) -> None:
        """One forward pass over everyone's share."""
        widths = self._widths(shares)
        self._context.clear()
        for slot, count in sorted(shares, key=lambda share: share[0].sequence):  # llama.cpp joins those in a row
            if answer := slot.answer:
                tokens, last = answer.pending[:count], count == len(answer.pending)
                index = self._context.add(tokens, len(slot.tokens), slot.sequence, want_logits=last)
                answer.logits = index if last else None
                if more := widths[slot.sequence] - count:
                    at = len(slot.tokens) + count
                    self._context.add(tokens[-1:] * more, at, slot.sequence, want_logits=False)
        try:
            self._context.decode()
        except RuntimeError:
            for slot in self._slots:
                slot.tokens = []
            raise
        for slot, count in shares:
            if answer := slot.answer:
                slot.tokens += answer.pending[:count]
                del answer.pending[:count]
                if widths[slot.sequence] > count:
                    self._context.cut(slot.sequence, len(slot.tokens))

    def _widths(self, shares: Sequence[tuple[Slot, int]]) -> dict[int, int]:
        """How many tokens to evaluate of each sequence: its share, and what makes it as long as its neighbours."""
        lengths = {slot.sequence: count for slot, count in shares}
        room = self._length - max(len(slot.tokens) for slot, _ in shares)
        return evened(lengths, room) if self._model.rewinds else lengths

    def _advance(self, answer: Answer) -> list[Frame]:
        """The events of one answer after a forward pass."""
        if answer.logits is None:
            read = 1 - len(answer.pending) / answer.prompt_tokens
            return [{"event": "reading", "id": answer.id, "fraction": round(read, 3)}]
        try:
            token = self._choose(answer, answer.logits)
        except (BadRequest, BrokenFile) as error:  # a grammar that cannot be followed any further, or no numbers
            self.drop(answer.id)
            return [error_frame(answer.id, error)]
        events = self._said(answer, token, self._accept(answer, token), answer.logits)
        if answer.finish:
            events += _done(answer)
            self.drop(answer.id)
        return events

    def _choose(self, answer: Answer, index: int) -> int | None:
        """The next token; None where the grammar allows none. Raises BrokenFile where its logit is no number."""
        constraint, sampler = answer.constraint, answer.sampler
        if constraint:
            token = self._constrained(constraint, sampler, self._context.logits(index))
        else:
            token = sampler.sample(self._context, index)
        if token is not None:
            check_number(self._context.logit(index, token))
        return token

    def _constrained(self, constraint: Constraint, sampler: Sampler, logits: NDArray[np.float32]) -> int | None:
        token = constraint.choose(
            lambda mask: sampler.draw(logits, mask), lambda count: sampler.likeliest(logits, count)
        )
        if token is not None:
            sampler.say(token)
        return token

    def _accept(self, answer: Answer, token: int | None) -> str:
        """Take in a sampled token: what can be shown now, and whether the answer is finished."""
        constraint = answer.constraint
        if token is None or self._model.ends(token):
            answer.finish = "incomplete" if constraint and not constraint.complete else "stop"
            return _rest(answer)
        answer.written += 1
        answer.pending = [token]
        shown = answer.text.push(token)
        if answer.text.stopped or (constraint and constraint.over):
            answer.finish = "stop"
        elif answer.written >= answer.limit:
            answer.finish = "length"
        return shown + _rest(answer) if answer.finish else shown

    def _said(self, answer: Answer, token: int | None, text: str, index: int) -> list[Frame]:
        """The event of what can be shown, and of the token's log-probability where that was asked for."""
        if answer.top_logprobs is None or token is None or self._model.ends(token):
            return [{"event": "text", "id": answer.id, "text": text}] if text else []
        logits = self._context.logits(index)
        logprob = logprob_frame(logits, token, answer.top_logprobs, self._model.piece, self._model.name)
        return [{"event": "text", "id": answer.id, "text": text, "logprobs": [logprob]}]


def _same(answer: Answer, leader: Answer, prompt: Sequence[int]) -> bool:
    """Whether an answer waits for this leader with the same prompt."""
    return bool(answer.leader and answer.leader[1] is leader and answer.pending == prompt)


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _rest(answer: Answer) -> str:
    return answer.text.rest().rstrip(HALF)  # half a character is not text


def _done(answer: Answer) -> list[Frame]:
    usage = {
        "input_tokens": answer.prompt_tokens,
        "output_tokens": answer.written,
        "reused_tokens": answer.reused_tokens,
    }
    note: list[Frame] = [{"event": "note", "id": answer.id, "text": DEAD_END}] * (answer.finish == "incomplete")
    return [*note, {"event": "done", "id": answer.id, "finish_reason": answer.finish, "usage": usage}]


def _throttled(tell: Callable[[float], None], least: float = 0.01) -> Callable[[float], None]:
    """`tell`, but only for news: llama.cpp reports every tensor."""
    told = -1.0

    def maybe(done: float) -> None:
        nonlocal told
        if done - told >= least or done >= 1 > told:
            told = done
            tell(done)

    return maybe
