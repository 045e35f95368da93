"""CSV, TSV and their relatives: which character parts the cells is found by trying."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from ..errors import DataError
from .tables import Limits, Table, clean, grid

SWALLOWED = 5  # lines within a cell from which they may be rows
NO_ROWS = "It needs a text and a label in every row."


def from_text(text: str, name: str, limits: Limits, notes: tuple[str, ...]) -> Table:
    """The table of a text whose lines have cells. Raises DataError."""
    csv.field_size_limit(max(limits.file, 131_072))
    text = text.replace("\0", "")
    dialect = sniff(text)
    records = [
        (line, [clean(c, limits) for c in cells]) for line, cells in islice(dialect.records(text), limits.rows + 2)
    ]
    if not records:
        raise DataError(f"{name} holds no rows.", hint=NO_ROWS)
    widths = Counter(len(cells) for _, cells in records)
    one = widths.most_common(1)[0][0] == 1 or text.startswith(FASTTEXT)
    if one and (labelled := _label_first(text, limits)):
        return replace(labelled, notes=(*notes, *labelled.notes))
    return grid(records, limits, (*notes, *_unclosed(records, dialect, widths.most_common(1)[0][0])))


def _unclosed(records: Sequence[tuple[int, list[str]]], dialect: Dialect, width: int) -> Iterator[str]:
    """That a quotation mark which nobody closed has made many rows one: a cell whose lines are rows themselves."""
    for end, cells in records:
        for cell in cells if width > 1 else ():
            inner = cell.splitlines()[1:]
            if len(inner) >= SWALLOWED and _like_rows(inner, dialect, width) >= 0.8 * len(inner):
                start = end - sum(part.count("\n") for part in cells)
                why = f"a quotation mark is opened and not closed, so the lines to {end:,} became one row"
                yield f"Line {start:,}: {why}. Close it, or write it twice where it belongs to a text."


def _like_rows(lines: Sequence[str], dialect: Dialect, width: int) -> int:
    return sum(len(row) == width for row in csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a line are told apart."""

    delimiter: str
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL  # or QUOTE_NONE

    def records(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every record that is not empty."""
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, quoting=self.quoting, strict=False)
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells


BARE_TABS = Dialect("\t", csv.QUOTE_NONE)
DIALECTS = (
    *(dialect for mark in ",;|" for dialect in (Dialect(mark), Dialect(mark, csv.QUOTE_NONE))),
    BARE_TABS,
    Dialect("\t"),
)
"""In the order of preference where two fit equally well."""

WRAPPED = re.compile(r'(?:^|\t)"[^\t\n]*"(?=\t|\r?$)', re.MULTILINE)
SAMPLE = 500_000  # characters on which the dialects are compared
FASTTEXT = "__label__"
LABEL_FIRST = re.compile(rf"(?:{FASTTEXT})?(\S{{1,60}})[ \t]+(\S.*)")


def _label_first(text: str, limits: Limits) -> Table | None:
    """Lines that begin with their label, as fastText and others write them; None where these are no labels."""
    lines = [(number, line) for number, line in enumerate(text.splitlines()[: limits.rows + 1], 1) if line.strip()]
    found = [(number, LABEL_FIRST.fullmatch(line.strip())) for number, line in lines]
    rows = [(number, (clean(m[1], limits), clean(m[2], limits))) for number, m in found if m]
    if len(rows) < 10 or len(rows) < len(lines) or len({cells[0] for _, cells in rows}) > len(rows) // 5:
        return None
    note = "Each line begins with its label."
    cells, numbers = tuple(cells for _, cells in rows), tuple(number for number, _ in rows)
    return Table(("label", "text"), cells, numbers, (note,), headed=False)


def sniff(text: str) -> Dialect:
    """The dialect in which most records have the same number of cells, at least two; a comma where none has.

    >>> sniff("a;b\\n1,5;x\\n2,5;y").delimiter
    ';'
    """
    sample = text if len(text) <= SAMPLE else text[: text.rfind("\n", 0, SAMPLE) + 1] or text[:SAMPLE]
    scores = {dialect: _agreement(dialect, sample) for dialect in DIALECTS}
    best = max(scores.values())
    return next(dialect for dialect, score in scores.items() if score == best) if best > 0 else DIALECTS[0]


def _agreement(dialect: Dialect, sample: str) -> float:
    """The share of records of the most frequent width; 0 where that is one cell.

    Commas without quotes cut texts in pieces, so that reading has to fit much better to be believed. With tabs a
    quotation mark is mostly a part of the text, unless many cells are wrapped in them.
    """
    widths: Counter[int] = Counter()
    try:
        widths.update(len(cells) for _, cells in dialect.records(sample))
    except csv.Error:
        return 0.0
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    if width < 2:
        return 0.0
    share = count / widths.total()
    if dialect == BARE_TABS:
        return share - 0.5 * (len(WRAPPED.findall(sample)) > widths.total() / 10)
    return share - 0.2 * (dialect.quoting == csv.QUOTE_NONE)
