"""The new tokens of several answers in one forward pass of the library, whatever the architecture.

All tokens are one row, so they share every matrix product; only attention, whose caches differ in length, is done for
each answer by itself, in place of the library's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .torch_cache import RoomyLayer, cache_argument, empty_cache

NAME = "multimodel_joint"
EAGER, SDPA = "eager", "sdpa"  # the library's names of its attentions: an architecture's own, and PyTorch's
LAYERS = (RoomyLayer, DynamicSlidingWindowLayer)  # whose masks follow from how many tokens they hold
KINDS = frozenset({"full_attention", "sliding_attention"})
STATIC_ROPE = frozenset({"default", "linear", "llama3", "proportional", "yarn"})  # whatever the length


class JointStep:
    """Evaluates the next tokens of each answer: one while it is written, a piece while its prompt is read."""

    def __init__(self, model: Any) -> None:
        """`model`: one that `serves` allows; from now on it has no other attention than this."""
        self._model = model
        self._cache_argument = cache_argument(model)
        self._own = model.config._attn_implementation
        AttentionInterface.register(NAME, _attend)
        model.set_attn_implementation(NAME)

    def __call__(self, tokens: Sequence[Sequence[int]], caches: Sequence[Any]) -> Tensor:
        """The logits after the last token of each, shape (answers, vocabulary); each cache then holds its tokens."""
        held = [cache.get_seq_length() for cache in caches]
        at = [start + i for start, some in zip(held, tokens, strict=True) for i in range(len(some))]
        joint = _Joint(caches, held, [len(some) for some in tokens], eager=self._own == EAGER)
        device = self._model.device
        out = self._model(
            input_ids=torch.tensor([[token for some in tokens for token in some]], device=device),
            position_ids=torch.tensor([at], device=device),
            logits_to_keep=torch.tensor([end - 1 for _, end in joint.spans], device=device),
            use_cache=True,
            joint=joint,
            **{self._cache_argument: joint},
        )
        logits: Tensor = out.logits[0]
        return logits

    def close(self) -> None:
        """Give the model the library's attention back."""
        self._model.set_attn_implementation(self._own)


class _Joint(Cache):
    """The caches of all answers as one, as far as a forward pass asks."""

    def __init__(self, caches: Sequence[Any], held: Sequence[int], counts: Sequence[int], *, eager: bool) -> None:
        """`held`, `counts`: tokens that each has, and is given; `eager`: masks are added to scores, not booleans."""
        super().__init__(layers=[])
        self._caches = caches
        self._held, self._counts = held, counts
        self._reads = max(counts) > 1
        self.eager = eager
        self.spans = list(pairwise([0, *accumulate(counts)]))  # where in the row the tokens of each answer are
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []  # of each: keys and values now in its cache, a mask

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self._held)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Give each answer's layer its new tokens, shape (1, KV heads, tokens, head size); they are returned as is."""
        self.seen = []
        for number, (start, end) in enumerate(self.spans):
            layer = self._caches[number].layers[layer_idx]
            keys, values = layer.update(key_states[:, :, start:end], value_states[:, :, start:end])
            mask = self._mask(number, keys, getattr(layer, "sliding_window", None)) if self._reads else None
            self.seen.append((keys, values, mask))
        return key_states, value_states

    def _mask(self, number: int, keys: Tensor, window: int | None) -> Tensor | None:
        """Which of the newest keys each new token may look at, shape (1, 1, tokens, keys); None: all before it."""
        count, known = self._counts[number], keys.shape[-2]
        whole = known == count and (window is None or count <= window)
        if count == 1 or (whole and not self.eager):
            return None
        key = number, known, window
        if key not in self._masks:
            end = self._held[number] + count
            queries = torch.arange(end - count, end, device=keys.device)[:, None]
            distance = queries - torch.arange(end - known, end, device=keys.device)
            seen = ((distance >= 0) & (distance < (window or end)))[None, None]
            self._masks[key] = torch.where(seen, 0, torch.finfo(keys.dtype).min).to(keys.dtype) if self.eager else seen
        return self._masks[key]


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, joint: _Joint, **how: Any
) -> tuple[Tensor, None]:
    """The library's attention for each answer by itself; `query` of shape (1, heads, tokens, head size)."""
    one = sys.modules[type(module).__module__].eager_attention_forward if joint.eager else sdpa_attention_forward
    rows = [
        one(module, query[:, :, start:end], keys, values, its, **how)[0]
        for (start, end), (keys, values, its) in zip(joint.spans, joint.seen, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1), None


def serves(model: Any) -> bool:
    """Whether the model's attention can be replaced, and no answer changes what another one's tokens mean."""
    config = model.config.get_text_config(decoder=True)
    able = getattr(model, "_supports_attention_backend", False) and config._attn_implementation in (EAGER, SDPA)
    kinds = set(getattr(config, "layer_types", None) or ()) <= KINDS
    plain = all(type(layer) in LAYERS for layer in empty_cache(config).layers)
    return bool(able and kinds and plain and _rope_kinds(config) <= STATIC_ROPE)


def _rope_kinds(config: Any) -> set[str]:
    rope = getattr(config, "rope_parameters", None) or {}
    each = rope.values() if rope and all(isinstance(value, dict) for value in rope.values()) else [rope]
    return {one.get("rope_type", "default") for one in each}
