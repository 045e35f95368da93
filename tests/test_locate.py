"""Finding a model: on this machine, in the cache, on the Hub; and what is said where it is not to be had."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from pydantic import SecretStr

from multimodel import transfer
from multimodel.errors import BrokenFile, DownloadFailed, GatedModel, LoadError, ModelNotFound
from multimodel.locate import Located, locate
from multimodel.settings import ApiSettings, ModelSettings, Settings
from multimodel.types import Chunk, LoadOptions, ModelId, ModelSpec

from .hub import COMMIT, FakeHub, Repo

BIG = os.urandom(3_000_000)


@pytest.fixture
def settings(tmp_path: Path, hub: FakeHub) -> Settings:
    return offline_settings(tmp_path, hub.url, offline=False)


def offline_settings(tmp_path: Path, url: str = "http://127.0.0.1:9", *, offline: bool = True) -> Settings:
    folders = {"cache_dir": tmp_path / "cache", "assets_dir": tmp_path / "assets", "fine_tuned_dir": tmp_path / "tuned"}
    return Settings(models=ModelSettings(**folders, hub_url=url, offline=offline))


def with_token(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(hf_token=SecretStr("hf_secret"))})


def spec(text: str, revision: str | None = None) -> ModelSpec:
    return ModelSpec(ModelId.parse(text), LoadOptions(revision=revision))


def run(text: str, settings: Settings, revision: str | None = None) -> tuple[Located, list[Chunk]]:
    """Where the model lies, and what was said on the way."""
    said, steps = [], locate(spec(text, revision), settings)
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return end.value, said


def safetensors(name: str = "w", **changes: Any) -> bytes:
    header = json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def transformers_repo(**files: bytes) -> Repo:
    whole = {"config.json": b"{}", "tokenizer.json": b"{ }", "model.safetensors": safetensors(), "README.md": b"# x"}
    return Repo({**whole, "evil.py": b"1/0", "pytorch_model.bin": b"\x80", **files})


# On this machine


def test_the_built_in_model(tmp_path: Path) -> None:
    settings = offline_settings(tmp_path)
    with pytest.raises(ModelNotFound, match="built-in model is missing") as caught:
        run("gguf:guide", settings)
    assert "guide.train" in caught.value.hint
    (tmp_path / "assets/guide/hf").mkdir(parents=True)
    (tmp_path / "assets/guide/guide-q8_0.gguf").touch()
    assert run("transformers:guide", settings)[0].path == tmp_path / "assets/guide/hf"
    assert run("gguf:guide", settings)[0].path == tmp_path / "assets/guide/guide-q8_0.gguf"


def test_a_path_is_that_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = offline_settings(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "owner/model").mkdir(parents=True)  # it looks like a repository
    assert run("transformers:owner/model", settings)[0].path == tmp_path / "owner/model"
    assert run("transformers:./owner/model", settings)[0].path == tmp_path / "owner/model"
    assert run("transformers:~/owner/model", settings)[0].path == tmp_path / "owner/model"
    assert run(f"transformers:{tmp_path}/owner/model", settings)[0].path == tmp_path / "owner/model"


def test_a_folder_of_gguf_files_gives_the_best_of_them(tmp_path: Path) -> None:
    for name in ("m-Q8_0.gguf", "m-Q5_K_M.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).touch()
    assert run("gguf:.", offline_settings(tmp_path))[0].path == tmp_path / "m-Q5_K_M.gguf"


def test_only_what_could_be_such_a_model_is_meant(tmp_path: Path) -> None:
    settings = offline_settings(tmp_path)
    for name in ("t4.py", "t4b.gguf"):
        (tmp_path / name).touch()
    (tmp_path / "t4c").mkdir()
    for backend, meant in (("gguf", "t4b.gguf"), ("transformers", "t4c")):
        with pytest.raises(ModelNotFound) as caught:
            run(f"{backend}:{tmp_path}/t4", settings)
        assert meant in caught.value.hint and "t4.py" not in caught.value.hint


def test_a_fine_tuned_model_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "tuned/tickets").mkdir(parents=True)
    assert run("transformers:tickets", offline_settings(tmp_path))[0].path == tmp_path / "tuned/tickets"


def test_a_mistyped_path_or_name_gets_the_nearest_right_one(tmp_path: Path) -> None:
    settings = offline_settings(tmp_path)
    (tmp_path / "models/stories").mkdir(parents=True)
    (tmp_path / "tuned/tickets").mkdir(parents=True)
    for typed, meant in (("./models/storys", "models/stories"), ("tikets", "tickets"), ("giude", "guide")):
        with pytest.raises(ModelNotFound) as caught:
            run(f"transformers:{typed}", settings)
        assert f"Did you mean {meant}" in caught.value.hint


def test_without_network_a_model_that_is_not_here_says_so(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="switched off") as caught:
        run("transformers:o/r", offline_settings(tmp_path))
    assert "HF_HUB_OFFLINE" in caught.value.hint


# From the Hub


def test_only_what_loading_needs_is_fetched_and_never_code_or_pickle(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/r"] = transformers_repo()
    found = run("transformers:o/r", settings)[0].path
    assert found == settings.models.cache_dir / f"models--o--r/snapshots/{COMMIT}"
    assert hub.downloads() == ["config.json", "tokenizer.json", "model.safetensors"]
    assert sorted(p.name for p in found.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_the_hubs_own_library_finds_it_in_the_cache(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/r"] = Repo({"m-Q4_K_M.gguf": BIG})
    found = run("gguf:o/r", settings)[0].path
    theirs = huggingface_hub.try_to_load_from_cache("o/r", "m-Q4_K_M.gguf", cache_dir=settings.models.cache_dir)
    assert theirs == str(found) and found.read_bytes() == BIG and found.is_symlink()
    assert [r.repo_id for r in huggingface_hub.scan_cache_dir(settings.models.cache_dir).repos] == ["o/r"]


def test_what_is_complete_in_the_cache_needs_no_network(hub: FakeHub, settings: Settings, tmp_path: Path) -> None:
    hub.repos |= {"o/r": transformers_repo(), "o/g": Repo({"m-Q4_K_M.gguf": BIG, "m-Q8_0.gguf": BIG})}
    first = [run("transformers:o/r", settings)[0], run("gguf:o/g:q8_0", settings)[0]]
    asked = len(hub.requests)
    for again in (settings, offline_settings(tmp_path)):
        assert [run("transformers:o/r", again)[0], run("gguf:o/g:Q8_0", again)[0]] == first
    assert run("gguf:o/g", settings)[0] == first[1]  # any quantisation that is here
    assert len(hub.requests) == asked


def test_half_a_model_in_the_cache_is_completed(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/r"] = transformers_repo()
    found = run("transformers:o/r", settings)[0].path
    (found / "model.safetensors").resolve().unlink()
    hub.requests.clear()
    assert run("transformers:o/r", settings)[0].path == found
    assert hub.downloads() == ["model.safetensors"]


@pytest.mark.parametrize(
    ("wanted", "file"),
    [
        ("", "m-Q4_K_M.gguf"),
        (":q8_0", "m-Q8_0.gguf"),
        (":Q8_0", "m-Q8_0.gguf"),
        (":m-Q8_0.gguf", "m-Q8_0.gguf"),
        (":BF16", "BF16/m-BF16-00001-of-00002.gguf"),
        (":UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
    ],
)
def test_quantisations(hub: FakeHub, settings: Settings, wanted: str, file: str) -> None:
    names = ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "mmproj-F16.gguf", "imatrix_m-Q4_K_M.gguf"]
    shards = ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"]
    hub.repos["o/g"] = Repo({name: name.encode() for name in names + shards})
    found = run(f"gguf:o/g{wanted}", settings)[0].path
    assert found.read_bytes() == file.encode()
    assert hub.downloads() == (shards if "BF16" in file else [file])


def test_a_quantisation_that_is_not_there_names_those_that_are(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q8_0.gguf": b"x", "m-Q4_K_M.gguf": b"x"})
    with pytest.raises(ModelNotFound) as caught:
        run("gguf:o/g:Q4_K_S", settings)
    assert caught.value.hint == "Did you mean Q4_K_M? It has Q4_K_M, Q8_0."


def test_a_model_with_a_missing_part_is_refused(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q8_0-00001-of-00003.gguf": b"x", "m-Q8_0-00003-of-00003.gguf": b"x"})
    with pytest.raises(BrokenFile, match="2 of the 3 parts"):
        run("gguf:o/g", settings)


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"\x80"}, BrokenFile, "pickle"),
        ({"m-Q8_0.gguf": b"x"}, ModelNotFound, "gguf:o/r"),
        ({"adapter_model.safetensors": b"x"}, ModelNotFound, "adapter"),
        ({"model.safetensors": b"x", "config.json": b"{}"}, BrokenFile, "no tokenizer"),
        ({"model.safetensors": b"x", "tokenizer.json": b"{}"}, BrokenFile, "no config.json"),
        ({"README.md": b"x"}, ModelNotFound, "no model weights"),
    ],
)
def test_a_repository_that_is_no_safe_whole_model_is_refused_before_any_download(
    hub: FakeHub, settings: Settings, files: dict[str, bytes], kind: type[LoadError], says: str
) -> None:
    hub.repos["o/r"] = Repo(files)
    with pytest.raises(kind) as caught:
        run("transformers:o/r", settings)
    assert says in f"{caught.value} {caught.value.hint}"
    assert hub.downloads() == []


@pytest.mark.parametrize(
    "config", [{"auto_map": {"AutoConfig": "evil.X"}}, {"text_config": {"_attn_implementation": "evil/kernels"}}]
)
def test_a_model_that_needs_its_own_code_is_refused_before_its_weights_come(
    hub: FakeHub, settings: Settings, config: dict[str, Any]
) -> None:
    hub.repos["o/r"] = transformers_repo(**{"config.json": json.dumps(config).encode()})
    with pytest.raises(BrokenFile, match="program code"):
        run("transformers:o/r", settings)
    assert "model.safetensors" not in hub.downloads()


def test_names_and_hashes_from_the_hub_cannot_leave_the_cache(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"../../../m-Q4_K_M.gguf": b"x", "/m-Q8_0.gguf": b"x"})
    with pytest.raises(ModelNotFound):
        run("gguf:o/g", settings)
    assert hub.downloads() == []


def test_the_token_stays_with_the_hub(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    run("gguf:o/g", with_token(settings))
    sent = {path.split("/")[1]: token for (_, path, _), token in zip(hub.requests, hub.tokens, strict=True)}
    assert sent == {"api": "Bearer hf_secret", "o": "Bearer hf_secret", "cdn": ""}


def test_a_branch_is_remembered_and_an_unknown_one_is_named(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/r"] = transformers_repo()
    with pytest.raises(ModelNotFound, match="no revision 'dev'"):
        run("transformers:o/r", settings, revision="dev")
    found = run("transformers:o/r", settings, revision=COMMIT)[0]
    asked = len(hub.requests)
    assert run("transformers:o/r", settings, revision=COMMIT)[0] == found
    assert len(hub.requests) == asked


# What goes wrong on the way


def test_a_broken_connection_is_resumed_where_it_broke(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    hub.cut_after = [700_000, 500_000]
    assert run("gguf:o/g", settings)[0].path.read_bytes() == BIG
    asked = [r for _, path, r in hub.requests if "/cdn/" in path]
    assert len(set(asked)) == len(asked) == 5  # three parts, two of them asked for again from where they broke


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    hub.cut_after, hub.ranges = [1_000_000], False
    assert run("gguf:o/g", settings)[0].path.read_bytes() == BIG


def test_a_connection_that_never_brings_anything_gives_up(
    hub: FakeHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "HEARTBEAT", 0.01)
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    hub.cut_after = [0] * 50
    with pytest.raises(DownloadFailed, match="broke off"):
        run("gguf:o/g", settings)
    asked = [path for _, path, _ in hub.requests if "/cdn/" in path]
    assert transfer.ATTEMPTS <= len(asked) <= transfer.ATTEMPTS * transfer.CONNECTIONS


def test_closing_stops_the_download_and_the_next_one_goes_on(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    hub.stall = threading.Event()
    steps = locate(spec("gguf:o/g"), settings)
    chunk = next(c for c in steps if c.stage and c.stage.fraction and c.stage.fraction > 0.3)
    assert chunk.stage and chunk.stage.name == "downloading" and "o/g, 3 MB" in chunk.stage.detail
    steps.close()
    hub.stall.set()
    part = next(settings.models.cache_dir.rglob("*.incomplete"))
    wait_until_steady(part)
    assert 0 < part.stat().st_size < len(BIG)
    hub.stall = None
    hub.requests.clear()
    assert run("gguf:o/g", settings)[0].path.read_bytes() == BIG
    assert hub.requests[-1][2].startswith("bytes=") and not part.exists()


def wait_until_steady(path: Path) -> None:
    """The thread that writes it has noticed that nobody waits."""
    size = -1
    while size != (size := path.stat().st_size):
        time.sleep(0.3)


def test_two_at_once_fetch_it_once(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(run("gguf:o/g", settings)[0].path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and {p.read_bytes() for p in found} == {BIG}
    assert set(hub.downloads()) == {"m-Q4_K_M.gguf"} and len(hub.downloads()) <= 3  # the parts of one download


def test_a_file_that_arrives_changed_is_not_kept(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    hub.corrupt = True
    with pytest.raises(BrokenFile, match="hash"):
        run("gguf:o/g", settings)
    assert not [p for p in settings.models.cache_dir.rglob("*") if p.name.startswith("m-") or p.suffix == ".incomplete"]
    hub.corrupt = False
    assert run("gguf:o/g", settings)[0].path.read_bytes() == BIG


def test_a_full_disk_is_noticed_before_the_download(
    hub: FakeHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 3_200_000))
    with pytest.raises(DownloadFailed, match=r"needs 3\.3 MB, the disk has 3\.2 MB free") as caught:
        run("gguf:o/g", settings)
    assert "MODEL_CACHE_DIR" in caught.value.hint and hub.downloads() == []


@pytest.mark.parametrize(
    ("fault", "token", "kind", "says", "hint"),
    [
        ("gated", False, GatedModel, "no access token", "HUGGINGFACE_API_TOKEN"),
        ("gated", True, GatedModel, "licence of o/g is not accepted", "/o/g"),
        ("rejected", True, GatedModel, "denied", "/o/g"),
        ("bad token", True, GatedModel, "does not accept the access token", "/settings/tokens"),
        ("limited", False, DownloadFailed, "slow down", "Wait"),
        ("broken", False, DownloadFailed, "Internal error", "again"),
    ],
)
def test_refusals_say_what_to_do(
    hub: FakeHub, settings: Settings, fault: str, token: bool, kind: type[LoadError], says: str, hint: str
) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG}, fault=fault)
    with pytest.raises(kind, match=says) as caught:
        run("gguf:o/g", with_token(settings) if token else settings)
    assert hint in caught.value.hint
    assert set(hub.tokens) == ({"Bearer hf_secret"} if token else {""})


def test_an_unknown_repository_gets_the_nearest_right_name(hub: FakeHub, settings: Settings) -> None:
    hub.repos["owner/stories-260k"] = transformers_repo()
    with pytest.raises(ModelNotFound, match="no model owner/storys-260k"):
        run("transformers:owner/storys-260k", settings)
    with pytest.raises(ModelNotFound) as caught:
        run("transformers:owner/stories-260m", settings)
    assert caught.value.hint == "Did you mean owner/stories-260k?"


def test_a_hub_that_is_not_there(tmp_path: Path, hub: FakeHub) -> None:
    settings = offline_settings(tmp_path, "http://127.0.0.1:9", offline=False)
    with pytest.raises(DownloadFailed, match="cannot be reached") as caught:
        run("transformers:o/r", settings)
    assert "http://127.0.0.1:9" in caught.value.hint
