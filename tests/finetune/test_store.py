"""The saved models: found when whole, renamed, deleted, packed; names that are none are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multimodel.errors import BrokenFile, DiskFull, InvalidName, ModelNotFound, TrainingError
from multimodel.finetune import data as rows
from multimodel.finetune.corrections import Correction, Corrections
from multimodel.finetune.export import safe_cell, write_csv
from multimodel.finetune.reading import read
from multimodel.finetune.runfolder import Order
from multimodel.finetune.store import CARD, MANIFEST, METADATA, METRICS, Store, check_name, disk_error, write_manifest
from multimodel.finetune.types import TrainConfig

from .support import settings_in


def stored(store: Store, name: str) -> Path:
    """A model of a few files."""
    folder = store.folder / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    data = {"task": "single_label", "classes": ["a", "b"], "base": "encoder", "ended": "2026-01-01"}
    (folder / METADATA).write_text(json.dumps(data | {"name": name, "parameters": {"name": name, "epochs": 3}}))
    (folder / CARD).write_text(f"---\nlibrary_name: transformers\n---\n\n# {name}\n\nIt knows {name}.\n")
    (folder / METRICS).write_text(json.dumps({"accuracy": 0.9, "confusion": [[1]]}))
    write_manifest(folder)
    return folder


def made(folder: Path) -> Path:
    """A folder, made."""
    folder.mkdir(parents=True)
    return folder


def files(folder: Path) -> set[str]:
    """The files of a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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


def test_a_new_name_stands_in_card_and_record_and_run(store: Store) -> None:
    folder = stored(store, "old")
    Order(TrainConfig(data="d", name="old"), "", str(store.folder), "", "2026").save(made(store.runs / "old"))
    stored(store, "newest")
    os.utime(folder / MANIFEST, (1, 1))
    target = store.rename("old", "new 2")
    assert "\n# new 2\n\nIt knows old.\n" in (target / CARD).read_text()
    data = json.loads((target / METADATA).read_text())
    assert (data["name"], data["parameters"]) == ("new 2", {"name": "new 2", "epochs": 3})
    assert Order.load(store.runs / "new 2").config.name == "new 2"
    assert store.damaged("new 2") == [] and store.names() == ["newest", "new 2"]
    assert set(json.loads((target / MANIFEST).read_text())["files"]) == files(target) - {MANIFEST}


def test_at_no_moment_of_a_rename_is_the_model_damaged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(store, "old")
    moments: list[tuple[list[str], list[str]]] = []

    def watched(change: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def done(here: Path, there: Path) -> None:
            change(here, there)
            moments.append((store.names(), [file for name in store.names() for file in store.damaged(name)]))

        return done

    monkeypatch.setattr(os, "replace", watched(os.replace))
    monkeypatch.setattr(os, "rename", watched(os.rename))
    store.rename("old", "new")
    assert moments == [(["new"], [])] * 5  # the folder; the manifest, the record, the card, the manifest


@pytest.fixture
def fixed() -> Iterator[Callable[[Path], None]]:
    """Takes from everybody the right to change a file or folder."""
    done: list[Path] = []

    def fix(path: Path) -> None:
        if not shutil.which("chattr") or subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
            pytest.skip("this system cannot protect a file from its owner")
        done.append(path)

    yield fix
    for path in done:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("part", ["a", ".runs/a", f"a/{CARD}", f"a/{METADATA}", f"a/{MANIFEST}"])
def test_what_cannot_be_renamed_stays_as_it_is(store: Store, fixed: Callable[[Path], None], part: str) -> None:
    stored(store, "a")
    (made(store.runs / "a") / "run.json").write_text("{}")
    before = {name: (store.folder / name).read_bytes() for name in files(store.folder)}
    fixed(store.folder / part)
    with pytest.raises(TrainingError) as caught:
        store.rename("a", "b")
    assert "FINE_TUNED_DIR" in caught.value.hint and not isinstance(caught.value, DiskFull)
    assert {name: (store.folder / name).read_bytes() for name in files(store.folder)} == before
    assert store.damaged("a") == []


@pytest.mark.parametrize("part", ["a", ".runs/a"])
def test_what_cannot_be_deleted_stays_as_it_is(store: Store, fixed: Callable[[Path], None], part: str) -> None:
    stored(store, "a")
    (made(store.runs / "a") / "run.json").write_text("{}")
    before = files(store.folder)
    fixed(store.folder / part)
    with pytest.raises(TrainingError) as caught:
        store.delete("a")
    assert "FINE_TUNED_DIR" in caught.value.hint and files(store.folder) == before


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "ENOENT"])
def test_a_folder_that_cannot_be_written_is_no_full_disk(code: str) -> None:
    error = disk_error(OSError(getattr(errno, code), os.strerror(getattr(errno, code))), "The model")
    full = code in ("ENOSPC", "EDQUOT", "EFBIG")
    assert isinstance(error, DiskFull) == full
    assert ("Free some space" in error.hint, "FINE_TUNED_DIR" in error.hint) == (full, not full)


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


@pytest.mark.parametrize("whole", [False, True])
def test_corrections_are_trained_on_as_they_were_said(store: Store, tmp_path: Path, whole: bool) -> None:
    corrections = Corrections(settings_in(tmp_path))
    texts = ["=so so", "+1 for it", "-- not good", "@home, again", "'quoted'", 'she said "no"', "plain"]
    for number, text in enumerate(texts):
        corrections.add("moods", Correction(text, ("-", "+")[number % 2], "x", 0.5))
    known = rows.Dataset(("=known", "@other"), ("-", "+"), ("train", "test"), (1, 2))
    rows.save(known, made(store.runs / "moods") / "data.jsonl")
    kept = ["=known", "@other"] if whole else []
    table = read(corrections.csv("moods", tmp_path / "train.csv", whole=whole, safe=False))
    assert [row[0] for row in table.rows] == [*kept, *texts]
    assert {row[1] for row in table.rows} == {"-", "+"}
    shown = read(corrections.csv("moods", tmp_path / "shown.csv", whole=whole))
    assert [row[0] for row in shown.rows] == [safe_cell(text) for text in (*kept, *texts)]
