"""KV caches: one that grows without copying itself at every token, and a store of those that answers left behind."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .prompt import common_prefix

SPARE = 256  # tokens of room added whenever a buffer is full
MOST_KEPT = 16  # caches; each is compared with every new prompt


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The library's plain layer, which copies all it holds at every token, with room for tokens to come.

    `keys` and `values` are views, shape (1, KV heads, tokens, head size), of buffers with more tokens.
    """

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = 0
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._room:
            self._room = end + max(SPARE, end // 4)
            self._key_buffer = _roomier(self.keys, key_states, start, self._room)
            self._value_buffer = _roomier(self.values, value_states, start, self._room)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self.keys = self._key_buffer[:, :, :end]
        self.values = self._value_buffer[:, :, :end]
        return self.keys, self.values


def _roomier(held: torch.Tensor | None, new: torch.Tensor, used: int, room: int) -> torch.Tensor:
    buffer = new.new_empty((*new.shape[:2], room, new.shape[3]))
    if held is not None and used:
        buffer[:, :, :used] = held
    return buffer


def empty_cache(config: Any) -> Any:
    """A cache as the architecture needs it, its full-attention layers roomy."""
    cache = DynamicCache(config=config)
    cache.layers = [_roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_argument(model: Any) -> str:
    """The argument by which a model takes its cache, which transformers 5.24 has renamed; empty where it takes none."""
    takes = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in takes), "")


def _roomy() -> RoomyLayer:
    return RoomyLayer()  # type: ignore[no-untyped-call]


def _is_plain(cache: Any) -> bool:
    """Whether every layer keeps every token, so that a part of the tokens is a part of the cache."""
    return all(type(layer) is RoomyLayer for layer in cache.layers)


def _copy(cache: Any, config: Any, tokens: int) -> Any:
    copied = empty_cache(config)
    for new, old in zip(copied.layers, cache.layers, strict=True):
        if old.is_initialized:
            new.update(old.keys[:, :, :tokens], old.values[:, :, :tokens])
    return copied


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A cache and the tokens it holds."""

    tokens: tuple[int, ...]
    cache: Any

    @property
    def size(self) -> int:
        """Bytes, room for tokens to come included."""
        layers = [layer for layer in self.cache.layers if isinstance(layer, RoomyLayer) and layer.is_initialized]
        return sum(layer._key_buffer.nbytes + layer._value_buffer.nbytes for layer in layers)


class PrefixStore:
    """Caches of earlier prompts and answers, the newest last, within `budget` bytes."""

    def __init__(self, config: Any, budget: int) -> None:
        self._config = config
        self._budget = budget
        self._kept: list[Kept] = []
        self.cuts = _is_plain(empty_cache(config))  # whether a part of a cache can be taken

    @property
    def tokens(self) -> int:
        """How many tokens the kept caches hold."""
        return sum(len(kept.tokens) for kept in self._kept)

    def take(self, prompt: Sequence[int], used: Sequence[Kept] = ()) -> Kept:
        """A cache with the longest beginning of `prompt` that any cache holds, but not its last token.

        The last one is always evaluated: its logits are what the answer begins with. A sliding window or a recurrent
        state cannot be cut, so such a cache serves only where it is a beginning as it stands.
        `used`: caches of answers under way, which are copied.
        """
        cut = [kept for kept in used if _is_plain(kept.cache)]
        best = max([*self._kept, *cut], key=lambda kept: self._usable(kept, prompt), default=None)
        shared = self._usable(best, prompt) if best else 0
        if not best or not shared:
            return Kept((), empty_cache(self._config))
        if shared == len(best.tokens) and best in self._kept:
            self._kept.remove(best)
            return best
        return Kept(best.tokens[:shared], _copy(best.cache, self._config, shared))

    def copy(self, cache: Any, tokens: int) -> Any:
        """A cache of its own with the first tokens of another, which can be cut."""
        return _copy(cache, self._config, tokens)

    def keep(self, tokens: Sequence[int], cache: Any) -> None:
        """Put a cache away; those it continues go, and the oldest where the budget is spent."""
        self._kept = [kept for kept in self._kept if common_prefix(kept.tokens, tokens) < len(kept.tokens)]
        self._kept.append(Kept(tuple(tokens), cache))
        while len(self._kept) > MOST_KEPT or sum(kept.size for kept in self._kept) > self._budget:
            self._kept.pop(0)

    def _usable(self, kept: Kept, prompt: Sequence[int]) -> int:
        shared = common_prefix(kept.tokens, prompt)
        if shared == len(kept.tokens) < len(prompt):
            return shared
        return min(shared, len(prompt) - 1) if _is_plain(kept.cache) else 0
