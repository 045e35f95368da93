"""JSON, JSON lines, Parquet and Excel as tables. What is packed is measured before it is unpacked."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DataError
from .tables import Cell, Limits, Table, cell_of, column_names, decode, grid, made, stack


def from_json(path: Path, limits: Limits) -> Table:
    text, note = decode(path.read_bytes())
    notes = (note,) if note else ()
    try:
        value = json.loads(text)
    except RecursionError:
        raise DataError(f"{path.name} is nested too deeply.", hint="Use a list of objects.") from None
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 and path.suffix.lower() == ".json":
            raise DataError(f"{path.name} is not JSON: {error}", hint="Check its last line.") from None
        return _jsonl(lines, path.name, limits, notes)
    return _of_json(value, path.name, limits, notes)


def _jsonl(lines: Sequence[str], name: str, limits: Limits, notes: tuple[str, ...]) -> Table:
    values, bad = [], []
    for number, line in enumerate(lines[: limits.rows + 1], 1):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            bad.append(number)
    if len(bad) > len(values):
        raise DataError(f"{name} is neither JSON nor JSON lines.", hint="Each line needs one object.")
    if bad:
        notes = (*notes, f"Lines that are not JSON were left out: {len(bad):,} (line {bad[0]} first).")
    return _of_json(values, name, limits, notes)


def _of_json(value: Any, name: str, limits: Limits, notes: tuple[str, ...]) -> Table:
    """A list of rows; or an object of lists, which are columns or, where they hold rows, splits."""
    if isinstance(value, dict) and value and all(isinstance(part, list) for part in value.values()):
        parts = {str(key): part for key, part in value.items() if part}
        if parts and all(isinstance(part[0], list | dict) for part in parts.values()):
            tables = [(key, _of_list(part, limits, ())) for key, part in parts.items()]
            return replace(tables[0][1] if len(tables) == 1 else stack(tables, limits), notes=notes)
        if len({len(part) for part in value.values()}) == 1:
            rows = [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
            return _of_list(rows, limits, notes)
    if isinstance(value, dict):
        value = next((part for part in value.values() if isinstance(part, list) and part), [value])
    if not isinstance(value, list) or not value:
        raise DataError(f"{name} holds no list of rows.", hint='Use [{"text": …, "label": …}, …].')
    return _of_list(value, limits, notes)


def _of_list(rows: Sequence[Any], limits: Limits, notes: tuple[str, ...]) -> Table:
    if all(isinstance(row, dict) for row in rows[:100]):
        names: dict[str, None] = {}
        for row in rows:
            names |= dict.fromkeys(row if isinstance(row, dict) else ())
        columns = tuple(names)[: limits.columns]
        cells = [tuple(cell_of(row.get(c) if isinstance(row, dict) else None, limits) for c in columns) for row in rows]
        return made(column_names([str(c) for c in columns], len(columns)), cells, limits, notes)
    width = max((len(row) for row in rows[:1000] if isinstance(row, list)), default=1)
    listed = [row if isinstance(row, list) else [row] for row in rows]
    cells = [tuple(cell_of(c, limits) for c in [*row, *[None] * width][:width]) for row in listed]
    return made([f"column {i + 1}" for i in range(width)], cells, limits, notes, headed=False)


def from_parquet(path: Path, limits: Limits) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        texts = [f.name for f in pq.read_schema(path) if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        file = pq.ParquetFile(path, read_dictionary=texts)
        groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        if sum(groups) > limits.unpacked:
            raise DataError(f"{path.name} unpacks to {sum(groups) / 1e6:,.0f} MB.", hint="Use a part of the rows.")
        columns = [name for name in file.schema_arrow.names[: limits.columns]]
        rows: list[tuple[Cell, ...]] = []
        for batch in file.iter_batches(1024, columns=columns):
            rows += zip(*(_arrow_cells(column, limits) for column in batch.columns), strict=True)
            if len(rows) > limits.rows:
                break
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name} is damaged: {error}", hint="Save it again, or as .csv.") from error
    return made(column_names(columns, len(columns)), rows, limits, ())


def _arrow_cells(column: Any, limits: Limits) -> list[Cell]:
    """A column's cells; of a dictionary each value is unpacked once, however often it occurs."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        words = [cell_of(value, limits) for value in column.dictionary.to_pylist()]
        return ["" if i is None else words[i] for i in column.indices.to_pylist()]
    return [cell_of(value, limits) for value in column.to_pylist()]


def from_excel(path: Path, limits: Limits) -> Table:
    return _best_sheet(sheets(path, path.name, limits), path.name, limits)


def sheets(path: Path, name: str, limits: Limits) -> dict[str, list[list[str]]]:
    """The filled rows of each sheet of the workbook called `name`, by title. Raises DataError."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(info.file_size for info in packed.infolist())
            names = packed.namelist()
        if size > limits.unpacked:
            raise DataError(f"{name} unpacks to {size / 1e6:,.0f} MB.", hint="Save the sheet as .csv.")
        if "[Content_Types].xml" not in names:
            raise DataError(f"{name} is packed.", hint="Unpack it first.")
        with path.open("rb") as file:  # of a path it asks the name what it is
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            return {sheet.title: _sheet(sheet, limits) for sheet in book.worksheets}
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, SyntaxError) as error:
        raise DataError(f"{name} is damaged: {error}", hint="Save it again, or as .csv.") from error


def _sheet(sheet: Any, limits: Limits) -> list[list[str]]:
    """The filled rows of a sheet, as written: lists do not occur there."""
    rows = sheet.iter_rows(values_only=True, max_col=limits.columns)
    cells = ([str(cell_of(value, limits)) for value in row] for row in rows)
    return list(islice((row for row in cells if any(row)), limits.rows + 2))


def _best_sheet(sheets: dict[str, list[list[str]]], name: str, limits: Limits) -> Table:
    filled = {title: rows for title, rows in sheets.items() if rows}
    if not filled:
        raise DataError(f"{name} holds no rows.", hint="It needs a text and a label in every row.")
    title, rows = next(iter(filled.items()))
    width = max(max((i + 1 for i, cell in enumerate(row) if cell), default=0) for row in rows)
    records = [(i + 1, [*row, *[""] * width][:width]) for i, row in enumerate(rows)]
    notes = (f"Of {len(filled)} sheets, {title!r} is used.",) if len(filled) > 1 else ()
    return grid(records, limits, notes)
