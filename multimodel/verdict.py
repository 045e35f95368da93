"""Whether a repository's model fits a machine: from what a list of results says of it, with no further request.

The plan is the same `MemoryPlan` as everywhere, by formula. Its weights are the files' sizes where these are known,
else computed from the parameters; its shape is the shipped catalogue's for a known model or one made of it, else that
of the known model most like it, and then the verdict says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from .hub import Listing
from .memory import MemoryPlan, Provenance, Request, Target, Term
from .memory.config_shape import shape_of_config
from .memory.context import flash_attention
from .memory.gguf import Header, Tensor
from .memory.gguf_plan import GgufModel
from .memory.shape import Layer, Shape
from .memory.torch_plan import Stored, TorchModel
from .quants import Quant, bits, size_of
from .settings import Settings
from .shipped import FILE, Known, catalogue, read

Level = Literal["fits", "tight", "cache", "shorter", "no", "unknown"]
"""`tight`: with less than a tenth to spare. `cache`: with a KV cache in q8_0. `shorter`: with a shorter context."""
RUNS = frozenset({"fits", "tight", "cache", "shorter"})

ROOMY = 0.7  # of what is usable: a larger quantisation is recommended only where it leaves the rest for other things
GOOD = 4.4  # bits a weight: below, answers become noticeably worse
FULL_PRECISION = 10.0  # bits a weight: above, a quantisation takes memory and gives nothing
LEAST_CONTEXT = 1024  # tokens: with less, a chat model is of no use
LIKE = 3  # known models of which an unknown one's shape is taken
CLOSE = 0.5  # in powers of two of the parameters: others are left out where there is a closer one
WINDOWS = frozenset({"gemma2", "gemma3", "gemma3text", "gemma3n", "gemma4", "gptoss", "cohere2", "exaone4", "llama4"})
ENCODERS = ("fill-mask", "text-classification", "token-classification", "feature-extraction", "sentence-similarity")
BILLIONS = re.compile(r"(?<![A-Za-z\d.])(?:(\d{1,2})x)?(\d{1,4}(?:\.\d{1,2})?)([BM])(?![A-Za-z\d])", re.IGNORECASE)
SHARED = 0.85  # of a mixture written as 8x7B: experts share everything but their feed-forward layers


@dataclass(frozen=True, slots=True)
class Fit:
    """What to say of a model on a machine. Bytes."""

    level: Level
    quant: str = ""  # the recommended quantisation; "" for a model in safetensors
    context_length: int = 0  # tokens it holds there
    needed: int = 0
    available: int = 0
    assumed: bool = False  # its shape is that of a similar model
    computed: bool = False  # the bytes of its weights are computed: a list does not tell the sizes of files

    @property
    def runs(self) -> bool:
        return self.level in RUNS


@dataclass(frozen=True)
class Sketch(GgufModel):
    """A GGUF model whose header was not read: its shape is known from elsewhere."""

    known: Shape
    size: int  # bytes of its weights
    twice: int = 0  # bytes of an embedding that a GPU has twice: it is the output layer too
    weights_from: tuple[Provenance, str] = ("formula", "")

    @cached_property
    def shape(self) -> Shape:
        return self.known

    def _weights(self, request: Request) -> Term:
        more = self.twice if request.target.kind != "cpu" else 0
        return Term("weights", self.size + more, *self.weights_from)


@dataclass(frozen=True)
class Basis:
    """What is known, or assumed, of a model that was not read."""

    config: dict[str, Any] = field(hash=False)
    llama: Shape
    parameters: int
    known: bool  # False: the shape is that of a similar model

    @property
    def tied(self) -> bool:
        """Whether the input embedding is the output layer too."""
        return bool(self.config.get("tie_word_embeddings", str(self.config.get("model_type", "")).startswith("gemma")))


def fit(listing: Listing, target: Target, settings: Settings) -> Fit:
    """The verdict on a row of results, for a context of the settings' length."""
    basis = basis_of(listing, settings)
    if not basis:
        return Fit("unknown", available=target.usable)
    request = request_for(target, context_length=_wanted(listing, basis, settings))
    if listing.quants:
        fits = fit_gguf(sketches(listing.name, listing.quants, basis), request, target)
    elif weights := stored(listing):
        fits = _fit_torch(TorchModel(listing.name, basis.config, weights, exact=False).plan(request), target)
    else:
        return Fit("unknown", available=target.usable)
    computed = any(quant.size is None for quant in listing.quants)
    return replace(fits, assumed=not basis.known, computed=computed)


def request_for(target: Target, **changes: Any) -> Request:
    """What a model is asked to do on a machine, run as this app runs it there."""
    kv_type = changes.get("kv_type", "f16")
    return Request(target=target, flash_attention=flash_attention(target.kind, kv_type), **changes)


def sketches(name: str, quants: Sequence[Quant], basis: Basis) -> dict[str, Sketch]:
    """A model for each quantisation whose size is known or can be computed, the smallest first."""
    shape, tied = basis.llama, basis.tied
    width = shape.embedding or 256
    embedding = shape.vocabulary * width
    found: dict[str, Sketch] = {}
    for quant in quants:
        size = quant.size or size_of(quant.label, basis.parameters, embedding, tied=tied, width=width)
        if size and quant.whole and quant.label not in found:
            words: tuple[Provenance, str] = ("formula", f"parameters × bits of {quant.label}")
            words = ("exact", "size of the file on the Hub") if quant.size else words
            twice = size_of(quant.label, embedding, embedding, tied=True, width=width) or 0
            header = Header({"tokenizer.ggml.tokens": shape.vocabulary}, (Tensor("all", (size,), 24),), {}, size)
            found[quant.label] = Sketch(f"{name}:{quant.label}", header, shape, size, twice if tied else 0, words)
    return dict(sorted(found.items(), key=lambda pair: pair[1].size))


def fit_gguf(models: dict[str, Sketch], request: Request, target: Target) -> Fit:
    """The verdict for the quantisation that suits the machine best."""
    if not models:
        return Fit("unknown", available=target.usable)
    plan = next(iter(models.values())).plan(request)
    plans = {label: _with_weights(plan, model, request) for label, model in models.items()}
    if best := recommended(plans, target):
        level: Level = "fits" if plans[best].level(target) == "fits" else "tight"
        return _said(level, best, plans[best], target)
    smaller = replace(request, kv_type="q8_0", flash_attention=True)
    possible = [label for label in reversed(plans) if plans[label].weights < target.usable]
    for label in possible:
        if (changed := models[label].plan(smaller)).level(target) != "no":
            return _said("cache", label, changed, target)
    for label in possible:
        if (length := plans[label].longest_context(target)) >= LEAST_CONTEXT:
            return _said("shorter", label, models[label].plan(replace(request, context_length=length)), target)
    least = next(iter(plans))
    return _said("no", least, plans[least], target)


def recommended(plans: dict[str, MemoryPlan], target: Target) -> str:
    """The quantisation to take, "" where none fits. The plans come smallest first.

    From four bits on an answer is hardly worse: the largest of these that leaves room for other things, else the
    smallest of these that fits well, else the largest that fits at all. Full precision only where nothing else is.
    """
    levels = {label: plan.level(target) for label, plan in plans.items()}
    fitting = [label for label in plans if levels[label] != "no"]
    lean = [label for label in fitting if (bits(label) or 0) < FULL_PRECISION] or fitting
    well = [label for label in lean if levels[label] == "fits"]
    good = [label for label in well if (bits(label) or 0) >= GOOD]
    roomy = [label for label in good if plans[label].total <= ROOMY * target.usable]
    return next((choice for choice in (roomy[-1:], good[:1], well[-1:], lean[-1:]) if choice), [""])[0]


def llama_shape(config: dict[str, Any]) -> Shape:
    """The shape under llama.cpp, which keeps all of a conversation where it does not know a family's windows."""
    shape = shape_of_config(config)
    if _family(shape.architecture) in WINDOWS:
        return shape
    layers = tuple(Layer(layer.key, layer.value, 0, layer.state) for layer in shape.layers)
    return replace(shape, layers=layers)


def stored(listing: Listing) -> tuple[Stored, ...]:
    """The tensors of its safetensors files by number format; none where there are no such files."""
    if not (size := listing.stored_bytes):
        return ()
    elements = sum(count for _, count in listing.stored)
    return tuple(Stored(dtype, count, size * count // elements) for dtype, count in listing.stored)


def basis_of(listing: Listing, settings: Settings) -> Basis | None:
    """What a verdict on this repository rests on; None where too little is known of it."""
    assets = settings.models.assets_dir
    if found := catalogue(settings).find(listing.name, listing.base):
        parameters = listing.parameters or found.listing.parameters or 0
        return _basis(assets, found.listing.name, parameters, known=True)
    parameters = listing.parameters or _from_name(listing.name) or 0
    if not parameters or not (listing.quants or listing.stored or listing.library == "transformers"):
        return None
    encoder = listing.task in ENCODERS
    like = _like(assets, _family(listing.architecture), round(math.log2(parameters), 1), encoder)
    return _basis(assets, like, parameters, known=False) if like else None


def basis_from(config: dict[str, Any], listing: Listing) -> Basis | None:
    """The same from a model's own configuration; None where that describes no model we can judge."""
    shape = llama_shape(config)
    if not shape.layers or not shape.embedding:
        return None
    return Basis(config, shape, listing.parameters or _from_name(listing.name) or 0, True)


@lru_cache(maxsize=4096)
def _basis(assets: Path, name: str, parameters: int, *, known: bool) -> Basis:
    found = read(assets / FILE).find(name)
    assert found
    return Basis(found.config, llama_shape(found.config), parameters, known)


@lru_cache(maxsize=512)
def _like(assets: Path, family: str, magnitude: float, encoder: bool) -> str:
    """The known model whose shape an unknown one gets: of its family and size, that with the largest KV cache."""
    kind = [known for known in read(assets / FILE).models if (known.listing.task in ENCODERS) == encoder]
    same = [known for known in kind if _family(known.listing.architecture) == family]
    near = sorted(same or kind, key=lambda known: _far(known, magnitude))[:LIKE]
    close = [known for known in near if _far(known, magnitude) < CLOSE] or near[:1]
    return max(close, key=lambda known: _kept(llama_shape(known.config))).listing.name if close else ""


def _far(known: Known, magnitude: float) -> float:
    return abs(math.log2(known.listing.parameters or 1) - magnitude)


def _kept(shape: Shape) -> int:
    return sum(layer.key + layer.value for layer in shape.layers)


def _family(architecture: str) -> str:
    """What transformers and llama.cpp call alike but for the spelling.

    >>> _family("qwen3_moe"), _family("gpt-oss")
    ('qwen3moe', 'gptoss')
    """
    return re.sub(r"[-_.]|text$", "", architecture.lower())


def _from_name(name: str) -> int | None:
    """Parameters as the name tells them.

    >>> [_from_name(name) for name in ("o/Llama-3.2-1B-GGUF", "o/Qwen3-30B-A3B", "o/Mixtral-8x7B", "o/b2b")]
    [1000000000, 30000000000, 47600000000, None]
    """
    found = BILLIONS.search(name.rpartition("/")[2])
    if not found:
        return None
    count = float(found[2]) * (1e9 if found[3].upper() == "B" else 1e6)
    return int(count * int(found[1]) * SHARED) if found[1] else int(count)


def _wanted(listing: Listing, basis: Basis, settings: Settings) -> int:
    limit = listing.context_length or basis.llama.context_limit
    return min(settings.models.context_length, limit or settings.models.context_length)


def _with_weights(plan: MemoryPlan, model: Sketch, request: Request) -> MemoryPlan:
    """The plan with the weights of another quantisation; everything else of it is the same."""
    terms = tuple(model._weights(request) if term.name == "weights" else term for term in plan.terms)
    return replace(plan, terms=terms, replan=model.plan)


def _fit_torch(plan: MemoryPlan, target: Target) -> Fit:
    level: Level = plan.level(target)
    if level == "no" and (length := plan.longest_context(target)) >= LEAST_CONTEXT:
        return _said("shorter", "", plan.at(context_length=length), target)
    return _said(level, "", plan, target)


def _said(level: Level, quant: str, plan: MemoryPlan, target: Target) -> Fit:
    return Fit(level, quant, plan.request.context_length, plan.total, target.usable)
