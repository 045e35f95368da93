"""Tables on their way out: a spreadsheet must not take a text for a formula."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .store import disk_error

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe before what would be a formula; numbers stay numbers.

    >>> safe_cell("=HYPERLINK(1)"), safe_cell("-1.5"), safe_cell("+49 170 2"), safe_cell("plain")
    ("'=HYPERLINK(1)", '-1.5', "'+49 170 2", 'plain')
    """
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], *, safe: bool = True) -> Path:
    """Write a table; half a file never has that name. With a mark, so that Excel reads it as UTF-8.

    `safe`: for a person, who may open it in a spreadsheet; without, every cell is as it was, for a program that reads
    it. Raises TrainingError where it cannot be written.
    """
    cell = safe_cell if safe else str
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            out.writerow(map(cell, columns))
            out.writerows(map(cell, row) for row in rows)
        os.replace(part, path)
    except OSError as error:
        raise disk_error(error, path.name) from error
    finally:
        part.unlink(missing_ok=True)
    return path
