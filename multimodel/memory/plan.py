"""What a model takes of a machine's memory, term by term, and whether it fits there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ..errors import InvalidParameter
from ..hardware import Device
from ..types import KVType as KVType  # of the requests below
from .target import HERE, Target, target_of

Provenance = Literal["exact", "formula", "assumed"]
"""`exact`: the engine's own accounting, or bytes read from a header. `formula`: computed from the architecture.
`assumed`: a constant measured elsewhere."""
TermName = Literal[
    "weights", "kv_cache", "recurrent", "compute", "output", "framework", "gradients", "optimizer", "correction"
]
Level = Literal["fits", "tight", "no"]
HelpKind = Literal["context_length", "sequences", "kv_type", "dtype", "quantization", "training", "free"]

MOST = 1 << 24  # tokens, or anything else that is counted: no model reads as much
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
PADDING = 256  # tokens: llama.cpp rounds a sequence up to a multiple of this, so that no length between saves anything
HEAD_ROOM = 0.9  # of the free memory; above, a verdict is "tight"
ACCURACY = 0.02  # of a total: what an estimate may be off by, and so what must be free beside it
TRAINING_ACCURACY = 0.1  # the same of training, whose peak hangs on what the allocator gives back in time
REPEATED_ACCURACY = 0.15  # with checkpointing, whose peak differs by a tenth from run to run
LEAST_ERROR = 64 << 20  # bytes: the same for small models
SHORTER = {  # number formats of a transformers model, each with what is said for it
    "bfloat16": "half the size of float32",
    "int8": "about half the size of bfloat16",
    "int4": "4 bits, which answer a little worse",
}
SMALLER = 0.6  # what the next smaller quantisations leave of the weights: 16 bits to 8, 8 to 5, 5 to 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a model is trained, as far as memory is concerned."""

    batch_size: int = 8
    sequence_length: int = 128  # tokens
    method: Literal["full", "lora"] = "full"
    checkpointing: bool = False  # gradient checkpointing: activations are computed again instead of kept
    rank: int = 8  # of LoRA
    autocast: bool = False  # mixed precision: most activations in 16 bits
    masked: float = 0.0  # share of the tokens an encoder has to guess, in adaptive pretraining before it learns labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is to do, as far as memory is concerned."""

    context_length: int = 4096  # tokens of each conversation
    sequences: int = 1  # conversations at once, each with a KV cache of its own
    kv_type: KVType = "f16"  # GGUF only; elsewhere the cache has the number format of the weights
    flash_attention: bool = True
    batch_tokens: int = 512  # tokens of a forward pass
    target: Target = HERE
    dtype: str = "auto"  # transformers only: "float32", "bfloat16" or "float16"
    training: Training | None = None

    def check(self) -> None:
        """Raises InvalidParameter where something is asked for that cannot be."""
        counts = {name: getattr(self, name) for name in ("context_length", "sequences", "batch_tokens")}
        if how := self.training:
            counts |= {name: getattr(how, name) for name in ("batch_size", "sequence_length", "rank")}
        for name, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
                raise InvalidParameter(f"{name} is {value!r}.", hint=f"Give a whole number from 1 to {MOST:,}.")
        choices = {"kv_type": (self.kv_type, get_args(KVType)), "dtype": (self.dtype, DTYPES)}
        for name, (chosen, known) in choices.items():
            if chosen not in known:
                raise InvalidParameter(f"{name} is {chosen!r}.", hint=f"Give one of {', '.join(known)}.")


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a plan: bytes, how well they are known, and from where, in words."""

    name: TermName
    size: int
    provenance: Provenance
    source: str


@dataclass(frozen=True, slots=True)
class Help:
    """Something that would make it fit: `value` is what to set `kind` to, `total` the bytes it then takes."""

    kind: HelpKind
    text: str
    value: int | str | Training = ""
    total: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a plan fits a machine.

    `tight`: it fits, with less than a tenth to spare. `no` with a `helps`: it would fit otherwise.
    """

    level: Level
    needed: int  # bytes
    available: int  # bytes
    reason: str
    helps: tuple[Help, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The memory that a model takes, in bytes.

    Each term is there once; `provenance` and `sources` say how well it is known. `gradients` and `optimizer` are of
    training, whose activations are the term `compute`. `correction` is what earlier loads on this machine took
    beyond, or less than, what was predicted.
    """

    model: str
    request: Request
    terms: tuple[Term, ...]
    engine: Literal["llama.cpp", "transformers"] = "transformers"
    dtype: str = "auto"  # of a transformers model: the number format that was chosen, where the request says "auto"
    context_limit: int | None = None  # tokens the model was trained for
    refusal: str = ""  # why the engine makes no such context; the figures are then what it would take
    notes: tuple[str, ...] = ()
    replan: Callable[[Request], MemoryPlan] | None = field(default=None, repr=False, compare=False)

    @property
    def weights(self) -> int:
        """Parameters as they lie in memory."""
        return self.size("weights")

    @property
    def kv_cache(self) -> int:
        """Keys and values of all sequences."""
        return self.size("kv_cache")

    @property
    def recurrent(self) -> int:
        """The running state of layers without a cache (Mamba, linear attention, short convolutions)."""
        return self.size("recurrent")

    @property
    def compute(self) -> int:
        """Buffers of a forward pass; with training, the activations kept for the backward pass."""
        return self.size("compute")

    @property
    def output(self) -> int:
        """Logits, where they are handed out."""
        return self.size("output")

    @property
    def framework(self) -> int:
        """The libraries themselves, and the device's own context."""
        return self.size("framework")

    @property
    def total(self) -> int:
        """All terms together."""
        return sum(term.size for term in self.terms)

    @property
    def provenance(self) -> dict[str, Provenance]:
        """How well each term is known."""
        return {term.name: term.provenance for term in self.terms}

    @property
    def sources(self) -> dict[str, str]:
        """Where each term comes from, in words."""
        return {term.name: term.source for term in self.terms}

    @property
    def margin(self) -> int:
        """What the estimate may be off by, and what must therefore stay free beside it."""
        how = self.request.training
        share = ACCURACY if not how else REPEATED_ACCURACY if how.checkpointing else TRAINING_ACCURACY
        return max(LEAST_ERROR, int(share * self.total))

    @property
    def safe_total(self) -> int:
        """The total and its margin: at least this must be free."""
        return self.total + self.margin

    def size(self, name: TermName) -> int:
        """Bytes of one term; 0 where the plan has none."""
        return sum(term.size for term in self.terms if term.name == name)

    def at(self, **changes: Any) -> MemoryPlan:
        """The plan of the same model under other conditions, by formula: fields of `Request` as keywords."""
        request = replace(self.request, **changes)
        return self.replan(request) if self.replan and request != self.request else self

    def fit(self, device: Device | tuple[str, int] | Target) -> Verdict:
        """Whether it fits on a device of this machine, judged by its free memory, or on another: (name, bytes)."""
        target = target_of(device)
        here = self._on(target)
        level = here.level(target)
        helps = () if level == "fits" else tuple(_helps(here, target))
        return Verdict(level, here.total, target.usable, _reason(here, level, target), helps)

    def longest_context(self, device: Device | tuple[str, int] | Target) -> int:
        """The most tokens of context each conversation can have there; 0 where not even the shortest fits.

        A multiple of 256, at most what the model was trained for.
        """
        target = target_of(device)
        return _longest(self._on(target), target)

    def level(self, target: Target) -> Level:
        """The level of `fit` alone, on a device of the kind it was planned for; without the search for what helps."""
        if self.refusal or self.safe_total > target.usable:
            return "no"
        return "fits" if self.total <= HEAD_ROOM * target.usable else "tight"

    def _on(self, target: Target) -> MemoryPlan:
        """The plan for the kind of device that `target` is."""
        return self if target.kind == self.request.target.kind else self.at(target=target)


Admits = Callable[[MemoryPlan], bool]
"""Whether a model may be loaded by a plan."""


def admitted(plan: MemoryPlan) -> bool:
    """Whether the device that it was planned for has room for it; one whose memory is not known has."""
    target = plan.request.target
    return not target.usable or plan.level(target) != "no"


def _longest(plan: MemoryPlan, target: Target) -> int:
    limit = plan.context_limit or plan.request.context_length
    low, high = 0, -(-limit // PADDING)  # in paddings; `low` fits
    while low < high:
        middle = (low + high + 1) // 2
        fits = plan.at(context_length=min(limit, middle * PADDING)).level(target) != "no"
        low, high = (middle, high) if fits else (low, middle - 1)
    return min(limit, low * PADDING)


def _reason(plan: MemoryPlan, level: Level, target: Target) -> str:
    if plan.refusal:
        return plan.refusal
    total, free = gb_apart(plan.total, target.usable)
    takes = f"{total} of {free} usable on {target.name}"
    if level == "no" and plan.total <= target.usable:
        return f"It takes {takes}: too close, {gb(plan.margin)} must stay free beside it."
    return f"It takes nearly all: {takes}." if level == "tight" else f"It takes {takes}."


def _helps(plan: MemoryPlan, target: Target) -> Iterator[Help]:
    """What would lower the level, the least loss first."""
    request = plan.request
    if plan.refusal:
        plain = plan.at(kv_type="f16")
        if not plain.refusal:
            yield Help("kv_type", "Keep the KV cache in f16.", "f16", plain.total)
        return
    if target.here and plan.safe_total <= target.total and target.usable < target.total:
        where = "this machine" if target.kind == "cpu" else target.name
        yield Help("free", f"Close other programs: {where} has {gb(target.total)} in all.", total=plan.total)
    for kind, value, text in _changes(plan, target):
        also = {"flash_attention": True} if kind == "kv_type" else {}  # a quantised cache works only with it
        changed = plan.at(**{kind: value}, **also)
        if value != getattr(request, kind) and changed.total < plan.total and changed.level(target) != "no":
            yield Help(kind, text, value, changed.total)
    smaller = plan.total - int(plan.weights * (1 - SMALLER))
    if not request.training and smaller <= HEAD_ROOM * target.usable:
        which = "a smaller quantisation" if plan.engine == "llama.cpp" else "a GGUF file of it in 8 bits or fewer"
        yield Help("quantization", f"Choose {which}.", total=smaller)


def _changes(plan: MemoryPlan, target: Target) -> Iterator[tuple[Any, Any, str]]:
    """Changes of the request worth trying, with the sentence that proposes each."""
    request = plan.request
    if how := request.training:
        yield from _easier(how)
        return
    if plan.engine == "llama.cpp" and plan.kv_cache and request.kv_type in ("f32", "f16", "bf16"):
        yield "kv_type", "q8_0", "Keep the KV cache in q8_0: half the size, hardly another answer."
    if request.sequences > 1:
        yield "sequences", 1, "Have one conversation at a time."
    if dtype := _shorter(plan, target):
        yield "dtype", dtype, f"Set Number format (dtype) to {dtype}: {SHORTER[dtype]}."
    if 0 < (length := _longest(plan, target)) < request.context_length:
        yield "context_length", length, f"Choose a context of {length:,} tokens."


def _shorter(plan: MemoryPlan, target: Target) -> str | None:
    """The longest of the shorter number formats that fits; None for a GGUF file, which has its own in it."""
    if plan.engine != "transformers":
        return None
    known = tuple(SHORTER) if target.kind == "cpu" else ("bfloat16",)  # a GPU unpacks none
    plans = {dtype: plan.at(dtype=dtype) for dtype in known}
    fitting = (dtype for dtype, other in plans.items() if other.total < plan.total and other.level(target) != "no")
    return next(fitting, None)


def _easier(how: Training) -> Iterator[tuple[str, Training, str]]:
    """Ways to train with less memory."""
    if how.batch_size > 1:
        half = how.batch_size // 2
        yield "training", replace(how, batch_size=half), f"Train with batches of {half}."
    if not how.checkpointing:
        yield "training", replace(how, checkpointing=True), "Switch gradient checkpointing on: slower, much smaller."
    if how.method == "full":
        yield "training", replace(how, method="lora"), "Train a LoRA adapter instead of all weights."


def gb(size: float, more: int = 0) -> str:
    """Bytes for people; `more`: digits beyond the usual.

    >>> gb(4_700_000_000), gb(52_000_000), gb(4_731_000_000, more=1)
    ('4.7 GB', '52 MB', '4.73 GB')
    """
    return f"{size / 1e9:.{1 + more}f} GB" if size >= 1e9 else f"{size / 1e6:.{more}f} MB"


def gb_apart(one: int, other: int) -> tuple[str, str]:
    """Two sizes that differ, in as many digits as show it.

    >>> gb_apart(4_030_000_000, 3_990_000_000), gb_apart(7_600_000_000, 4_000_000_000)
    (('4.03 GB', '3.99 GB'), ('7.6 GB', '4.0 GB'))
    """
    pairs = ((gb(one, more), gb(other, more)) for more in range(9))
    return next((pair for pair in pairs if pair[0] != pair[1]), (gb(one), gb(other)))
