"""Checkpoints that survive a kill at any moment: one counts only when its seal, written last, fits its files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

SEAL = "SEAL.json"
NAME = re.compile(r"checkpoint-(\d+)")
KEPT = 2  # the newest, beside the best


def seal(folder: Path) -> None:
    """Everything in the folder is written: put it on the disk, then say so."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name != SEAL}
    for path in files.values():
        _sync(path)
    write_last(folder / SEAL, json.dumps({name: [p.stat().st_size, _hash(p)] for name, p in files.items()}))


def write_last(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all, after everything before it."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        _sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(folder: Path) -> bool:
    """Whether a checkpoint is whole: every file of the seal is there, of that size and content."""
    try:
        files = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return bool(files) and all(
            (folder / name).stat().st_size == size and _hash(folder / name) == digest
            for name, (size, digest) in files.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was written; -1 for another folder."""
    found = NAME.fullmatch(folder.name)
    return int(found[1]) if found else -1


def all_of(run: Path) -> list[Path]:
    """The checkpoints of a run, sealed or not, oldest first."""
    return sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)


def newest(run: Path, *, tidy: bool = True) -> Path | None:
    """The newest whole checkpoint; what is not whole is removed on the way, unless another process does that."""
    for path in reversed(all_of(run)):
        if sealed(path):
            return path
        if tidy:
            remove(path)
    return None


def prune(run: Path, best: int | None) -> None:
    """Remove all checkpoints but the newest and the best one, given by its step."""
    for path in all_of(run)[:-KEPT]:
        if step_of(path) != best:
            remove(path)


def remove(folder: Path) -> None:
    """Remove a checkpoint; half removed it counts no more."""
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def size(folders: Iterable[Path]) -> int:
    """Bytes of the files in these folders."""
    return sum(path.stat().st_size for folder in folders for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
