"""The shape of a model, as far as it decides memory: what each layer keeps of a conversation, how wide it computes."""

from __future__ import annotations

from dataclasses import dataclass

MOST_LAYERS = 4096
MOST = 1 << 32  # of any one number of a shape: what is larger is a damaged or hostile file


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer keeps. Counts of numbers, not bytes."""

    key: int = 0  # a token's keys, over all KV heads
    value: int = 0  # a token's values
    window: int = 0  # tokens kept at most; 0: all
    state: int = 0  # the running state of a sequence, in float32, whatever its length


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model by its numbers."""

    architecture: str
    layers: tuple[Layer, ...]
    embedding: int
    vocabulary: int
    heads: int  # of the queries, in the layer with the most
    query: int  # a token's queries over all heads, likewise
    head: int = 0  # numbers of one head's key
    feed_forward: int = 0  # width of the widest dense layer, shared experts included
    gated: bool = True  # whether a feed-forward layer has a gate beside it, as nearly all since 2022
    experts_used: int = 0  # of a mixture, by each token
    expert_width: int = 0
    latent: int = 0  # numbers from which keys and values of all heads are made (MLA); 0: each head has its own
    inner: int = 0  # width of recurrent layers
    context_limit: int | None = None  # tokens it was trained for

    @property
    def key(self) -> int:
        """A token's keys in the layer that keeps the most."""
        return max((layer.key for layer in self.layers), default=0)

    @property
    def windows(self) -> tuple[int, ...]:
        """The different windows of its layers."""
        return tuple(sorted({layer.window for layer in self.layers if layer.window and layer.key}))

    @property
    def state(self) -> int:
        """Numbers of running state of a sequence, over all layers."""
        return sum(layer.state for layer in self.layers)


def elements(shape: Shape, tokens: int) -> int:
    """Numbers that the KV cache of one sequence of so many tokens holds: every layer up to its window."""
    return sum((layer.key + layer.value) * _kept(layer, tokens) for layer in shape.layers)


def _kept(layer: Layer, tokens: int) -> int:
    return min(tokens, layer.window) if layer.window else tokens


def whole(value: object, default: int = 0) -> int:
    """A count from a file: its default where it is no sensible one.

    >>> whole(4), whole(None), whole(-1), whole(1 << 40), whole("x", 7)
    (4, 0, 0, 0, 7)
    """
    sensible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST
    return int(value) if sensible else default  # type: ignore[call-overload]
