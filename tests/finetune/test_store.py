"""The saved models: found when whole, renamed, deleted, packed; names that are none are refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from multimodel.errors import BrokenFile, InvalidName, ModelNotFound
from multimodel.finetune.export import safe_cell, write_csv
from multimodel.finetune.store import MANIFEST, METADATA, METRICS, Store, check_name, write_manifest

from .support import settings_in


def stored(store: Store, name: str) -> Path:
    """A model of a few files."""
    folder = store.folder / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    data = {"task": "single_label", "classes": ["a", "b"], "base": "encoder", "ended": "2026-01-01"}
    (folder / METADATA).write_text(json.dumps(data))
    (folder / METRICS).write_text(json.dumps({"accuracy": 0.9, "confusion": [[1]]}))
    write_manifest(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(settings_in(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", "../up", "a/b", "a\\b", "/etc", "~", ".hidden", "-flag", "--help", "a\0b", "a\nb", "x" * 64,
        "guide", "Encoder", "CON", "com1", "ends.", "a..b", "naïve", "ｆｕｌｌ", "а", "a:b", "a*",
    ],
)  # fmt: skip
def test_names_that_are_none(store: Store, name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        store.path(name)
    assert "letters" in caught.value.hint


def test_names_that_are_names() -> None:
    assert [check_name(n) for n in ("a", "Reviews 2", " x ", "v1.0_b-c+d")] == ["a", "Reviews 2", "x", "v1.0_b-c+d"]


def test_only_whole_models_are_found(store: Store) -> None:
    assert store.all() == []
    stored(store, "whole")
    (stored(store, "half") / MANIFEST).unlink()
    (stored(store, "odd") / METADATA).write_text("{")
    shutil.copytree(store.folder / "whole", store.folder / ".gone-1")
    (found,) = store.all()
    assert (found.name, found.classes, dict(found.metrics)) == ("whole", ("a", "b"), {"accuracy": 0.9})
    assert found.size > 7
    with pytest.raises(ModelNotFound, match="'half'"):
        store.get("half")
    with pytest.raises(BrokenFile):
        store.get("odd")


def test_damage_is_found_by_hash(store: Store) -> None:
    folder = stored(store, "a")
    assert store.damaged("a") == []
    (folder / "model.safetensors").write_bytes(b"Weights")
    (folder / METRICS).unlink()
    assert store.damaged("a") == [METRICS, "model.safetensors"]


def test_rename_takes_the_run_along_and_overwrites_nothing(store: Store) -> None:
    stored(store, "old"), stored(store, "other")
    (store.runs / "old").mkdir(parents=True)
    for taken in ("other", "OTHER"):
        with pytest.raises(InvalidName, match="already"):
            store.rename("old", taken)
    with pytest.raises(InvalidName):
        store.rename("old", "../new")
    store.rename("old", "new")
    assert sorted(store.names()) == ["new", "other"]
    assert (store.runs / "new").is_dir() and not (store.runs / "old").exists()
    with pytest.raises(ModelNotFound) as caught:
        store.rename("old", "newer")
    assert "new" in caught.value.hint


def test_delete_removes_one_model_and_its_run(store: Store) -> None:
    stored(store, "a"), stored(store, "b")
    (store.runs / "a").mkdir(parents=True)
    store.delete("a")
    assert store.names() == ["b"]
    assert sorted(path.name for path in store.folder.iterdir()) == [".runs", "b"]
    with pytest.raises(ModelNotFound):
        store.delete("a")


def test_a_link_is_removed_and_what_it_leads_to_stays(store: Store, tmp_path: Path) -> None:
    elsewhere = stored(Store(settings_in(tmp_path / "other")), "mine")
    stored(store, "a")
    (store.folder / "linked").symlink_to(elsewhere)
    store.delete("linked")
    assert (elsewhere / "model.safetensors").exists()
    assert sorted(path.name for path in store.folder.iterdir()) == ["a"]


def test_publishing_replaces_a_model_in_one_step(store: Store, tmp_path: Path) -> None:
    stored(store, "a")
    built = tmp_path / "built"
    shutil.copytree(store.folder / "a", built)
    (built / "model.safetensors").write_bytes(b"better")
    assert store.publish(built, "a") == store.folder / "a"
    assert (store.folder / "a" / "model.safetensors").read_bytes() == b"better"
    assert store.damaged("a") == [] and not built.exists()
    assert sorted(path.name for path in store.folder.iterdir()) == ["a"]


def test_a_zip_holds_the_whole_model(store: Store, tmp_path: Path) -> None:
    folder = stored(store, "a")
    packed = store.zip("a", tmp_path / "a.zip")
    with zipfile.ZipFile(packed) as file:
        assert file.testzip() is None
        assert sorted(file.namelist()) == sorted(f"a/{path.name}" for path in folder.iterdir())
    with pytest.raises(ModelNotFound):
        store.zip("b", tmp_path / "b.zip")
    with pytest.raises(InvalidName):
        store.zip("../a", tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_taken_names_are_those_of_models_and_runs_in_any_case(store: Store) -> None:
    stored(store, "Model")
    (store.runs / "Run").mkdir(parents=True)
    assert [store.taken(name) for name in ("model", "RUN", "free")] == [True, True, False]


def test_no_cell_of_an_export_is_a_formula(tmp_path: Path) -> None:
    evil = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "ok", "-3.5", "1e5"]
    write_csv(tmp_path / "out.csv", ["text"], [[cell] for cell in evil])
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8-sig")
    assert lines.startswith("text\r\n") or lines.startswith("text\n")
    assert [safe_cell(cell)[0] for cell in evil] == ["'"] * 6 + ["o", "-", "1"]
