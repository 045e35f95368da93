"""The figures of an evaluation, through `evaluate` and without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import numpy as np
import pytest

from multimodel.finetune import scores
from multimodel.finetune.metrics import quick
from multimodel.finetune.trainer import figures
from multimodel.finetune.types import Task

DRAWN = np.random.default_rng(0).normal(size=(50, 4))
TRUTH: dict[Task, Any] = {
    "single_label": np.abs(DRAWN).argmax(axis=1),
    "multi_label": (DRAWN > 0.5).astype(np.float32),
    "regression": DRAWN[:, 1].astype(np.float32),
}


@pytest.mark.parametrize("task", TRUTH)
def test_evaluate_gives_the_figures_without_hub_or_home(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", Path("/proc/none"))
    logits = DRAWN[:, :1] if task == "regression" else DRAWN
    found = figures(task, tmp_path)(SimpleNamespace(predictions=logits, label_ids=TRUTH[task]))
    assert found == quick(logits, TRUTH[task], task)
    assert all(0 < value < 3 for name, value in found.items() if name != "r2")


def test_figures_that_can_be_told_by_hand(tmp_path: Path) -> None:
    labels = scores.Scores("single_label", keep_in_memory=True, cache_dir=str(tmp_path)).compute(
        predictions=[0, 1, 1, 1], references=[0, 1, 1, 2]
    )
    assert labels == {"accuracy": 0.75, "f1": pytest.approx((1 + 0.8 + 0) / 3)}
    several = scores.Scores("multi_label", keep_in_memory=True, cache_dir=str(tmp_path)).compute(
        predictions=[[1, 0], [1, 1]], references=[[1, 0], [0, 1]]
    )
    assert several == {"accuracy": 0.5, "f1": pytest.approx((2 / 3 + 1) / 2)}
    numbers = scores.Scores("regression", keep_in_memory=True, cache_dir=str(tmp_path)).compute(
        predictions=[1.0, 2.0], references=[1.0, 4.0]
    )
    assert numbers == {"rmse": pytest.approx(2**0.5), "mae": 1.0, "r2": pytest.approx(1 - 4 / 4.5)}


def test_a_task_there_is_none_of(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of single_label, multi_label, regression"):
        scores.Scores("ranking", keep_in_memory=True, cache_dir=str(tmp_path))
