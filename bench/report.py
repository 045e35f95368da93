"""What all benchmarks share: rounds in turn, medians, a table with its conditions, a section of RESULTS.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Rows under a heading of their own."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def markdown(self) -> str:
        """The table in Markdown, figures to the right."""
        marks = [":--" if i == 0 else "--:" for i in range(len(self.columns))]
        lines = [_row(self.columns), _row(marks), *map(_row, self.rows)]
        return "\n".join([f"{self.caption}\n"] * bool(self.caption) + lines)


@dataclass(frozen=True)
class Report:
    """What one benchmark found."""

    name: str  # of the script, and of the section in RESULTS.md
    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()  # whose versions matter

    def markdown(self, conditions: str) -> str:
        """The whole section."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        parts = [f"## {self.title}", conditions, *(table.markdown() for table in self.tables), notes]
        return "\n\n".join(part for part in parts if part) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def versions(packages: Sequence[str]) -> str:
    """The installed versions of packages, in one line."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def load() -> str:
    """The load averages over 1 and 5 minutes."""
    one, five, _ = psutil.getloadavg()
    return f"{one:.1f} (5 min: {five:.1f})"


def conditions(report: Report, before: str, threads: str) -> str:
    """Where, when and how a report was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return (
        f"`python -m bench.{report.name}`, {day}. {cores} cores, no GPU. Load average {before} before, {load()} after. "
        f"Threads: {threads}. {versions(report.packages)}."
    )


def in_turn(
    contestants: Mapping[str, Callable[[int], Result]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[Result]]:
    """What each contestant returned in each round; they take turns, and the one that begins changes."""
    found: dict[str, list[Result]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(warm_up + rounds):
        for name in order if number % 2 else reversed(order):
            result = contestants[name](number)
            if number >= warm_up:
                found[name].append(result)
    return found


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of ours divided by theirs: both of a round met the same machine."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def write(name: str, section: str, path: Path = RESULTS) -> None:
    """Put a section into RESULTS.md, in place of its last version."""
    text = path.read_text("utf-8") if path.exists() else "# Benchmark results\n"
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n{section}{end}\n"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    text = pattern.sub(lambda _: block, text) if pattern.search(text) else f"{text.rstrip()}\n\n{block}"
    path.write_text(text, "utf-8")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    options.add_argument(
        "--tiny", action="store_true", help="the shortest run that yields a table; its figures say nothing"
    )
    options.add_argument("--rounds", type=int, default=5, help="how often each contestant has its turn")
    return options


def finish(report: Report, options: argparse.Namespace, before: str, threads: str) -> int:
    """Print the report, and keep it where asked."""
    section = report.markdown(conditions(report, before, threads))
    print(section)
    if options.write:
        write(report.name, section)
    return 0
