"""Weights of 8 and 4 bits: what becomes of them, how near the answers stay, and when memory chooses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodel.backends.local import squeezed
from multimodel.errors import BrokenFile, InvalidParameter
from multimodel.folder import Tensor
from multimodel.memory import MemoryPlan, Request, Target
from multimodel.memory.torch_plan import TorchModel, model_of
from multimodel.types import LoadOptions, Message, SamplingParams
from multimodel.workers.protocol import Request as Asked

from ..support import GUIDE_FOLDER, needs

pytestmark = needs("torch", "transformers")
pytest.importorskip("torch")

import torch  # noqa: E402 - after the check that it is there

from multimodel.workers import torch as runtime  # noqa: E402
from multimodel.workers.torch_packed import FEW, GROUP, Int4Linear, Int8Linear  # noqa: E402


def load(folder: Path, **options: Any) -> Any:
    return runtime.load(folder, LoadOptions(**options), 1, lambda *_: None)


def said(loaded: Any, text: str) -> str:
    frames = loaded.admit(Asked(1, (Message("user", text),), SamplingParams(max_tokens=64, temperature=0)))
    while loaded.active():
        frames += loaded.step()
    loaded.drop(1)
    return "".join(frame.get("text", "") for frame in frames if frame["event"] == "text")


@pytest.mark.parametrize(("dtype", "kind"), [("int8", Int8Linear), ("int4", Int4Linear)])
def test_linear_layers_are_packed_and_the_rest_is_not(tiny_folder: Path, dtype: str, kind: type) -> None:
    loaded = load(tiny_folder, dtype=dtype)
    model = loaded._model
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert kinds["model.layers.1.mlp.up_proj"] is kinds["model.layers.0.self_attn.q_proj"] is kind
    assert kinds["lm_head"] is torch.nn.Linear
    assert not model.model.layers[0].mlp.up_proj.weight.is_floating_point()
    assert model.lm_head.weight.dtype == model.model.norm.weight.dtype == torch.bfloat16
    assert loaded.facts.dtype == dtype
    assert loaded.facts.parameters == load(tiny_folder, dtype="float32").facts.parameters


def test_the_weights_are_those_of_the_file_within_half_a_step(tiny_folder: Path) -> None:
    exact = load(tiny_folder, dtype="float32")._model.model.layers[0].self_attn.o_proj.weight
    held = load(tiny_folder, dtype="int8")._model.model.layers[0].self_attn.o_proj
    step = exact.abs().amax(1, keepdim=True) / 127
    off = (held.weight.float() * held.scale.float()[:, None] - exact).abs()
    assert bool((off <= 0.5 * step + 0.005 * exact.abs().amax()).all())  # the scale itself has 8 bits
    assert held.weight.abs().amax() == 127


@pytest.mark.parametrize("rows", [1, FEW - 1, FEW, 3 * FEW])
def test_few_rows_and_many_go_different_ways_to_the_same_end(rows: int) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 48)
    layer = Int8Linear.instead(plain)
    scale = (plain.weight.abs().amax(1) / 127).to(torch.bfloat16)
    whole = torch.round(plain.weight / scale.float()[:, None]).clamp(-127, 127).to(torch.int8)
    layer.weight = torch.nn.Parameter(whole, requires_grad=False)
    layer.scale = torch.nn.Parameter(scale, requires_grad=False)
    x = torch.randn(2, rows, 64)
    with torch.no_grad():
        wanted, found = plain(x), layer(x.to(torch.bfloat16)).float()
    assert found.shape == wanted.shape
    assert (found - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_four_bits_stand_for_the_weights_within_half_a_step(rows: int) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(3 * GROUP, 48)
    layer = Int4Linear.instead(plain)
    assert layer
    weight, scale = Int4Linear.pack(plain.weight.detach())
    assert weight.shape == layer.weight.shape and scale.shape == layer.scale.shape
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.scale = torch.nn.Parameter(scale, requires_grad=False)
    x = torch.randn(2, rows, 3 * GROUP)
    with torch.no_grad():
        unit = torch.eye(3 * GROUP, dtype=torch.bfloat16)
        held = (layer(unit).float() - plain.bias).T  # (out, in): what the packed weights stand for
        off, step = (held - plain.weight).abs(), scale[:, :, 0].T.float().repeat_interleave(GROUP, 1)
        wanted, found = plain(x), layer(x.bfloat16()).float()
    assert bool((off <= 0.55 * step + 0.01 * plain.weight.abs().max()).all())
    assert found.shape == wanted.shape
    assert 0.02 < (found - wanted).norm() / wanted.norm() < 0.12


def test_a_layer_whose_shape_cannot_be_packed_stays_as_it_is() -> None:
    assert Int4Linear.instead(torch.nn.Linear(GROUP + 1, 16)) is None
    assert Int4Linear.instead(torch.nn.Linear(GROUP, 17)) is None


@pytest.mark.skipif(not GUIDE_FOLDER.exists(), reason="needs assets/guide/hf")
def test_the_built_in_model_in_four_bits_still_knows_its_subject() -> None:
    held = load(GUIDE_FOLDER, dtype="int4")
    assert "token" in said(held, "What is a token?").lower()


@pytest.mark.skipif(not GUIDE_FOLDER.exists(), reason="needs assets/guide/hf")
def test_the_built_in_model_says_the_same_word_for_word() -> None:
    exact, held = load(GUIDE_FOLDER, dtype="float32"), load(GUIDE_FOLDER, dtype="int8")
    for question in ("What is a token?", "How do I add another model?", "What is the KV cache?"):
        assert said(held, question) == said(exact, question) != ""


def test_an_adapter_cannot_be_added(tiny_folder: Path, tmp_path: Path) -> None:
    from ..test_modifiers import peft_folder

    with pytest.raises(BrokenFile, match="packed"):
        load(tiny_folder, dtype="int8", adapter=str(peft_folder(tmp_path / "lora")))


def test_a_model_without_linear_layers_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    vocabulary = 300
    GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_folder / name).read_bytes())
    with pytest.raises(InvalidParameter, match="linear layers"):
        load(folder, dtype="int8")


# when memory chooses

GB = 10**9
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 16},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 100_000},
    "max_position_embeddings": 4096,
}


def model(layers: int, config: dict[str, Any] = CONFIG) -> TorchModel:
    """About 0.1 billion parameters, and so many billions in linear layers; stored in bfloat16."""
    rows = {f"model.layers.{i}.mlp.up_proj.weight": Tensor("BF16", GB, 2 * GB) for i in range(layers)}
    return model_of("big", config, {**rows, "model.embed_tokens.weight": Tensor("BF16", 10**8, 2 * 10**8)})


def on(free: float, kind: Any = "cpu") -> Request:
    return Request(context_length=512, target=Target("here", kind, int(free), int(free), "float32"))


@pytest.mark.parametrize(
    ("free", "dtype"), [(20 * GB, "float32"), (10 * GB, "bfloat16"), (5 * GB, "int8"), (1 * GB, "int8")]
)
def test_the_longest_format_that_fits_is_taken(free: int, dtype: str) -> None:
    plan = model(layers=3).plan(on(free))
    assert plan.dtype == dtype
    assert plan.request.dtype == "auto"  # for another device it is chosen anew


def test_eight_bits_take_half_of_sixteen_and_four_a_third() -> None:
    big = model(layers=3)
    assert big.weights("int4") == 0.625 * 3 * GB + 2 * 10**8
    assert big.weights("int8") == 3 * GB + 2 * 10**8
    assert big.weights("bfloat16") == 2 * (3 * GB + 10**8)
    plan = big.plan(replace(on(5 * GB), dtype="int8"))
    assert plan.total < 5 * GB


def test_small_models_other_devices_and_what_has_no_linear_layers_are_left_alone() -> None:
    assert model(layers=0).dtype(on(10**8)) == "bfloat16"  # never fewer bits unasked
    assert model(layers=3).dtype(on(GB, "cuda")) == "float32"  # what this target prefers
    assert model(layers=3, config={**CONFIG, "model_type": "gpt2"}).linear == 0


def test_what_memory_chose_is_said() -> None:
    def note(dtype: str, options: LoadOptions = LoadOptions(), usual: str = "float32") -> str:
        request = Request(target=Target("here", "cpu", GB, GB, usual))
        return squeezed(MemoryPlan(model="m", request=request, terms=(), dtype=dtype), options)

    assert note("int8") == "Loaded in 8 bits (int8), because 16 do not fit into memory."
    assert note("bfloat16") == "Loaded as bfloat16, because float32 does not fit into memory."
    assert note("float32") == note("bfloat16", usual="bfloat16") == note("auto") == ""
    assert note("int8", LoadOptions(dtype="int8")) == ""
