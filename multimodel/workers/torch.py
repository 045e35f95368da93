"""A transformers model that answers several requests at once, one token of each a step."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import BadRequest
from ..hardware import memory
from ..tools import Tools, in_words, template_form
from ..types import FinishReason, LoadOptions, Message, Prompt, PromptSize, Usage
from .constraint import DEAD_END, Constraint, Vocabulary, constraint_from
from .fit import Fitted, Reading, fit, left_out, measured, reading, reserve
from .logprobs import check_bias, check_number, logprob_frame
from .prefill import Chunks
from .prompt import PLAIN_NOTE, common_prefix, opening, plain_prompt, render, shorter, tools_of, without_specials
from .protocol import Frame, Progress, Request, error_frame, prompt_frame
from .text import TextStream
from .torch_cache import Kept, PrefixStore, cache_argument, empty_cache
from .torch_load import Loaded, load_folder
from .torch_sampling import Sampler
from .torch_step import step_of
from .torch_vocabulary import exact, pieces

WORTH_WAITING = 8  # tokens that another answer is about to read; copying their keys and values costs less
KEPT_CACHES = 512 << 20  # bytes for the caches of finished answers, where a tenth of the free memory is not less
TAIL = 8  # prompt tokens that decide how a decoder begins the answer


def load(path: Path, options: LoadOptions, threads: int, progress: Progress) -> TorchRuntime:
    """The model in the folder `path`, in memory. Raises LoadError."""
    torch.set_num_threads(threads)
    loaded = load_folder(path, options, progress)
    return TorchRuntime(loaded, min(KEPT_CACHES, memory().free // 10))


@dataclass(slots=True)
class Answer:
    """A request under way."""

    id: int
    tokens: list[int]  # prompt and answer
    prompt: int  # how many of them are the prompt
    sampler: Sampler
    text: TextStream
    most: int  # tokens in all at which the answer ends
    cache: Any = None  # from the moment it need not wait for a leader
    evaluated: int = 0  # how many of the tokens the cache holds
    reused: int = 0  # how many of those it held from the start
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    over: bool = False
    leader: tuple[Answer, int] | None = None  # reads so many tokens of the same beginning, which are then copied

    @property
    def reading(self) -> bool:
        return self.evaluated < self.prompt

    @property
    def waiting(self) -> bool:
        """Whether the leader has yet to read what both share."""
        if not self.leader:
            return False
        answer, shared = self.leader
        return not answer.over and answer.evaluated < shared

    def usage(self) -> Usage:
        return Usage(self.prompt, len(self.tokens) - self.prompt, reused_tokens=self.reused)


class TorchRuntime:
    """See `protocol.Runtime`."""

    def __init__(self, loaded: Loaded, kept_caches: int) -> None:
        """`kept_caches`: bytes to spend on the caches of finished answers."""
        self.facts = loaded.facts
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._ends = loaded.ends
        self._decode = _decoder(loaded.tokenizer)
        self._specials = [t.content for t in loaded.tokenizer.added_tokens_decoder.values() if t.special]
        self._store = PrefixStore(loaded.model.config, kept_caches)
        self._vocab_size = loaded.model.config.get_text_config(decoder=True).vocab_size
        self._answers: dict[int, Answer] = {}
        self._chunks = Chunks()
        self._joint = step_of(loaded.model, loaded.facts.context_length)
        takes = inspect.signature(loaded.model.forward).parameters
        self._cache_argument = cache_argument(loaded.model)
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def admit(self, request: Request) -> list[Frame]:
        """See `protocol.Runtime`."""
        check_bias(request.params, self._vocab_size)
        constraint = constraint_from(request.params, lambda: self._vocabulary)
        context, asked = self.facts.context_length, request.params.max_tokens
        tools, said = tools_of(request, self.facts.tools)
        _, dropped, tokens = self._fit(request, tools)
        if not tokens:
            raise BadRequest("There is nothing to answer.", hint="Write a prompt.")
        self._answers[request.id] = Answer(
            id=request.id,
            tokens=tokens,
            prompt=len(tokens),
            leader=None if request.fresh else self._leader(tokens),
            cache=empty_cache(self._model.config) if request.fresh else None,
            sampler=Sampler(request.params, self.facts.device, len(tokens), constraint),
            text=TextStream(self._decode, tokens[-TAIL:], request.params.stop or ()),
            most=min(context, len(tokens) + (asked or context)),
            constraint=constraint,
            top_logprobs=request.params.top_logprobs,
        )
        frames = [_note(request.id, text) for text in [*said, *self._notes(dropped)]]
        frames.append(prompt_frame(request.id, tokens, dropped))
        begun = opening(self._tokenizer.decode(tokens[-TAIL:])) if request.messages[-1].role != "assistant" else ""
        return [*frames, {"event": "text", "id": request.id, "text": begun}] if begun else frames

    def inspect(self, request: Request) -> Prompt:
        """See `protocol.Runtime`."""
        tools, _ = tools_of(request, self.facts.tools)
        kept, dropped, read = self._fit(request, tools)
        tokens = tuple((token, self._name(token)) for token in read)
        clean = self._clean(kept)
        return Prompt(self._rendered(clean, tools), tokens, dropped, shorter(kept, clean))

    def step(self) -> list[Frame]:
        """See `protocol.Runtime`."""
        answers = [answer for answer in self._answers.values() if not answer.over and not answer.waiting]
        decoding = [answer for answer in answers if answer.cache and not answer.reading]
        together = [decoding] if self._joint and decoding else [[answer] for answer in decoding]
        frames: list[Frame] = []
        with torch.inference_mode():
            for answer in answers:
                frames += _guarded([answer], self._begin, answer)
            started = time.perf_counter()
            for group in together:
                frames += _guarded(group, self._decode_one, group)
            self._chunks.rested(time.perf_counter() - started)
            if shares := self._shares([a for a in answers if a.reading and not a.over], bool(decoding)):
                frames += _guarded([answer for answer, _ in shares], self._read, shares, bool(decoding))
        return frames

    def drop(self, id: int) -> None:
        """See `protocol.Runtime`."""
        if answer := self._answers.pop(id, None):
            answer.over = True  # for those who wait for it
            if answer.evaluated:
                self._store.keep(answer.tokens[: answer.evaluated], answer.cache)

    def active(self) -> int:
        """See `protocol.Runtime`."""
        return sum(not answer.over for answer in self._answers.values())

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        """See `protocol.Runtime`."""
        return measured(messages, self._reading, self.facts.context_length)

    def set_threads(self, count: int) -> None:
        """See `protocol.Runtime`."""
        torch.set_num_threads(count)

    def cached(self) -> int:
        """See `protocol.Runtime`."""
        return self._store.tokens + sum(answer.evaluated for answer in self._answers.values())

    def trial(self) -> None:
        """See `protocol.Runtime`."""
        cache = empty_cache(self._model.config)
        with torch.inference_mode():
            self._joint([[0]], [cache]) if self._joint else self._forward([0], cache)

    def close(self) -> None:
        """See `protocol.Runtime`."""
        self._answers.clear()

    def _leader(self, tokens: Sequence[int]) -> tuple[Answer, int] | None:
        """Who reads the longest beginning of these tokens just now, and how long it is, where waiting saves work."""
        found = None
        for answer in self._answers.values() if self._store.cuts else ():
            its = answer.tokens[: answer.prompt]
            twin = its == tokens  # it has no pass of its own
            shared = len(its) if twin else min(common_prefix(its, tokens), len(tokens) - 1)
            worth = shared - answer.evaluated > (1 if twin else WORTH_WAITING)
            if not answer.over and worth and (found is None or shared > found[1]):
                found = answer, shared
        return found

    def _begin(self, answer: Answer) -> list[Frame]:
        """Start with the longest beginning of the prompt that any cache holds."""
        if answer.cache is None:
            used = [Kept(tuple(a.tokens[: a.evaluated]), a.cache) for a in self._answers.values() if a.evaluated]
            start = self._store.take(answer.tokens, used)
            answer.cache, answer.evaluated, answer.reused = start.cache, len(start.tokens), len(start.tokens)
            answer.leader = None
        return []

    def _shares(self, reading: Sequence[Answer], shared: bool) -> list[tuple[Answer, int]]:
        """Who reads how many tokens now, those with the fewest first; one at a time without the joint way."""
        left = self._chunks.size(shared=shared)
        shares = []
        for answer in sorted(reading, key=lambda a: a.prompt - a.evaluated)[: None if self._joint else 1]:
            if count := min(answer.prompt - answer.evaluated, left):
                shares.append((answer, count))
                left -= count
        return shares

    def _read(self, shares: Sequence[tuple[Answer, int]], shared: bool) -> list[Frame]:
        """Evaluate pieces of prompts, for which others wait where `shared`; after the last, choose a first token."""
        started = time.perf_counter()
        rows = self._evaluate([(a, a.tokens[a.evaluated : a.evaluated + count]) for a, count in shares])
        self._chunks.took(sum(count for _, count in shares), time.perf_counter() - started, shared=shared)
        frames: list[Frame] = []
        for (answer, count), logits in zip(shares, rows, strict=True):
            answer.evaluated += count
            if answer.reading:
                frames.append({"event": "reading", "id": answer.id, "fraction": answer.evaluated / answer.prompt})
            else:
                for ready in (*self._twins(answer), answer):
                    frames += _guarded([ready], self._choose, ready, logits)
        return frames

    def _twins(self, leader: Answer) -> list[Answer]:
        """Those whose whole prompt this one has just read: they begin with the same logits, and a copy of its cache."""
        found = [a for a in self._answers.values() if a.leader and a.leader[0] is leader and a.tokens == leader.tokens]
        for twin in found:
            twin.leader, twin.cache = None, self._store.copy(leader.cache, leader.evaluated)
            twin.evaluated = twin.reused = leader.evaluated
        return found

    def _evaluate(self, work: Sequence[tuple[Answer, list[int]]]) -> torch.Tensor:
        """The logits after the last of each one's tokens, shape (answers, vocabulary)."""
        if self._joint:
            return self._joint([tokens for _, tokens in work], [answer.cache for answer, _ in work])
        return torch.stack([self._forward(tokens, answer.cache) for answer, tokens in work])

    def _decode_one(self, answers: Sequence[Answer]) -> list[Frame]:
        """Evaluate the newest token of each, and choose the next ones."""
        rows = self._evaluate([(answer, answer.tokens[-1:]) for answer in answers])
        frames: list[Frame] = []
        for answer, logits in zip(answers, rows, strict=True):
            answer.evaluated += 1
            frames += _guarded([answer], self._choose, answer, logits)
        return frames

    def _choose(self, answer: Answer, logits: torch.Tensor) -> list[Frame]:
        check_number(float(logits.max()))  # NaN where one of them is
        token = answer.sampler.pick(logits, answer.tokens)
        text, reason = self._accept(answer, token)
        frames = self._said(answer, token, text, logits)
        return [*frames, *_over(answer, reason)] if reason else frames

    def _forward(self, tokens: Sequence[int], cache: Any) -> torch.Tensor:
        """The logits after the last of `tokens`, shape (vocabulary,); the cache then holds them too."""
        ids = torch.tensor([tokens], device=self.facts.device)
        held = {self._cache_argument: cache, "use_cache": True}
        out = self._model(input_ids=ids, **held, **self._last_only)
        logits: torch.Tensor = out.logits[0, -1]
        return logits

    def _accept(self, answer: Answer, token: int | None) -> tuple[str, FinishReason | None]:
        """Take in a token: what can be shown now, and why the answer ends, if it does."""
        constraint = answer.constraint
        if token is None or token in self._ends:
            return answer.text.rest(), "incomplete" if constraint and not constraint.complete else "stop"
        answer.tokens.append(token)
        text = answer.text.push(token)
        if not (answer.text.stopped or (constraint and constraint.over) or len(answer.tokens) >= answer.most):
            return text, None
        text += answer.text.rest()
        return text, "stop" if answer.text.stopped or (constraint and constraint.over) else "length"

    def _said(self, answer: Answer, token: int | None, text: str, logits: torch.Tensor) -> list[Frame]:
        """The event of what can be shown, and of the token's log-probability where that was asked for."""
        if answer.top_logprobs is None or token is None or token in self._ends:
            return [{"event": "text", "id": answer.id, "text": text}] if text else []
        found = logits.float().cpu().numpy()
        logprob = logprob_frame(found, token, answer.top_logprobs, self._pieces.__getitem__, self._name)
        return [{"event": "text", "id": answer.id, "text": text, "logprobs": [logprob]}]

    @cached_property
    def _pieces(self) -> list[bytes]:
        return pieces(self._tokenizer, self._vocab_size)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        if not exact(self._tokenizer):
            raise BadRequest(
                "The tokenizer of this model does not tell what its tokens are made of, so no grammar can hold it.",
                hint="Choose another model, or a GGUF file of it, or leave the grammar out.",
            )
        return Vocabulary(self._pieces, self._ends)

    def _name(self, token: int) -> bytes:
        return self._pieces[token] or str(self._tokenizer.convert_ids_to_tokens(token) or "").encode()

    def _fit(self, request: Request, tools: Tools) -> Fitted:
        context, asked = self.facts.context_length, request.params.max_tokens
        return fit(request.messages, lambda some: self._reading(some, tools), context, reserve(asked, context))

    def _reading(self, messages: Sequence[Message], tools: Tools = None) -> Reading:
        return reading(self._rendered(self._clean(messages), tools), self._tokens, self.facts.context_length)

    def _tokens(self, text: str) -> list[int]:
        """The prompt. A chat template writes the special tokens itself; plain text gets the tokenizer's own."""
        return list(self._tokenizer(text, add_special_tokens=self.facts.template != "own").input_ids)

    def _clean(self, messages: Sequence[Message]) -> Sequence[Message]:
        return without_specials(messages if self.facts.tools else in_words(messages), self._specials)

    def _rendered(self, clean: Sequence[Message], tools: Tools) -> str:
        if self.facts.template != "own":
            return plain_prompt(clean)
        return render(lambda some: self._template(some, tools), clean)

    def _template(self, messages: Sequence[Message], tools: Tools) -> str:
        turns = [template_form(message) for message in messages]
        asked: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        return str(self._tokenizer.apply_chat_template(turns, tools=tools, **asked))

    def _notes(self, dropped: int) -> list[str]:
        plain = [] if self.facts.template == "own" else [PLAIN_NOTE]
        return [*plain, *([left_out(dropped)] if dropped else [])]


def _guarded(answers: Sequence[Answer], work: Callable[..., list[Frame]], *args: Any) -> list[Frame]:
    """What `work` says; a fault in it ends these answers, whose caches may be half written, and no others."""
    try:
        return work(*args)
    except Exception as error:
        for answer in answers:
            answer.over, answer.evaluated = True, 0
        return [error_frame(answer.id, error) for answer in answers]


def _decoder(tokenizer: Any) -> Any:
    """Tokens to text without special tokens; the fast tokenizers are asked directly, several times a token."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return lambda ids: fast.decode(list(ids), skip_special_tokens=True)
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _over(answer: Answer, reason: FinishReason) -> list[Frame]:
    answer.over = True
    done = {"event": "done", "id": answer.id, "finish_reason": reason, "usage": asdict(answer.usage())}
    return [_note(answer.id, DEAD_END), done] if reason == "incomplete" else [done]


def _note(id: int, text: str) -> Frame:
    return {"event": "note", "id": id, "text": text}
