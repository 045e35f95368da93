"""A memory plan as a value: its terms, its verdicts, and what would help."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

import multimodel
from bench.shapes import MODELS
from multimodel.errors import DownloadFailed, InvalidModelId, InvalidParameter, ModelNotFound
from multimodel.hardware import Device
from multimodel.memory import Estimator, MemoryPlan, Request, Term, estimator, target_of
from multimodel.memory.calibration import FILE, Calibration
from multimodel.memory.engine import Account, Accountant
from multimodel.memory.gguf import read_header
from multimodel.memory.gguf_plan import GgufModel
from multimodel.memory.plan import HEAD_ROOM, PADDING, gb_apart
from multimodel.memory.source import FileSource
from multimodel.memory.target import Target, kind_of, usable
from multimodel.settings import ModelSettings, Settings
from multimodel.types import LoadOptions, ModelId, ModelSpec

from .support import GUIDE_FOLDER, GUIDE_GGUF, needs

GIB = 1 << 30
CPU = Device("cpu", "Processor", 16 * GIB, 8 * GIB, "float32", "")


def linear(request: Request) -> MemoryPlan:
    """A model of 4 GiB and a MiB of cache a token."""
    width = {"f16": 1.0, "q8_0": 0.5}[request.kv_type]
    cache = int(width * (1 << 20) * request.context_length * request.sequences)
    terms = (Term("weights", 4 * GIB, "exact", "w"), Term("kv_cache", cache, "formula", "k"))
    return MemoryPlan(
        model="linear", request=request, terms=terms, engine="llama.cpp", context_limit=10_000, replan=linear
    )


def plan(**changes: Any) -> MemoryPlan:
    return linear(Request(context_length=1024, **changes))


def model(name: str, tmp_path: Path) -> GgufModel:
    return GgufModel(name, read_header([FileSource(MODELS[name]().write(tmp_path / "shape.gguf"))]))


def machine(gib: float) -> Target:
    return Target("some machine", "cpu", int(gib * GIB), int(gib * GIB), here=False)


# The value


def test_terms_add_up() -> None:
    found = plan()
    assert found.total == sum(term.size for term in found.terms) == 5 * GIB
    assert (found.weights, found.kv_cache, found.compute, found.framework) == (4 * GIB, GIB, 0, 0)
    assert found.provenance == {"weights": "exact", "kv_cache": "formula"}
    assert found.sources == {"weights": "w", "kv_cache": "k"}


def test_a_plan_is_a_value() -> None:
    assert plan() == plan() and plan() != plan(sequences=2)
    with pytest.raises(FrozenInstanceError):
        plan().model = "other"  # type: ignore[misc]


def test_other_conditions_are_another_plan() -> None:
    found = plan()
    assert found.at(context_length=2048).kv_cache == 2 * GIB
    assert found.at() is found and found.at(context_length=1024) is found
    with pytest.raises(TypeError):
        found.at(no_such_field=1)


# Verdicts


@pytest.mark.parametrize(("gib", "level"), [(4, "no"), (5.05, "no"), (5.2, "tight"), (5.5, "tight"), (6, "fits")])
def test_levels(gib: float, level: str) -> None:
    verdict = plan().fit(machine(gib))
    assert verdict.level == level
    assert (verdict.needed, verdict.available) == (5 * GIB, int(gib * GIB))
    assert gb_apart(5 * GIB, int(gib * GIB))[0] in verdict.reason and "some machine" in verdict.reason


def test_what_is_too_close_is_said() -> None:
    found = plan()
    close = found.fit(Target("x", "cpu", found.total + found.margin // 2, found.total * 2))
    assert close.level == "no" and "must stay free beside it" in close.reason
    assert found.safe_total == found.total + found.margin


def test_what_would_help() -> None:
    verdict = linear(Request(context_length=4096)).fit(machine(7))
    assert verdict.level == "no"
    helps = {help.kind: help for help in verdict.helps}
    assert helps["kv_type"].value == "q8_0" and helps["kv_type"].total == 6 * GIB
    length = helps["context_length"].value
    assert isinstance(length, int) and length % PADDING == 0
    assert plan().at(context_length=length).fit(machine(7)).level == "tight"
    assert "quantization" not in helps or helps["quantization"].total < 7 * GIB


def test_fewer_conversations_and_smaller_weights_help() -> None:
    kinds = {help.kind: help for help in plan(sequences=4).fit(machine(5.5)).helps}
    assert kinds["sequences"].total == 5 * GIB
    kinds = {help.kind: help for help in plan().fit(machine(4)).helps}
    assert "context_length" not in kinds and kinds["quantization"].total < 4 * GIB


def test_other_programs_can_be_closed_on_this_machine_only() -> None:
    busy = replace(CPU, free=4 * GIB)
    helps = plan().fit(busy).helps
    assert helps[0].kind == "free" and "16" in helps[0].text.replace("17", "16")
    assert "free" not in {help.kind for help in plan().fit(("PC", 5 * GIB)).helps}


def test_what_fits_needs_no_help() -> None:
    assert plan().fit(machine(16)).helps == ()


def test_the_longest_context_is_the_longest() -> None:
    for gib in (4.2, 5, 7, 9.3, 12):
        length = plan().longest_context(machine(gib))
        assert length % PADDING == 0 and length < 10_000
        if length:
            assert plan().at(context_length=length).fit(machine(gib)).level != "no"
        assert plan().at(context_length=length + PADDING).fit(machine(gib)).level == "no"
    assert plan().longest_context(machine(64)) == 10_000  # what it was trained for
    assert plan().longest_context(machine(2)) == 0


def test_the_engine_s_refusal_is_a_no() -> None:
    refused = replace(plan(), refusal="It will not.")
    verdict = refused.fit(machine(64))
    assert (verdict.level, verdict.reason) == ("no", "It will not.")


def test_never_fits_where_it_does_not(tmp_path: Path) -> None:
    """However far off an estimate is within what is promised, a verdict other than "no" has room for the truth."""
    chance = random.Random(3)
    found = model("llama-3.2-1b Q4_K", tmp_path)
    for _ in range(200):
        estimate = found.plan(Request(context_length=chance.randrange(256, 131072)))
        truth = estimate.total + max(64 << 20, int(0.02 * estimate.total))
        size = int(estimate.total * chance.uniform(0.8, 1.4))
        verdict = estimate.fit(Target("x", "cpu", size, size))
        assert verdict.level == "no" or truth <= size
        assert verdict.level != "fits" or estimate.total <= HEAD_ROOM * size


# Machines


def test_targets() -> None:
    here = target_of(CPU)
    assert (here.usable, here.total, here.here, here.kind) == (8 * GIB, 16 * GIB, True, "cpu")
    assert target_of(here) is here
    assert not target_of(("RTX 4090", 24 * GIB)).here


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(name, "cuda") for name in ("RTX 3060", "NVIDIA H100", "A100", "T4", "Radeon RX 7900", "GeForce GTX 1060")],
        *[(name, "mps") for name in ("Apple M2", "MacBook Pro", "M4 Max")],
        *[(name, "cpu") for name in ("PC", "my machine", "")],
    ],
)
def test_kinds_of_machines(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_some_memory_is_kept_for_others() -> None:
    assert usable("Apple M1", 16 * GIB) == 16 * GIB * 2 // 3
    assert usable("Apple M3 Max", 64 * GIB) == 48 * GIB
    assert usable("RTX 3060", 12 * GIB) == 12 * GIB - GIB // 2
    assert usable("PC", 16 * GIB) == 14 * GIB and usable("PC", GIB // 2) == 0


# Calibration


def measured(tmp_path: Path, *loads: tuple[str, int]) -> Calibration:
    found = Calibration(tmp_path)
    for name, more in loads:
        made = replace(plan(), model=name)
        found.add(made, made.total + more)
    return found


def test_a_load_corrects_the_next_plan_of_the_model(tmp_path: Path) -> None:
    corrected = measured(tmp_path, ("linear", 100), ("linear", 300), ("linear", 200)).applied(plan())
    assert corrected.size("correction") == 200 and corrected.total == plan().total + 200
    assert (
        corrected.provenance["correction"] == "assumed" and "3 loads of this model" in corrected.sources["correction"]
    )
    assert corrected.at(context_length=2048).size("correction") == 200
    assert corrected.weights == plan().weights


def test_other_models_have_to_agree_first(tmp_path: Path) -> None:
    assert measured(tmp_path, ("a", 100), ("b", 100)).applied(plan()) == plan()
    assert measured(tmp_path, ("c", 300)).applied(plan()).size("correction") == 100


def test_another_kind_of_device_is_not_corrected(tmp_path: Path) -> None:
    known = measured(tmp_path, ("linear", 100))
    assert not known.applied(plan(target=target_of(("RTX 4090", GIB)))).size("correction")
    assert not known.applied(replace(plan(), engine="transformers")).size("correction")


def test_a_correction_has_a_limit_and_is_not_corrected_again(tmp_path: Path) -> None:
    known = measured(tmp_path, ("linear", 50 * GIB))
    corrected = known.applied(plan())
    assert corrected.size("correction") == int(0.2 * plan().total)
    known.add(corrected, corrected.total)
    assert known.loads[-1].predicted == plan().total
    assert known.applied(corrected.at(context_length=512)).size("correction") <= int(0.2 * plan().total)


def test_experience_is_kept(tmp_path: Path) -> None:
    measured(tmp_path, ("linear", -100))
    again = Calibration(tmp_path)
    assert again.applied(plan()).size("correction") == -100
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"model": "a"}]', "{}", "[[[[", "null"])
def test_a_damaged_file_is_no_experience(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    known = Calibration(tmp_path)
    assert known.loads == () and known.applied(plan()) == plan()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known = Calibration(tmp_path / "file" / "below")
    known.add(plan(), 1)
    assert len(known.loads) == 1


# The estimator


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=ModelSettings(cache_dir=tmp_path / "cache", offline=True))


@pytest.fixture
def asked(settings: Settings) -> Iterator[Estimator]:
    made = Estimator(settings, device=lambda: CPU)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    estimator.default_estimator().close()
    estimator.default_estimator.cache_clear()


@needs("llama_cpp")
def test_estimate_is_the_engine_s_own_accounting() -> None:
    found = multimodel.estimate("gguf:guide", context_length=1024, sequences=2, flash_attention=False, device="cpu")
    assert found.provenance["kv_cache"] == "exact" and found.weights == read_header([FileSource(GUIDE_GGUF)]).weights
    assert found.kv_cache == 2 * multimodel.estimate(GUIDE_GGUF, context_length=1024).kv_cache
    assert found.fit(("PC", 8 * GIB)).level == "fits"
    assert found.longest_context(("PC", 8 * GIB)) == 1024


def test_estimate_of_a_folder() -> None:
    found = multimodel.estimate(str(GUIDE_FOLDER), device=("RTX 4090", 24 * GIB))
    assert found.request.target.name == "RTX 4090" and found.engine == "transformers"
    assert found.weights == multimodel.estimate("transformers:guide", dtype="bfloat16").weights
    training = multimodel.estimate(GUIDE_FOLDER, training=multimodel.memory.Training(batch_size=2))
    assert training.size("optimizer") == 2 * training.weights


@pytest.mark.parametrize(
    ("model", "engine", "name"),
    [
        ("Qwen/Qwen3-8B", "transformers", "Qwen/Qwen3-8B"),
        ("gguf:Qwen/Qwen3-8B-GGUF:Q8_0", "llama.cpp", "Qwen/Qwen3-8B-GGUF:Q8_0"),
        ("Qwen/Qwen3-8B-GGUF", "llama.cpp", "Qwen/Qwen3-8B-GGUF:Q4_K_M"),
    ],
)
def test_a_well_known_model_has_a_plan_without_the_hub(model: str, engine: str, name: str) -> None:
    found = multimodel.estimate(model, context_length=8192, device=("RTX 4090", 24 * GIB))
    assert (found.engine, found.model) == (engine, name)
    assert found.provenance["weights"] in ("formula", "assumed") and found.provenance["kv_cache"] == "formula"
    assert found.notes[-1].startswith("By the catalogue that ships with the app, of ")
    assert found.fit(("RTX 4090", 24 * GIB)).level == "fits" and found.longest_context(("PC", 512 * GIB)) == 40_960


def test_what_the_catalogue_does_not_know_is_said() -> None:
    with pytest.raises(DownloadFailed, match="switched off"):
        multimodel.estimate("o/r")
    with pytest.raises(ModelNotFound, match="has no Q9_X"):
        multimodel.estimate("Qwen/Qwen3-8B-GGUF:Q9_X")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"context_length": 0}, "context_length is 0"),
        ({"context_length": "many"}, "context_length is 'many'"),
        ({"sequences": -1}, "sequences is -1"),
        ({"batch_tokens": 2.5}, "batch_tokens is 2.5"),
        ({"context_length": 1 << 60}, "context_length is 115"),
        ({"kv_type": "q9"}, "kv_type is 'q9'"),
        ({"dtype": "f8"}, "dtype is 'f8'"),
        ({"device": "tpu"}, "'tpu' is no device"),
        ({"training": multimodel.Training(batch_size=0)}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParameter, match=says) as caught:
        multimodel.estimate("gguf:guide", **asked)
    assert caught.value.hint.startswith("Give ")


@needs("llama_cpp")
def test_a_slider_is_answered_by_formula_or_from_memory(asked: Estimator) -> None:
    found = asked.read("gguf:guide")
    request = Request(context_length=768, target=target_of(CPU))
    assert asked.plan(found, request, exact=False).provenance["kv_cache"] == "formula"
    exact = asked.plan(found, request)
    assert exact.provenance["kv_cache"] == "exact"
    assert asked.plan(found, request, exact=False) == exact  # it was asked before


def test_headers_are_read_once(asked: Estimator) -> None:
    assert asked.read(str(GUIDE_GGUF)) is asked.read(str(GUIDE_GGUF))


def test_an_engine_that_does_not_answer_is_replaced_by_the_formula(settings: Settings) -> None:
    class Silent(Accountant):
        def account(self, *args: Any, **options: Any) -> tuple[Account, ...] | None:
            return None

    asked = Estimator(settings, device=lambda: CPU, accountant=Silent())
    found = asked.plan("gguf:guide")
    asked.close()
    assert found.provenance["kv_cache"] == "formula" and found.kv_cache


def test_loads_are_remembered(asked: Estimator) -> None:
    request = Request(context_length=256, target=target_of(CPU))
    before = asked.plan("transformers:guide", request)
    asked.loaded(before, before.total + 12345)
    assert asked.plan("transformers:guide", request).total == before.total + 12345


def test_targets_by_name(asked: Estimator) -> None:
    assert asked.target("auto") == target_of(CPU) and asked.target("cpu").kind == "cpu"
    assert asked.target(("PC", GIB)).total == GIB


def test_how_a_model_that_lies_here_is_loaded(asked: Estimator) -> None:
    spec = ModelSpec(ModelId("gguf", "guide"), LoadOptions(context_length=4096))
    found = asked.planned(GUIDE_GGUF, spec, CPU)
    assert (found.model, found.request.context_length, found.request.sequences) == ("gguf:guide", 1024, 8)
    assert not found.request.flash_attention
    alone = replace(spec, load=replace(spec.load, sequences=1, kv_type="q8_0"))
    assert asked.planned(GUIDE_GGUF, alone, CPU).request.sequences == 1
    assert asked.planned(GUIDE_GGUF, alone, CPU).request.flash_attention
    folder = asked.planned(GUIDE_FOLDER, ModelSpec(ModelId("transformers", "guide")), CPU)
    assert folder.request.sequences == 1 and folder.request.context_length == 1024


@pytest.mark.parametrize("name", ["openai:gpt-5", "gpt-5", "https://x/y"])
def test_models_elsewhere_have_no_plan(asked: Estimator, name: str) -> None:
    with pytest.raises((InvalidModelId, ModelNotFound)) as caught:
        asked.read(name)
    assert caught.value.hint


def test_a_path_that_leads_nowhere(asked: Estimator) -> None:
    for name in ("./none.gguf", "gguf:/none/model.gguf", "transformers:./none"):
        with pytest.raises(ModelNotFound):
            asked.read(name)


def test_this_machine_is_seen_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator, "gpu_possible", lambda: False)
    monkeypatch.setattr(estimator, "probe", None)
    estimator.this_device.cache_clear()
    assert estimator.this_device().kind == "cpu" and estimator.this_device().total
    estimator.this_device.cache_clear()
