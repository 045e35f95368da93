"""What a transformers model takes: its cache by the configuration, its weights by their headers, its training."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from bench.memory import encoder, trained
from multimodel.errors import BrokenFile
from multimodel.folder import Tensor, read_header
from multimodel.memory import MemoryPlan, Request, Training, target_of
from multimodel.memory.config_shape import is_encoder, layer_kinds, number, shape_of_config
from multimodel.memory.shape import Layer, elements
from multimodel.memory.subject import on_disk
from multimodel.memory.target import HERE, Target
from multimodel.memory.torch_plan import SMALL_MODEL, Stored, TorchModel, model_of
from multimodel.memory.training import BACKWARD, adapter

from .support import DATA, GUIDE_FOLDER, needs, needs_data

CARD = target_of(("RTX 4090", 24 << 30))
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def llama(**changes: Any) -> dict[str, Any]:
    return LLAMA | changes


def model(*stored: Stored, tokenizer: bool = False, **changes: Any) -> TorchModel:
    return TorchModel("some", llama(**changes), stored, tokenizer=tokenizer)


# The cache

PER_TOKEN = {  # numbers that a token takes in the caches of all layers
    "llama-3.1-8b": 32 * 2 * 8 * 128,
    "llama-3.1-405b": 126 * 2 * 8 * 128,
    "llama-3.2-3b": 28 * 2 * 8 * 128,
    "mixtral-8x22b": 56 * 2 * 8 * 128,
    "qwen2-7b": 28 * 2 * 4 * 128,
    "qwen3-0.6b": 28 * 2 * 8 * 128,  # heads wider than embedding ÷ heads
    "qwen3-8b": 36 * 2 * 8 * 128,
    "qwen3-32b": 64 * 2 * 8 * 128,
    "qwen3-235b-a22b": 94 * 2 * 4 * 128,
    "gpt2-large": 36 * 2 * 1280,
    "phi-2": 32 * 2 * 2560,
    "phi-4": 32 * 2 * 8 * 128,
    "stablelm-2-1.6b": 24 * 2 * 2048,
    "mistral-7b-v0.1": 32 * 2 * 8 * 128,
    "deepseek-v2-lite": 27 * (512 + 64),  # one latent vector for all heads
    "deepseek-v3.2": 61 * (512 + 64 + 128),
    "kimi-k2": 61 * (512 + 64),
    "llama-nemotron-super-49b": 49 * 2 * 8 * 128,  # 31 layers without attention
    "nemotron-3-nano-30b": 6 * 2 * 2 * 128,  # the rest is Mamba and experts
    "qwen3.5-27b": 16 * 2 * 4 * 256,  # every fourth layer
    "gemma-2-9b": 42 * 2 * 8 * 256,
    "gemma-2-27b": 46 * 2 * 16 * 128,
    "gemma-3-1b-it": 26 * 2 * 1 * 256,
    "gemma-4-31b-it-nvfp4": 50 * 2 * 16 * 256 + 10 * 2 * 4 * 512,
    "gpt-oss-20b": 24 * 2 * 8 * 64,
    "distilbert-base-uncased": 0,
}
FULL = {"gemma-2-9b": 21, "gemma-2-27b": 23, "gemma-3-1b-it": 4, "gemma-4-31b-it-nvfp4": 10, "gpt-oss-20b": 12}
"""How many layers see all tokens, where the others have a window."""


def config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "configs" / name / "config.json").read_text())
    return found


@needs_data("configs")
@pytest.mark.parametrize("name", PER_TOKEN)
def test_the_cache_of_real_configurations(name: str) -> None:
    shape = shape_of_config(config(name))
    assert elements(shape, 100) == 100 * PER_TOKEN[name]
    if name in FULL:
        assert sum(not layer.window for layer in shape.layers) == FULL[name]
        window = shape.windows[0]
        grown = elements(shape, 10 * window) - elements(shape, 9 * window)
        assert grown == sum(window * (layer.key + layer.value) for layer in shape.layers if not layer.window)


@needs_data("configs")
def test_no_configuration_is_left_out() -> None:
    there = {path.parent.name for path in (DATA / "configs").glob("*/config.json")}
    assert there == set(PER_TOKEN)


@needs("torch", "transformers")
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "qwen3_5_text", "deepseek_v2"])
def test_the_library_caches_what_we_say(name: str) -> None:
    """A real forward pass of a small model; its cache is counted."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    from multimodel.workers.torch_cache import cache_argument

    small: dict[str, Any] = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}
    special: dict[str, dict[str, Any]] = {
        "gpt2": {"vocab_size": 99, "n_embd": 64, "n_layer": 3, "n_head": 4},
        "gemma3_text": small | {"sliding_window": 12, "layer_types": None},
        "qwen3_5_text": small | {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16},
        "deepseek_v2": small
        | {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
        | {
            "head_dim": 8,
            "q_lora_rank": None,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
        }
        | {"moe_intermediate_size": 32},
    }
    options = {k: v for k, v in special.get(name, small).items() if v is not None}
    made = AutoConfig.for_model(name, **options)
    cache = DynamicCache(config=made)
    ours = shape_of_config(made.to_dict())
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_config(made)
        model(input_ids=torch.ones(1, 32).long(), use_cache=True, **{cache_argument(model): cache})
    kept = sum(t.numel() for layer in cache.layers for t in _tensors(layer, "keys", "values"))
    state = sum(t.numel() for layer in cache.layers for t in _states(layer))
    spared = sum((layer.key + layer.value) for layer in ours.layers if layer.window)  # it keeps one token less
    assert (kept, state) == (elements(ours, 32) - spared, ours.state)


def _tensors(layer: Any, *names: str) -> list[Any]:
    return [found for name in names if (found := getattr(layer, name, None)) is not None]


def _states(layer: Any) -> list[Any]:
    kept = [getattr(layer, name, {}) for name in ("conv_states", "recurrent_states")]
    return [tensor for states in kept for tensor in states.values() if tensor is not None]


def test_names_of_older_configurations() -> None:
    falcon = {"model_type": "falcon", "n_layer": 2, "n_head": 8, "hidden_size": 64, "multi_query": True}
    assert shape_of_config(falcon).layers == (Layer(8, 8), Layer(8, 8))
    newer = falcon | {"new_decoder_architecture": True, "num_kv_heads": 4}
    assert shape_of_config(newer).layers[0] == Layer(32, 32)
    gpt2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 4, "n_embd": 32, "n_positions": 64}
    found = shape_of_config(gpt2)
    assert (found.layers, found.feed_forward, found.context_limit, found.gated) == ((Layer(32, 32),), 128, 64, False)


def test_the_language_model_inside_another() -> None:
    inner = shape_of_config({"model_type": "gemma3", "text_config": llama(), "vision_config": {"hidden_size": 9}})
    assert inner == shape_of_config(llama())


def test_kinds_of_layers() -> None:
    assert layer_kinds({"layer_types": ["attention", "conv"]}, 4) == ["full_attention", "conv"] * 2
    assert layer_kinds({"full_attention_interval": 2}, 2) == ["linear_attention", "full_attention"]
    assert layer_kinds({"hybrid_override_pattern": "M*-E"}, 4) == ["mamba", "full_attention", "none", "none"]
    assert layer_kinds({"sliding_window": 9, "use_sliding_window": False}, 1) == ["full_attention"]
    assert layer_kinds({"sliding_window": 9, "model_type": "gemma2"}, 2) == ["sliding_attention", "full_attention"]
    assert layer_kinds({"model_type": "mamba"}, 1) == ["mamba"]


def test_layers_that_share_a_cache() -> None:
    shared = shape_of_config(llama(num_kv_shared_layers=3))
    assert [bool(layer.key) for layer in shared.layers] == [True, False, False, False]


@pytest.mark.parametrize("value", [None, "many", -1, 1 << 60, 1.5, [], {}, True])
def test_nonsense_in_a_configuration(value: object) -> None:
    for key in LLAMA:
        if key not in ("architectures", "model_type"):
            assert all(layer.key >= 0 for layer in shape_of_config(llama(**{key: value})).layers)
    assert number({"num_hidden_layers": value}, "layers") == 0


def test_encoders_keep_nothing() -> None:
    bert = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2}
    assert is_encoder(bert) and elements(shape_of_config(bert), 100) == 0
    assert not is_encoder(bert | {"architectures": ["BertForCausalLM"]}) and not is_encoder(LLAMA)


# Weights


def test_a_folder_is_read_by_its_headers() -> None:
    found = on_disk(GUIDE_FOLDER, "guide")
    assert isinstance(found, TorchModel) and found.tokenizer and found.embedding is None
    assert found.parameters == sum(s.elements for s in found.stored)
    plan = found.plan(Request(context_length=512, dtype="float32"))
    assert plan.weights == 4 * found.parameters and plan.provenance["weights"] == "exact"
    assert plan.kv_cache == elements(found.shape, 512) * 4


def test_weights_are_counted_as_they_will_lie_in_memory() -> None:
    packed = Stored("I32", 100, 400)
    some = model(Stored("BF16", 1000, 2000), Stored("F32", 10, 40), packed)
    assert [some.weights(dtype) for dtype in ("float32", "bfloat16", "float16")] == [4440, 2420, 2420]
    assert some.parameters == 1010
    plan = some.plan(Request(dtype="float32"))
    assert plan.weights == 4440 and any("another format" in note for note in plan.notes)


def test_rows_that_nobody_reads_stay_in_the_file() -> None:
    """Of an input embedding that is not the output layer too, only the rows of used tokens are read."""
    tensors = {
        "model.embed_tokens.weight": Tensor("BF16", 100, 200),
        "model.layers.0.weight": Tensor("BF16", 50, 100),
        "lm_head.weight": Tensor("BF16", 100, 200),
    }
    untied = model_of("some", LLAMA, tensors)
    assert untied.plan(Request(dtype="bfloat16")).weights == 300
    assert untied.plan(Request(dtype="float32")).weights == 1000  # converted: all of it is read
    assert untied.plan(Request(dtype="bfloat16", target=CARD)).weights == 500
    del tensors["lm_head.weight"]
    assert model_of("some", LLAMA, tensors).plan(Request(dtype="bfloat16")).weights == 300


def test_the_formats_that_memory_chooses_among() -> None:
    prefers = Target(dtype="bfloat16")
    small, large = (model(Stored("BF16", count, 2 * count)) for count in (SMALL_MODEL // 4 - 1, 2 * 10**9))
    assert small.formats(prefers) == small.formats(HERE) == ("float32",)
    assert large.formats(prefers) == ("bfloat16",)
    assert replace(large, linear=10**9).formats(prefers) == ("bfloat16", "int8")
    assert replace(large, linear=10**9).formats(HERE) == ("float32", "bfloat16", "int8")
    assert small.formats(CARD) == large.formats(CARD) == ("bfloat16",)


def test_without_a_choice_the_best_format_that_is_admitted_is_taken() -> None:
    some = replace(model(Stored("BF16", 2 * 10**9, 4 * 10**9)), linear=10**9)
    assert some.plan(Request()).dtype == "float32"  # nothing is known of the memory there
    for dtype in some.formats(HERE):
        needed = some.plan(Request(dtype=dtype)).safe_total
        assert some.plan(Request(target=Target(usable=needed, total=needed))).dtype == dtype
    assert some.plan(Request(target=Target(usable=1))).dtype == "int8"  # the least that it could take


def test_a_shorter_format_is_proposed_where_it_fits() -> None:
    some = replace(model(Stored("F32", 10**9, 4 * 10**9)), linear=9 * 10**8)

    def proposed(free: float, kind: Any = "cpu", dtype: str = "float32") -> object:
        target = Target("x", kind, int(free), int(free))
        helps = some.plan(Request(dtype=dtype, context_length=512, target=target)).fit(target).helps
        return next((help.value for help in helps if help.kind == "dtype"), None)

    assert [proposed(free) for free in (3.5e9, 2.2e9, 1.4e9, 1e9)] == ["bfloat16", "int8", "int4", None]
    assert (proposed(2.2e9, dtype="bfloat16"), proposed(1.4e9, dtype="int8")) == ("int8", "int4")
    assert (proposed(3.5e9, "cuda"), proposed(2.2e9, "cuda")) == ("bfloat16", None)


def test_the_cache_has_the_format_of_the_weights() -> None:
    some = model(Stored("F32", 1000, 4000))
    at = {dtype: some.plan(Request(context_length=100, dtype=dtype)).kv_cache for dtype in ("float32", "float16")}
    assert at == {"float32": 100 * 4 * 2 * 64 * 4, "float16": 100 * 4 * 2 * 64 * 2}
    two = some.plan(Request(context_length=100, dtype="float32", sequences=2))
    assert two.kv_cache == 2 * at["float32"]


def test_a_tokenizer_and_a_driver_take_their_own() -> None:
    stored = Stored("F32", 1000, 4000)
    with_words = model(stored, tokenizer=True, vocab_size=150_000).plan(Request()).framework
    without = model(stored, vocab_size=150_000).plan(Request()).framework
    assert 100 << 20 < with_words - without < 200 << 20
    assert model(stored).plan(Request(target=CARD)).framework == 450 << 20


def safetensors(rows: dict[str, Any], data: int) -> bytes:
    header = json.dumps(rows).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data)


def test_a_header_longer_than_the_first_guess() -> None:
    rows = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(4000)}
    content = safetensors(rows, 16_000)
    reads: list[int] = []

    def read(start: int, length: int) -> bytes:
        reads.append(length)
        return content[start : start + length]

    assert len(read_header("x", len(content), read)) == 4000
    assert len(reads) == 2 and sum(reads) < len(content)


@pytest.mark.parametrize("content", [b"", bytes(8), struct.pack("<Q", 1 << 60) + b"{}", safetensors({"a": 1}, 4)])
def test_a_damaged_header(content: bytes) -> None:
    with pytest.raises(BrokenFile, match="x is damaged"):
        read_header("x", len(content), lambda start, length: content[start : start + length])


# Training


def training(**how: Any) -> MemoryPlan:
    bert = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    stored = (Stored("F32", 66_955_010, 4 * 66_955_010),)
    found = TorchModel("distilbert", bert | {"vocab_size": 30522}, stored, tokenizer=False)
    return found.plan(Request(training=Training(**how)))


def test_training_all_weights_takes_sixteen_bytes_a_parameter() -> None:
    plan = training(batch_size=8)
    assert plan.weights + plan.size("gradients") + plan.size("optimizer") == 16 * 66_955_010
    assert plan.kv_cache == 0 and plan.output == 0


def test_activations_are_those_measured() -> None:
    """DistilBERT's saved activations: 52.9 MiB for one text of 128 tokens, 2988.5 for eight of 512."""
    for batch, length, mib in ((1, 128, 52.9), (16, 128, 846.4), (16, 256, 2124.6), (8, 512, 2988.5)):
        found = training(batch_size=batch, sequence_length=length).compute / BACKWARD
        assert abs(found / (1 << 20) - mib) < 0.02 * mib + 1


PEAKS = {  # MiB, measured by `bench.resident train` in one thread
    (2, 128, 2, 30522, 8, 128, False): 592,
    (2, 128, 2, 30522, 4, 512, True): 665,
    (4, 512, 8, 30522, 16, 128, False): 1402,
    (4, 512, 8, 30522, 4, 512, True): 1309,
    (4, 256, 4, 30522, 4, 512, True): 959,
    (6, 384, 6, 30522, 4, 512, True): 1231,
    (6, 384, 6, 30522, 4, 384, False): 1403,
    (8, 640, 10, 50000, 16, 64, False): 2047,
}


@pytest.mark.parametrize("row", PEAKS)
def test_training_peaks_of_other_encoders(row: tuple[int, int, int, int, int, int, bool]) -> None:
    layers, width, heads, vocabulary, batch, length, checkpointing = row
    how = Training(batch_size=batch, sequence_length=length, checkpointing=checkpointing)
    plan = trained(encoder(layers, width, heads, vocabulary)).plan(Request(training=how))
    assert abs(plan.total / (PEAKS[row] << 20) - 1) <= 0.10
    assert plan.level(Target("x", "cpu", (PEAKS[row] << 20) - 1, 64 << 30)) == "no"


def test_the_highest_peak_of_a_training_with_checkpointing_is_within_its_margin() -> None:
    """1,377 MiB once, where other runs of the same took 1,231."""
    how = Training(batch_size=4, sequence_length=512, checkpointing=True)
    plan = trained(encoder(6, 384, 6)).plan(Request(training=how))
    assert plan.level(Target("x", "cpu", 1376 << 20, 64 << 30)) == "no"


def test_what_makes_training_smaller() -> None:
    whole = training(batch_size=8, sequence_length=512)
    assert training(batch_size=8, sequence_length=512, checkpointing=True).total < 0.7 * whole.total
    lora = training(batch_size=8, sequence_length=512, method="lora")
    assert lora.size("optimizer") < whole.size("optimizer") / 100
    assert training(batch_size=8, sequence_length=512, autocast=True).compute < whole.compute
    verdict = whole.fit(("PC", 5 << 30))
    assert verdict.level == "no"
    assert [h.kind for h in verdict.helps] == ["training"] * len(verdict.helps) and verdict.helps
    assert isinstance(verdict.helps[0].value, Training) and verdict.helps[0].value.batch_size == 4
    assert all(h.total < whole.total for h in verdict.helps)


def test_a_model_that_writes_keeps_logits() -> None:
    plan = model(Stored("F32", 1000, 4000)).plan(Request(training=Training(batch_size=2, sequence_length=100)))
    assert plan.output == 3 * 4 * 1000 * 200


def test_adapters() -> None:
    shape = shape_of_config(llama())  # queries 256, values 64
    assert adapter(shape, 8) == 4 * 8 * (256 + 256 + 256 + 64)
