"""The plan of a GGUF model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from . import framework
from .context import settings_of
from .engine import Account
from .gguf import Header
from .gguf_shape import shape_of
from .llama import account_by_formula, refused
from .plan import MemoryPlan, Provenance, Request, Term, TermName
from .shape import Shape

ENGINE = "llama.cpp's own accounting of this model and these settings"
ON_PROCESSOR = "llama.cpp's own accounting on a processor; a GPU divides the same buffers otherwise"
ENDED = "llama.cpp's process ended while it laid this context out; loading it may end as well."
FORMULAS: dict[TermName, str] = {
    "kv_cache": "keys and values of every layer × tokens × conversations, as llama.cpp lays them out",
    "recurrent": "the running state of every recurrent layer, in float32, × conversations",
    "compute": "the widest moment of a forward pass, fitted to llama.cpp's accounting of 35 shapes",
    "output": "vocabulary × 4 bytes × conversations",
}


@dataclass(frozen=True)
class GgufModel:
    """A GGUF model by its header."""

    name: str
    header: Header

    @cached_property
    def shape(self) -> Shape:
        """The numbers of the architecture."""
        return shape_of(self.header)

    def plan(self, request: Request, account: Account | None = None, *, gpu: bool = False) -> MemoryPlan:
        """Its plan: by llama.cpp's `account` where there is one, else by formula. `gpu`: it was made on a GPU."""
        settings = settings_of(request)
        exact = account is not None and not account.refusal and not account.ended
        sizes = account if account and exact else account_by_formula(self.shape, settings)
        here = request.target.kind == "cpu" or gpu
        known: Provenance = "exact" if exact and here else "formula"
        says = (ENGINE if here else ON_PROCESSOR) if exact else ""
        measured = {
            "kv_cache": sizes.kv_cache,
            "recurrent": sizes.recurrent,
            "compute": sizes.compute,
            "output": sizes.output,
        }
        return MemoryPlan(
            model=self.name,
            request=request,
            terms=(
                self._weights(request),
                *(Term(name, measured[name], known, says or words) for name, words in FORMULAS.items()),
                self._framework(request),
            ),
            engine="llama.cpp",
            context_limit=self.shape.context_limit,
            refusal=account.refusal if account else refused(self.shape, settings),
            notes=(*self._notes(request), *[ENDED] * bool(account and account.ended)),
            replan=self.plan,
        )

    def _weights(self, request: Request) -> Term:
        """Tensors; where the input embedding is the output layer too, a GPU has a copy of it."""
        size, embedding = self.header.weights, self.header.tensor("token_embd.weight")
        if request.target.kind == "cpu" or self.header.tensor("output.weight") or not embedding:
            return Term("weights", size, "exact", "sum of the tensors in the file's header")
        words = "tensors in the header, the embedding twice: at the input in main memory, at the output on the GPU"
        return Term("weights", size + embedding.size, "formula", words)

    def _framework(self, request: Request) -> Term:
        tokens = self.header.facts.get("tokenizer.ggml.tokens")
        kind = request.target.kind
        size = framework.llama(kind, tokens if isinstance(tokens, int) else 0)
        return Term("framework", size, "assumed", framework.source(kind))

    def _notes(self, request: Request) -> list[str]:
        limit = self.shape.context_limit
        if limit and request.context_length > limit:
            return [f"The model was trained for {limit:,} tokens; beyond them it may write nonsense."]
        return []
