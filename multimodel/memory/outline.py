"""A first answer for a model of which no more is known than its size: one row of a list of a thousand.

Everything but the size is what is usual for models of that size, so every term says "assumed".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import framework
from .context import CACHE_TYPES
from .plan import MemoryPlan, Request, Term
from .torch_plan import WIDTH, best_dtype

BILLION = 1e9
CACHE = 36_000  # numbers of KV cache a token has in a model of 8 billion parameters: that of models with grouped heads
BUFFER = 60_000  # numbers a token of a batch has at the widest moment of such a model
HEADS = 33  # scores and mask, without flash attention
VOCABULARY = 150_000
USUAL = "usual for models of this size: its header was not read"


@dataclass(frozen=True, slots=True)
class Outline:
    """A model by its size. `size`: bytes of its weights as they are stored, None where only `parameters` are known."""

    name: str
    engine: Literal["llama.cpp", "transformers"]
    parameters: int | None = None
    size: int | None = None
    context_limit: int | None = None

    def plan(self, request: Request) -> MemoryPlan:
        """Its plan, by rule of thumb."""
        gguf = self.engine == "llama.cpp"
        parameters = self.parameters or (self.size or 0) / (0.6 if gguf else 2)
        scale = parameters / (8 * BILLION)
        dtype = request.dtype if request.dtype in WIDTH else best_dtype(request.target, int(4 * parameters))
        width = CACHE_TYPES[request.kv_type][1] if gguf else WIDTH[dtype]
        cache = CACHE * scale**0.5 * width * request.context_length * request.sequences
        tokens = request.context_length * (0.5 if request.flash_attention or not gguf else HEADS * scale**0.3)
        kind = request.target.kind
        beside = framework.llama(kind, VOCABULARY) if gguf else framework.torch(kind, VOCABULARY)
        return MemoryPlan(
            model=self.name,
            request=request,
            terms=(
                self._weights(dtype),
                Term("kv_cache", int(cache), "assumed", USUAL),
                Term("recurrent", 0, "assumed", USUAL),
                Term("compute", int(4 * request.batch_tokens * (BUFFER * scale**0.5 + tokens)), "assumed", USUAL),
                Term("output", 4 * VOCABULARY * request.sequences, "assumed", USUAL),
                Term("framework", beside, "assumed", framework.source(kind)),
            ),
            engine=self.engine,
            context_limit=self.context_limit,
            replan=self.plan,
        )

    def _weights(self, dtype: str) -> Term:
        if self.engine == "llama.cpp" and self.size is not None:
            return Term("weights", self.size, "exact", "size of the files")
        if self.engine == "transformers" and self.parameters:
            return Term("weights", self.parameters * WIDTH[dtype], "formula", f"parameters × bytes of {dtype}")
        return Term("weights", self.size or 0, "assumed", "size of the files")
