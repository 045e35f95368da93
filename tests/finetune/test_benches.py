"""The benchmarks of fine-tuning run, in their shortest form, and their figures are made of what they say."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from ..support import needs, needs_data

TINY = Namespace(tiny=True, rounds=1)


@pytest.fixture
def alone() -> None:
    """One thread, as the benchmarks have it."""
    import torch

    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@needs_data("textclf")
@needs_data("tokenizers", "bert-base-uncased")
@needs("onnx", "onnxscript", "onnxruntime")
def test_training_and_prediction_in_turn(tmp_path: Path) -> None:
    from bench import finetune

    training, (note,) = finetune.train(tmp_path, TINY)
    assert [row[0] for row in training.rows] == ["padded to 128, float32", "stock Trainer, float32", "MultiModel"]
    assert all(float(row[1]) > 0 for row in training.rows) and "SST-2" in note
    prediction, notes = finetune.predict(tmp_path, TINY)
    assert [row[0].split(",")[0] for row in prediction.rows] == ["pipeline", "MultiModel", "MultiModel"]
    assert all(float(row[1]) > 0 for row in prediction.rows)
    assert "as in float32" in notes[1]


@needs_data("textclf")
def test_labels_that_were_changed_rank_high(tmp_path: Path) -> None:
    from dataclasses import replace

    from bench import finetune_quality as quality
    from multimodel.settings import Settings

    *_, spam, _, _ = quality.known(tmp_path)
    assert spam.name == "SMS spam"
    few = replace(spam, path=quality.cut(spam, tmp_path))
    table = quality.noise([few], Settings(), quality.doubt)
    ((name, rows, area),) = table.rows
    assert name == "SMS spam" and int(rows) >= 250 and float(area) > 0.9


def test_the_changed_labels_are_a_tenth_and_really_others() -> None:
    from bench.finetune_quality import flipped
    from multimodel.finetune.data import Dataset

    labels = tuple("abc"[i % 3] for i in range(300))
    data = Dataset(labels, labels, ("",) * 300, tuple(range(300)))
    wrong, truth = flipped(data)
    assert sum(wrong) == 30
    assert [("abc"[t] != label) for t, label in zip(truth, labels, strict=True)] == wrong
