"""Rows as labelled texts: which column is what, which rows train and which judge.

A Dataset is a value; everything that changes one returns another.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import cast

from ..errors import DataError
from .tables import SPLIT_NAMES, Cell, Table
from .types import SPLITS, Task

Label = str | tuple[str, ...] | float
"""One label, several, or a number, as the task says."""

TEXT_NAMES = (
    "text", "texts", "sentence", "review", "message", "content", "comment", "tweet", "utterance", "question", "sms",
    "body", "document", "query", "title",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "category", "sentiment", "intent", "target", "topic", "emotion", "coarse_label", "tag",
    "tags", "rating", "stars", "score", "answer", "type", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "fold", "partition")
MOST_CLASSES = 500


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled texts. All four columns are of the same length."""

    texts: tuple[str, ...]
    labels: tuple[Label, ...]  # "" or () where a row has none
    splits: tuple[str, ...]  # train, validation, test; "" not decided yet
    rows: tuple[int, ...]  # where each stood in its source, counted from 1
    task: Task = "single_label"
    source: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indexes: Iterable[int]) -> Dataset:
        """Only these rows, in this order."""
        chosen = list(indexes)
        return replace(
            self,
            texts=tuple(self.texts[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            splits=tuple(self.splits[i] for i in chosen),
            rows=tuple(self.rows[i] for i in chosen),
        )

    def where(self, keep: Callable[[int], bool]) -> Dataset:
        """Only the rows whose index `keep` accepts."""
        return self.take(i for i in range(len(self)) if keep(i))

    def of(self, *splits: str) -> Dataset:
        """Only the rows of these splits."""
        return self.where(lambda i: self.splits[i] in splits)

    def tags(self, index: int) -> tuple[str, ...]:
        """The labels of a row one by one; a number has none."""
        label = self.labels[index]
        return label if isinstance(label, tuple) else (label,) if isinstance(label, str) and label else ()

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each class has, in natural order."""
        counted = Counter(tag for i in range(len(self)) for tag in self.tags(i))
        return {name: counted[name] for name in sorted(counted, key=natural)}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in natural order: 2 before 10."""
        return tuple(self.counts)

    def labelled(self, index: int) -> bool:
        """Whether a row has a text and an answer. A text may well have none of several labels."""
        known = self.task == "multi_label" or self.labels[index] not in ("", ())
        return known and bool(self.texts[index].strip())


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which numbers count as numbers.

    >>> sorted(["10", "9", "b2", "b10"], key=natural)
    ['9', '10', 'b2', 'b10']
    """
    parts = re.findall(r"\d{1,18}|\D+|\d+", text)
    return tuple((0, int(p), "") if p.isdecimal() and len(p) <= 18 else (1, 0, p.casefold()) for p in parts)


def normal(text: str) -> str:
    """What two texts have in common that differ only in case and blanks."""
    return " ".join(text.casefold().split())


# --- which column is what ---


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which columns are used, and why."""

    text: str
    label: str
    split: str | None = None
    task: Task = "single_label"
    separator: str = ""  # between several labels of one cell
    reasons: tuple[str, ...] = ()


def guess(
    table: Table,
    *,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    task: str = "auto",
    separator: str | None = None,
) -> Mapping:
    """The mapping, where a person did not say it. Raises DataError with the columns there are."""
    for name in (text, label, split):
        if name is not None:
            table.column(name)
    texts, why_text = (text, "you chose it") if text else _text_column(table, label)
    labels, why_label = (label, "you chose it") if label else _label_column(table, texts)
    if texts == labels:
        raise DataError(f"{texts!r} cannot be both text and label.", hint="Choose another column for one of them.")
    parts, why_split = (split, "you chose it") if split else _split_column(table, {texts, labels})
    kind, sep, why_task = _task(table.column(labels), task, separator)
    reasons = [f"Text is {texts!r}: {why_text}.", f"Label is {labels!r}: {why_label}.", why_task]
    reasons += [f"Splits are in {parts!r}: {why_split}."] if parts else []
    return Mapping(texts, labels, parts, kind, sep, tuple(reasons))


def _named(table: Table, names: Sequence[str], besides: set[str | None]) -> str | None:
    """The first column that is called so, or has such a word in its name."""
    free = [c for c in table.columns if c not in besides]
    for name in names:
        for column in free:
            if column.strip().lower() == name:
                return column
    words = {c: set(re.findall(r"[a-z]+", c.lower())) for c in free if len(c) < 40}
    return next((c for name in names for c, found in words.items() if name in found), None)


def _text_column(table: Table, label: str | None) -> tuple[str, str]:
    if named := _named(table, TEXT_NAMES, {label}):
        return named, "its name says so"
    free = [c for c in table.columns if c != label]
    if not free:
        raise DataError("There is no column left for the text.", hint="The data needs a text and a label column.")
    longest = max(free, key=lambda c: fmean([len(str(cell)) for cell in table.column(c)[:2000]] or [0]))
    return longest, "it has the longest texts"


def text_column(table: Table) -> str:
    """The column that holds the texts, for a table without labels. Raises DataError."""
    return _text_column(table, None)[0]


def _label_column(table: Table, text: str) -> tuple[str, str]:
    free = [c for c in table.columns if c != text]
    if not free:
        hint = "Add a column that says for each text what it is."
        raise DataError(f"There is only one column, {text!r}, and no labels.", hint=hint)
    if named := _named(table, LABEL_NAMES, {text}):
        return named, "its name says so"
    kinds = {c: len(set(table.column(c))) for c in free if not _is_split(table.column(c))}
    few = {c: n for c, n in kinds.items() if 2 <= n <= max(2, min(MOST_CLASSES, len(table.rows) // 2))}
    if few:
        fewest = min(few, key=lambda c: few[c])
        return fewest, f"it has {few[fewest]} different values"
    return free[-1], "it is the last column"


def _split_column(table: Table, taken: set[str | None]) -> tuple[str | None, str]:
    named = [c for c in table.columns if c.lower() in SPLIT_COLUMNS or c == "split of the file"]
    for column in named:
        if column not in taken and _is_split(table.column(column)):
            return column, "it says train, validation or test"
    return None, ""


def _is_split(cells: Sequence[Cell]) -> bool:
    values = {cell.strip().lower() for cell in cells if isinstance(cell, str)}
    return bool(values) and all(_split(value) for value in values) and "train" in {_split(value) for value in values}


def _split(value: str) -> str:
    """Which split a cell means; "" for none. The parts of a file may have longer names: oos_train."""
    words = re.findall(r"[a-z]+", value.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


SEPARATORS = ("|", ";", ",")
MOSTLY = 0.95  # of the cells are numbers where a number is learnt; the others are mistakes, which the report tells
MANY_NUMBERS = 20  # different values from which a column of numbers is a quantity


def _task(cells: Sequence[Cell], task: str, separator: str | None) -> tuple[Task, str, str]:
    """(task, separator, reason)."""
    found = _separator([c for c in cells if isinstance(c, str)]) if separator is None else separator
    lists = sum(isinstance(cell, tuple) for cell in cells)
    if task != "auto":
        return cast(Task, task), found, f"The task is {task.replace('_', ' ')}: you chose it."
    if lists:
        return "multi_label", found, "Texts have several labels each: the cells are lists."
    filled = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    if separator or _surely_several(filled, found):
        return "multi_label", found, f"Texts have several labels each, with {found!r} between them."
    numbers = [cell for cell in filled if _as_number(cell) is not None]
    if filled and len(numbers) >= MOSTLY * len(filled) and _is_quantity(numbers):
        return "regression", "", "The labels are numbers of many sizes, so a number is learnt."
    return "single_label", found, "Each text has one label."


def _separator(cells: Sequence[str]) -> str:
    """The mark that stands most often inside the cells; a comma where none does."""
    counts = {mark: sum(mark in cell for cell in cells) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: counts[mark])
    return best if counts[best] else ","


def _surely_several(cells: Sequence[str], mark: str) -> bool:
    """Whether cut at the mark the cells share a vocabulary much smaller than their combinations."""
    cut = [[part.strip() for part in cell.split(mark)] for cell in cells]
    several = sum(len(parts) > 1 for parts in cut)
    single = {parts[0] for parts in cut if len(parts) == 1}
    joined = {part for parts in cut if len(parts) > 1 for part in parts}
    return several >= max(3, len(cells) // 20) and len(joined & single) >= max(2, len(joined) * 2 // 3)


def _is_quantity(cells: Sequence[str]) -> bool:
    values = set(cells)
    fractions = any("." in cell for cell in values)
    return len(values) > MANY_NUMBERS and (fractions or len(values) > len(cells) // 3)


def _as_number(text: str) -> float | None:
    try:
        value = float(text.strip().replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None
    return value if abs(value) < 1e30 else None


def dataset(table: Table, mapping: Mapping, source: str = "") -> Dataset:
    """The labelled texts of a table. Raises DataError."""
    texts = tuple(_joined(cell) for cell in table.column(mapping.text))
    cells = table.column(mapping.label)
    splits = [_split(_joined(cell)) for cell in table.column(mapping.split)] if mapping.split else [""] * len(texts)
    labels, bad = _labels(cells, mapping)
    notes = (*table.notes, *mapping.reasons)
    if bad:
        notes = (*notes, f"Labels that are no numbers were left out: {len(bad):,} (line {table.lines[bad[0]]} first).")
    return Dataset(texts, labels, tuple(splits), table.lines, mapping.task, source, notes)


def as_table(data: Dataset) -> Table:
    """A data set as rows with the columns text, label and split, of which `dataset` makes the same one."""
    cells = tuple(str(label) if isinstance(label, float) else label for label in data.labels)
    return Table(("text", "label", "split"), tuple(zip(data.texts, cells, data.splits, strict=True)), data.rows)


def _joined(cell: Cell) -> str:
    return cell if isinstance(cell, str) else " ".join(cell)


def _labels(cells: Sequence[Cell], mapping: Mapping) -> tuple[tuple[Label, ...], list[int]]:
    """The labels, and where a number was wanted and none was found."""
    if mapping.task == "single_label":
        return tuple(_joined(cell).strip() for cell in cells), []
    if mapping.task == "multi_label":
        return tuple(_several(cell, mapping.separator) for cell in cells), []
    numbers = [_as_number(_joined(cell)) for cell in cells]
    bad = [i for i, (n, cell) in enumerate(zip(numbers, cells, strict=True)) if n is None and _joined(cell).strip()]
    return tuple("" if n is None else n for n in numbers), bad


def _several(cell: Cell, separator: str) -> tuple[str, ...]:
    parts = cell if isinstance(cell, tuple) else cell.strip("[] ").split(separator or ",")
    return tuple(dict.fromkeys(part for p in parts if (part := p.strip().strip("'\"").strip())))


# --- who trains and who judges ---


def split(data: Dataset, *, validation: float, test: float, seed: int) -> Dataset:
    """Every row without a split gets one: the same for equal texts, and of each class its share.

    A class of few rows stays in training first. `validation` and `test` are fractions of the undecided rows; where the
    data brings a test split of its own, none is cut from the rest, and likewise for validation.
    """
    here = set(data.splits)
    shares = {
        "validation": 0.0 if "validation" in here else validation,
        "test": 0.0 if "test" in here else test,
    }
    splits = list(data.splits)
    for group, part in _parts(data, shares, seed):
        for index in group:
            splits[index] = part
    return replace(data, splits=tuple(splits))


def _parts(data: Dataset, shares: dict[str, float], seed: int) -> Iterator[tuple[list[int], str]]:
    """(rows of one text, the split they go to)."""
    groups: dict[str, list[int]] = defaultdict(list)
    undecided = [i for i in range(len(data)) if not data.splits[i] or data.splits[i] == "train"]
    for index in undecided:
        groups[normal(data.texts[index])].append(index)
    strata: dict[Hashable, list[list[int]]] = defaultdict(list)
    stratum = _stratum(data)
    for rows in groups.values():
        strata[stratum(rows[0])].append(rows)
    generator = random.Random(seed)
    for key in sorted(strata, key=str):
        members = strata[key]
        generator.shuffle(members)
        yield from _deal(members, shares)


def _deal(members: list[list[int]], shares: dict[str, float]) -> Iterator[tuple[list[int], str]]:
    """Groups of one class dealt out; training gets the first and what remains."""
    rest = members[1:]
    yield members[0], "train"
    for part, share in shares.items():
        count = min(len(rest), round(share * len(members)))
        taken, rest = rest[:count], rest[count:]
        yield from ((group, part) for group in taken)
    yield from ((group, "train") for group in rest)


def _stratum(data: Dataset) -> Callable[[int], Hashable]:
    """What rows of one stratum have in common: the class, the rarest of several, or the tenth of the range."""
    if data.task == "regression":
        numbers = [label if isinstance(label, float) else 0.0 for label in data.labels]
        ranked = sorted(numbers)
        edges = [ranked[len(ranked) * k // 10] for k in range(1, 10)]
        return lambda i: sum(numbers[i] >= edge for edge in edges)
    counts = data.counts
    return lambda i: min(data.tags(i), key=lambda tag: (counts[tag], tag), default="")


# --- on disk ---


def save(data: Dataset, path: Path) -> str:
    """Write a data set as JSON lines; returns the SHA-256 of the file."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        head = {"task": data.task, "source": data.source, "notes": data.notes, "rows": len(data)}
        columns = (data.texts, data.labels, data.splits, data.rows)
        rows = (dict(zip(("text", "label", "split", "row"), r, strict=True)) for r in zip(*columns, strict=True))
        for line in chain([head], rows):
            file.write(_line(line, digest))
    return digest.hexdigest()


def _line(value: object, digest: hashlib._Hash) -> bytes:
    line = json.dumps(value, ensure_ascii=True).encode("ascii") + b"\n"
    digest.update(line)
    return line


def load(path: Path) -> Dataset:
    """What `save` wrote. Raises DataError."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            rows = [json.loads(line) for line in file]
        if len(rows) != head["rows"]:
            raise ValueError(f"{len(rows)} rows instead of {head['rows']}")
        labels = tuple(tuple(r["label"]) if isinstance(r["label"], list) else r["label"] for r in rows)
        return Dataset(
            tuple(r["text"] for r in rows),
            labels,
            tuple(r["split"] for r in rows),
            tuple(r["row"] for r in rows),
            head["task"],
            head["source"],
            tuple(head["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The data of the run cannot be read: {error}", hint="Start the run anew.") from error


def in_splits(data: Dataset) -> dict[str, int]:
    """How many rows each split has."""
    counted = Counter(data.splits)
    return {name: counted[name] for name in SPLITS if counted[name]}
