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

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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
FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room; none in one's quota; none for a file so large
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
        """Give a model and its run another name, which its card and record say too.

        Raises InvalidName, ModelNotFound, or TrainingError where the folders cannot be written; all is as before then.
        """
        source, target = self.get(old).path, self.path(new)
        if self.taken(new) and check_name(new).casefold() != old.casefold():
            raise InvalidName(f"There is already a model or run {new!r}.", hint="Choose another name.")
        try:
            with _moved({source: target, self.runs / source.name: self.runs / target.name}):
                if not target.is_symlink():  # what it leads to is somebody else's
                    _entitle(target)
        except OSError as error:
            raise disk_error(error, f"The name of {old}") from error
        return target

    def delete(self, name: str) -> None:
        """Remove a model and the record of its run. It is out of the list at once.

        Raises ModelNotFound, or TrainingError where the folders cannot be written; all is as before then.
        """
        gone = {path: self._gone() for path in (self.get(name).path, self.runs / check_name(name))}
        try:
            with _moved(gone):
                pass
        except OSError as error:
            raise disk_error(error, f"The folder of {name}") from error
        for path in gone.values():
            _remove(path)

    def _gone(self) -> Path:
        """Where a folder goes that is about to be removed."""
        return self.folder / f".gone-{secrets.token_hex(4)}"

    def publish(self, built: Path, name: str) -> Path:
        """Put a finished folder in its place, with its manifest; one that the same run made before is replaced."""
        write_manifest(built)
        target = self.path(name)
        old = self._gone()
        with _moved({target: old, built: target}):
            pass
        _remove(old)
        return target

    def add(self, folder: Path, built: Path, name: str) -> Path:
        """Put a finished folder into a model, under a name, and then into its manifest; returns where it lies.

        A part of that name is replaced. No other file is touched, or counted anew; the model stays as old as it was.
        """
        target, old = folder / name, self._gone()
        with _changing(folder, lambda file: file.startswith(f"{name}/")), _moved({target: old, built: target}):
            pass
        _remove(old)
        return target

    def zip(self, name: str, target: Path) -> Path:
        """Pack a model into a zip file at `target`; half a file never has that name.

        Raises ModelNotFound, TrainingError where it cannot be written.
        """
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


@contextmanager
def _moved(names: Mapping[Path, Path]) -> Iterator[None]:
    """Give folders, those that there are, other names: all of them if the block succeeds, else none. Raises OSError."""
    with ExitStack() as undo:
        for here, there in names.items():
            if here.is_dir():
                os.rename(here, there)
                undo.callback(os.rename, there, here)
        yield
        undo.pop_all()


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # what it leads to is somebody else's
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _changing(folder: Path, chosen: Callable[[str], bool]) -> Iterator[None]:
    """While some files of a model change, by their names, its manifest does not name them; so it is whole throughout.

    No other file is counted anew, and the model stays as old as it was. Raises OSError.
    """
    manifest = folder / MANIFEST
    age, whole = manifest.stat(), read(manifest)
    others = {file: row for file, row in whole["files"].items() if not chosen(file)}
    if others != whole["files"]:
        write_last(manifest, json.dumps(whole | {"files": others}, indent=2))
    try:
        yield
    finally:
        rows = dict(sorted((others | _rows(folder, chosen)).items()))
        write_last(manifest, json.dumps(whole | {"files": rows}, indent=2))
        os.utime(manifest, ns=(age.st_atime_ns, age.st_mtime_ns))


def _entitle(folder: Path) -> None:
    """Write the name of a model's folder into its record and its card: into both, or none. Raises OSError."""
    data = read(folder / METADATA)
    old, new = str(data.get("name", "")), folder.name
    asked = dict(data.get("parameters", {})) | {"name": new}
    texts = {METADATA: json.dumps(data | {"name": new, "parameters": asked}, indent=2, ensure_ascii=False)}
    with suppress(OSError, ValueError):  # there may be none, or one in other letters
        text = (folder / CARD).read_text(encoding="utf-8")
        texts[CARD] = text.replace(f"\n# {old}\n", f"\n# {new}\n", 1)
    with _changing(folder, texts.__contains__), ExitStack() as undo:
        for file, text in texts.items():
            before = (folder / file).read_text(encoding="utf-8")
            write_last(folder / file, text)
            undo.callback(write_last, folder / file, before)
        undo.pop_all()


def write_manifest(folder: Path) -> None:
    """The manifest of a folder, after everything else."""
    rows = _rows(folder, lambda file: Path(file).name != MANIFEST)
    write_last(folder / MANIFEST, json.dumps({"format": 1, "files": rows}, indent=2))


def _rows(folder: Path, chosen: Callable[[str], bool]) -> dict[str, dict[str, Any] | None]:
    """What the manifest says of the files whose names are chosen."""
    names = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    return {name: _row(file) for name, file in names.items() if chosen(name)}


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
    if error.errno in FULL_CODES:
        hint = "Free some space and try again; nothing saved before is harmed."
        return DiskFull(f"{what} could not be written: {error}", hint=hint)
    hint = "Set FINE_TUNED_DIR to a folder that can be written, or give this user the right to write there."
    return TrainingError(f"{what} could not be written: {error}", hint=hint)
