"""What a llama.cpp context takes, by formula: the fallback where llama.cpp itself cannot be asked.

The KV cache is exact for the architectures whose layers the shape describes. The buffer of a forward pass is as large
as its widest moment, which is attention, or a feed-forward layer. The coefficients are read off llama.cpp's own
accounting (0.3.36 of its Python package) of 35 shapes, two to 131,072 tokens, and are the same for all of them.
"""

from __future__ import annotations

from .context import CACHE_TYPES, ContextSettings, packed
from .engine import Account
from .plan import PADDING
from .shape import Layer, Shape

FLOAT = 4  # bytes
HALF = 2
BLOCK = 32  # numbers that a quantised cache packs together


def account_by_formula(shape: Shape, settings: ContextSettings) -> Account:
    """What a context of these settings takes, in bytes."""
    return Account(
        kv_cache=kv_cache(shape, settings),
        recurrent=FLOAT * shape.state * settings.sequences,
        compute=compute(shape, settings),
        output=FLOAT * shape.vocabulary * settings.sequences,
    )


def kv_cache(shape: Shape, settings: ContextSettings) -> int:
    """Bytes of the KV cache: of every layer, keys and values, in `cells` of each sequence.

    Without flash attention the values lie transposed, which needs rows of one length: that of the longest, even for
    layers without attention.
    """
    _, width = CACHE_TYPES[settings.kv_type]
    held = shape.layers if not shape.state else tuple(layer for layer in shape.layers if layer.key)
    uneven = len({layer.value for layer in held}) > 1 and not settings.flash_attention
    longest = max((layer.value for layer in held), default=0) if uneven else 0
    numbers = sum((layer.key + max(layer.value, longest)) * cells(layer, settings) for layer in held)
    return int(numbers * settings.sequences * width)


def cells(layer: Layer, settings: ContextSettings) -> int:
    """Tokens that a layer has room for: with a window no more than that, a batch, and what makes it a round number."""
    if not layer.window:
        return settings.cells
    return min(settings.cells, _padded(layer.window + settings.batch_tokens))


def compute(shape: Shape, settings: ContextSettings) -> int:
    """Bytes of the buffer of a forward pass."""
    batch, tokens = settings.batch_tokens, settings.cells
    seen = tokens if any(layer.key and not layer.window for layer in shape.layers) else 0
    masks = seen + sum(min(tokens, _padded(window + batch)) for window in shape.windows)
    logits = FLOAT * settings.sequences * (shape.vocabulary + 2 * shape.embedding)
    if settings.flash_attention:
        attention = batch * (FLOAT * _attention(shape) + HALF * masks) + _copied(shape, settings)
        return max(logits, attention, batch * (FLOAT * _feed_forward(shape) + HALF * masks))
    scores = shape.heads * (seen or max(_spans(shape, settings), default=0))
    width = FLOAT if settings.kv_type == "f32" else HALF
    gathered = width * shape.latent * seen * settings.sequences  # values, copied out of the keys they are part of
    attention = FLOAT * batch * (scores + masks + _attention(shape)) + gathered
    return max(logits, attention, FLOAT * batch * (_feed_forward(shape) + masks))


def _copied(shape: Shape, settings: ContextSettings) -> int:
    """Flash attention reads 16 bits a number: of a cache in f32 the keys and values of a layer are copied."""
    if settings.kv_type != "f32":
        return 0
    held = (layer for layer in shape.layers if layer.key)
    numbers = (cells(layer, settings) * (layer.key + (layer.value or shape.latent)) for layer in held)
    return HALF * settings.sequences * max(numbers, default=0)


def _spans(shape: Shape, settings: ContextSettings) -> list[int]:
    return [cells(layer, settings) for layer in shape.layers if layer.key]


def _attention(shape: Shape) -> int:
    """Numbers a token holds at the widest moment of attention, besides scores and masks."""
    if shape.latent:
        return 3 * shape.key * shape.heads
    if not shape.key:
        return 0
    return 3 * shape.embedding + 2 * shape.query + (4 if shape.windows else 2) * shape.key


def _feed_forward(shape: Shape) -> int:
    """Numbers a token holds at the widest moment of a feed-forward, mixture or recurrent layer."""
    width = max(shape.feed_forward, shape.experts_used * shape.expert_width)
    mixture = 2 * shape.experts_used * (shape.embedding + shape.expert_width)
    dense = 3 * width + 4 * shape.embedding if shape.gated else 2 * width + shape.embedding
    return max(dense, mixture, int(6.5 * shape.inner) if not shape.heads else 0)


def _padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING


def refused(shape: Shape, settings: ContextSettings) -> str:
    """Why llama.cpp makes no such context; "" where it does."""
    if not packed(settings.kv_type):
        return ""
    if not settings.flash_attention:
        return f"A KV cache in {settings.kv_type} needs flash attention."
    return f"Heads of {shape.head} numbers cannot be packed into {settings.kv_type}." if shape.head % BLOCK else ""
