"""The new tokens of several answers through a model of the Llama family, in a few large operations.

The library's forward takes a thousand Python calls a token, which is most of the time of a small model on a processor
and of a large one on a GPU. Here projections of one input are one matrix, rotations come from a table, and the tokens
of all answers share every matrix product; only attention, whose caches differ in length, is done for each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from .torch_cache import RoomyLayer, empty_cache

FAMILY = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})


class LlamaStep:
    """Evaluates the next tokens of each answer: one while it is written, a piece while its prompt is read."""

    def __init__(self, model: Any, context: int) -> None:
        """`model`: one that `suits`. Its projections become views of joined matrices, so no weight is held twice."""
        inner, self._head = model.model, model.lm_head.weight
        self._embedding = inner.embed_tokens.weight
        self._norm = inner.norm
        self._layers = [_Layer(layer) for layer in inner.layers]
        positions = torch.arange(context, device=self._embedding.device)[None]
        cos, sin = inner.rotary_emb(self._embedding[:1, None], positions)
        half = sin.shape[-1] // 2
        self._cos = cos[0, :, None]
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), -1)[:, None]

    def __call__(self, tokens: Sequence[Sequence[int]], caches: Sequence[Any]) -> Tensor:
        """The logits after the last token of each, shape (answers, vocabulary); each cache then holds its tokens."""
        held = [cache.layers[0].get_seq_length() for cache in caches]
        at = [start + i for start, some in zip(held, tokens, strict=True) for i in range(len(some))]
        cos, sin = self._cos[at], self._sin[at]  # (tokens, 1, head size)
        x = self._embedding[[token for some in tokens for token in some]]  # (tokens, hidden)
        parts = _parts(held, tokens, x.device)
        for number, layer in enumerate(self._layers):
            x = layer(x, cos, sin, parts, [cache.layers[number] for cache in caches])
        last = x if len(x) == len(tokens) else x[[part.end - 1 for part in parts]]
        return linear(_normed(last, self._norm), self._head)


class _Part(NamedTuple):
    """The rows of one answer, and for several tokens after others which ones each may look at."""

    start: int
    end: int
    mask: Tensor | None  # (tokens, tokens in the cache)


def _parts(held: Sequence[int], tokens: Sequence[Sequence[int]], device: torch.device) -> list[_Part]:
    parts, start = [], 0
    for before, some in zip(held, tokens, strict=True):
        count, mask = len(some), None
        if before and count > 1:
            mask = torch.ones(count, before + count, dtype=torch.bool, device=device).tril(before)
        parts.append(_Part(start, start + count, mask))
        start += count
    return parts


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norm, self._norm_after = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self._gate_up = _joined(mlp.gate_proj, mlp.up_proj)
        self._out, self._down = attention.o_proj, mlp.down_proj
        self._size = attention.head_dim
        self._kv_heads = attention.k_proj.out_features // self._size
        self._heads = attention.q_proj.out_features // self._size
        self._scale = attention.scaling
        self._eps, self._per_head = _head_norms(attention, self._heads, self._kv_heads)

    def __call__(
        self, x: Tensor, cos: Tensor, sin: Tensor, parts: Sequence[_Part], caches: Sequence[RoomyLayer]
    ) -> Tensor:
        seen = self._attend(_normed(x, self._norm), cos, sin, parts, caches)
        x = x + linear(seen, self._out.weight, self._out.bias)
        gate, up = linear(_normed(x, self._norm_after), *self._gate_up).chunk(2, -1)
        return x + linear(silu(gate) * up, self._down.weight, self._down.bias)

    def _attend(
        self, x: Tensor, cos: Tensor, sin: Tensor, parts: Sequence[_Part], caches: Sequence[RoomyLayer]
    ) -> Tensor:
        turning = self._heads + self._kv_heads  # values are not rotated
        qkv = linear(x, *self._qkv).view(len(x), turning + self._kv_heads, self._size)
        turned = qkv[:, :turning]
        if self._per_head is not None:
            turned = rms_norm(turned, (self._size,), None, self._eps) * self._per_head
        turned = torch.addcmul(turned * cos, turned.roll(self._size // 2, -1), sin)
        rows = []
        for (start, end, mask), cache in zip(parts, caches, strict=True):
            query, key = turned[start:end, : self._heads], turned[start:end, self._heads :]
            keys, values = cache.update(_by_head(key), _by_head(qkv[start:end, turning:]))
            rows.append(self._one(query, keys, values) if end - start == 1 else self._some(query, keys, values, mask))
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _one(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of one token. The heads that share keys are asked as so many tokens of one head."""
        grouped = query.reshape(1, self._kv_heads, -1, self._size)
        return scaled_dot_product_attention(grouped, keys, values, scale=self._scale).reshape(1, -1)

    def _some(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of several tokens; without a mask they are the first ones."""
        seen = scaled_dot_product_attention(
            _by_head(query), keys, values, mask, is_causal=mask is None, scale=self._scale, enable_gqa=True
        )
        return seen[0].transpose(0, 1).reshape(len(query), -1)


def suits(model: Any) -> bool:
    """Whether this is a Llama without anything that `LlamaStep` does not know."""
    if type(model).__name__ not in FAMILY:
        return False
    plain = all(type(layer) is RoomyLayer for layer in empty_cache(model.config).layers)
    weights = (m for name, m in model.named_modules() if name.endswith("_proj"))
    usual = model.config.hidden_act == "silu" and model.lm_head.bias is None
    return plain and usual and all(type(m) is torch.nn.Linear for m in weights)


def _by_head(rows: Tensor) -> Tensor:
    """(tokens, heads, head size) as (1, heads, tokens, head size)."""
    return rows.transpose(0, 1)[None]


def _normed(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _head_norms(attention: Any, heads: int, kv_heads: int) -> tuple[float, Tensor | None]:
    """Qwen 3 norms queries and keys before they turn: the epsilon, and weights, shape (all their heads, head size)."""
    if not hasattr(attention, "q_norm"):
        return 0.0, None
    query, key = attention.q_norm, attention.k_norm
    return query.variance_epsilon, torch.cat((query.weight.expand(heads, -1), key.weight.expand(kv_heads, -1)))


def _joined(*projections: torch.nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Their weights and biases as one; the projections keep views, so that the library's forward still works."""
    weight = torch.cat([p.weight for p in projections])
    biased = any(p.bias is not None for p in projections)
    biases: list[Tensor] = [torch.zeros_like(p.weight[:, 0]) if p.bias is None else p.bias for p in projections]
    start = 0
    for projection in projections:
        end = start + projection.out_features
        projection.weight = torch.nn.Parameter(weight[start:end], requires_grad=False)
        start = end
    return weight, torch.cat(biases) if biased else None
