"""What a GGUF model takes: llama.cpp's own accounting, and the formula beside it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.memory import CACHES
from bench.shapes import MODELS, UNSEEN, Gguf
from multimodel.memory import MemoryPlan, Request, engine, target_of
from multimodel.memory.config_shape import shape_of_config
from multimodel.memory.context import CACHE_TYPES, ContextSettings, flash_attention, request_of, settings_of
from multimodel.memory.engine import Account, Accountant
from multimodel.memory.estimator import Estimator
from multimodel.memory.gguf import FORMATS, Header, read_header
from multimodel.memory.gguf_plan import ENDED, GgufModel
from multimodel.memory.gguf_shape import shape_of
from multimodel.memory.llama import account_by_formula, cells, refused
from multimodel.memory.plan import ACCURACY, LEAST_ERROR
from multimodel.memory.shape import Layer
from multimodel.memory.source import FileSource
from multimodel.memory.target import Target
from multimodel.settings import ModelSettings, Settings
from multimodel.types import LoadOptions

from .support import DATA, GUIDE_GGUF, needs, needs_data

SHAPES = {**MODELS, **UNSEEN}
GPU = target_of(("RTX 4090", 24 << 30))


@pytest.fixture
def accountant() -> Iterator[Accountant]:
    made = Accountant()
    yield made
    made.close()


def header(gguf: Gguf, tmp_path: Path) -> Header:
    return read_header([FileSource(gguf.write(tmp_path / "shape.gguf"))])


def model(name: str, tmp_path: Path) -> GgufModel:
    return GgufModel(name, header(SHAPES[name](), tmp_path))


def some_contexts(count: int) -> list[tuple[str, ContextSettings]]:
    """A seeded choice of shapes and settings, from all of `bench.memory`."""
    chance = random.Random(11)
    found = []
    for name in chance.sample(sorted(SHAPES), count):
        cache, flash = chance.choice(CACHES)
        length, many = chance.choice([2048, 5000, 8192, 32768, 131072]), chance.choice([1, 2, 4])
        settings = ContextSettings(length=length, sequences=many, kv_type=cache, flash_attention=flash)
        found.append((name, settings))
    return found


@pytest.mark.slow
@needs("llama_cpp")
def test_the_formula_is_as_near_as_promised_and_never_says_fits_where_it_does_not(
    accountant: Accountant, tmp_path: Path
) -> None:
    made = 0
    for name, settings in some_contexts(16):
        found = model(name, tmp_path)
        (truth,) = accountant.account(found.header, [settings], seconds=120) or ()
        if truth.refusal or truth.ended:
            continue
        guess = account_by_formula(found.shape, settings)
        assert abs(guess.kv_cache - truth.kv_cache) < 1 << 16, name
        assert abs(guess.recurrent - truth.recurrent) < 1 << 16, name
        total = found.header.weights + _sum(truth)
        assert abs(_sum(guess) - _sum(truth)) <= max(ACCURACY * total, LEAST_ERROR), name
        _never_fits_below(found, settings, truth)
        made += 1
    assert made >= 12


def _never_fits_below(found: GgufModel, settings: ContextSettings, truth: Account) -> None:
    """The verdict by formula, on machines that lack a byte and more of what the model takes there."""
    request = Request(
        context_length=settings.length,
        sequences=settings.sequences,
        kv_type=settings.kv_type,
        flash_attention=settings.flash_attention,
    )
    plan = found.plan(request)
    needed = plan.weights + plan.framework + _sum(truth)
    for lacking in (1, 1 << 20, needed // 100, needed // 10):
        assert plan.level(Target("x", "cpu", needed - lacking, needed)) == "no"


@needs_data("configs")
def test_no_known_configuration_is_left_out(tmp_path: Path) -> None:
    """Every real configuration beside the repository has its shape among those the formula is judged by."""
    shapes = {name: shape_of(header(make(), tmp_path)) for name, make in SHAPES.items()}
    known = {(len(shape.layers), shape.embedding, shape.vocabulary) for shape in shapes.values()}
    for folder in sorted(path for path in (DATA / "configs").iterdir() if path.is_dir()):
        shape = shape_of_config(json.loads((folder / "config.json").read_text()))
        assert (len(shape.layers), shape.embedding, shape.vocabulary) in known, folder.name


@needs("llama_cpp")
def test_where_llama_cpp_ends_over_a_context_the_formula_answers_with_a_note(tmp_path: Path) -> None:
    """Phi 4's ten KV heads in a packed cache of several conversations: an assertion of llama.cpp fails."""
    path = SHAPES["phi-4-14b"]().write(tmp_path / "phi-4.gguf")
    estimator = Estimator(Settings(models=ModelSettings(cache_dir=tmp_path)))
    request = Request(context_length=2048, kv_type="q8_0", sequences=4, target=target_of(("PC", 64 << 30)))
    packed = estimator.plan(f"gguf:{path}", request, seconds=60)
    alone = estimator.plan(f"gguf:{path}", replace(request, sequences=1), seconds=60)
    estimator.close()
    assert packed.notes == (ENDED,) and packed.provenance["kv_cache"] == "formula"
    assert alone.notes == () and alone.provenance["kv_cache"] == "exact"
    assert packed.kv_cache == 4 * alone.kv_cache and packed.fit(GPU).level == "no"


@needs("llama_cpp")
@pytest.mark.parametrize("name", ["distilbert", "deepseek-v3.2"])
def test_encoders_and_sparse_attention_are_laid_out(accountant: Accountant, tmp_path: Path, name: str) -> None:
    found = model(name, tmp_path)
    (truth,) = accountant.account(found.header, [ContextSettings(length=2048)], seconds=60) or ()
    assert not truth.refusal and truth.compute
    assert truth.kv_cache == account_by_formula(found.shape, ContextSettings(length=2048)).kv_cache


def _sum(account: Account) -> int:
    return account.kv_cache + account.recurrent + account.compute + account.output


@needs("llama_cpp")
def test_an_account_is_what_a_loaded_model_takes(accountant: Accountant) -> None:
    """Without the weights llama.cpp says the same as with them."""
    import llama_cpp as native

    params = native.llama_model_default_params()
    params.n_gpu_layers = 0
    loaded = native.llama_model_load_from_file(str(GUIDE_GGUF).encode(), params)
    settings = ContextSettings(length=1024, sequences=2)
    wanted = native.llama_context_default_params()
    for name, value in settings.params().items():
        setattr(wanted, name, value)
    context = native.llama_init_from_model(loaded, wanted)
    rows = native.llama_n_ctx(context) * native.llama_model_n_layer(loaded) * native.llama_model_n_head_kv(loaded)
    head = native.llama_model_n_embd(loaded) // native.llama_model_n_head(loaded)
    native.llama_free(context)
    native.llama_model_free(loaded)
    (account,) = accountant.account(read_header([FileSource(GUIDE_GGUF)]), [settings], seconds=60) or ()
    assert account.kv_cache == rows * head * 2 * 2
    assert account.compute and account.output


@needs("llama_cpp")
def test_refusals_are_told_apart_from_silence(accountant: Accountant, tmp_path: Path) -> None:
    found = model("phi-2", tmp_path)
    settings = ContextSettings(length=512, kv_type="q8_0", flash_attention=True)
    plain = replace(settings, kv_type="f16")
    packed, good = accountant.account(found.header, [settings, plain], seconds=60) or ()
    assert "does not divide" in packed.refusal and not good.refusal and good.kv_cache
    plan = found.plan(Request(context_length=512, kv_type="q8_0"), packed)
    assert plan.refusal == packed.refusal and plan.fit(GPU).level == "no"
    assert plan.fit(GPU).helps[0].value == "f16"
    assert refused(found.shape, settings) and not refused(found.shape, plain)
    assert "flash attention" in refused(found.shape, replace(settings, flash_attention=False))


@needs("llama_cpp")
def test_a_header_it_cannot_load_is_a_refusal(accountant: Accountant, tmp_path: Path) -> None:
    strange = Gguf("no-such-architecture")
    strange.add("token_embd", 32, 100)
    (account,) = accountant.account(header(strange, tmp_path), [ContextSettings(length=512)], seconds=60) or ()
    assert "unknown model architecture" in account.refusal


@needs("llama_cpp")
def test_a_child_that_ends_over_one_context_answers_for_the_others(
    accountant: Accountant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model("gpt2", tmp_path)
    good = ContextSettings(length=512)
    real = ContextSettings.params
    monkeypatch.setattr(
        ContextSettings, "params", lambda self: real(self) | ({"type_k": 4} if self.length == 1024 else {})
    )  # type 4 was removed from llama.cpp: it ends the process
    accounts = accountant.account(found.header, [good, replace(good, length=1024), good], seconds=90)
    assert accounts and [a.ended for a in accounts] == [False, True, False]
    assert accounts[0] == accounts[2] and accounts[0].kv_cache
    plan = found.plan(Request(context_length=1024), accounts[1])
    assert plan.notes == (ENDED,) and plan.provenance["kv_cache"] == "formula" and plan.kv_cache


@needs("llama_cpp")
def test_a_killed_child_is_followed_by_another(accountant: Accountant, tmp_path: Path) -> None:
    found = model("gpt2", tmp_path)
    before = accountant.account(found.header, [ContextSettings(length=512)], seconds=60)
    child = accountant._child
    assert child
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.wait()
    assert accountant.account(found.header, [ContextSettings(length=512)], seconds=60) == before


@needs("llama_cpp")
def test_no_answer_in_time_is_none(accountant: Accountant, tmp_path: Path) -> None:
    found = model("gpt2", tmp_path)
    assert accountant.account(found.header, [ContextSettings(length=512)], seconds=0.0) is None
    assert accountant.account(found.header, [ContextSettings(length=512)], seconds=60)


@needs("llama_cpp")
def test_a_closed_one_says_nothing(tmp_path: Path) -> None:
    accountant = Accountant()
    accountant.warm()
    accountant.close()
    accountant.warm()
    assert accountant.account(model("gpt2", tmp_path).header, [ContextSettings(length=512)]) is None


def test_without_llama_cpp_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert Accountant().account(model("gpt2", tmp_path).header, [ContextSettings(length=512)]) is None


@needs("llama_cpp")
def test_a_disk_without_room_for_holes(accountant: Accountant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model("gpt2", tmp_path)
    monkeypatch.setattr(engine, "without_vocabulary", lambda header: (b"GGUF", 1 << 62))
    assert accountant.account(found.header, [ContextSettings(length=512)]) is None


# Settings


def test_the_settings_are_llama_cpp_s_own_names() -> None:
    settings = ContextSettings(length=1000, sequences=3, kv_type="q8_0", flash_attention=True)
    assert settings.cells == 1024
    assert settings.params() == {
        "n_ctx": 3072,
        "n_batch": 512,
        "n_ubatch": 512,
        "n_seq_max": 3,
        "n_outputs_max": 3,
        "flash_attn_type": 1,
        "type_k": 8,
        "type_v": 8,
        "kv_unified": False,
        "swa_full": False,
        "no_perf": True,
    }


@needs("llama_cpp")
def test_the_numbers_are_the_library_s() -> None:
    import llama_cpp as native

    params = native.llama_context_default_params()
    for name in ContextSettings(length=512).params():
        assert hasattr(params, name)
    for name, (number, _) in CACHE_TYPES.items():
        assert getattr(native, f"GGML_TYPE_{name.upper()}", number) == number
        assert (FORMATS[number][0].lower(), FORMATS[number][2] / FORMATS[number][1]) == (name, CACHE_TYPES[name][1])
    assert (native.LLAMA_FLASH_ATTN_TYPE_DISABLED, native.LLAMA_FLASH_ATTN_TYPE_ENABLED) == (0, 1)


def test_flash_attention_is_for_gpus_packed_caches_and_where_it_is_quicker() -> None:
    assert [flash_attention(k) for k in ("cpu", "cuda", "mps")] == [False, True, True]
    assert flash_attention("cpu", "q8_0") and flash_attention("cpu", quicker=True)
    assert not flash_attention("cpu", quicker=False) and flash_attention("cuda", quicker=False)


def test_what_loading_with_some_options_asks_for() -> None:
    asked = request_of(LoadOptions(context_length=9000, kv_type="q4_0"), Target(), 8192)
    assert (asked.context_length, asked.kv_type, asked.flash_attention) == (8192, "q4_0", True)
    stretched = request_of(LoadOptions(context_length=9000, rope_scaling="yarn", rope_factor=2.0), GPU, 8192)
    assert (stretched.context_length, stretched.flash_attention, stretched.target) == (9000, True, GPU)
    assert request_of(LoadOptions(), Target(), None).context_length == 4096


def test_a_window_needs_room_for_a_batch() -> None:
    settings = ContextSettings(length=8192)
    assert [cells(Layer(1, 1, w), settings) for w in (0, 1024, 8000)] == [8192, 1536, 8192]


# Plans


def test_a_plan_by_formula_says_so(tmp_path: Path) -> None:
    plan = model("llama-3.1-8b", tmp_path).plan(Request(context_length=8192))
    assert plan.kv_cache == 8192 * 32 * 2 * 1024 * 2  # tokens, layers, K and V, 8 heads of 128, bytes
    assert plan.provenance == {
        "weights": "exact",
        "kv_cache": "formula",
        "recurrent": "formula",
        "compute": "formula",
        "output": "formula",
        "framework": "assumed",
    }
    assert set(plan.sources) == set(plan.provenance) and all(plan.sources.values())


def test_an_account_makes_it_exact_on_a_processor_only(tmp_path: Path) -> None:
    found = model("gpt2", tmp_path)
    account = Account(kv_cache=1 << 20, compute=1 << 21, output=3)
    here = found.plan(Request(), account)
    assert here.provenance["kv_cache"] == "exact" and "llama.cpp" in here.sources["kv_cache"]
    assert (here.kv_cache, here.compute, here.output) == (1 << 20, 1 << 21, 3)
    assert found.plan(Request(target=GPU), account).provenance["kv_cache"] == "formula"
    assert found.plan(Request(target=GPU), account, gpu=True).provenance["kv_cache"] == "exact"


def test_on_a_gpu_a_tied_embedding_lies_twice(tmp_path: Path) -> None:
    found = model("qwen3-0.6b", tmp_path)
    embedding = 151936 * 1024 * 2
    assert found.plan(Request(target=GPU)).weights - found.plan(Request()).weights == embedding
    untied = model("llama-2-7b Q4_K", tmp_path)
    assert untied.plan(Request(target=GPU)).weights == untied.plan(Request()).weights


def test_beyond_its_training_a_note_says_so(tmp_path: Path) -> None:
    plan: MemoryPlan = model("gpt2", tmp_path).plan(Request(context_length=2048))
    assert "1,024 tokens" in plan.notes[0]
    assert not plan.at(context_length=1024).notes


def test_settings_of_a_request() -> None:
    request = Request(context_length=300, sequences=2, kv_type="q8_0", batch_tokens=128)
    assert settings_of(request) == ContextSettings(
        length=300, sequences=2, batch_tokens=128, kv_type="q8_0", flash_attention=True
    )


@needs("llama_cpp")
def test_an_idle_child_ends_by_itself(accountant: Accountant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = tmp_path / "child.py"
    brief.write_text(engine.CHILD.read_text().replace("IDLE = 120.0", "IDLE = 0.3"))
    monkeypatch.setattr(engine, "CHILD", brief)
    found = model("gpt2", tmp_path)
    first = accountant.account(found.header, [ContextSettings(length=512)], seconds=60)
    child = accountant._child
    assert first and child
    deadline = time.monotonic() + 20
    while child.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.alive
    assert accountant.account(found.header, [ContextSettings(length=512)], seconds=60) == first
