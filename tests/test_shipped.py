"""The shipped catalogue: every fact agrees with another one, and with the real files where they are at hand."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from multimodel.memory.config_shape import shape_of_config
from multimodel.quants import Quant
from multimodel.settings import Settings
from multimodel.shipped import Known, catalogue
from multimodel.verdict import basis_of, sketches

from .support import DATA, needs_data

MODELS = catalogue(Settings()).models
FOLDERS = {  # where the real configuration of a model is kept under another name
    "deepseek-ai/DeepSeek-V2-Lite-Chat": "deepseek-v2-lite",
    "distilbert/distilbert-base-uncased": "distilbert-base-uncased",
    "google/gemma-2-27b-it": "gemma-2-27b",
    "google/gemma-2-9b-it": "gemma-2-9b",
    "google/gemma-3-1b-it": "gemma-3-1b-it",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.1-405B-Instruct": "llama-3.1-405b",
    "meta-llama/Llama-3.2-3B-Instruct": "llama-3.2-3b",
    "microsoft/Phi-4-mini-instruct": "phi-4",
    "moonshotai/Kimi-K2-Instruct": "kimi-k2",
    "openai-community/gpt2-large": "gpt2-large",
    "openai/gpt-oss-20b": "gpt-oss-20b",
    "Qwen/Qwen3-0.6B": "qwen3-0.6b",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B": "qwen3-235b-a22b",
    "stabilityai/stablelm-2-zephyr-1_6b": "stablelm-2-1.6b",
}
FILES = {  # bytes of files that are on the Hub
    ("meta-llama/Llama-3.1-8B-Instruct", "Q4_K_M"): 4_920_739_232,
    ("meta-llama/Llama-3.1-8B-Instruct", "Q6_K"): 6_596_006_432,
    ("meta-llama/Llama-3.1-8B-Instruct", "Q8_0"): 8_540_775_840,
    ("meta-llama/Llama-3.1-8B-Instruct", "Q2_K"): 3_179_131_424,
    ("meta-llama/Llama-3.2-1B-Instruct", "Q4_K_M"): 807_694_464,
    ("meta-llama/Llama-3.3-70B-Instruct", "Q4_K_M"): 42_520_395_008,
    ("google/gemma-2-2b-it", "Q4_K_M"): 1_708_582_752,
    ("google/gemma-3-1b-it", "Q4_K_M"): 806_058_144,
    ("google/gemma-3-12b-it", "Q4_K_M"): 7_300_574_880,
    ("mistralai/Mistral-7B-Instruct-v0.3", "Q4_K_M"): 4_372_812_000,
    ("Qwen/Qwen2.5-0.5B-Instruct", "Q4_K_M"): 397_808_192,
    ("Qwen/Qwen2.5-7B-Instruct", "Q4_K_M"): 4_683_073_184,
    ("Qwen/Qwen3-0.6B", "Q8_0"): 639_446_688,
    ("Qwen/Qwen3-32B", "Q4_K_M"): 19_762_149_024,
    ("Qwen/Qwen3-30B-A3B", "Q4_K_M"): 18_556_685_376,
    ("openai/gpt-oss-20b", "MXFP4"): 12_109_566_560,
}


def computed(known: Known, label: str) -> int:
    basis = basis_of(known.listing, Settings())
    assert basis
    return sketches(known.listing.name, [Quant(label, ("m.gguf",))], basis)[label].size


def test_there_are_many_and_they_are_dated() -> None:
    assert len(MODELS) >= 60
    assert catalogue(Settings()).as_of >= date(2026, 11, 1)
    assert len({known.listing.name for known in MODELS}) == len(MODELS)
    assert {known.shape_from for known in MODELS} == {"config.json", "published"}


@pytest.mark.parametrize("known", MODELS, ids=lambda known: known.listing.name)
def test_the_parameters_are_those_of_the_shape(known: Known) -> None:
    assert counted(known.config) == pytest.approx(known.listing.parameters, rel=1e-4)
    assert known.listing.context_length and known.listing.licence and known.listing.created
    shape = shape_of_config(known.config)
    assert len(shape.layers) > 5 and shape.vocabulary > 20_000 and shape.embedding > 500
    assert all(computed(known, quant.label) for quant in known.listing.quants)
    assert bool(known.gguf) == bool(known.listing.quants)


@needs_data("configs")
@pytest.mark.parametrize("name", FOLDERS)
def test_the_shape_is_that_of_the_real_configuration(name: str) -> None:
    known = catalogue(Settings()).find(name)
    assert known and known.shape_from == "config.json"
    real = shape_of_config(json.loads((DATA / "configs" / FOLDERS[name] / "config.json").read_text()))
    ours = shape_of_config(known.config)
    assert (ours.layers, ours.embedding, ours.heads, ours.latent) == (
        real.layers,
        real.embedding,
        real.heads,
        real.latent,
    )


@pytest.mark.parametrize(("name", "label"), FILES)
def test_computed_sizes_are_near_those_of_the_files(name: str, label: str) -> None:
    known = catalogue(Settings()).find(name)
    assert known
    assert computed(known, label) == pytest.approx(FILES[name, label], rel=0.025)


def test_a_model_is_found_by_its_own_and_its_quantised_name() -> None:
    shelf = catalogue(Settings())
    own = shelf.find("someone/else", "qwen/qwen3-8b")
    assert own and own == shelf.find("Qwen/Qwen3-8B-GGUF")
    assert shelf.find("qwen3-8b") is None


def counted(c: dict[str, Any]) -> int:
    """The parameters of a shape, tensor by tensor."""
    if c["model_type"] in ("gpt2", "bert", "distilbert"):
        return counted_encoder(c)
    width, layers, words = c["hidden_size"], c["num_hidden_layers"], c["vocab_size"]
    tied = c.get("tie_word_embeddings", False)
    total = words * width * (1 if tied else 2) + width
    total += sum(attention(c) + forward(c, i) + norms(c) for i in range(layers))
    return total + (words + width if c["model_type"] == "phi" else 0)


def counted_encoder(c: dict[str, Any]) -> int:
    width = c.get("n_embd") or c.get("dim") or c["hidden_size"]
    layers = c.get("n_layer") or c.get("n_layers") or c["num_hidden_layers"]
    inner = c.get("hidden_dim") or c.get("intermediate_size") or 4 * width
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    places = c.get("n_positions", 512)
    kinds = 2 if c["model_type"] == "bert" else 0
    pooler = width * width + width if c["model_type"] == "bert" else 0
    return (c["vocab_size"] + places + kinds) * width + 2 * width + layers * block + pooler


def attention(c: dict[str, Any]) -> int:
    width, heads = c["hidden_size"], c["num_attention_heads"]
    head, kv = c.get("head_dim", width // heads), c["num_key_value_heads"]
    kind = c["model_type"]
    if "kv_lora_rank" in c:
        rank, query, rope = c["kv_lora_rank"], c.get("q_lora_rank"), c["qk_rope_head_dim"]
        long, value = c["qk_nope_head_dim"] + rope, c["v_head_dim"]
        asked = width * query + query + query * heads * long if query else width * heads * long
        kept = width * (rank + rope) + rank + rank * heads * (c["qk_nope_head_dim"] + value)
        return asked + kept + heads * value * width
    biases = {"qwen2": heads * head + 2 * kv * head, "phi": heads * head + 2 * kv * head + width}
    biases |= {"gpt_oss": heads * head + 2 * kv * head + width + heads, "stablelm": 3 * heads * head}
    biases |= {"olmo2": (heads + kv) * head}
    biases |= dict.fromkeys(("qwen3", "qwen3_moe", "gemma3_text"), 2 * head)
    return 2 * width * heads * head + 2 * width * kv * head + biases.get(kind, 0)


def forward(c: dict[str, Any], layer: int) -> int:
    width, inner = c["hidden_size"], c["intermediate_size"]
    experts = c.get("num_experts") or c.get("num_local_experts") or c.get("n_routed_experts") or 0
    if experts and layer >= c.get("first_k_dense_replace", 0):
        each = c.get("moe_intermediate_size", inner)
        biases = experts * (2 * each + width) + experts if c["model_type"] == "gpt_oss" else 0
        return (experts + c.get("n_shared_experts", 0)) * 3 * width * each + width * experts + biases
    return 2 * width * inner + inner + width if c["model_type"] == "phi" else 3 * width * inner


def norms(c: dict[str, Any]) -> int:
    return c["hidden_size"] * (4 if c["model_type"] in ("gemma2", "gemma3_text") else 2)
