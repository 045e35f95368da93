"""Plans of models that are not here: headers by range requests from a Hub on loopback, and all that can go wrong."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from bench.shapes import MODELS, Gguf
from multimodel.errors import BrokenFile, DownloadFailed, GatedModel, LoadError
from multimodel.hub import wire
from multimodel.memory import MemoryPlan, Request, target_of
from multimodel.memory.estimator import Estimator
from multimodel.memory.source import CHUNK
from multimodel.settings import ApiSettings, ModelSettings, Settings

from .hub import FakeHub, Repo
from .support import GUIDE_GGUF, needs

PC = target_of(("PC", 64 << 30))
REQUEST = Request(context_length=2048, flash_attention=False, target=PC)
HEAD = 1 << 20  # bytes that hold the header of any of our shapes
LIES = b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)


@pytest.fixture
def settings(hub: FakeHub, tmp_path: Path) -> Settings:
    return Settings(models=ModelSettings(cache_dir=tmp_path / "cache", hub_url=hub.url, offline=False))


@pytest.fixture
def estimator(settings: Settings) -> Iterator[Estimator]:
    made = Estimator(settings)
    yield made
    made.close()


def serve(hub: FakeHub, *shapes: Path, name: str = "o/g") -> None:
    """Files of full length on the Hub, of which the server only has the first bytes."""
    files, sizes = {}, {}
    for path in shapes:
        with path.open("rb") as file:
            files[path.name] = file.read(HEAD)
        sizes[path.name] = path.stat().st_size
    hub.repos[name] = Repo(files, sizes=sizes)


def parts(hub: FakeHub) -> list[str]:
    """The ranges that were asked for of large files, without those of the redirects."""
    elsewhere = "/cdn/" if hub.redirects else "/resolve/"
    return [asked for _, path, asked in hub.requests if elsewhere in path]


def same(one: MemoryPlan, other: MemoryPlan) -> bool:
    """Whether two plans say the same, but for the model's name."""
    return one.terms == other.terms and one.request == other.request


# the way it should go


@needs("llama_cpp")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("redirects", [True, False])
def test_the_header_alone_gives_the_plan_of_the_whole_file(
    hub: FakeHub, estimator: Estimator, tmp_path: Path, ranges: bool, redirects: bool
) -> None:
    hub.ranges, hub.redirects = ranges, redirects
    path = MODELS["llama-3.1-8b Q4_K"]().write(tmp_path / "m-Q4_K_M.gguf")
    serve(hub, path)
    plan = estimator.plan("gguf:o/g:Q4_K_M", REQUEST)
    assert {plan.provenance[name] for name in ("weights", "kv_cache", "compute", "output")} == {"exact"}
    assert same(plan, estimator.plan(f"gguf:{path}", REQUEST))
    assert parts(hub) == [f"bytes=0-{CHUNK - 1}"]


@needs("llama_cpp")
def test_a_header_with_a_vocabulary_comes_in_growing_parts(hub: FakeHub, estimator: Estimator) -> None:
    content = GUIDE_GGUF.read_bytes()
    hub.repos["o/g"] = Repo({"guide-Q8_0.gguf": content})
    assert same(estimator.plan("o/g", REQUEST), estimator.plan(f"gguf:{GUIDE_GGUF}", REQUEST))
    assert parts(hub)[0] == f"bytes=0-{CHUNK - 1}" and len(parts(hub)) <= 2


@needs("llama_cpp")
def test_a_model_in_parts_is_read_by_all_their_headers(hub: FakeHub, estimator: Estimator, tmp_path: Path) -> None:
    whole = MODELS["qwen3-0.6b"]()
    path = whole.write(tmp_path / "whole.gguf")
    serve(hub, *split(whole, 3, tmp_path))
    plan, alone = estimator.plan("gguf:o/g:F16", REQUEST), estimator.plan(f"gguf:{path}", REQUEST)
    assert same(plan, alone) and plan.provenance["kv_cache"] == "exact"
    assert len(parts(hub)) == 3
    del hub.repos["o/g"].files["m-F16-00002-of-00003.gguf"]
    with pytest.raises(BrokenFile, match="2 of the 3 parts"):
        Estimator(estimator._settings).read("gguf:o/g:F16")


def split(whole: Gguf, count: int, folder: Path) -> list[Path]:
    """A model in parts as llama.cpp makes them: facts in the first, tensors in all."""
    found = []
    each = -(-len(whole.tensors) // count)
    for i in range(count):
        piece = Gguf(whole.architecture)
        piece.facts = dict(whole.facts) if i == 0 else {"general.architecture": whole.architecture}
        piece.facts |= {"split.no": i, "split.count": count, "split.tensors.count": len(whole.tensors)}
        piece.tensors = whole.tensors[i * each : (i + 1) * each]
        found.append(piece.write(folder / f"m-F16-{i + 1:05}-of-{count:05}.gguf"))
    return found


CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 1000,
    "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096,
}  # fmt: skip


FOLDER = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}"}


def safetensors(**tensors: int) -> bytes:
    """A header of bfloat16 vectors; the data is left to the imagination."""
    rows, end = {}, 0
    for name, elements in tensors.items():
        rows[name] = {"dtype": "BF16", "shape": [elements], "data_offsets": [end, end + 2 * elements]}
        end += 2 * elements
    header = json.dumps(rows).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("ranges", [True, False])
def test_safetensors_are_read_by_their_headers(hub: FakeHub, estimator: Estimator, ranges: bool) -> None:
    hub.ranges = ranges
    head = safetensors(a=400_000_000, b=300_000_000)
    sizes = {"model.safetensors": len(head) + 1_400_000_000}
    hub.repos["o/t"] = Repo({"model.safetensors": head, **FOLDER}, sizes=sizes)
    plan = estimator.plan("o/t", replace(REQUEST, dtype="bfloat16"))
    assert (plan.weights, plan.provenance["weights"]) == (1_400_000_000, "exact")
    assert plan.kv_cache == 2 * 2 * 1024 * 2048 * 2
    assert len(parts(hub)) == 1


def test_shards_are_those_of_the_index(hub: FakeHub, estimator: Estimator) -> None:
    one, two, other = safetensors(a=100_000_000), safetensors(b=50_000_000), safetensors(c=7)
    names = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    files = {names[0]: one, names[1]: two, "consolidated.safetensors": other}
    files |= {"model.safetensors.index.json": json.dumps(index).encode(), **FOLDER}
    lengths = {names[0]: len(one) + 200_000_000, names[1]: len(two) + 100_000_000}
    hub.repos["o/t"] = Repo(files, sizes=lengths)
    assert estimator.plan("transformers:o/t", replace(REQUEST, dtype="bfloat16")).weights == 300_000_000
    assert len(parts(hub)) == 2


def test_the_token_stays_with_the_hub(hub: FakeHub, settings: Settings, tmp_path: Path) -> None:
    serve(hub, MODELS["gpt2"]().write(tmp_path / "m-F16.gguf"))
    secret = settings.model_copy(update={"api": ApiSettings(hf_token=SecretStr("hf_secret"))})
    asked = Estimator(secret)
    asked.read("gguf:o/g:F16")
    asked.close()
    sent = {path.split("/")[1]: token for (_, path, _), token in zip(hub.requests, hub.tokens, strict=True)}
    assert "hf_secret" in sent["api"] and sent["cdn"] == ""


# what can go wrong


def refused(estimator: Estimator, model: str = "gguf:o/g:F16") -> LoadError:
    """The error of a plan that cannot be made: a sentence, and what to do."""
    with pytest.raises(LoadError) as caught:
        estimator.plan(model, REQUEST)
    assert str(caught.value) and caught.value.hint
    return caught.value


FILES = {
    "a hostile header": (LIES + bytes(1000), "claims 1,152,921,504,606,846,976 tensors"),
    "a web page": (b"<!DOCTYPE html><html>Sign in</html>" + bytes(1000), "is no GGUF file"),
    "an end inside the header": (b"GGUF" + struct.pack("<IQQ", 3, 5, 5), "ends inside its header"),
    "nothing": (b"", "header does not end|ends inside its header"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_gguf_file_is_refused_after_one_part(hub: FakeHub, estimator: Estimator, kind: str) -> None:
    content, why = FILES[kind]
    hub.repos["o/g"] = Repo({"m-F16.gguf": content}, sizes={"m-F16.gguf": 10**12})
    error = refused(estimator)
    assert isinstance(error, BrokenFile)
    with pytest.raises(BrokenFile, match=why):
        raise error
    assert len(parts(hub)) <= 2


@pytest.mark.parametrize("claimed", [1 << 60, (1 << 64) - 1, 200 << 20])
def test_a_hostile_header_of_safetensors(hub: FakeHub, estimator: Estimator, claimed: int) -> None:
    files = {"model.safetensors": struct.pack("<Q", claimed) + b"{}", **FOLDER}
    hub.repos["o/t"] = Repo(files, sizes={"model.safetensors": 10**12})
    assert isinstance(refused(estimator, "transformers:o/t"), BrokenFile)
    assert len(parts(hub)) == 1


def test_an_answer_that_breaks_off_is_said_and_forgotten(hub: FakeHub, estimator: Estimator, tmp_path: Path) -> None:
    serve(hub, MODELS["gpt2"]().write(tmp_path / "m-F16.gguf"))
    hub.cut_after = [1000]
    error = refused(estimator)
    assert isinstance(error, DownloadFailed) and "broke off" in str(error)
    assert estimator.plan("gguf:o/g:F16", REQUEST, exact=False).weights > 200_000_000


def test_an_answer_that_stops_has_an_end(
    hub: FakeHub, estimator: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, MODELS["gpt2"]().write(tmp_path / "m-F16.gguf"))
    monkeypatch.setattr(wire, "TIMEOUT", 0.3)
    hub.stall, hub.stall_after = threading.Event(), 1000
    error = refused(estimator)
    assert isinstance(error, DownloadFailed) and "did not answer" in str(error)


def test_another_part_than_was_asked_for_is_not_taken(hub: FakeHub, estimator: Estimator, tmp_path: Path) -> None:
    serve(hub, MODELS["gpt2"]().write(tmp_path / "m-F16.gguf"))
    hub.shift = 32
    error = refused(estimator)
    assert isinstance(error, DownloadFailed) and "another part of m-F16.gguf" in str(error)


REFUSALS = {
    **{"gated": GatedModel, "rejected": GatedModel, "bad token": GatedModel, "forbidden": GatedModel},
    **{"limited": DownloadFailed, "broken": DownloadFailed, "overloaded": DownloadFailed},
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_every_refusal_of_a_file_says_what_to_do(
    hub: FakeHub, estimator: Estimator, tmp_path: Path, fault: str
) -> None:
    serve(hub, MODELS["gpt2"]().write(tmp_path / "m-F16.gguf"))
    hub.repos["o/g"].fault = fault
    assert isinstance(refused(estimator), REFUSALS[fault])
    hub.repos["o/g"].fault = ""
    assert estimator.plan("gguf:o/g:F16", REQUEST, exact=False).weights > 200_000_000
