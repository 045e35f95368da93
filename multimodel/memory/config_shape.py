"""The shape that the config.json of a transformers model describes, and what its library caches of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .shape import MOST_LAYERS, Layer, Shape, whole

Config = Mapping[str, Any]

NESTED = ("text_config", "language_config", "llm_config", "thinker_config", "decoder")
NAMES: dict[str, tuple[str, ...]] = {  # ours, and what configurations call it
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "embedding": ("hidden_size", "n_embd", "d_model", "dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num"),
    "head": ("head_dim", "kv_channels", "d_kv"),
    "feed_forward": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", "d_ff"),
    "context": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length"),
    "vocabulary": ("vocab_size", "n_vocab", "padded_vocab_size"),
    "experts_used": ("num_experts_per_tok", "top_k_experts", "moe_k"),
    "expert_width": ("moe_intermediate_size", "expert_intermediate_size"),
}
ENCODERS = frozenset({"bert", "distilbert", "roberta", "xlm-roberta", "electra", "deberta", "deberta-v2", "albert"}) | {
    *("mpnet", "modernbert", "camembert", "eurobert", "nomic_bert")
}
PERIOD = {  # layers of which the last one sees all, where the configuration lists none
    **{"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gemma3n_text": 5, "gpt_oss": 2, "cohere2": 4, "olmo3": 4},
    **{"exaone4": 4, "llama4_text": 4},
}
LATENT = frozenset({"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "longcat_flash"})
SLIDING = frozenset({"sliding_attention", "chunked_attention"})
STATEFUL = frozenset({"linear_attention", "mamba", "mamba2", "recurrent", "conv", "ssm"})
UNGATED = frozenset({"gpt2", "falcon", "phi", "phi-msft", "gpt_neox", "opt", "bloom", "gpt_bigcode", "starcoder2"})
LETTERS = {"*": "full_attention", "M": "mamba", "-": "none", "E": "none"}  # of Nemotron's hybrid pattern


def language_model(config: Config) -> Config:
    """The part of a configuration that describes the language model."""
    for name in NESTED:
        if isinstance(inner := config.get(name), Mapping):
            return language_model(inner)
    return config


def number(config: Config, name: str) -> int:
    """A number by our name, whatever the configuration calls it; 0 where it has none.

    >>> number({"n_head": 12}, "heads"), number({}, "heads")
    (12, 0)
    """
    return next((found for key in NAMES[name] if (found := whole(config.get(key)))), 0)


def shape_of_config(config: Config) -> Shape:
    """The shape of a model; zeros where the configuration uses names of its own."""
    text = language_model(config)
    count = min(number(text, "layers"), MOST_LAYERS)
    embedding, heads = number(text, "embedding") or whole(text.get("dim")), number(text, "heads")
    used = number(text, "experts_used")
    width = number(text, "feed_forward") or 4 * embedding
    decodes = not is_encoder(config)
    return Shape(
        architecture=str(text.get("model_type", "")),
        layers=tuple(_layer(text, kind, i) if decodes else Layer() for i, kind in enumerate(layer_kinds(text, count))),
        embedding=embedding,
        vocabulary=number(text, "vocabulary"),
        heads=heads,
        query=heads * max(_head(text, "full_attention"), whole(text.get("head_dim"))),
        feed_forward=0 if used and not whole(text.get("n_shared_experts")) else width,
        gated=text.get("model_type") not in UNGATED | ENCODERS,
        experts_used=used,
        expert_width=number(text, "expert_width") or width,
        latent=whole(text.get("kv_lora_rank")) if text.get("model_type") in LATENT else 0,
        inner=embedding * whole(text.get("expand"), 2) if text.get("ssm_state_size") or text.get("state_size") else 0,
        context_limit=number(text, "context") or None,
    )


def is_encoder(config: Config) -> bool:
    """Whether a model reads text and writes none."""
    text = language_model(config)
    named = config.get("architectures")
    writes = any("CausalLM" in str(n) or "Generation" in str(n) or "LMHead" in str(n) for n in named or ())
    return text.get("model_type") in ENCODERS and not writes


def layer_kinds(text: Config, count: int) -> list[str]:
    """What each layer is, in transformers' own words, with "none" for one that keeps nothing."""
    if isinstance(pattern := text.get("hybrid_override_pattern"), str):
        return [LETTERS.get(letter, "none") for letter in pattern[:count]]
    listed = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(listed, list) and listed:
        named = [str(listed[i % len(listed)]) for i in range(count)]
        return ["full_attention" if kind == "attention" else kind for kind in named]
    if interval := whole(text.get("full_attention_interval")):
        return ["full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(count)]
    if text.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return ["mamba"] * count
    windowed = whole(text.get("sliding_window")) and text.get("use_sliding_window") is not False
    period = whole(text.get("sliding_window_pattern")) or PERIOD.get(str(text.get("model_type")), 0)
    if windowed and period:
        return ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(count)]
    return ["sliding_attention" if windowed else "full_attention"] * count


def _layer(text: Config, kind: str, index: int) -> Layer:
    if kind == "none" or _without_attention(text, index) or _shared(text, index):
        return Layer()
    if kind in STATEFUL:
        return Layer(state=_state(text, kind))
    if text.get("model_type") in LATENT and (rank := whole(text.get("kv_lora_rank"))):
        rope, pointer = whole(text.get("qk_rope_head_dim")), whole(text.get("index_head_dim"))
        return Layer(key=rank + rope + pointer)
    window = whole(text.get("sliding_window")) or whole(text.get("attention_chunk_size"))
    each = _kv_heads(text, kind, index) * _head(text, kind)
    return Layer(each, each, window if kind in SLIDING else 0)


def _kv_heads(text: Config, kind: str, index: int) -> int:
    heads = number(text, "heads")
    if group := whole(_block(text, index).get("n_heads_in_group")):
        return heads // group
    if kind == "full_attention" and (wide := whole(text.get("num_global_key_value_heads"))):
        return wide
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    return number(text, "kv_heads") or heads


def _head(text: Config, kind: str) -> int:
    wide = whole(text.get("global_head_dim")) if kind == "full_attention" else 0
    heads = number(text, "heads")
    return wide or number(text, "head") or (number(text, "embedding") // heads if heads else 0)


def _block(text: Config, index: int) -> Config:
    """What Nemotron's configurations say of the attention of one layer."""
    blocks = text.get("block_configs")
    block = blocks[index] if isinstance(blocks, list) and index < len(blocks) else None
    found = block.get("attention") if isinstance(block, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _without_attention(text: Config, index: int) -> bool:
    block = _block(text, index)
    return bool(block.get("no_op") or block.get("replace_with_linear"))


def _shared(text: Config, index: int) -> bool:
    """Whether a layer reads the cache of an earlier one."""
    return index >= number(text, "layers") - whole(text.get("num_kv_shared_layers"))


def _state(text: Config, kind: str) -> int:
    """Numbers of running state that a layer carries for a sequence."""
    embedding = number(text, "embedding")
    if kind == "conv":
        return embedding * whole(text.get("conv_L_cache"), 3)
    if keys := whole(text.get("linear_num_key_heads")):
        key, value = whole(text.get("linear_key_head_dim")), whole(text.get("linear_value_head_dim"))
        heads, conv = whole(text.get("linear_num_value_heads")), whole(text.get("linear_conv_kernel_dim"))
        return conv * (2 * keys * key + heads * value) + heads * key * value
    state = whole(text.get("ssm_state_size")) or whole(text.get("state_size")) or whole(text.get("mamba_d_state"))
    conv = whole(text.get("conv_kernel")) or whole(text.get("mamba_d_conv"))
    if heads := whole(text.get("mamba_num_heads")):
        inner = heads * whole(text.get("mamba_head_dim"))
        return conv * (inner + 2 * whole(text.get("n_groups"), 1) * state) + inner * state
    inner = whole(text.get("intermediate_size")) if "mamba" in str(text.get("model_type")) else 0
    inner = inner or embedding * (whole(text.get("expand")) or whole(text.get("mamba_expand"), 2))
    return (conv + state) * inner
