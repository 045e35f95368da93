"""The values that travel between floors. Standard library only; every type is frozen."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, Literal, Protocol, Self, runtime_checkable

from .errors import InvalidModelId, InvalidParameter, MultimodelError

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal[
    "stop", "length", "content_filter", "tool_calls", "stopped", "incomplete", "interrupted", "error"
]
"""Why an answer ended.

The first four are the backend's own word. `stopped`: a person pressed Stop. `incomplete`: the stream ended without
a finish reason, so the text may be cut. `interrupted`: the app ended before it did. `error`: see the snapshot's error.
"""

ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")  # how a repository of the Hub is named: owner/name
_HALF = re.compile("[\ud800-\udfff]")


def whole(text: str) -> str:
    """A text that a wire and a file can carry: halves of a character become U+FFFD.

    >>> whole("a\\ud800b"), whole("\\ud83d\\ude00")
    ('a�b', '😀')
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if _HALF.search(text) else text


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, in one of the forms that every service and browser reads."""

    media_type: Literal["image/png", "image/jpeg"]
    data: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """An address that holds the picture itself."""
        return f"data:{self.media_type};base64,{b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that a model wants called. While the answer is on its way its arguments may not be whole."""

    name: str
    arguments: str = ""  # as the model wrote them: JSON, unless it made a mistake
    id: str = ""  # what the result refers to


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a person answers to a call."""

    name: str
    content: str
    id: str = ""  # of the call

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", whole(self.content))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Halves of a character, which no wire and no file can carry, become U+FFFD.

    >>> Message("user", "a\\ud800b").content, Message("user", "\\ud83d\\ude00").content
    ('a�b', '😀')
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()  # of a user message
    calls: tuple[ToolCall, ...] = ()  # of an assistant message
    name: str = ""  # of a tool message: what was called
    call: str = ""  # of a tool message: the id of the call

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", whole(self.content))


@dataclass(frozen=True, slots=True)
class ModelId:
    """Where a model is served and what it is called there.

    >>> ModelId.parse("transformers:HuggingFaceTB/SmolLM2-135M-Instruct")
    ModelId(backend='transformers', name='HuggingFaceTB/SmolLM2-135M-Instruct')
    >>> str(ModelId("openai", "gpt-5-mini"))
    'openai:gpt-5-mini'
    """

    backend: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id written `backend:name`; the name may itself hold ":" and "/". Raises InvalidModelId."""
        backend, colon, name = (part.strip() for part in text.strip().partition(":"))
        if not (backend and colon and name):
            raise InvalidModelId(f"{text!r} is not a model id.", hint="Write backend:name, for example gguf:guide.")
        return cls(backend, name)

    def __str__(self) -> str:
        return f"{self.backend}:{self.name}"


DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
RopeScaling = Literal["linear", "yarn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a local model is brought into memory. `multimodel.modifiers` makes changed copies."""

    device: DeviceName = "auto"
    dtype: DType = "auto"  # transformers only: a GGUF file has its number format in it
    context_length: int | None = None  # tokens; None: the model's own, at most what the settings say
    kv_type: KVType | None = None  # GGUF only: the number format of the KV cache; None: f16
    sequences: int | None = None  # GGUF only: answers at once; None: as many as a share of the memory allows, up to 8
    flash_attention: bool | None = None  # GGUF only; None: as is quicker here, by a short trial at the first load
    gpu_layers: int | None = None  # GGUF only; None: all where there is a GPU
    revision: str | None = None  # a branch, tag or commit on the Hub
    rope_scaling: RopeScaling | None = None  # how positions beyond the trained context are brought within it
    rope_factor: float = 1.0  # times the trained context; needs rope_scaling
    adapter: str | None = None  # a LoRA adapter: a GGUF file, or for transformers a folder of peft's
    adapter_scale: float = 1.0
    chat_template: str | None = None  # Jinja, in place of the model's own
    anyway: bool = False  # load it even where the memory plan says that it does not fit

    def __post_init__(self) -> None:
        if self.rope_factor < 1 or (self.rope_factor > 1) != (self.rope_scaling is not None):
            hint = "Set rope_scaling to linear or yarn, and rope_factor above 1."
            raise InvalidParameter(f"rope_factor is {self.rope_factor:g} with {self.rope_scaling}.", hint=hint)
        for name, least in (("context_length", 1), ("sequences", 1), ("gpu_layers", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InvalidParameter(f"{name} is {value}.", hint=f"Choose {least} or more.")

    def changed(self) -> frozenset[str]:
        """The names of the fields that differ from their defaults."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and how to load it."""

    id: ModelId
    load: LoadOptions = LoadOptions()


RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 131_072),
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "seed": (0, 2**31 - 1),
    "top_logprobs": (0, 20),
}
"""Lowest and highest value of each sampling parameter; the sliders read the same table."""

BIAS = (-100.0, 100.0)
"""Lowest and highest bias of one token; the ends all but forbid it, or leave no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Generation options. None means "not set": the field is left out of the request.

    In the order in which a local model applies them: the logits are raised by logit_bias, what the grammar does not
    allow leaves, then the three penalties, top_k, top_p, min_p, temperature and the draw.

    >>> SamplingParams(temperature=0.7).merge(SamplingParams(seed=1)).asdict()
    {'temperature': 0.7, 'seed': 1}
    """

    max_tokens: int | None = None
    temperature: float | None = None  # 0: greedy
    top_p: float | None = None  # 1: off
    top_k: int | None = None  # 0: off
    min_p: float | None = None  # 0: off
    repetition_penalty: float | None = None  # of tokens in prompt and answer: logits above 0 / it, others * it; 1: off
    presence_penalty: float | None = None  # taken once from the logit of every token in the answer so far; 0: off
    frequency_penalty: float | None = None  # the same, as often as the token was said; 0: off
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None  # (token id, added to its logit)
    grammar: str | None = None  # GBNF, the notation of llama.cpp; its rule `root` is the whole answer
    json_schema: str | None = None  # JSON text; the answer is JSON that follows it
    top_logprobs: int | None = None  # log-probability of each token, and of this many likeliest in its place
    tools: str | None = None  # JSON text: functions that the model may ask for, as `multimodel.tools` reads it
    tool_choice: str | None = None  # auto, none, required, or the name of one of the tools

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            _check(name, getattr(self, name), low, high)
        for token, bias in self.logit_bias or ():
            _check(f"logit_bias of token {token}", bias, *BIAS)
            _check("A token in logit_bias", token, 0, 2**31 - 1)
        if self.grammar is not None and self.json_schema is not None:
            raise InvalidParameter("grammar and json_schema are both set.", hint="Leave out one: each shapes it all.")

    def asdict(self) -> dict[str, Any]:
        """Only the fields that are set."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def merge(self, other: SamplingParams) -> SamplingParams:
        """A copy in which the set fields of `other` win."""
        return replace(self, **other.asdict())

    def only(self, supported: frozenset[str]) -> SamplingParams:
        """A copy without the fields a backend does not take."""
        return SamplingParams(**{k: v for k, v in self.asdict().items() if k in supported})


def _check(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidParameter(f"{name} is {value}.", hint=f"Choose a value from {low:g} to {high:g}.")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer and how likely the model found it in its place, before bias, penalties and temperature.

    >>> TokenLogprob.of(b" caf", -0.5), TokenLogprob.of(b"\\xc3", -0.5).raw
    (TokenLogprob(text=' caf', logprob=-0.5, alternatives=(), raw=b''), b'\\xc3')
    """

    text: str  # U+FFFD stands for bytes that are no whole character
    logprob: float  # natural logarithm
    alternatives: tuple[TokenLogprob, ...] = ()  # the likeliest tokens in its place, likeliest first
    raw: bytes = b""  # only where the text holds such a stand-in: the token's bytes

    @classmethod
    def of(cls, data: bytes, logprob: float, alternatives: tuple[TokenLogprob, ...] = ()) -> Self:
        """The one of a token that is these bytes."""
        text = data.decode("utf-8", "replace")
        return cls(text, logprob, alternatives, b"" if text.encode() == data else data)

    @property
    def data(self) -> bytes:
        """The bytes of the token; those of all tokens joined are those of the answer."""
        return self.raw or self.text.encode()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the backend reports them.

    >>> (Usage(5, 3) + Usage(1, 1)).total_tokens
    10
    """

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False  # True where the backend does not report and we counted
    reused_tokens: int = 0  # of input_tokens: not evaluated again, thanks to a cached prefix
    reasoning_tokens: int | None = None  # of output_tokens: thoughts; None: not known

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
            self.reused_tokens + other.reused_tokens,
            _sum(self.reasoning_tokens, other.reasoning_tokens),
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a service takes for an answer, in US dollars."""

    amount: float | None  # None: not known, which is not nothing
    about: str = ""  # why it is not known, or only about right; empty: as the service counts
    source: str = ""  # whose price it is, how high, and of when

    @property
    def estimated(self) -> bool:
        """Whether the true amount may be another."""
        return self.amount is not None and bool(self.about)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How a local model lay in memory when it answered, and which file it was."""

    device: str = ""
    dtype: str = ""  # the number format of the weights
    context_length: int = 0  # tokens
    kv_type: str = ""  # the number format of the KV cache; empty: as the runtime has it
    threads: int = 0  # its share of the cores
    template: str = ""  # "own": the model's chat template; "plain": it has none
    file: str = ""  # the name of its file or folder
    size: int = 0  # bytes of the weights
    changed: int = 0  # nanoseconds since 1970: when the newest of them was last changed

    def __post_init__(self) -> None:
        for name in ("context_length", "threads", "size", "changed"):
            _check(name, getattr(self, name), 0, 2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What an answer was really asked with, beyond its parameters, as far as the backend tells. Empty: not known."""

    messages: str = ""  # the messages, as `digest` makes it
    begun: int = 0  # characters of an earlier answer that this one goes on from
    prompt: str = ""  # the ids of the prompt's tokens, as `digest` makes it
    dropped: int = 0  # messages that did not fit into the context: the oldest that are not the system's
    loaded: Loaded | None = None  # of local models
    address: str = ""  # of remote models: where the request went, without what may be secret in it
    request: str = ""  # its JSON, without the messages
    model: str = ""  # what the service says answered
    fingerprint: str = ""  # what it says of its configuration
    response: str = ""  # its name for the answer
    request_id: str = ""  # its name for the request
    versions: tuple[tuple[str, str], ...] = ()  # (package, version) of what ran it, or asked for it

    def merge(self, other: Sent | None) -> Sent:
        """A copy in which what the other knows wins."""
        known = {f.name: v for f in fields(other) if (v := getattr(other, f.name)) != f.default} if other else {}
        return replace(self, **known)


def digest(what: object) -> str:
    """Tells whether two values that JSON can hold are the same: 64 bits of a SHA-256, in hex.

    >>> digest([1, 2]), digest([2, 1])
    ('49a64717d5d4cb19', 'af1a1fc110b6094c')
    """
    return sha256(json.dumps(what, separators=(",", ":")).encode()).hexdigest()[:16]


def digest_of(messages: Sequence[Message]) -> str:
    """The digest of a conversation as it is sent."""
    return digest([_sent_form(message) for message in messages])


def _sent_form(message: Message) -> list[object]:
    form: list[object] = [message.role, message.content]
    form += [sha256(image.data).hexdigest() for image in message.images]
    form += [[call.name, call.arguments, call.id] for call in message.calls]
    return [*form, message.call] if message.call else form


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a local model reads: a conversation rendered by its chat template, and cut into tokens."""

    text: str
    tokens: tuple[tuple[int, bytes], ...]  # (id, what it stands for)
    dropped: int = 0  # messages, oldest first, that did not fit
    stripped: int = 0  # characters of special tokens that were typed, which are taken out

    @property
    def digest(self) -> str:
        """As `Sent.prompt` has it."""
        return digest([token for token, _ in self.tokens])


StageName = Literal["queued", "downloading", "starting", "loading", "reading", "retrying"]


@dataclass(frozen=True, slots=True)
class Stage:
    """What an answer is waiting for before its first token."""

    name: StageName
    detail: str = ""  # one short sentence for the person
    fraction: float | None = None  # 0..1 where progress is known
    seconds: float | None = None  # time left where it is known


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer. The last one, and only it, has a finish_reason.

    An empty Chunk is a heartbeat: a stream that waits yields one at least every quarter of a second, so that closing
    it takes effect at once.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None  # None: unknown, which is not zero
    reasoning: str = ""  # thoughts, where the backend tells them apart from the answer
    stage: Stage | None = None
    note: str = ""  # something the person should know about this answer
    at: float | None = None  # time.perf_counter() where the piece arrived: one clock for all processes of a machine
    logprobs: tuple[TokenLogprob, ...] = ()  # of tokens not told before, whether or not their text can be shown yet
    cost: Cost | None = None  # where the service itself says it
    provider: str = ""  # who answers, where a router chose
    memory: int | None = None  # bytes that the process of a local model takes just now
    sent: Sent | None = None  # what the backend can now tell of the request
    calls: tuple[ToolCall, ...] = ()  # all calls so far, the last one perhaps not whole; () says nothing


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds on one monotonic clock (time.perf_counter).

    >>> t = Timing(started=10.0, first_token=10.5, last_token=12.5)
    >>> t.ttft, t.total, t.tokens_per_second(21)
    (0.5, 2.5, 10.0)
    """

    started: float  # when the model was asked: after loading, or after the last retry's wait
    first_token: float | None = None  # first visible text, the same for every backend
    last_token: float | None = None  # of text, a thought or a call
    loading: float = 0.0  # seconds in line, of download, start, loading and retries before `started`
    begun: float | None = None  # first thought or call, where one came before any text

    @property
    def ttft(self) -> float | None:
        """Time to first token, in seconds."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def total(self) -> float | None:
        """From the request to the last token seen, in seconds."""
        return None if self.last_token is None else self.last_token - self.started

    @property
    def decoding(self) -> float | None:
        """From the first token to the last, thoughts and calls included, in seconds.

        >>> Timing(started=10.0, first_token=12.5, last_token=13.0, begun=10.5).decoding
        2.5
        """
        first = self.first_token if self.begun is None else self.begun
        return None if first is None or self.last_token is None else self.last_token - first

    def tokens_per_second(self, output_tokens: int) -> float | None:
        """Decoding speed, the inverse of TPOT: tokens after the first over the time after the first."""
        return (output_tokens - 1) / self.decoding if self.decoding and output_tokens > 1 else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An answer as it stands. Each one replaces the one before."""

    model: ModelId
    text: str
    timing: Timing
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error: MultimodelError | None = None
    stage: Stage | None = None  # set while nothing has been said yet
    reasoning: str = ""
    notes: tuple[str, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()  # one a token of the answer, a stop string's too; empty unless asked for
    params: SamplingParams | None = None  # as they were sent; None until the model is asked
    cost: Cost | None = None  # None: nothing is paid for it, or it has not ended
    provider: str = ""  # who answered, where a router chose
    memory: int | None = None  # bytes, the most that the process of a local model was seen to take; None: not known
    sent: Sent | None = None  # None until the model is asked, and where it was not written down
    calls: tuple[ToolCall, ...] = ()

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    @property
    def rate(self) -> float | None:
        """Decoding speed in tokens per second: of the tokens that were seen to come.

        Thoughts that a service counts and does not show are no part of the time after the first token.

        >>> timing, usage = Timing(0.0, 2.0, 3.0), Usage(5, 511, reasoning_tokens=500)
        >>> Snapshot(ModelId("openai", "m"), "said", timing, usage).rate
        10.0
        """
        if not self.usage:
            return None
        unseen = 0 if self.reasoning else self.usage.reasoning_tokens or 0
        return self.timing.tokens_per_second(self.usage.output_tokens - unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend takes. The face greys out the rest; the backend drops the rest."""

    params: frozenset[str]  # field names of SamplingParams
    local: bool
    reports_usage: bool = True
    system_role: bool = True
    key_var: str | None = None  # for example OPENAI_API_KEY
    prefill: bool = False  # a conversation that ends with an answer is one that the model goes on with
    images: bool = False  # True too where only the service knows


@dataclass(frozen=True, slots=True)
class PromptSize:
    """How much of a model's context a conversation takes, before it is sent."""

    tokens: int
    context_length: int
    dropped: int = 0  # messages, oldest first, that would be left out to make it fit
    estimated: bool = False


@runtime_checkable
class Cached(Protocol):
    """A backend that keeps what it has evaluated for the next prompt that begins alike."""

    def afresh(self) -> Backend:
        """The same model, which then evaluates every prompt whole."""
        ...


class Backend(Protocol):
    """One connected model. Connecting is cheap: what takes time happens inside `stream`, in stages."""

    model: ModelId
    capabilities: Capabilities

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """Stages, text chunks, then one final chunk. Raises only MultimodelError. Closing it stops the work."""
        ...

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        """The size of a prompt, where it is known without asking anyone; None elsewhere."""
        ...

    def close(self) -> None:
        """Give back memory or connections. Safe to call twice."""
        ...


def collect(chunks: Iterable[Chunk]) -> tuple[str, Chunk]:
    """The whole text, and the final chunk.

    >>> text, last = collect([Chunk("Hel"), Chunk("lo"), Chunk(finish_reason="stop")])
    >>> text, last.finish_reason
    ('Hello', 'stop')
    """
    parts, last = [], Chunk()
    for last in chunks:
        parts.append(last.text)
    return "".join(parts), last
