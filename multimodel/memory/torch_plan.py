"""The plan of a transformers model: exact weights from safetensors headers, the rest by the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from ..folder import Tensor
from . import framework, training
from .config_shape import is_encoder, shape_of_config
from .plan import Admits, MemoryPlan, Request, Term, admitted
from .shape import Shape, elements
from .target import Target

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 2, "int4": 2}  # bytes of a number
PACKED = {"int8": 1.0, "int4": 0.625}  # bytes of a number in a linear layer; four bits have a scale and a middle for 32
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # what is converted; packed formats stay as they are
STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
LARGE_MODEL = 10**9  # parameters, from which on 8 bits are worth their rounding where memory asks for it
WITHOUT_LINEAR = frozenset({"gpt2", "openai-gpt"})  # model types whose layers are no `torch.nn.Linear`
SMALL_MODEL = 32 << 20  # bytes in float32: below, a processor's cache holds them, and float32 decodes quicker
ROOM = 4  # a full cache is made longer by this part of its length, so that it need not be copied at every token
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output_layer.weight")


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors of one number format in the files of a model."""

    format: str  # as the headers call it: F32, BF16, I8 ...
    elements: int
    size: int  # bytes


@dataclass(frozen=True)
class TorchModel:
    """A transformers model by its configuration and the headers of its weights."""

    name: str
    config: Mapping[str, Any] = field(hash=False)
    stored: tuple[Stored, ...]
    embedding: Stored | None = None  # the input embedding, where it is not the output layer too
    tokenizer: bool = True
    exact: bool = True  # False: sizes are not from the headers
    linear: int = 0  # parameters of linear layers, which can be packed

    @cached_property
    def shape(self) -> Shape:
        """The numbers of the architecture."""
        return shape_of_config(self.config)

    @property
    def parameters(self) -> int:
        """Numbers in floating point; those packed into integers are not counted."""
        return sum(stored.elements for stored in self.stored if stored.format in FLOATS)

    def plan(self, request: Request, admits: Admits = admitted) -> MemoryPlan:
        """Its plan: for generation, or where the request says so, for training. `admits`: see `dtype`."""
        dtype = self.dtype(request, admits)
        limit = self.shape.context_limit
        terms = self._training_terms(request) if request.training else self._terms(request, dtype)
        return MemoryPlan(
            model=self.name,
            request=request,
            terms=terms,
            dtype=dtype,
            context_limit=limit,
            notes=tuple(self._notes(request, dtype)),
            replan=partial(self.plan, admits=admits),
        )

    def dtype(self, request: Request, admits: Admits = admitted) -> str:
        """The number format it is loaded in: where nobody chose one, the best whose plan is admitted, or the last."""
        if request.dtype in WIDTH:
            return request.dtype
        *better, last = self.formats(request.target)
        if request.training:
            return (*better, last)[0]
        return next((dtype for dtype in better if admits(self.plan(replace(request, dtype=dtype)))), last)

    def formats(self, target: Target) -> tuple[str, ...]:
        """The number formats that memory chooses among, the best first.

        A processor computes the smallest models in float32, others in what it prefers; for want of memory in bfloat16,
        and large ones in 8 bits.
        """
        if target.kind != "cpu":
            return (target.dtype,)
        if self.weights("float32") < SMALL_MODEL:
            return ("float32",)
        packed = ("int8",) * bool(self.linear and self.parameters > LARGE_MODEL)
        return tuple(dict.fromkeys((target.dtype, "bfloat16", *packed)))

    def weights(self, dtype: str) -> int:
        """Bytes of the weights once loaded: floating point in `dtype`, packed formats as they are."""
        size = sum(converted(stored, dtype) for stored in self.stored)
        return size - round(self.linear * (WIDTH[dtype] - PACKED[dtype])) if dtype in PACKED else size

    def _terms(self, request: Request, dtype: str) -> tuple[Term, ...]:
        width, shape, kind = WIDTH[dtype], self.shape, request.target.kind
        cache = elements(shape, request.context_length) * width * request.sequences
        batch = activations(shape, request.batch_tokens, request.context_length) * width
        logits = shape.vocabulary * WIDTH["float32"] * request.sequences
        tokens = shape.vocabulary if self.tokenizer else 0
        return (
            self._weights(request, dtype),
            Term("kv_cache", cache, "formula", f"keys and values of every layer × tokens × {width} bytes"),
            Term("recurrent", shape.state * 4 * request.sequences, "formula", "running states, in float32"),
            Term("compute", batch + cache // ROOM, "formula", "the widest layer × batch, and room caches grow into"),
            Term("output", logits, "formula", "vocabulary × 4 bytes × conversations"),
            Term("framework", framework.torch(kind, tokens), "assumed", framework.source(kind)),
        )

    def _weights(self, request: Request, dtype: str) -> Term:
        """On a processor weights in the wanted format stay in the file, mapped: what nobody reads takes no memory."""
        size = self.weights(dtype)
        if not self.exact:
            return Term("weights", size, "assumed", "parameters × bytes: the headers of the files were not read")
        if request.target.kind != "cpu" or not self.embedding or STORED.get(self.embedding.format) != dtype:
            return Term("weights", size, "exact", f"sum of the tensors in the files' headers, as {dtype}")
        words = "tensors in the files' headers; of the input embedding only the rows of used tokens are read"
        return Term("weights", size - self.embedding.size, "exact", words)

    def _training_terms(self, request: Request) -> tuple[Term, ...]:
        assert request.training
        tokens = self.shape.vocabulary if self.tokenizer else 0
        kind = request.target.kind
        own = framework.torch(kind, tokens, training=True)
        return (
            *training.terms(self.shape, self.parameters, request.training, writes=not is_encoder(self.config)),
            Term("framework", own, "assumed", framework.source(kind)),
        )

    def _notes(self, request: Request, dtype: str) -> list[str]:
        notes = []
        limit = self.shape.context_limit
        if limit and not request.training and request.context_length > limit:
            notes.append(f"The model was trained for {limit:,} tokens; beyond them it may write nonsense.")
        if any(STORED.get(stored.format, dtype) != dtype for stored in self.stored):
            notes.append(f"It is stored in another format: loading as {dtype} reads the file beside it for a moment.")
        return notes


def converted(stored: Stored, dtype: str) -> int:
    """Bytes of tensors once they are loaded as `dtype`."""
    return stored.elements * WIDTH[dtype] if stored.format in FLOATS else stored.size


def activations(shape: Shape, batch: int, context: int) -> int:
    """Numbers alive at the widest moment of a forward pass over `batch` tokens, with the mask over the context."""
    width = max(shape.feed_forward, shape.experts_used * shape.expert_width, shape.inner)
    feed_forward = (3 if shape.gated else 2) * width + 4 * shape.embedding
    attention = 3 * shape.embedding + 3 * shape.query + 2 * shape.key
    return batch * (max(feed_forward, attention) + min(context, shape.context_limit or context))


def model_of(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, tokenizer: bool = True
) -> TorchModel:
    """The model that a configuration and the tensors of all its files are."""
    by_format: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        by_format.setdefault(tensor.dtype, []).append(tensor)
    stored = (Stored(f, sum(t.elements for t in some), sum(t.size for t in some)) for f, some in by_format.items())
    untied = any(name.endswith(HEADS) for name in tensors)
    embedding = next((t for name, t in tensors.items() if name.endswith(EMBEDDINGS)), None) if untied else None
    swapped = (t.elements for name, t in tensors.items() if t.dtype in FLOATS and _is_linear(name))
    return TorchModel(
        name,
        config,
        tuple(stored),
        Stored(embedding.dtype, embedding.elements, embedding.size) if embedding else None,
        tokenizer,
        linear=0 if config.get("model_type") in WITHOUT_LINEAR else sum(swapped),
    )


def _is_linear(name: str) -> bool:
    """Whether a tensor is the weight of a linear layer; experts are kept together in another form.

    >>> _is_linear("model.layers.0.mlp.up_proj.weight"), _is_linear("lm_head.weight"), _is_linear("model.norm.weight")
    (True, False, False)
    """
    apart = name.endswith(EMBEDDINGS + HEADS) or "norm" in name or ".experts." in name
    return name.endswith(".weight") and not apart
