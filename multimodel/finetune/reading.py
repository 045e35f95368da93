"""The one door for data: a file of any kind, a folder of files, or pasted text, as a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from .delimited import from_text
from .formats import from_excel, from_json, from_parquet
from .tables import SPLIT_NAMES, Limits, Table, decode, stack, words_of

LOOKED_AT = 10_000  # characters that tell a file of text from another
BINARY = re.compile(r"[\x01-\x08\x0e-\x19\x1c-\x1f\x7f-\x9f\ufffd]")  # what no text has; NUL comes in exports
SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx"})


def read(path: Path, limits: Limits = Limits()) -> Table:
    """The rows of a file, or of the files of a folder. Raises DataError."""
    if path.is_dir():
        return _folder(path, limits)
    try:
        size = path.stat().st_size
        if size > limits.file:
            hint = f"Use at most {limits.file // 1_000_000} MB; a sample of the rows trains nearly as well."
            raise DataError(f"{path.name} has {size / 1e6:,.0f} MB.", hint=hint)
        return _kind(path)(path, limits)
    except FileNotFoundError:
        raise DataError(f"There is no file {str(path)!r}.", hint="Check the path.") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error}", hint="Check the file and its permissions.") from error


def paste(text: str, limits: Limits = Limits()) -> Table:
    """Pasted rows: what a spreadsheet puts on the clipboard, or lines of CSV. Raises DataError."""
    if len(text) > limits.file:
        raise DataError("Too much text was pasted.", hint="Upload it as a file.")
    return from_text(text, "the pasted text", limits, ())


def _kind(path: Path) -> Callable[[Path, Limits], Table]:
    """The reader for a file, by its first bytes, then by its name."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return from_parquet
    if start.startswith(b"PK\x03\x04"):
        return from_excel
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{path.name} is an Excel file of the old kind.", hint="Save it as .xlsx or .csv.")
    if start.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")):
        raise DataError(f"{path.name} is packed.", hint="Unpack it first.")
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl", ".ndjson"):
        return from_json
    if suffix in (".parquet", ".xlsx", ".xls", ".xlsm"):
        raise DataError(f"{path.name} is damaged, or no {suffix} file.", hint="Save it again, or as .csv.")
    return from_csv


def _folder(path: Path, limits: Limits) -> Table:
    """The files of a folder under each other; those called train, validation or test say so in a column of splits."""
    found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.name[0] not in "._"]
    if not found:
        hint = f"Supported are {', '.join(sorted(SUFFIXES))}."
        raise DataError(f"The folder {str(path)!r} holds no data file.", hint=hint)
    splits = {p: next((s for word in words_of(p.stem) if (s := SPLIT_NAMES.get(word))), "") for p in found}
    parts = [(split, p) for p, split in splits.items() if split]
    if not parts and len(found) == 1:
        return read(found[0], limits)
    if "train" not in {split for split, _ in parts}:
        hint = "Name one of them, or call them train, validation and test."
        raise DataError(f"The folder {str(path)!r} holds {len(found)} files.", hint=hint)
    return stack([(split, read(p, limits)) for split, p in sorted(parts, key=_split_order)], limits)


def _split_order(part: tuple[str, Path]) -> tuple[bool, str]:
    return part[0] != "train", part[0]


def from_csv(path: Path, limits: Limits) -> Table:
    text, note = decode(path.read_bytes())
    start = text[:LOOKED_AT]
    if len(BINARY.findall(start)) > len(start) / 20:
        raise DataError(f"{path.name} holds no text.", hint="Choose a CSV, TSV, JSON, JSONL, Parquet or Excel file.")
    return from_text(text, path.name, limits, (note,) if note else ())
