"""Wrong labels are found near the top of a ranking; tokens are counted by the model's own tokenizer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from multimodel.errors import BrokenFile
from multimodel.finetune.data import Dataset, dataset, guess
from multimodel.finetune.reading import read
from multimodel.finetune.suspects import suspects
from multimodel.finetune.tokens import base_in, counter, longest

from ..support import DATA, needs_data
from .support import sentences, tiny_encoder


def rows(count: int) -> Dataset:
    texts, labels = zip(*sentences(count), strict=True)
    return Dataset(texts, labels, ("",) * count, tuple(range(2, count + 2)))


def flipped(data: Dataset, share: float, seed: int) -> tuple[Dataset, set[int]]:
    """With another label for some rows, and which."""
    rng = random.Random(seed)
    wrong = set(rng.sample(range(len(data)), round(share * len(data))))
    classes = data.classes
    labels = tuple(
        rng.choice([c for c in classes if c != label]) if i in wrong else label for i, label in enumerate(data.labels)
    )
    return replace(data, labels=labels), wrong


def test_flipped_labels_lead_the_list_with_the_right_one_suggested() -> None:
    clean = rows(300)
    noisy, wrong = flipped(clean, 0.05, seed=1)
    found = suspects(noisy)
    first = found[: len(wrong)]
    assert len({s.index for s in first} & wrong) >= 0.8 * len(wrong)
    assert all(s.suggested == clean.labels[s.index] for s in first if s.index in wrong)
    assert all(s.row == s.index + 2 and 0.5 <= s.doubt <= 1 for s in found)
    assert [s.doubt for s in found] == sorted((s.doubt for s in found), reverse=True)


def test_tasks_and_sizes_it_is_not_for() -> None:
    assert suspects(rows(6)) == []
    numbers = Dataset(("a", "b"), (1.0, 2.0), ("", ""), (1, 2), "regression")
    assert suspects(numbers) == []


@needs_data("textclf", "sms_spam")
def test_flipped_labels_of_real_messages() -> None:
    table = read(DATA / "textclf" / "sms_spam" / "sms.tsv")
    noisy, wrong = flipped(dataset(table, guess(table)).take(range(1500)), 0.1, seed=2)
    found = suspects(noisy, most=len(wrong))
    assert len({s.index for s in found} & wrong) >= 0.85 * len(wrong)


def test_tokens_are_counted_by_the_tokenizer_of_the_base_model(tmp_path: Path) -> None:
    from multimodel.finetune.classifier import encode, load_tokenizer

    folder = tiny_encoder(tmp_path / "encoder")
    texts = [text for text, _ in sentences(20)] + ["", "great " * 500]
    count = counter(folder)
    assert count and list(count(texts)) == [len(ids) for ids in encode(load_tokenizer(folder), texts, 10_000)]
    assert counter(tmp_path) is None
    base = base_in(folder)
    assert base.small and base.count and base.limit == longest(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BrokenFile):
        counter(folder)
