"""GGUF files of real models' shapes without their weights: a true header, then a hole of the right length.

A few kilobytes on disk each; llama.cpp takes them for the models they describe, as long as it reads no weight.
Numbers are those of the models' published configurations.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multimodel.memory.gguf import FORMATS

F32, F16, Q4_0, Q8_0, Q4_K, Q6_K = 0, 1, 2, 8, 12, 14
ALIGNMENT = 32


class Gguf:
    """A header in the making. Shapes have the contiguous axis first, as llama.cpp writes them."""

    def __init__(self, architecture: str, format: int = F16) -> None:
        self.architecture = architecture
        self.format = format
        self.facts: dict[str, Any] = {"general.architecture": architecture, "tokenizer.ggml.model": "none"}
        self.tensors: list[tuple[str, tuple[int, ...], int]] = []

    def say(self, **facts: Any) -> None:
        """Facts of the architecture; "__" stands for a dot. None is left out."""
        for key, value in facts.items():
            if value is not None:
                self.facts[f"{self.architecture}.{key.replace('__', '.')}"] = value

    def add(self, name: str, *shape: int, format: int | None = None) -> None:
        """One tensor `name`.weight; vectors are in F32, rows that do not divide into blocks in F16."""
        chosen = F32 if len(shape) == 1 else self.format if format is None else format
        if shape[0] % FORMATS[chosen][1]:
            chosen = F16
        self.tensors.append((name if name.endswith((".bias", "ssm_a", "ssm_d")) else f"{name}.weight", shape, chosen))

    def layer(self, index: int, **shapes: Sequence[int]) -> None:
        """Tensors of a layer; "__" stands for a dot."""
        for name, shape in shapes.items():
            self.add(f"blk.{index}.{name.replace('__', '.')}", *shape)

    @property
    def weights(self) -> int:
        """Bytes of the tensors."""
        return sum(_size(shape, format) for _, shape, format in self.tensors)

    def write(self, path: Path) -> Path:
        """The file, with a hole for its tensors; returns the path."""
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.facts))
        head += b"".join(_text(key) + _value(value) for key, value in self.facts.items())
        end = 0
        for name, shape, format in self.tensors:
            head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", format, end)
            end += -(-_size(shape, format) // ALIGNMENT) * ALIGNMENT
        head += bytes(-len(head) % ALIGNMENT)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + end)
        return path


def _size(shape: Sequence[int], format: int) -> int:
    _, block, width = FORMATS[format]
    return math.prod(shape) // block * width


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, code = (7, "?") if isinstance(value[0], bool) else (4, "I")
        return struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{code}", *value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def _start(
    architecture: str,
    layers: int,
    embedding: int,
    feed_forward: int | list[int],
    heads: int | list[int],
    kv_heads: int | list[int],
    vocabulary: int,
    context: int,
    *,
    format: int = F16,
    head: int | None = None,
    tied: bool = False,
    norm: str = "layer_norm_rms_epsilon",
) -> Gguf:
    """What nearly every model has outside its layers."""
    g = Gguf(architecture, format)
    g.say(block_count=layers, context_length=context, embedding_length=embedding, feed_forward_length=feed_forward)
    g.say(attention__head_count=heads, attention__head_count_kv=kv_heads, vocab_size=vocabulary)
    g.say(**{f"attention__{norm}": 1e-6})
    g.say(attention__key_length=head, attention__value_length=head, rope__dimension_count=head)
    outer = Q6_K if format == Q4_K else format
    g.add("token_embd", embedding, vocabulary, format=outer)
    g.add("output_norm", embedding)
    if not tied:
        g.add("output", embedding, vocabulary, format=outer)
    return g


def _attention(
    g: Gguf, i: int, e: int, q: int, kv: int, *, bias: bool = False, norm: int = 0, out: bool = False
) -> None:
    g.layer(i, attn_norm=[e], attn_q=[e, q], attn_k=[e, kv], attn_v=[e, kv], attn_output=[q, e])
    if bias:
        g.layer(i, attn_q__bias=[q], attn_k__bias=[kv], attn_v__bias=[kv])
    if norm:
        g.layer(i, attn_q_norm=[norm], attn_k_norm=[norm])
    if out:
        g.layer(i, attn_output__bias=[e])


def _experts(g: Gguf, i: int, e: int, width: int, count: int, *, gate: bool = True) -> None:
    g.add(f"blk.{i}.ffn_gate_inp", e, count, format=F32)
    if gate:
        g.layer(i, ffn_gate_exps=[e, width, count])
    g.layer(i, ffn_up_exps=[e, width, count], ffn_down_exps=[width, e, count])


def dense(
    architecture: str,
    layers: int,
    embedding: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    context: int,
    *,
    format: int = F16,
    head: int | None = None,
    tied: bool = False,
    bias: bool = False,
    norms: bool = False,
    gemma: bool = False,
    window: int | None = None,
    experts: tuple[int, int, int] | None = None,
) -> Gguf:
    """Llama, Mistral, Mixtral, Qwen 2 and 3, Gemma 2 and 3. `experts`: how many, how many used, their width."""
    g = _start(
        architecture, layers, embedding, feed_forward, heads, kv_heads, vocabulary, context,
        format=format, head=head, tied=tied,
    )  # fmt: skip
    g.say(attention__sliding_window=window)
    head = head or embedding // heads
    for i in range(layers):
        _attention(g, i, embedding, heads * head, kv_heads * head, bias=bias, norm=head if norms else 0)
        g.layer(i, ffn_norm=[embedding])
        if gemma:
            g.layer(i, post_attention_norm=[embedding], post_ffw_norm=[embedding])
        if experts:
            _experts(g, i, embedding, experts[2], experts[0])
        else:
            f = feed_forward
            g.layer(i, ffn_gate=[embedding, f], ffn_up=[embedding, f], ffn_down=[f, embedding])
    if experts:
        g.say(expert_count=experts[0], expert_used_count=experts[1], expert_feed_forward_length=experts[2])
    return g


def gpt_oss(layers: int = 24, experts: int = 32) -> Gguf:
    """gpt-oss: every second layer with a window of 128, sinks, biases."""
    e, heads, kv, head = 2880, 64, 8, 64
    g = _start("gpt-oss", layers, e, 2880, heads, kv, 201088, 131072, head=head)
    g.say(attention__sliding_window=128, expert_count=experts, expert_used_count=4, expert_feed_forward_length=2880)
    for i in range(layers):
        _attention(g, i, e, heads * head, kv * head, bias=True, out=True)
        g.layer(i, attn_sinks=[heads], post_attention_norm=[e], ffn_gate_inp__bias=[experts])
        _experts(g, i, e, 2880, experts)
        for name in ("gate", "up", "down"):
            g.add(f"blk.{i}.ffn_{name}_exps.bias", 2880, experts, format=F32)
    return g


def phi3(layers: int, e: int, f: int, heads: int, kv: int, vocabulary: int, *, tied: bool = False) -> Gguf:
    """Phi-3, 3.5 and 4: one matrix for queries, keys and values."""
    g = _start("phi3", layers, e, f, heads, kv, vocabulary, 131072, tied=tied)
    g.say(rope__dimension_count=e // heads)
    for i in range(layers):
        g.layer(i, attn_norm=[e], attn_qkv=[e, e + 2 * kv * (e // heads)], attn_output=[e, e])
        g.layer(i, ffn_norm=[e], ffn_up=[e, 2 * f], ffn_down=[f, e])
    return g


def phi2() -> Gguf:
    """Phi-2: attention and feed-forward side by side, biases everywhere."""
    e, f = 2560, 10240
    g = _start("phi2", 32, e, f, 32, 32, 51200, 2048, norm="layer_norm_epsilon")
    g.say(rope__dimension_count=32)
    g.add("output_norm.bias", e)
    g.add("output.bias", 51200)
    for i in range(32):
        g.layer(i, attn_norm=[e], attn_norm__bias=[e], attn_qkv=[e, 3 * e], attn_qkv__bias=[3 * e])
        g.layer(i, attn_output=[e, e], attn_output__bias=[e], ffn_up=[e, f], ffn_up__bias=[f])
        g.layer(i, ffn_down=[f, e], ffn_down__bias=[e])
    return g


def stablelm() -> Gguf:
    """StableLM 2: rotary positions over a quarter of each head."""
    e, f = 2048, 5632
    g = _start("stablelm", 24, e, f, 32, 32, 100352, 4096, norm="layer_norm_epsilon")
    g.say(rope__dimension_count=16, use_parallel_residual=False)
    g.add("output_norm.bias", e)
    for i in range(24):
        _attention(g, i, e, e, e, bias=True)
        g.layer(i, attn_norm__bias=[e], ffn_norm=[e], ffn_norm__bias=[e])
        g.layer(i, ffn_gate=[e, f], ffn_up=[e, f], ffn_down=[f, e])
    return g


def gpt2(layers: int, e: int, heads: int) -> Gguf:
    """GPT-2: learned positions."""
    g = _start("gpt2", layers, e, 4 * e, heads, heads, 50257, 1024, norm="layer_norm_epsilon")
    g.add("position_embd", e, 1024, format=F32)
    g.add("output_norm.bias", e)
    for i in range(layers):
        g.layer(i, attn_norm=[e], attn_norm__bias=[e], ffn_norm=[e], ffn_norm__bias=[e])
        g.layer(i, attn_qkv=[e, 3 * e], attn_qkv__bias=[3 * e], attn_output=[e, e], attn_output__bias=[e])
        g.layer(i, ffn_up=[e, 4 * e], ffn_up__bias=[4 * e], ffn_down=[4 * e, e], ffn_down__bias=[e])
    return g


def mamba(layers: int, e: int, vocabulary: int) -> Gguf:
    """Mamba: no attention at all."""
    inner, state, conv, rank = 2 * e, 16, 4, 256
    g = _start("mamba", layers, e, 0, 0, 0, vocabulary, 1 << 20)
    g.say(ssm__conv_kernel=conv, ssm__inner_size=inner, ssm__state_size=state, ssm__time_step_rank=rank)
    for i in range(layers):
        g.layer(i, attn_norm=[e], ssm_in=[e, 2 * inner], ssm_conv1d__bias=[inner], ssm_out=[inner, e])
        g.layer(i, ssm_x=[inner, rank + 2 * state], ssm_dt=[rank, inner], ssm_dt__bias=[inner], ssm_d=[inner])
        g.add(f"blk.{i}.ssm_conv1d", conv, inner, format=F32)
        g.add(f"blk.{i}.ssm_a", state, inner, format=F32)
    return g


def latent(
    layers: int,
    e: int,
    f: int,
    heads: int,
    vocabulary: int,
    context: int,
    experts: tuple[int, int, int],
    shared: int,
    lead: int,
    query_rank: int | None = None,
    architecture: str = "deepseek2",
) -> Gguf:
    """DeepSeek V2, V3 and Kimi K2: keys and values of all heads in one latent vector of 512, and 64 for positions."""
    rank, rope, plain, value = 512, 64, 128, 128
    count, used, width = experts
    g = _start(architecture, layers, e, f, heads, 1, vocabulary, context)
    g.say(attention__key_length=rank + rope, attention__value_length=rank, attention__kv_lora_rank=rank)
    g.say(attention__key_length_mla=plain + rope, attention__value_length_mla=value, rope__dimension_count=rope)
    g.say(attention__q_lora_rank=query_rank, leading_dense_block_count=lead, expert_count=count)
    g.say(expert_used_count=used, expert_shared_count=shared, expert_feed_forward_length=width)
    for i in range(layers):
        if query_rank:
            g.layer(
                i, attn_q_a=[e, query_rank], attn_q_a_norm=[query_rank], attn_q_b=[query_rank, heads * (plain + rope)]
            )
        else:
            g.layer(i, attn_q=[e, heads * (plain + rope)])
        g.layer(i, attn_norm=[e], attn_kv_a_norm=[rank], attn_kv_a_mqa=[e, rank + rope], ffn_norm=[e])
        g.layer(i, attn_k_b=[plain, rank, heads], attn_v_b=[rank, value, heads], attn_output=[heads * value, e])
        if i < lead:
            g.layer(i, ffn_gate=[e, f], ffn_up=[e, f], ffn_down=[f, e])
            continue
        _experts(g, i, e, width, count)
        both = shared * width
        g.layer(i, ffn_gate_shexp=[e, both], ffn_up_shexp=[e, both], ffn_down_shexp=[both, e])
    return g


def sparse(layers: int = 61, e: int = 7168) -> Gguf:
    """DeepSeek V3.2: the same as V3, and in every layer an indexer that chooses 2,048 tokens to look at."""
    g = latent(layers, e, 18432, 128, 129280, 163840, (256, 8, 2048), 1, 3, 1536, "deepseek32")
    heads, head = 64, 128
    g.say(attention__indexer__head_count=heads, attention__indexer__key_length=head, attention__indexer__top_k=2048)
    g.say(expert_group_count=8, expert_group_used_count=4, expert_gating_func=2, expert_weights_norm=True)
    for i in range(layers):
        g.layer(i, indexer__k_norm=[head], indexer__k_norm__bias=[head], indexer__proj=[e, heads])
        g.layer(i, indexer__attn_k=[e, head], indexer__attn_q_b=[1536, heads * head])
    return g


def bert(layers: int, e: int, f: int, heads: int, vocabulary: int = 30522) -> Gguf:
    """BERT and DistilBERT: every token sees every other, norms behind each part, nothing is written."""
    g = _start("bert", layers, e, f, heads, heads, vocabulary, 512, norm="layer_norm_epsilon", tied=True)
    g.tensors = [row for row in g.tensors if not row[0].startswith("output_norm")]
    g.say(attention__causal=False, pooling_type=0)
    g.facts["tokenizer.ggml.token_type_count"] = 2
    g.add("position_embd", e, 512, format=F32)
    g.add("token_types", e, 2, format=F32)
    g.add("token_embd_norm", e)
    g.add("token_embd_norm.bias", e)
    for i in range(layers):
        g.layer(i, attn_q=[e, e], attn_k=[e, e], attn_v=[e, e], attn_output=[e, e])
        g.layer(i, attn_q__bias=[e], attn_k__bias=[e], attn_v__bias=[e], attn_output__bias=[e])
        g.layer(i, attn_output_norm=[e], attn_output_norm__bias=[e], layer_output_norm=[e], layer_output_norm__bias=[e])
        g.layer(i, ffn_up=[e, f], ffn_up__bias=[f], ffn_down=[f, e], ffn_down__bias=[e])
    return g


def qwen35(layers: int, e: int, f: int, heads: int, kv: int, value_heads: int, format: int = F16) -> Gguf:
    """Qwen 3.5: three layers of linear attention, then one of full attention."""
    head, state, groups, conv, every = 256, 128, 16, 4, 4
    inner, keys = state * value_heads, state * groups
    g = _start("qwen35", layers, e, f, heads, kv, 248320, 262144, format=format)
    g.say(attention__key_length=head, attention__value_length=head, rope__dimension_count=64)
    g.say(rope__dimension_sections=[11, 11, 10, 0], full_attention_interval=every, ssm__conv_kernel=conv)
    g.say(ssm__state_size=state, ssm__group_count=groups, ssm__time_step_rank=value_heads, ssm__inner_size=inner)
    for i in range(layers):
        g.layer(i, attn_norm=[e], post_attention_norm=[e], ffn_gate=[e, f], ffn_up=[e, f], ffn_down=[f, e])
        if (i + 1) % every == 0:
            g.layer(i, attn_q=[e, 2 * head * heads], attn_k=[e, head * kv], attn_v=[e, head * kv])
            g.layer(i, attn_output=[head * heads, e], attn_q_norm=[head], attn_k_norm=[head])
            continue
        g.layer(i, attn_qkv=[e, 2 * keys + inner], attn_gate=[e, inner], ssm_dt__bias=[value_heads])
        g.layer(i, ssm_beta=[e, value_heads], ssm_alpha=[e, value_heads], ssm_norm=[state], ssm_out=[inner, e])
        g.add(f"blk.{i}.ssm_conv1d", conv, 2 * keys + inner, format=F32)
        g.add(f"blk.{i}.ssm_a", value_heads)
    return g


def gemma4(layers: int = 60) -> Gguf:
    """Gemma 4 31B: five layers with a window, then one without, whose heads are wider and fewer."""
    e, f, heads, head, wide = 5376, 21504, 32, 256, 512
    windowed = [i % 6 != 5 for i in range(layers)]
    kv = [16 if w else 4 for w in windowed]
    g = _start("gemma4", layers, e, f, heads, kv, 262144, 262144, tied=True)
    g.say(attention__key_length=wide, attention__value_length=wide, attention__key_length_swa=head)
    g.say(attention__value_length_swa=head, rope__dimension_count=wide, rope__dimension_count_swa=head)
    g.say(attention__sliding_window=1024, attention__sliding_window_pattern=windowed, attention__shared_kv_layers=0)
    g.say(embedding_length_per_layer_input=0)
    g.add("rope_freqs", wide // 2)
    for i in range(layers):
        width = head if windowed[i] else wide
        _attention(g, i, e, heads * width, kv[i] * width, norm=width)
        g.layer(i, ffn_norm=[e], post_attention_norm=[e], post_ffw_norm=[e], layer_output_scale=[1])
        g.layer(i, ffn_gate=[e, f], ffn_up=[e, f], ffn_down=[f, e])
    return g


def deci(layers: int = 80) -> Gguf:
    """Llama-Nemotron-Super 49B: heads of its own for every layer, 31 of which have no attention."""
    e, head = 8192, 128
    without = [i >= 42 and i % 80 < 73 for i in range(layers)]
    kv = [0 if w else 8 for w in without]
    heads = [0 if w else 64 for w in without]
    f = [5376 * (1 + i % 4) for i in range(layers)]
    g = _start("deci", layers, e, f, heads, kv, 128256, 131072)
    g.say(attention__key_length=head, attention__value_length=head, rope__dimension_count=head)
    for i in range(layers):
        if not without[i]:
            _attention(g, i, e, heads[i] * head, kv[i] * head)
        g.layer(i, ffn_norm=[e], ffn_gate=[e, f[i]], ffn_up=[e, f[i]], ffn_down=[f[i], e])
    return g


def nemotron_h(pattern: str = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME") -> Gguf:
    """Nemotron 3 Nano 30B: Mamba 2, six layers of attention, mixtures of 128 experts, each a layer of its own."""
    e, head, heads, kv, width, count, shared = 2688, 128, 32, 2, 1856, 128, 3712
    ssm_heads, ssm_head, groups, state, conv = 64, 64, 8, 128, 4
    inner = ssm_heads * ssm_head
    kvs = [kv if kind == "*" else 0 for kind in pattern]
    f = [width if kind == "E" else 0 for kind in pattern]
    g = _start("nemotron_h_moe", len(pattern), e, f, heads, kvs, 131072, 262144, head=head)
    g.say(attention__layer_norm_epsilon=1e-5)
    g.say(expert_count=count, expert_used_count=6, expert_shared_count=1, expert_feed_forward_length=width)
    g.say(expert_shared_feed_forward_length=shared, expert_weights_norm=True, expert_weights_scale=2.5)
    g.say(ssm__conv_kernel=conv, ssm__inner_size=inner, ssm__state_size=state, ssm__time_step_rank=ssm_heads)
    g.say(ssm__group_count=groups, expert_group_count=1, expert_group_used_count=1)
    for i, kind in enumerate(pattern):
        g.layer(i, attn_norm=[e])
        if kind == "*":
            q = heads * head
            g.layer(i, attn_q=[e, q], attn_k=[e, kv * head], attn_v=[e, kv * head], attn_output=[q, e])
        elif kind == "M":
            channels = inner + 2 * groups * state
            g.layer(i, ssm_in=[e, inner + channels + ssm_heads], ssm_conv1d__bias=[channels], ssm_out=[inner, e])
            g.layer(i, ssm_dt__bias=[ssm_heads], ssm_norm=[inner // groups, groups])
            g.add(f"blk.{i}.ssm_conv1d", conv, channels, format=F32)
            g.add(f"blk.{i}.ssm_a", 1, ssm_heads, format=F32)
            g.add(f"blk.{i}.ssm_d", 1, ssm_heads, format=F32)
        else:
            _experts(g, i, e, width, count, gate=False)
            g.layer(i, exp_probs_b__bias=[count], ffn_up_shexp=[e, shared], ffn_down_shexp=[shared, e])
    return g


MODELS: dict[str, Callable[[], Gguf]] = {
    "qwen2.5-0.5b Q8_0": lambda: dense(
        "qwen2", 24, 896, 4864, 14, 2, 151936, 32768, bias=True, tied=True, format=Q8_0
    ),
    "qwen3-0.6b": lambda: dense("qwen3", 28, 1024, 3072, 16, 8, 151936, 40960, head=128, norms=True, tied=True),
    "llama-3.2-1b Q4_K": lambda: dense("llama", 16, 2048, 8192, 32, 8, 128256, 131072, tied=True, format=Q4_K),
    "llama-3.2-3b": lambda: dense("llama", 28, 3072, 8192, 24, 8, 128256, 131072, head=128, tied=True),
    "llama-3.1-8b": lambda: dense("llama", 32, 4096, 14336, 32, 8, 128256, 131072),
    "llama-3.1-8b Q4_K": lambda: dense("llama", 32, 4096, 14336, 32, 8, 128256, 131072, format=Q4_K),
    "llama-3.1-405b": lambda: dense("llama", 126, 16384, 53248, 128, 8, 128256, 131072),
    "mistral-7b-v0.1": lambda: dense("llama", 32, 4096, 14336, 32, 8, 32000, 32768),
    "mixtral-8x22b": lambda: dense("llama", 56, 6144, 16384, 48, 8, 32000, 65536, experts=(8, 2, 16384)),
    "qwen2-7b": lambda: dense("qwen2", 28, 3584, 18944, 28, 4, 152064, 131072, bias=True),
    "qwen3-8b": lambda: dense("qwen3", 36, 4096, 12288, 32, 8, 151936, 40960, head=128, norms=True),
    "qwen3-32b": lambda: dense("qwen3", 64, 5120, 25600, 64, 8, 151936, 40960, head=128, norms=True),
    "qwen3-235b-a22b": lambda: dense(
        "qwen3moe", 94, 4096, 12288, 64, 4, 151936, 40960, head=128, norms=True, experts=(128, 8, 1536)
    ),
    "qwen3-30b-a3b": lambda: dense(
        "qwen3moe", 48, 2048, 6144, 32, 4, 151936, 40960, head=128, norms=True, experts=(128, 8, 768)
    ),
    "gemma-2-9b": lambda: dense(
        "gemma2", 42, 3584, 14336, 16, 8, 256000, 8192, head=256, tied=True, gemma=True, window=4096
    ),
    "gemma-2-27b": lambda: dense(
        "gemma2", 46, 4608, 36864, 32, 16, 256000, 8192, head=128, tied=True, gemma=True, window=4096
    ),
    "gemma-3-1b": lambda: dense(
        "gemma3", 26, 1152, 6912, 4, 1, 262144, 32768, head=256, norms=True, tied=True, gemma=True, window=512
    ),
    "gemma-3-4b Q4_K": lambda: dense(
        "gemma3", 34, 2560, 10240, 8, 4, 262144, 131072, head=256, norms=True, tied=True, gemma=True, window=1024,
        format=Q4_K,
    ),
    "gemma-3-27b": lambda: dense(
        "gemma3", 62, 5376, 21504, 32, 16, 262144, 131072, head=128, norms=True, tied=True, gemma=True, window=1024
    ),
    "gemma-4-31b": gemma4,
    "gpt-oss-20b": gpt_oss,
    "phi-2": phi2,
    "phi-3.5-mini": lambda: phi3(32, 3072, 8192, 32, 32, 32064),
    "phi-4-mini": lambda: phi3(32, 3072, 8192, 24, 8, 200064, tied=True),
    "stablelm-2-1.6b": stablelm,
    "gpt2": lambda: gpt2(12, 768, 12),
    "gpt2-large": lambda: gpt2(36, 1280, 20),
    "falcon-mamba-7b": lambda: mamba(64, 4096, 65024),
    "deepseek-v2-lite": lambda: latent(27, 2048, 10944, 16, 102400, 163840, (64, 6, 1408), 2, 1),
    "deepseek-v3": lambda: latent(61, 7168, 18432, 128, 129280, 163840, (256, 8, 2048), 1, 3, 1536),
    "kimi-k2": lambda: latent(61, 7168, 18432, 64, 163840, 131072, (384, 8, 2048), 1, 1, 1536),
    "qwen3.5-9b": lambda: qwen35(32, 4096, 12288, 16, 4, 32),
    "qwen3.5-27b": lambda: qwen35(64, 5120, 17408, 24, 4, 48),
    "nemotron-super-49b": deci,
    "nemotron-3-nano-30b": nemotron_h,
}  # fmt: skip
"""Real shapes by name; F16 where the name says no other format."""


def falcon(layers: int = 32, e: int = 4544, heads: int = 71) -> Gguf:
    """Falcon 7B: one head of keys and values for all, no gate."""
    g = _start("falcon", layers, e, 4 * e, heads, 1, 65024, 2048, norm="layer_norm_epsilon")
    g.add("output_norm.bias", e)
    for i in range(layers):
        g.layer(i, attn_norm=[e], attn_norm__bias=[e], attn_qkv=[e, e + 2 * (e // heads)], attn_output=[e, e])
        g.layer(i, ffn_up=[e, 4 * e], ffn_down=[4 * e, e])
    return g


def starcoder2(layers: int = 30, e: int = 3072, f: int = 12288, heads: int = 24, kv: int = 2) -> Gguf:
    """StarCoder2 3B: grouped heads, biases, no gate."""
    g = _start("starcoder2", layers, e, f, heads, kv, 49152, 16384, norm="layer_norm_epsilon")
    g.add("output_norm.bias", e)
    for i in range(layers):
        _attention(g, i, e, e, kv * (e // heads), bias=True, out=True)
        g.layer(i, attn_norm__bias=[e], ffn_norm=[e], ffn_norm__bias=[e])
        g.layer(i, ffn_up=[e, f], ffn_up__bias=[f], ffn_down=[f, e], ffn_down__bias=[e])
    return g


UNSEEN: dict[str, Callable[[], Gguf]] = {
    "tinyllama-1.1b Q4_0": lambda: dense("llama", 22, 2048, 5632, 32, 4, 32000, 2048, format=Q4_0),
    "llama-2-7b Q4_K": lambda: dense("llama", 32, 4096, 11008, 32, 32, 32000, 4096, format=Q4_K),
    "llama-3.1-70b Q4_K": lambda: dense("llama", 80, 8192, 28672, 64, 8, 128256, 131072, format=Q4_K),
    "qwen2.5-14b Q8_0": lambda: dense("qwen2", 48, 5120, 13824, 40, 8, 152064, 131072, bias=True, format=Q8_0),
    "qwen3-1.7b": lambda: dense("qwen3", 28, 2048, 6144, 16, 8, 151936, 40960, head=128, norms=True, tied=True),
    "qwen3-4b Q4_K": lambda: dense(
        "qwen3", 36, 2560, 9728, 32, 8, 151936, 40960, head=128, norms=True, tied=True, format=Q4_K
    ),
    "gemma-2-2b Q8_0": lambda: dense(
        "gemma2", 26, 2304, 9216, 8, 4, 256000, 8192, head=256, tied=True, gemma=True, window=4096, format=Q8_0
    ),
    "gemma-3-12b Q4_K": lambda: dense(
        "gemma3", 48, 3840, 15360, 16, 8, 262144, 131072, head=256, norms=True, tied=True, gemma=True, window=1024,
        format=Q4_K,
    ),
    "mixtral-8x7b Q4_K": lambda: dense(
        "llama", 32, 4096, 14336, 32, 8, 32000, 32768, experts=(8, 2, 14336), format=Q4_K
    ),
    "gpt2-medium": lambda: gpt2(24, 1024, 16),
    "phi-4-14b": lambda: phi3(40, 5120, 17920, 40, 10, 100352),
    "qwen3.5-4b Q4_K": lambda: qwen35(32, 2560, 9216, 16, 4, 32, format=Q4_K),
    "deepseek-v3.2": sparse,
    "distilbert": lambda: bert(6, 768, 3072, 12),
    "bert-large": lambda: bert(24, 1024, 4096, 16),
    "falcon-7b": falcon,
    "starcoder2-3b": starcoder2,
}  # fmt: skip
"""Shapes that had no part in fitting the formula of `multimodel.memory.llama`."""
