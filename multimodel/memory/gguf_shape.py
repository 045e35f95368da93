"""The shape that the header of a GGUF file describes.

The keys are llama.cpp's, as its loader reads them; where a file leaves something to the architecture, so does the
table here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .gguf import Header, vocabulary
from .shape import MOST_LAYERS, Layer, Shape, whole

PERIOD = {  # layers of which the last one sees all, where the file has no pattern of its own
    **{"gemma2": 2, "gemma3": 6, "gemma-embedding": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4},
    **{"exaone-moe": 4, "olmo2": 4, "llama4": 4, "smallthinker": 4, "afmoe": 4, "plamo3": 8},
}
CACHELESS = frozenset({"bert", "nomic-bert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"})
ALWAYS_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv7", "arwkv7", "rwkv6qwen2"})
BOTH = frozenset({"falcon-h1"})  # attention and a running state in every layer
WITH_PLAIN_LAYERS = frozenset({"nemotron_h", "nemotron_h_moe"})  # layers of feed-forward alone
CHUNK = 8192  # tokens: Llama 4's window, which its files do not state


def shape_of(header: Header) -> Shape:
    """The shape of the model, as far as its header tells."""
    count = min(whole(header.fact("block_count")), MOST_LAYERS)
    heads = per_layer(header.fact("attention.head_count"), count)
    forward = per_layer(header.fact("feed_forward_length"), count)
    embedding = whole(header.fact("embedding_length"))
    latent = header.fact("attention.key_length_mla") is not None
    width, shared = whole(header.fact("expert_feed_forward_length")), whole(header.fact("expert_shared_count"))
    used = whole(header.fact("expert_used_count"))
    return Shape(
        architecture=header.architecture,
        layers=tuple(_layer(header, i, count) for i in range(count)),
        embedding=embedding,
        vocabulary=vocabulary(header),
        heads=max(heads, default=0),
        query=max((_query(header, i, heads[i], latent) for i in range(count)), default=0),
        head=_head(header, "key", 0),
        feed_forward=0 if used and not shared else max(shared * width, *forward, 0),
        gated=_gated(header, max(forward, default=0)),
        experts_used=used,
        expert_width=width or max(forward, default=0),
        latent=whole(header.fact("attention.kv_lora_rank")) if latent else 0,
        inner=whole(header.fact("ssm.inner_size")),
        context_limit=whole(header.fact("context_length")) or None,
    )


def _gated(header: Header, width: int) -> bool:
    """Whether there are gates: tensors of their own, or a part of twice as wide ones."""
    rows = [t.shape[1] for t in header.tensors if t.name.endswith(".ffn_up.weight") and len(t.shape) > 1]
    return any("ffn_gate" in tensor.name for tensor in header.tensors) or max(rows, default=0) >= 2 * width > 0


def per_layer(value: Any, count: int) -> list[int]:
    """A fact that is one number for all layers, or one for each.

    >>> per_layer(8, 3), per_layer([8, 0], 3)
    ([8, 8, 8], [8, 0, 0])
    """
    if isinstance(value, list):
        return [whole(value[i]) if i < len(value) else 0 for i in range(count)]
    return [whole(value)] * count


def windowed(header: Header, index: int) -> bool:
    """Whether a layer looks back no further than the window."""
    pattern = header.fact("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return index < len(pattern) and bool(pattern[index])
    period = whole(pattern) or PERIOD.get(header.architecture, 0)
    return period > 0 and index % period < period - 1


def _window(header: Header) -> int:
    if header.architecture == "llama4":
        return CHUNK
    patterned = header.architecture in PERIOD or header.fact("attention.sliding_window_pattern") is not None
    return whole(header.fact("attention.sliding_window")) if patterned else 0


def _layer(header: Header, index: int, count: int) -> Layer:
    state = _state(header) if _recurrent(header, index, count) else 0
    if (state and header.architecture not in BOTH) or header.architecture in CACHELESS:
        return Layer(state=state)
    window = _window(header) if windowed(header, index) else 0
    if index >= count - whole(header.fact("attention.shared_kv_layers")):
        return Layer(state=state)  # it reads the cache of an earlier one
    heads = per_layer(_kv_heads(header), count)[index]
    key, value = _head(header, "key", index), _head(header, "value", index)
    if header.fact("attention.key_length_mla") is not None:
        pointer = whole(header.fact("attention.indexer.key_length"))  # of sparse attention, to find what to look at
        return Layer(key=key * heads + pointer, window=window)  # the values are a part of the keys
    return Layer(key * heads, value * heads, window, state)


def _kv_heads(header: Header) -> Any:
    found = header.fact("attention.head_count_kv")
    return header.fact("attention.head_count") if found is None else found


def _head(header: Header, what: str, index: int) -> int:
    """Numbers of a head's key or value in a layer."""
    own = whole(header.fact(f"attention.{what}_length_swa")) if windowed(header, index) else 0
    heads = max(per_layer(header.fact("attention.head_count"), index + 1), default=0)
    plain = whole(header.fact("embedding_length")) // heads if heads else 0
    return own or whole(header.fact(f"attention.{what}_length")) or plain


def _query(header: Header, index: int, heads: int, latent: bool) -> int:
    width = whole(header.fact("attention.key_length_mla")) if latent else _head(header, "key", index)
    return heads * width


def _recurrent(header: Header, index: int, count: int) -> bool:
    """Whether a layer carries a running state."""
    if header.architecture in ALWAYS_RECURRENT | BOTH:
        return True
    said, interval = header.fact("attention.recurrent_layers"), whole(header.fact("full_attention_interval"))
    if isinstance(said, Sequence):
        return index < len(said) and bool(said[index])
    if interval:
        return (index + 1) % interval != 0
    if not _state(header):
        return False
    plain = per_layer(header.fact("feed_forward_length"), count)[index] and header.architecture in WITH_PLAIN_LAYERS
    return not plain and per_layer(_kv_heads(header), count)[index] == 0


def _state(header: Header) -> int:
    """Numbers of running state that a recurrent layer carries for a sequence, as llama.cpp lays them out."""
    embedding, conv = whole(header.fact("embedding_length")), whole(header.fact("ssm.conv_kernel"))
    if head := whole(header.fact("wkv.head_size")):
        return (whole(header.fact("token_shift_count"), 2) + head) * embedding
    if short := whole(header.fact("shortconv.l_cache")):
        return embedding * (short - 1)
    if head := whole(header.fact("kda.head_dim")):
        inner = head * max(per_layer(header.fact("attention.head_count"), 1))
        return 3 * max(0, conv - 1) * inner + head * inner
    inner, state = whole(header.fact("ssm.inner_size")), whole(header.fact("ssm.state_size"))
    channels = inner + 2 * whole(header.fact("ssm.group_count")) * state
    return max(0, conv - 1) * channels + state * inner
