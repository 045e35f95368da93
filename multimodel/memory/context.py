"""How a GGUF model is run here: what decides the size of its context, the same for the runtime and the estimate."""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware import Kind
from ..types import KVType, LoadOptions
from .plan import PADDING, Request
from .target import Target

CACHE_TYPES: dict[KVType, tuple[int, float]] = {  # llama.cpp's number of the type, bytes of one number
    "f32": (0, 4),
    "f16": (1, 2),
    "bf16": (30, 2),
    "q8_0": (8, 34 / 32),
    "q5_1": (7, 24 / 32),
    "q5_0": (6, 22 / 32),
    "q4_1": (3, 20 / 32),
    "q4_0": (2, 18 / 32),
    "iq4_nl": (20, 18 / 32),
}
OFF, ON = 0, 1  # llama.cpp's numbers for flash attention
DEFAULT_CONTEXT = 4096  # tokens
SLOTS = 8  # conversations at once, at most
CACHE_SHARE = 0.25  # of the memory that is free beside the weights, for the caches of conversations at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSettings:
    """A KV cache of `sequences` conversations of up to `length` tokens each, and the batch that fills it.

    Every sequence has a cache of its own: in a common one, attention also walks over the tokens of the others. Layers
    with a sliding window keep no more than the window. Logits are kept for one token of each sequence, not of a batch.
    """

    length: int
    sequences: int = 1
    batch_tokens: int = 512
    kv_type: KVType = "f16"
    flash_attention: bool = False

    @property
    def cells(self) -> int:
        """Tokens that a sequence has room for: its length, rounded up as llama.cpp does."""
        return -(-self.length // PADDING) * PADDING

    def params(self) -> dict[str, int | bool]:
        """The fields of `llama_context_params` that these settings are."""
        type_, _ = CACHE_TYPES[self.kv_type]
        return {
            "n_ctx": self.sequences * self.cells,
            "n_batch": self.batch_tokens,
            "n_ubatch": self.batch_tokens,
            "n_seq_max": self.sequences,
            "n_outputs_max": self.sequences,
            "flash_attn_type": ON if self.flash_attention else OFF,
            "type_k": type_,
            "type_v": type_,
            "kv_unified": False,
            "swa_full": False,
            "no_perf": True,
        }


def flash_attention(kind: Kind, kv_type: KVType = "f16", quicker: bool | None = None) -> bool:
    """Whether a model is run with flash attention.

    A GPU always is. Of a processor it depends, also on the model: `quicker` says what was found or asked for. Without
    it more memory is taken, so a plan of what is not known yet is one without. A quantised cache works only with it.
    """
    return kind != "cpu" or packed(kv_type) or bool(quicker)


def packed(kv_type: KVType) -> bool:
    """Whether the numbers of a cache are quantised in blocks."""
    return kv_type not in ("f32", "f16", "bf16")


def settings_of(request: Request) -> ContextSettings:
    """The settings that a request stands for."""
    return ContextSettings(
        length=request.context_length,
        sequences=request.sequences,
        batch_tokens=request.batch_tokens,
        kv_type=request.kv_type,
        flash_attention=request.flash_attention,
    )


def slots(free: int, each: int) -> int:
    """How many conversations at once, where nobody said: as many as fit into a share of the memory beside the weights.

    >>> slots(8 << 30, 512 << 20), slots(1 << 30, 512 << 20), slots(8 << 30, 1 << 20)
    (4, 1, 8)
    """
    return max(1, min(SLOTS, int(free * CACHE_SHARE) // max(1, each)))


def request_of(options: LoadOptions, target: Target, limit: int | None) -> Request:
    """What a model loaded with these options is to do. `limit`: tokens it was trained for."""
    longest = int(limit * options.rope_factor) if limit else None
    context = options.context_length or DEFAULT_CONTEXT
    kv_type = options.kv_type or "f16"
    return Request(
        context_length=min(context, longest) if longest else context,
        sequences=options.sequences or 1,
        kv_type=kv_type,
        flash_attention=flash_attention(target.kind, kv_type, options.flash_attention),
        target=target,
        dtype=options.dtype,
    )
