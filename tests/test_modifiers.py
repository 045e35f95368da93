"""Changed copies of a specification: pure functions here, with their effect in both runtimes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from multimodel import modifiers
from multimodel.backends import gguf, local, transformers
from multimodel.backends.local import LocalBackend
from multimodel.errors import BrokenFile, InvalidParameter, MissingDependency, NotEnoughMemory, TooLarge
from multimodel.modifiers import (
    at_revision,
    compose,
    forced,
    greedy,
    loading,
    on_device,
    quantised,
    sampled,
    stretched,
    with_adapter,
    with_context,
    with_dtype,
    with_flash_attention,
    with_gpu_layers,
    with_kv_type,
    with_sequences,
    with_template,
    without,
)
from multimodel.pool import Pool
from multimodel.settings import Settings
from multimodel.types import LoadOptions, Message, ModelId, ModelSpec, SamplingParams
from multimodel.workers.protocol import Request

from .support import needs, tiny_gguf

FILE = ModelSpec(ModelId("gguf", "owner/model:Q8_0"))
ASK = (Message("user", "Tell me of the sea."),)
RANK, ALPHA = 4, 8.0


@pytest.mark.parametrize(
    ("modify", "changed"),
    [
        (on_device("cpu"), {"device": "cpu"}),
        (with_dtype("bfloat16"), {"dtype": "bfloat16"}),
        (with_context(100), {"context_length": 100}),
        (stretched(2.0, "linear"), {"rope_scaling": "linear", "rope_factor": 2.0}),
        (with_kv_type("q8_0"), {"kv_type": "q8_0"}),
        (with_sequences(2), {"sequences": 2}),
        (with_flash_attention(True), {"flash_attention": True}),
        (with_gpu_layers(0), {"gpu_layers": 0}),
        (with_adapter("a", 0.5), {"adapter": "a", "adapter_scale": 0.5}),
        (with_template("{{ messages }}"), {"chat_template": "{{ messages }}"}),
        (at_revision("v1"), {"revision": "v1"}),
        (forced, {"anyway": True}),
    ],
)
def test_each_changes_what_it_says_and_nothing_else(modify: modifiers.LoadModifier, changed: dict[str, Any]) -> None:
    made = modify(FILE)
    assert made == ModelSpec(FILE.id, LoadOptions(**changed))
    assert made.load.changed() == set(changed)
    assert FILE.load == LoadOptions()


def test_every_way_to_load_has_its_modifier() -> None:
    every = compose(
        *(on_device("cpu"), with_dtype("float16"), with_context(9), stretched(2), with_kv_type("q4_0")),
        *(
            with_sequences(1),
            with_gpu_layers(1),
            with_flash_attention(False),
            with_adapter("a", 2.0),
            with_template(""),
            at_revision("x"),
            forced,
        ),
    )
    assert every(FILE).load.changed() == set(LoadOptions.__dataclass_fields__)


def test_by_their_names_they_are_the_same() -> None:
    values = {"device": "cpu", "dtype": "int8", "context_length": 9, "kv_type": "q4_0", "flash_attention": False}
    values |= {"gpu_layers": 0, "sequences": 2, "chat_template": "x", "revision": "v1"}
    values |= {"rope_scaling": "yarn", "rope_factor": 2.0, "adapter": "a", "adapter_scale": 0.5}
    assert set(values) == set(LoadOptions.__dataclass_fields__) - {"anyway"}
    assert loading(values)(FILE).load == LoadOptions(**values)
    assert loading({})(FILE) is FILE


@pytest.mark.parametrize("values", [{"rope_factor": 2.0}, {"rope_scaling": "yarn"}, {"adapter_scale": 0.5}])
def test_half_of_a_pair_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        loading(values)(FILE)
    assert caught.value.hint


def test_they_compose_in_order() -> None:
    twice = compose(with_context(10), compose(with_context(20), with_dtype("float16")))
    assert twice(FILE) == with_dtype("float16")(with_context(20)(FILE))
    assert compose()(FILE) is FILE
    assert compose(sampled(temperature=1.0, seed=3), greedy, without("seed"))(SamplingParams()) == SamplingParams(
        temperature=0.0
    )


@pytest.mark.parametrize(
    ("name", "becomes"), [("owner/model", "owner/model:Q2_K"), ("owner/model:Q8_0", "owner/model:Q2_K")]
)
def test_another_quantisation_is_another_file_of_the_repository(name: str, becomes: str) -> None:
    assert quantised("Q2_K")(ModelSpec(ModelId("gguf", name))).id == ModelId("gguf", becomes)


@pytest.mark.parametrize("model", ["gguf:/models/x.gguf", "gguf:guide", "transformers:owner/model", "openai:gpt"])
def test_what_has_no_other_quantisation_says_so(model: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        quantised("Q2_K")(ModelSpec(ModelId.parse(model)))
    assert caught.value.hint


@pytest.mark.parametrize(
    "modify",
    [
        lambda spec: stretched(0.5)(spec),
        lambda spec: stretched(1.0)(spec),
        lambda spec: with_context(0)(spec),
        lambda spec: with_sequences(0)(spec),
        lambda spec: with_gpu_layers(-1)(spec),
        lambda spec: sampled(temperature=9.0)(SamplingParams()),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(modify: Callable[[ModelSpec], object]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        modify(FILE)
    assert caught.value.hint


# their effect


class Runtime:
    """The tiny model in one of the two runtimes, as the child process has it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def load(self, *changes: modifiers.LoadModifier, path: Path | None = None) -> Any:
        options = compose(*changes)(FILE).load
        return import_module(f"multimodel.workers.{self.name}").load(path or self.path, options, 1, lambda *_: None)

    def text(self, *changes: modifiers.LoadModifier, path: Path | None = None) -> str:
        loaded = self.load(*changes, path=path)
        try:
            frames = loaded.admit(Request(1, ASK, SamplingParams(max_tokens=24, temperature=0)))
            while loaded.active():
                frames += loaded.step()
        finally:
            loaded.close()
        return "".join(frame.get("text", "") for frame in frames if frame["event"] == "text")


BOTH = [
    pytest.param("llama", marks=needs("llama_cpp", "gguf", "torch")),
    pytest.param("torch", marks=needs("torch", "transformers")),
]


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Runtime:
    fixture = {"llama": "tiny_gguf_file", "torch": "tiny_folder"}[request.param]
    return Runtime(request.param, request.getfixturevalue(fixture))


both = pytest.mark.parametrize("runtime", BOTH, indirect=True)
only_llama = pytest.mark.parametrize("runtime", BOTH[:1], indirect=True)
only_torch = pytest.mark.parametrize("runtime", BOTH[1:], indirect=True)


@both
def test_a_context_is_as_long_as_asked_for(runtime: Runtime) -> None:
    loaded = runtime.load(with_context(300))
    assert loaded.facts.context_length == loaded.measure(ASK).context_length == 300
    loaded.close()


@both
def test_another_template_is_what_the_prompt_is_made_with(runtime: Runtime) -> None:
    shout = with_template("{{ bos_token }}{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    assert runtime.text(shout) == runtime.text(shout, with_sequences(1)) != runtime.text()
    loaded = runtime.load(shout)
    assert loaded._reading(ASK).size == loaded._reading([Message("user", ASK[0].content.upper())]).size
    assert loaded.facts.template == "own"
    loaded.close()


@both
def test_a_context_can_be_stretched_beyond_what_was_trained(runtime: Runtime) -> None:
    loaded = runtime.load(stretched(4), with_context(1500))
    assert loaded.facts.context_length == 1500
    long = (Message("user", "the sea " * 150),)
    assert loaded.measure(long).tokens > 512
    frames = loaded.admit(Request(1, long, SamplingParams(max_tokens=4, temperature=0)))
    while loaded.active():
        frames += loaded.step()
    assert frames[-1]["event"] == "done"
    assert frames[-1]["usage"]["output_tokens"] > 0
    loaded.close()


@needs("llama_cpp", "gguf", "torch", "transformers")
@pytest.mark.parametrize("scaling", ["linear", "yarn"])
def test_stretched_positions_are_the_same_in_both_runtimes(
    tiny_folder: Path, tiny_gguf_file: Path, scaling: Any
) -> None:
    change = stretched(3, scaling)
    first, second = Runtime("llama", tiny_gguf_file), Runtime("torch", tiny_folder)
    assert first.text(change, with_kv_type("f32")) == second.text(change) != second.text()


@needs("torch", "transformers")
def test_positions_that_cannot_be_stretched_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "scaled")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidParameter, match="linear"):
        Runtime("torch", folder).load(stretched(2))


@only_torch
def test_another_number_format_is_the_one_in_memory(runtime: Runtime) -> None:
    loaded = runtime.load(with_dtype("bfloat16"))
    assert loaded.facts.dtype == "bfloat16"
    assert {str(p.dtype) for p in loaded._model.parameters()} == {"torch.bfloat16"}


@only_llama
def test_another_cache_format_changes_the_cache(runtime: Runtime) -> None:
    texts = {kind: runtime.text(with_kv_type(kind)) for kind in ("f32", "f16", "q8_0")}  # type: ignore[arg-type]
    assert texts["f32"] == texts["f16"] == runtime.text()
    assert runtime.text(with_kv_type("q4_0")) != texts["f32"]


@only_llama
def test_as_many_answers_at_once_as_asked_for(runtime: Runtime) -> None:
    loaded = runtime.load(with_sequences(3))
    assert loaded.facts.slots == 3
    loaded.close()


@both
def test_a_device_that_is_not_there_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    native = import_module("multimodel.workers.llama")
    monkeypatch.setattr(native, "device", lambda: "cpu")
    with pytest.raises((MissingDependency, NotEnoughMemory)) as caught:
        runtime.load(on_device("mps"))
    assert caught.value.hint


def connected(spec: ModelSpec) -> LocalBackend:
    return {"gguf": gguf, "transformers": transformers}[spec.id.backend].connect(spec, Settings(), Pool())


def test_a_device_that_is_not_there_is_refused_when_the_model_is_connected() -> None:
    model = ModelSpec(ModelId("transformers", "guide"))
    for device in ("cuda", "mps"):
        with pytest.raises(InvalidParameter, match=f"no device {device}") as caught:
            connected(on_device(device)(model))
        assert caught.value.hint == "Choose the device auto or cpu."
    assert connected(on_device("cpu")(model))


@pytest.mark.parametrize("name", ["gguf:guide", "transformers:guide", "transformers:my-moods", f"gguf:{__file__}"])
def test_a_revision_of_what_lies_here_is_refused(name: str) -> None:
    model = ModelSpec(ModelId.parse(name))
    with pytest.raises(InvalidParameter, match="has no revisions") as caught:
        connected(at_revision("abc")(model))
    assert caught.value.hint
    assert connected(model) and connected(at_revision("abc")(FILE))
    cached = ModelSpec(ModelId("gguf", "/cache/models--owner--model/snapshots/abc/m.gguf"))
    assert connected(at_revision("abc")(cached))  # as a batch that is replayed asks for it


@pytest.mark.parametrize(
    ("built", "modify", "why"),
    [
        (True, compose(with_gpu_layers(4), on_device("cpu")), "the device is cpu"),
        (False, with_gpu_layers(4), "llama.cpp is built without a GPU"),
    ],
)
def test_layers_for_a_gpu_that_is_not_used_are_refused(
    monkeypatch: pytest.MonkeyPatch, built: bool, modify: modifiers.LoadModifier, why: str
) -> None:
    monkeypatch.setattr(local, "llama_on_gpu", lambda: built)
    with pytest.raises(InvalidParameter, match=f"gpu_layers is 4, but {why}"):
        connected(modify(FILE))
    assert connected(with_gpu_layers(0)(FILE))


@needs("llama_cpp", "gguf", "torch")
@pytest.mark.parametrize(("asked", "notes"), [(100_000, 1), (512, 0), (None, 0)])
def test_a_context_that_is_shorter_than_asked_for_is_a_note(
    tiny_gguf_file: Path, asked: int | None, notes: int
) -> None:
    backend = connected(ModelSpec(ModelId("gguf", str(tiny_gguf_file)), LoadOptions(context_length=asked)))
    for _ in range(2):  # also where it was loaded already
        told = [chunk.note for chunk in backend.stream(ASK, SamplingParams(max_tokens=1)) if chunk.note]
        assert told == ["The context holds 512 tokens, not 100,000: this model goes no further."] * notes
    backend.close()


@needs("llama_cpp", "gguf", "torch")
def test_the_note_is_for_whoever_asked_for_more(tiny_gguf_file: Path) -> None:
    model, pool = ModelId("gguf", str(tiny_gguf_file)), Pool()
    as_usual = gguf.connect(ModelSpec(model), Settings(), pool)
    more = gguf.connect(
        ModelSpec(model, LoadOptions(context_length=Settings().models.context_length)), Settings(), pool
    )
    try:
        told = [[c.note for c in each.stream(ASK, SamplingParams(max_tokens=1)) if c.note] for each in (more, as_usual)]
    finally:
        pool.close()
    assert told == [["The context holds 512 tokens, not 4,096: this model goes no further."], []]


def test_the_scale_of_no_adapter_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"adapter_scale is 0\.5, but there is no adapter") as caught:
        connected(ModelSpec(FILE.id, LoadOptions(adapter_scale=0.5)))
    assert caught.value.hint


@both
def test_what_does_not_fit_is_loaded_only_when_forced(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodel import hardware

    none = hardware.Memory(total=100, free=100)
    for module in ("workers.llama", "workers.torch", "hardware"):
        monkeypatch.setattr(import_module(f"multimodel.{module}"), "memory", lambda: none)
    with pytest.raises(TooLarge):
        runtime.load()
    assert runtime.text(forced)


# adapters


def lora(seed: int = 5) -> dict[str, tuple[Any, Any]]:
    """A and B of some modules of the tiny model, none of which llama.cpp stores in another order."""
    import torch

    torch.manual_seed(seed)
    shapes = {
        "model.layers.0.mlp.up_proj": (96, 64),
        "model.layers.1.self_attn.v_proj": (32, 64),
        "model.layers.1.mlp.down_proj": (64, 96),
    }
    return {
        name: (torch.randn(RANK, columns) * 0.2, torch.randn(rows, RANK) * 0.2)
        for name, (rows, columns) in shapes.items()
    }


def merged(folder: Path, target: Path, scale: float = 1.0, divisor: float = RANK) -> Path:
    """The tiny model with the adapter worked into its weights by hand."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    for name, (down, up) in lora().items():
        tensors[f"{name}.weight"] += scale * ALPHA / divisor * up @ down
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def peft_folder(folder: Path, **config: Any) -> Path:
    """The adapter as peft saves it."""
    from safetensors.torch import save_file

    folder.mkdir()
    facts = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    tensors = {}
    for name, (down, up) in lora().items():
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def gguf_adapter(path: Path) -> Path:
    """The adapter as llama.cpp takes it."""
    import gguf

    from .support import _gguf_name

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name, (down, up) in lora().items():
        writer.add_tensor(f"{_gguf_name(f'{name}.weight')}.lora_a", down.numpy())
        writer.add_tensor(f"{_gguf_name(f'{name}.weight')}.lora_b", up.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def adapter_for(runtime: Runtime, folder: Path) -> str:
    return str(gguf_adapter(folder / "lora.gguf") if runtime.name == "llama" else peft_folder(folder / "lora"))


def same_weights(runtime: Runtime, folder: Path) -> Path:
    return tiny_gguf(folder, folder.parent / f"{folder.name}.gguf") if runtime.name == "llama" else folder


@both
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_adapter_is_as_if_it_were_in_the_weights(
    runtime: Runtime, tiny_folder: Path, tmp_path: Path, scale: float
) -> None:
    adapter = adapter_for(runtime, tmp_path)
    by_hand = same_weights(runtime, merged(tiny_folder, tmp_path / "merged", scale))
    assert runtime.text(with_adapter(adapter, scale)) == runtime.text(path=by_hand) != runtime.text()


@both
def test_an_adapter_at_scale_nought_changes_nothing(runtime: Runtime, tmp_path: Path) -> None:
    assert runtime.text(with_adapter(adapter_for(runtime, tmp_path), 0.0)) == runtime.text()


@only_torch
def test_an_adapter_with_the_root_of_its_rank(runtime: Runtime, tiny_folder: Path, tmp_path: Path) -> None:
    adapter = peft_folder(tmp_path / "lora", use_rslora=True)
    by_hand = merged(tiny_folder, tmp_path / "merged", divisor=RANK**0.5)
    assert runtime.text(with_adapter(str(adapter))) == runtime.text(path=by_hand)


@both
def test_an_adapter_that_is_none_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", runtime.path):
        with pytest.raises(BrokenFile) as caught:
            runtime.load(with_adapter(str(path)))
        assert caught.value.hint


@only_torch
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    runtime: Runtime, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(BrokenFile, match=words):
        runtime.load(with_adapter(str(peft_folder(tmp_path / "lora", **config))))


@only_torch
def test_an_adapter_for_another_model_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = peft_folder(tmp_path / "lora")
    tensors = load_file(folder / "adapter_model.safetensors")
    other = {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}
    save_file(other, folder / "adapter_model.safetensors")
    with pytest.raises(BrokenFile, match=r"layers\.7"):
        runtime.load(with_adapter(str(folder)))


@only_torch
@pytest.mark.parametrize("keep", [0, 40, 4000])
def test_a_damaged_adapter_is_refused(runtime: Runtime, tmp_path: Path, keep: int) -> None:
    folder = peft_folder(tmp_path / "lora")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(BrokenFile):
        runtime.load(with_adapter(str(folder)))
