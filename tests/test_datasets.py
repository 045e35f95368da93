"""The sample data of the fine-tune tab: valid files, enough rows, clean labels."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from .support import ROOT

FOLDER = ROOT / "assets" / "datasets"
LABELS = {"sentiment": 2, "intent": 10, "spam": 2}
ALIKE = 0.6  # shared words by all words of two texts; above it they are near duplicates


def read(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name / "data.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def test_no_set_is_without_its_test() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(LABELS)


@pytest.mark.parametrize("name", LABELS)
def test_every_row_is_a_text_and_a_label(name: str) -> None:
    rows = read(name)
    assert len(rows) >= 600
    assert all(list(row) == ["text", "label"] and all(row.values()) for row in rows)
    assert all(value == value.strip() for row in rows for value in row.values())
    assert all(3 <= len(row["text"].split()) <= 60 for row in rows)


@pytest.mark.parametrize("name", LABELS)
def test_written_again_the_file_is_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(read(name))
    assert path.read_bytes() == (FOLDER / name / "data.csv").read_bytes()


@pytest.mark.parametrize("name", LABELS)
def test_classes_are_as_the_card_says(name: str) -> None:
    counts = Counter(row["label"] for row in read(name))
    assert len(counts) == LABELS[name]
    card = (FOLDER / name / "README.md").read_text("utf-8")
    assert {label: int(rows) for label, rows in re.findall(r"\| `(\w+)` \| (\d+) \|", card)} == counts
    assert f"{counts.total()} rows" in card
    assert "MIT" in card


def test_classes_are_balanced() -> None:
    for name in ("sentiment", "intent"):
        counts = Counter(row["label"] for row in read(name))
        assert min(counts.values()) > 0.95 * max(counts.values())
    spam = Counter(row["label"] for row in read("spam"))
    assert 0.33 < spam["spam"] / spam.total() < 0.37


@pytest.mark.parametrize("name", LABELS)
def test_no_two_rows_are_nearly_the_same(name: str) -> None:
    texts = [words(row["text"]) for row in read(name)]
    assert max(alike(*pair) for pair in combinations(texts, 2)) < ALIKE


@pytest.mark.parametrize("name", LABELS)
def test_rows_come_in_random_order(name: str) -> None:
    labels = [row["label"] for row in read(name)]
    assert len(set(labels[:60])) == LABELS[name]
    assert set(labels[: len(labels) // 2]) == set(labels[len(labels) // 2 :])
