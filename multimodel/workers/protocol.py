"""What the app and a model's child process say to each other: one JSON object a line, both ways.

Commands (app to child):

    {"op": "load", "runtime": "llama" | "torch", "path": str, "options": {LoadOptions}, "threads": int}
    {"op": "generate", "id": int, "messages": [{"role", "content", ...}], "params": {SamplingParams, set fields only}}
        a message may also have "calls" [{ToolCall}], or be a result with "name" and "call"
        "fresh": true evaluates the prompt whole, whatever a cache holds of it
    {"op": "cancel", "id": int}
    {"op": "measure", "id": int, "messages": [...]}
    {"op": "inspect", "id": int, "messages": [...], "params": {...}}  what `generate` would have the model read
    {"op": "threads", "count": int}                                   its share of the cores
    {"op": "status", "id": int}

End of input ends the child. So does a NotEnoughMemory of its own, once the answers it has begun are over: what the
libraries hold then is not to be trusted, so it is asked no more.

Events (child to app); `at` is time.perf_counter(), one clock for both processes:

    {"event": "progress", "stage": "starting" | "loading", "fraction": float | null, "detail": str}
    {"event": "ready", "facts": {Facts}}
    {"event": "started", "id": int, "at": float}                      admitted: the clock of TTFT starts
    {"event": "prompt", "id": int, "digest": str, "dropped": int}     what it reads, as `types.Sent` tells of it
    {"event": "reading", "id": int, "fraction": float}                prefill of a long prompt
    {"event": "text", "id": int, "text": str, "at": float}            with "logprobs" where they were asked for
    {"event": "note", "id": int, "text": str}
    {"event": "done", "id": int, "finish_reason": str, "usage": {Usage}, "at": float}
    {"event": "size", "id": int, "size": {PromptSize}}
    {"event": "inspected", "id": int, "text": str, "tokens": [[id, bytes], ...], "dropped": int, "stripped": int}
    {"event": "status", "id": int, "status": {Status}}
    {"event": "error", "id": int | null, "type": str, "message": str, "hint": str}    null: loading failed

"logprobs" has [bytes, logprob, [[bytes, logprob], ...]] for each token since the last text event, its text shown yet or
not: what the token is made of, as one character a byte; its natural log-probability; the likeliest tokens in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import MultimodelError, NotEnoughMemory, by_name
from ..types import LoadOptions, Message, Prompt, PromptSize, SamplingParams, StageName, TokenLogprob, ToolCall, digest

Frame = dict[str, Any]
SLOTS = 8  # answers a child works on at once, at most
MEMORY_HINT = "Close other models or programs, choose a smaller model, or a shorter context length."
_SHORT = re.compile(
    r"out of memory|MemoryError|(insufficient|not enough|allocate|reserve) memory|memory allocation"
    r"|(failed|unable|tried) to allocate|std::bad_alloc|failed to map segment|mem_buffer != NULL|_ALLOC(ATION)?_FAILED"
    r"|can't start new thread|pthread_create failed|thread creation failed"  # there was no room for its stack
    r"|(error return|returned NULL) without (setting an )?exception"  # there was no room for the exception
    r"|could not (create|execute) a (primitive|memory)\b(?! descriptor)",  # a descriptor fails for what is not offered
    re.IGNORECASE,
)
"""How libraries, the loader of shared libraries and native code say that there is no memory left. "A primitive" is
oneDNN's: it is made anew for every shape, and where the room for its code is missing, this is all that is said."""


def encode(frame: Frame) -> bytes:
    """One line. Lone surrogates of a tokenizer cannot break it: JSON escapes them.

    >>> encode({"op": "cancel", "id": 1})
    b'{"op":"cancel","id":1}\\n'
    """
    return json.dumps(frame, separators=(",", ":")).encode("ascii") + b"\n"


def read(stream: BinaryIO) -> Frame | None:
    """The next frame; None at the end of the stream."""
    line = stream.readline()
    return json.loads(line) if line.endswith(b"\n") else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a child learnt of its model while loading it."""

    context_length: int
    device: str
    dtype: str
    parameters: int
    template: str  # "own": the model's chat template; "plain": it has none, so it continues plain text
    memory: int  # resident bytes of the child once loaded
    notes: tuple[str, ...] = ()
    flash_attention: bool = False
    slots: int = SLOTS  # answers it works on at once; more wait their turn
    tools: bool = False  # whether its chat template takes them


@dataclass(frozen=True, slots=True)
class Status:
    """What a child is doing."""

    answering: int
    waiting: int  # for a free slot
    threads: int
    cached_tokens: int  # whose keys and values are held, of running answers too
    prompt_tokens: int = 0  # of the answers that have ended since it was loaded
    reused_tokens: int = 0  # of prompt_tokens: not evaluated again


@dataclass(frozen=True, slots=True)
class Request:
    """One answer asked of a runtime."""

    id: int
    messages: tuple[Message, ...]
    params: SamplingParams
    fresh: bool = False  # its prompt is evaluated whole, whatever a cache holds


class Runtime(Protocol):
    """A loaded model that advances all its active requests one step at a time. Single-threaded; owned by the scheduler.

    The events are frames of this module, without `at`: the scheduler stamps them as they leave.
    """

    facts: Facts

    def admit(self, request: Request) -> list[Frame]:
        """Take the request in: render and tokenize its prompt, find what a cache already holds. Notes, if any.

        Raises MultimodelError (ContextLengthExceeded, BadRequest) and is then unchanged.
        """
        ...

    def step(self) -> list[Frame]:
        """One forward pass over all active requests: a piece of someone's prompt, or one token each.

        A request is over with its `done` or `error` event; what it raises instead ends all active requests.
        """
        ...

    def drop(self, id: int) -> None:
        """Forget a request, finished or not; its cache may be kept for reuse. Unknown ids are ignored."""
        ...

    def active(self) -> int:
        """How many requests are neither finished nor dropped."""
        ...

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        """How many tokens the rendered conversation takes."""
        ...

    def inspect(self, request: Request) -> Prompt:
        """What `admit` would have the model read. Raises what that raises."""
        ...

    def set_threads(self, count: int) -> None:
        """Use this many processor threads from the next step on."""
        ...

    def cached(self) -> int:
        """How many tokens the KV cache holds, those of running answers too."""
        ...

    def trial(self) -> None:
        """Evaluate a token and forget it: what a step of one answer costs. Only while nothing is active."""
        ...

    def close(self) -> None:
        """Give back what the process exit would not."""
        ...


Progress = Callable[[StageName, float | None, str], None]
"""Tells the app how far loading is: "starting" or "loading", a fraction where it is known, a detail or ""."""


class RuntimeModule(Protocol):
    """What a module `workers/NAME.py` offers, so that `"runtime": NAME` loads it."""

    def load(self, path: Path, options: LoadOptions, threads: int, progress: Progress) -> Runtime:
        """The model of a file or folder, in memory. Raises LoadError."""
        ...


def request_from(frame: Frame) -> Request:
    """The Request of a `generate` command."""
    params = dict(frame["params"])
    if "stop" in params:
        params["stop"] = tuple(params["stop"])
    if "logit_bias" in params:
        params["logit_bias"] = tuple((token, bias) for token, bias in params["logit_bias"])
    return Request(frame["id"], messages_from(frame), SamplingParams(**params), frame.get("fresh", False))


def messages_from(frame: Frame) -> tuple[Message, ...]:
    """The messages of a command."""
    return tuple(
        Message(
            m["role"],
            m["content"],
            calls=tuple(ToolCall(**call) for call in m.get("calls", ())),
            name=m.get("name", ""),
            call=m.get("call", ""),
        )
        for m in frame["messages"]
    )


def logprobs_from(found: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    """The "logprobs" of a `text` event.

    >>> logprobs_from([["a", -0.5, [["a", -0.5], ["\xe9", -1.5]]]])[0].alternatives[1].data
    b'\\xe9'
    """
    return tuple(
        TokenLogprob.of(
            data.encode("latin-1"),
            logprob,
            tuple(TokenLogprob.of(other.encode("latin-1"), likely) for other, likely in others),
        )
        for data, logprob, others in found
    )


def prompt_frame(id: int, tokens: Sequence[int], dropped: int) -> Frame:
    """The `prompt` event."""
    return {"event": "prompt", "id": id, "digest": digest(list(tokens)), "dropped": dropped}


def inspected_frame(id: int, prompt: Prompt) -> Frame:
    """The `inspected` event."""
    tokens = [[token, data.decode("latin-1")] for token, data in prompt.tokens]
    known = {"text": prompt.text, "dropped": prompt.dropped, "stripped": prompt.stripped}
    return {"event": "inspected", "id": id, "tokens": tokens, **known}


def prompt_from(frame: Frame) -> Prompt:
    """The Prompt of an `inspected` event.

    >>> prompt_from(inspected_frame(1, Prompt("hi", ((7, b"hi"),), dropped=2))).tokens
    ((7, b'hi'),)
    """
    tokens = tuple((token, data.encode("latin-1")) for token, data in frame["tokens"])
    return Prompt(frame["text"], tokens, frame["dropped"], frame["stripped"])


def as_frames(messages: Sequence[Message]) -> list[Frame]:
    """Messages in their wire form.

    >>> as_frames([Message("user", "hi")])
    [{'role': 'user', 'content': 'hi'}]
    """
    return [_as_frame(message) for message in messages]


def _as_frame(message: Message) -> Frame:
    frame: Frame = {"role": message.role, "content": message.content}
    if message.calls:
        frame["calls"] = [asdict(call) for call in message.calls]
    return frame | ({"name": message.name, "call": message.call} if message.role == "tool" else {})


def error_frame(id: int | None, error: BaseException) -> Frame:
    """An exception in its wire form, by class name; one that is none of ours becomes NotEnoughMemory or Unexpected.

    >>> error_frame(1, MemoryError())["type"], error_frame(1, KeyError("x"))["type"]
    ('NotEnoughMemory', 'Unexpected')
    """
    own = _own(error)
    return {"event": "error", "id": id, "type": type(own).__name__, "message": str(own), "hint": own.hint}


def error_from(frame: Frame) -> MultimodelError:
    """The exception of an `error` event."""
    return by_name(frame["type"])(frame["message"], hint=frame["hint"])


def says_out_of_memory(text: str) -> bool:
    """Whether an error of native code is for want of memory.

    >>> says_out_of_memory("std::bad_alloc"), says_out_of_memory("bad magic")
    (True, False)
    >>> says_out_of_memory("could not create a primitive"), says_out_of_memory("error return without exception set")
    (True, True)
    >>> says_out_of_memory("could not create a primitive descriptor for the matmul primitive")
    False
    """
    return bool(_SHORT.search(text))


def ran_out(event: Frame) -> bool:
    """Whether an event says that memory ran out in the child.

    >>> ran_out(error_frame(1, MemoryError())), ran_out(error_frame(1, KeyError()))
    (True, False)
    """
    return bool(event["event"] == "error" and event["type"] == NotEnoughMemory.__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, is for want of memory.

    >>> is_out_of_memory(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    True
    """
    return any(isinstance(e, MemoryError) or says_out_of_memory(str(e)) for e in _with_causes(error))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _own(error: BaseException) -> MultimodelError:
    if isinstance(error, MultimodelError):
        return error
    if is_out_of_memory(error):
        return NotEnoughMemory("The model ran out of memory.", hint=MEMORY_HINT)
    return by_name("Unexpected")(f"{type(error).__name__}: {error}", hint="Try again; if it stays, report it.")
