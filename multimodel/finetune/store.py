"""The saved models: fine_tuned_models/NAME/, which counts only when its manifest, written last, is there.

NAME/  model.safetensors, config.json, tokenizer files      the model, as any library loads it
       label_map.json                                       what its outputs mean
       metrics.json, misclassified.json, history.json       how good it is, where it errs, how it learnt
       training_metadata.json                               data, settings, versions, hardware, durations
       README.md                                            the model card
       onnx/                                                the model in 8 bits, where it was exported
       manifest.json                                        every file with size and hash
.runs/NAME/                                                 the run that made it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BrokenFile, DiskFull, InvalidName, ModelNotFound, TrainingError
from ..settings import Settings
from .checkpoints import write_last
from .runfolder import read

MANIFEST = "manifest.json"
METADATA = "training_metadata.json"
METRICS = "metrics.json"
HISTORY = "history.json"
MISCLASSIFIED = "misclassified.json"
CARD = "README.md"
RUNS = ".runs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,62}")
RESERVED = frozenset({"guide", "encoder", "con", "prn", "aux", "nul"})


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A fine-tuned model on disk."""

    name: str
    path: Path
    created: str  # ISO 8601
    task: str
    classes: tuple[str, ...]
    metrics: Mapping[str, Any] = field(default_factory=dict)  # the figures, without tables
    base: str = ""
    size: int = 0  # bytes


def check_name(name: str) -> str:
    """The name, if it can be a folder's everywhere. Raises InvalidName.

    >>> check_name("reviews-2")
    'reviews-2'
    """
    clean = unicodedata.normalize("NFC", name).strip()
    sound = NAME.fullmatch(clean) and not clean.endswith(".") and ".." not in clean
    if not sound or clean.lower() in RESERVED or re.fullmatch(r"(com|lpt)\d", clean.lower()):
        hint = "Use letters, digits, blanks, dots, dashes and underscores, up to 63, beginning with a letter or digit."
        raise InvalidName(f"{name[:80]!r} cannot be the name of a model.", hint=hint)
    return clean


class Store:
    """The models in one folder."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.models.fine_tuned_dir
        self.runs = self.folder / RUNS

    def path(self, name: str) -> Path:
        """Where a model of that name lies, or would. Raises InvalidName."""
        return self.folder / check_name(name)

    def names(self) -> list[str]:
        """The whole models, newest first."""
        found = self.folder.glob(f"*/{MANIFEST}") if self.folder.is_dir() else iter(())
        whole = [path for path in found if not path.parent.name.startswith(".")]
        return [path.parent.name for path in sorted(whole, key=lambda p: p.stat().st_mtime, reverse=True)]

    def taken(self, name: str) -> bool:
        """Whether a model or a run has this name, in any case of letters: some systems see no difference."""
        wanted = check_name(name).casefold()
        here = [path for folder in (self.folder, self.runs) if folder.is_dir() for path in folder.iterdir()]
        return any(path.name.casefold() == wanted for path in here)

    def all(self) -> list[SavedModel]:
        """The whole models, newest first; one that cannot be read is left out."""
        return [model for name in self.names() if (model := self._described(name))]

    def _described(self, name: str) -> SavedModel | None:
        try:
            return self.get(name)
        except BrokenFile:
            return None

    def get(self, name: str) -> SavedModel:
        """One model. Raises ModelNotFound or BrokenFile."""
        path = self.path(name)
        if not (path / MANIFEST).exists():
            raise ModelNotFound(f"There is no fine-tuned model {name!r}.", hint=self._known())
        data, metrics = read(path / METADATA), read(path / METRICS)
        return SavedModel(
            name=name,
            path=path,
            created=str(data.get("ended", "")),
            task=str(data.get("task", "")),
            classes=tuple(map(str, data.get("classes", ()))),
            metrics={k: v for k, v in metrics.items() if isinstance(v, int | float | str)},
            base=str(data.get("base", "")),
            size=sum(row["size"] for row in read(path / MANIFEST)["files"].values()),
        )

    def damaged(self, name: str) -> list[str]:
        """The files of a model that are not what its manifest says; reads all of them."""
        path = self.path(name)
        rows = read(path / MANIFEST)["files"]
        return [file for file, row in rows.items() if _row(path / file) != row]

    def rename(self, old: str, new: str) -> Path:
        """Give a model and its run another name. Raises InvalidName or ModelNotFound."""
        source, target = self.get(old).path, self.path(new)
        if self.taken(new) and check_name(new).casefold() != old.casefold():
            raise InvalidName(f"There is already a model or run {new!r}.", hint="Choose another name.")
        os.rename(source, target)
        if (self.runs / old).is_dir():
            os.rename(self.runs / old, self.runs / target.name)
        return target

    def delete(self, name: str) -> None:
        """Remove a model and the record of its run. It is out of the list at once. Raises ModelNotFound."""
        for path in (self.get(name).path, self.runs / check_name(name)):
            if path.is_dir():
                self._discard(path)

    def _discard(self, path: Path) -> None:
        gone = self.folder / f".gone-{secrets.token_hex(4)}"
        os.rename(path, gone)
        if gone.is_symlink():  # what it leads to is somebody else's
            gone.unlink()
        else:
            shutil.rmtree(gone, ignore_errors=True)

    def publish(self, built: Path, name: str) -> Path:
        """Put a finished folder in its place, with its manifest; one that the same run made before is replaced."""
        write_manifest(built)
        target = self.path(name)
        old = self.folder / f".gone-{secrets.token_hex(4)}"
        if target.exists():
            os.rename(target, old)
        os.rename(built, target)
        shutil.rmtree(old, ignore_errors=True)
        return target

    def add(self, folder: Path, built: Path, name: str) -> Path:
        """Put a finished folder into a model, under a name, and then into its manifest; returns where it lies.

        A part of that name is replaced. No other file is touched, or counted anew; the model stays as old as it was.
        """
        target, manifest = folder / name, folder / MANIFEST
        age = manifest.stat()
        whole = read(manifest)
        others = {file: row for file, row in whole["files"].items() if not file.startswith(f"{name}/")}
        rows = {f"{name}/{file.relative_to(built).as_posix()}": _row(file) for file in _files(built)}
        if target.exists():
            write_last(manifest, json.dumps(whole | {"files": others}, indent=2))
            self._discard(target)
        os.rename(built, target)
        write_last(manifest, json.dumps(whole | {"files": dict(sorted((others | rows).items()))}, indent=2))
        os.utime(manifest, ns=(age.st_atime_ns, age.st_mtime_ns))
        return target

    def zip(self, name: str, target: Path) -> Path:
        """Pack a model into a zip file at `target`; half a file never has that name. Raises ModelNotFound, DiskFull."""
        path = self.get(name).path
        part = target.with_name(f"{target.name}.part")
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
                for file in _files(path):
                    packed.write(file, f"{name}/{file.relative_to(path).as_posix()}")
            os.replace(part, target)
        except OSError as error:
            raise disk_error(error, "The zip file") from error
        finally:
            part.unlink(missing_ok=True)
        return target

    def _known(self) -> str:
        names = self.names()
        return f"There is {', '.join(names[:5])}." if names else "Fine-tune one first."


def write_manifest(folder: Path) -> None:
    """The manifest of a folder, after everything else."""
    rows = {file.relative_to(folder).as_posix(): _row(file) for file in _files(folder) if file.name != MANIFEST}
    write_last(folder / MANIFEST, json.dumps({"format": 1, "files": rows}, indent=2))


def _row(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError:
        return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def disk_error(error: OSError, what: str) -> TrainingError:
    """A failure to write, with what to do."""
    if isinstance(error, PermissionError):
        hint = "Give this user the right to write there, or set FINE_TUNED_DIR to another folder."
        return TrainingError(f"{what} could not be written: {error}", hint=hint)
    hint = "Free some space and try again; nothing saved before is harmed."
    return DiskFull(f"{what} could not be written: {error}", hint=hint)
