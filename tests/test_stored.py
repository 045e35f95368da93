"""What lies in the cache, and its deletion: every byte that is named is freed, and nothing else is touched."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from multimodel.downloads import Downloads
from multimodel.errors import BadRequest
from multimodel.locate import locate
from multimodel.settings import ModelSettings, Settings
from multimodel.stored import Stored, delete, inventory
from multimodel.types import ModelId, ModelSpec

from .hub import FakeHub, Repo
from .support import eventually
from .test_locate import transformers_repo


@pytest.fixture
def settings(tmp_path: Path, hub: FakeHub) -> Settings:
    return Settings(models=ModelSettings(cache_dir=tmp_path / "cache", hub_url=hub.url, offline=False))


def bring(text: str, settings: Settings) -> Path:
    steps = locate(ModelSpec(ModelId.parse(text)), settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return Path(end.value.path)


def bytes_on_disk(settings: Settings) -> int:
    files = [path for path in settings.models.cache_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files if path.parent.name == "blobs" or path.suffix == ".gguf")


def by_key(settings: Settings) -> dict[str, Stored]:
    return {item.key: item for item in inventory(settings).models}


def test_an_empty_cache(settings: Settings) -> None:
    found = inventory(settings)
    assert (found.models, found.leftovers, found.size) == ((), (), 0)
    assert found.free > 0


@pytest.fixture
def full(hub: FakeHub, settings: Settings) -> Settings:
    """Two quantisations and a transformers model, with a README in the cache as other programs bring it."""
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": b"4" * 4_000, "m-Q8_0.gguf": b"8" * 8_000, "README.md": b"# Hi"})
    hub.repos["o/r"] = transformers_repo()
    for text in ("gguf:o/g:Q4_K_M", "gguf:o/g:Q8_0", "transformers:o/r"):
        bring(text, settings)
    (settings.models.cache_dir / "loose-Q4_0.gguf").write_bytes(b"l" * 500)
    return settings


def test_what_is_there_with_size_and_the_id_that_opens_it(full: Settings) -> None:
    found = by_key(full)
    assert [(item.detail, item.model, item.size) for item in list(found.values())[:2]] == [
        ("Q8_0", "gguf:o/g:Q8_0", 8_000),
        ("Q4_K_M", "gguf:o/g:Q4_K_M", 4_000),
    ]
    assert found["o/r:safetensors"].model == "transformers:o/r"
    assert found["loose-Q4_0.gguf"].model == f"gguf:{full.models.cache_dir / 'loose-Q4_0.gguf'}"
    assert all(item.used for item in found.values())
    assert inventory(full).size == bytes_on_disk(full)


def test_one_quantisation_is_deleted_and_the_other_stays(full: Settings) -> None:
    before = bytes_on_disk(full)
    assert delete(["o/g:Q8_0"], full) == 8_000
    assert bytes_on_disk(full) == before - 8_000
    assert "o/g:Q8_0" not in by_key(full)
    assert bring("gguf:o/g:Q4_K_M", full).read_bytes() == b"4" * 4_000


def test_with_its_last_model_a_repository_is_gone(full: Settings) -> None:
    freed = delete(["o/g:Q8_0", "o/g:Q4_K_M"], full)
    assert freed == 12_000
    assert not (full.models.cache_dir / "models--o--g").exists()
    assert not (full.models.cache_dir / ".locks/models--o--g").exists()
    assert bring("transformers:o/r", full).is_dir()


def test_all_of_it(full: Settings) -> None:
    total = inventory(full).size
    assert delete(by_key(full), full) == total
    assert not inventory(full).models and bytes_on_disk(full) == 0


def test_content_that_two_files_share_stays_with_the_other(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"a-Q4_0.gguf": b"same" * 9, "b-Q8_0.gguf": b"same" * 9})
    bring("gguf:o/g:Q4_0", settings)
    other = bring("gguf:o/g:Q8_0", settings)
    delete(["o/g:Q4_0"], settings)
    assert other.read_bytes() == b"same" * 9


def test_half_a_model_is_shown_but_cannot_be_opened(full: Settings) -> None:
    snapshot = next(full.models.cache_dir.glob("models--o--r/snapshots/*"))
    (snapshot / "tokenizer.json").unlink()
    assert by_key(full)["o/r:safetensors"].model == ""


def test_leftovers_are_told_from_downloads_that_can_go_on(hub: FakeHub, settings: Settings) -> None:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": os.urandom(3_000_000)})
    hub.stall = threading.Event()
    downloads, model = Downloads(settings), ModelId("gguf", "o/g:Q4_K_M")
    downloads.start(model)
    eventually(lambda: any(d.progress.done > 500_000 for d in downloads.all()))
    downloads.pause(model)
    hub.stall.set()
    (paused,) = [downloads.wait(model, 30)]
    assert paused and paused.parts
    blobs = settings.models.cache_dir / "models--o--g/blobs"
    (blobs / f"{'a' * 64}.incomplete").write_bytes(b"x" * 77)
    (blobs / f"{'b' * 64}.1234abcd.incomplete").write_bytes(b"x" * 23)  # as the Hub's library names them
    found = inventory(settings, paused.parts)
    assert sorted(item.size for item in found.leftovers) == [23, 77]
    assert {item.name for item in found.leftovers} == {"o/g"}
    assert delete([item.key for item in found.leftovers], settings, paused.parts) == 100
    assert paused.parts[0].exists()
    assert len(inventory(settings).leftovers) == 1


def test_what_is_gone_cannot_be_deleted(full: Settings) -> None:
    before = bytes_on_disk(full)
    with pytest.raises(BadRequest, match="no longer there"):
        delete(["o/g:Q8_0", "../../etc"], full)
    assert bytes_on_disk(full) == before
