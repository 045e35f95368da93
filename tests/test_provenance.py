"""Which files a model is: the same as long as they are, another as soon as one byte is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from multimodel.provenance import Provenance, provenance
from multimodel.settings import ModelSettings, Settings
from multimodel.types import ModelId

from .support import GUIDE_FOLDER, GUIDE_GGUF, needs

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_a_file_is_its_hash(tmp_path: Path) -> None:
    found = provenance(ModelId("gguf", "guide"), Settings())
    assert found.file_hash == hashlib.sha256(GUIDE_GGUF.read_bytes()).hexdigest() and not found.revision
    copy = tmp_path / "m.gguf"
    shutil.copyfile(GUIDE_GGUF, copy)
    there = provenance(ModelId("gguf", str(copy)), Settings())
    assert there.same_files(found) is True
    with copy.open("ab") as file:
        file.write(b"\0")
    assert provenance(ModelId("gguf", str(copy)), Settings()).same_files(found) is False


@needs("transformers")
@pytest.mark.skipif(not GUIDE_FOLDER.exists(), reason="needs assets/guide")
def test_a_folder_is_the_hash_of_what_loading_takes(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(GUIDE_FOLDER, folder)
    found = provenance(ModelId("transformers", str(folder)), Settings())
    assert len(found.file_hash) == 64 and dict(found.versions).keys() >= {"transformers"}
    (folder / "README.md").write_text("more")
    assert provenance(ModelId("transformers", str(folder)), Settings()) == found
    config = folder / "generation_config.json"
    config.write_text((config.read_text() if config.exists() else "{}") + "\n")
    assert provenance(ModelId("transformers", str(folder)), Settings()).same_files(found) is False


@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_a_model_of_the_hub_has_its_commit(tmp_path: Path) -> None:
    repository = tmp_path / "models--o--r"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copyfile(GUIDE_GGUF, repository / "snapshots" / COMMIT / "m-Q8_0.gguf")
    settings = Settings(models=ModelSettings(cache_dir=tmp_path))
    assert provenance(ModelId("gguf", "o/r:Q8_0"), settings).revision == COMMIT


@pytest.mark.parametrize("id", ["echo:any", "openai:m", "gguf:/nowhere/m.gguf", "gguf:o/none", "transformers:none"])
def test_what_is_not_here_is_not_known(id: str) -> None:
    found = provenance(ModelId.parse(id), Settings())
    assert (found.revision, found.file_hash) == ("", "")
    assert found.same_files(Provenance("a", "b")) is None
