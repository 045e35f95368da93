"""Rows of text as they come out of files, and the rules that all kinds of files share.

What a file says is kept: "NA" is a word, "007" has its zeros, a number is what was written. What had to be guessed or
left out is said in the notes. Sizes are bounded.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from charset_normalizer import from_bytes

from ..errors import DataError

Cell = str | tuple[str, ...]  # several labels may come as a list


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is read at most."""

    file: int = 200_000_000  # bytes on disk
    unpacked: int = 1_000_000_000  # bytes
    rows: int = 1_000_000
    cell: int = 100_000  # characters; longer texts are cut, no model reads that far
    columns: int = 1_000


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of equal length, and what there is to know about how they were read."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    lines: tuple[int, ...]  # where each row stood in its file, counted from 1
    notes: tuple[str, ...] = ()
    headed: bool = True  # False: the file names no columns, so they were numbered

    def column(self, name: str) -> list[Cell]:
        """The cells of a column. Raises DataError with the columns there are."""
        if name not in self.columns:
            hint = f"It has {', '.join(map(repr, self.columns))}."
            raise DataError(f"The data has no column {name!r}.", hint=hint)
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


KNOWN = {
    "text", "texts", "sentence", "sentences", "review", "reviews", "message", "messages", "content", "comment",
    "comments", "tweet", "utterance", "question", "query", "sms", "body", "title", "description", "document",
    "label", "labels", "class", "category", "sentiment", "intent", "target", "topic", "rating", "score", "stars",
    "emotion", "answer", "id", "split", "set",
}  # fmt: skip
"""Words that head a column; a first row with one of them is a header."""

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
"""What files and columns call the three splits."""


def stack(parts: Sequence[tuple[str, Table]], limits: Limits = Limits()) -> Table:
    """Tables under each other, with a column "split" that names each row's part. Raises DataError.

    Tables without a header fit by position; the others by name.
    """
    first = parts[0][1]
    rows: list[tuple[Cell, ...]] = []
    lines: list[int] = []
    for split, table in parts:
        if table.headed and first.headed and set(table.columns) >= set(first.columns):
            order = [table.columns.index(name) for name in first.columns]
        elif len(table.columns) == len(first.columns):
            order = list(range(len(first.columns)))
        else:
            hint = f"The first has {', '.join(first.columns)}; this one {', '.join(table.columns)}."
            raise DataError(f"The {split} file has other columns than the first.", hint=hint)
        rows += [(*(row[i] for i in order), split) for row in table.rows]
        lines += table.lines
    name = "split" if "split" not in first.columns else "split of the file"
    notes = tuple(dict.fromkeys(note for _, table in parts for note in table.notes))
    return bounded(Table((*first.columns, name), tuple(rows), tuple(lines), notes, first.headed), limits)


def bounded(table: Table, limits: Limits) -> Table:
    if len(table.rows) <= limits.rows:
        return table
    note = f"Only the first {limits.rows:,} rows are used."
    return replace(table, rows=table.rows[: limits.rows], lines=table.lines[: limits.rows], notes=(*table.notes, note))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def grid(records: Sequence[tuple[int, list[str]]], limits: Limits, notes: tuple[str, ...]) -> Table:
    """The table of (line, cells) as a sheet or a CSV file has them: a header is recognised, rows get one width."""
    width = Counter(len(cells) for _, cells in records).most_common(1)[0][0]
    headed = is_header([cells for _, cells in records[:200]], width)
    columns = column_names(records[0][1], width) if headed else [f"column {i + 1}" for i in range(width)]
    rows, lines, odd = _fit(records[1:] if headed else records, width)
    said = (*notes, *_ragged_note(odd), *cut_note(rows, limits))
    return bounded(Table(tuple(columns), tuple(rows), tuple(lines), said, headed), limits)


def made(
    columns: Sequence[str],
    rows: Sequence[tuple[Cell, ...]],
    limits: Limits,
    notes: tuple[str, ...],
    headed: bool = True,
) -> Table:
    if not rows or not columns:
        raise DataError("The data holds no rows.", hint="It needs a text and a label in every row.")
    said = (*notes, *cut_note(rows, limits))
    return bounded(Table(tuple(columns), tuple(rows), tuple(range(1, len(rows) + 1)), said, headed), limits)


def is_header(rows: Sequence[list[str]], width: int) -> bool:
    """Whether the first row names the columns."""
    first, rest = rows[0], [row for row in rows[1:] if len(row) == width]
    names = [cell.strip().lower() for cell in first]
    if len(first) != width or not all(names):
        return False
    if len(set(names)) < len(names):  # twice the same word: a row, unless all are words that head a column
        return len(set(names)) > 1 and KNOWN.issuperset(names)
    if any(name in KNOWN or (set(words_of(name)) & KNOWN and len(name) < 30) for name in names):
        return True
    if any(len(name) > 60 or name.count(" ") > 4 or _number(name) for name in names):
        return False
    seen = [{row[i].strip().lower() for row in rest} for i in range(width)]
    return bool(rest) and not any(name in values for name, values in zip(names, seen, strict=True))


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def column_names(names: Sequence[str], width: int) -> list[str]:
    """Column names without blanks around them, each once."""
    found: list[str] = []
    for index in range(width):
        name = names[index].strip()[:100] if index < len(names) else ""
        name = name or f"column {index + 1}"
        found.append(name if name not in found else f"{name} {index + 1}")
    return found


def _fit(
    records: Iterable[tuple[int, list[str]]], width: int
) -> tuple[list[tuple[Cell, ...]], list[int], dict[str, list[int]]]:
    """Rows of the right width: what is missing becomes empty, a row with too much is left out."""
    rows: list[tuple[Cell, ...]] = []
    lines: list[int] = []
    odd: dict[str, list[int]] = {"long": [], "short": []}
    for line, cells in records:
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if len(cells) > width:
            odd["long"].append(line)
            continue
        if len(cells) < width:
            odd["short"].append(line)
        rows.append((*cells, *[""] * (width - len(cells))))
        lines.append(line)
    return rows, lines, odd


def _ragged_note(odd: dict[str, list[int]]) -> Iterator[str]:
    if odd["long"]:
        were = "was" if len(odd["long"]) == 1 else "were"
        yield f"{_rows(odd['long'])} more cells than the others and {were} left out: put texts with commas in quotes."
    if odd["short"]:
        yield f"{_rows(odd['short'])} fewer cells than the others; the missing ones are empty."


def _rows(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:3])) + (", …" if len(lines) > 3 else "")
    s = "" if len(lines) == 1 else "s"
    return f"{len(lines):,} row{s} (line{s} {shown}) had"


def cut_note(rows: Iterable[tuple[Cell, ...]], limits: Limits) -> Iterator[str]:
    cut = sum(any(len(cell) == limits.cell for cell in row if isinstance(cell, str)) for row in rows)
    if cut:
        yield f"{cut:,} {'text was' if cut == 1 else 'texts were'} cut to {limits.cell:,} characters."


def cell_of(value: Any, limits: Limits) -> Cell:
    """A value of JSON, Excel or Parquet as it would be written; lists of words stay lists."""
    match value:
        case str():
            return clean(value, limits)
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value != value:  # how tables without a null write it
            return ""
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case list() | tuple():
            return tuple(clean(str(item), limits) for item in value[:1000])
        case dict():
            return clean(json.dumps(value, ensure_ascii=False), limits)
    return clean(str(value), limits)


def clean(text: str, limits: Limits) -> str:
    """A cell without what no model reads: NUL, halves of characters, and what is over the bound."""
    if len(text) > limits.cell:
        text = text[: limits.cell]
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode(data: bytes) -> tuple[str, str]:
    """The text of a file, and what had to be guessed about it.

    >>> decode("größe".encode())
    ('größe', '')
    >>> decode("größe".encode("latin-1"))
    ('größe', 'The file is not UTF-8; it was read as Windows-1252.')
    >>> decode("返品したいのですが".encode("shift_jis"))
    ('返品したいのですが', 'The file is not UTF-8; it was read as Shift JIS.')
    >>> decode("a".encode("utf-16"))[0]
    'a'
    """
    for mark, name in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace"), ""
    if wide := _wide(data):
        return data.decode(wide, "replace"), f"The file was read as {wide.upper()}."
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    text, name = _older(data)
    return text, f"The file is not UTF-8; it was read as {name}."


OLDER = {
    "cp1252": "Windows-1252", "cp1251": "Windows-1251", "cp1253": "Windows-1253", "cp1256": "Windows-1256",
    "koi8_r": "KOI8-R", "shift_jis": "Shift JIS", "euc_jp": "EUC-JP", "gb18030": "GB 18030", "big5": "Big5",
    "euc_kr": "EUC-KR",
}  # fmt: skip
"""Encodings that letters tell apart; those of other Latin letters do not differ enough from the first."""
TOLD_BY = 200_000  # bytes of lines that are not ASCII
FEW_LETTERS = 8  # bytes beyond ASCII, which tell nothing


def _older(data: bytes) -> tuple[str, str]:
    """(text, what its encoding is called): that in which the letters make words, as far as it can be told."""
    with suppress(UnicodeDecodeError):
        odd = b"\n".join(line for line in data.splitlines() if not line.isascii())[:TOLD_BY]
        few = sum(byte > 127 for byte in odd) < FEW_LETTERS
        told = None if few else from_bytes(odd, cp_isolation=list(OLDER)).best()
        code = told.encoding if told else "cp1252"
        return data.decode(code), OLDER[code]
    with suppress(UnicodeDecodeError):
        return data.decode("cp1252"), OLDER["cp1252"]
    return data.decode("latin-1"), "ISO-8859-1"  # five bytes mean nothing in the one before


MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the next
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: every other byte of mostly Latin text is zero."""
    head = data[:2000]
    if len(head) < 4 or head.count(0) < len(head) // 4:
        return ""
    return "utf-16-le" if head[1::2].count(0) > head[0::2].count(0) else "utf-16-be"
