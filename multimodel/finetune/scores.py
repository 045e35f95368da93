"""The figures of `metrics` as a module of `evaluate`: `evaluate.load(PATH_OF_THIS_FILE, "single_label")`.

Loaded by path, no Hub is asked. evaluate runs a copy of the file, so its imports name the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np

from multimodel.finetune.metrics import scores
from multimodel.finetune.types import Task

FEATURES = {
    "single_label": datasets.Value("int64"),
    "multi_label": datasets.Sequence(datasets.Value("int64")),
    "regression": datasets.Value("float64"),
}


class Scores(evaluate.Metric):  # type: ignore[misc]
    """Accuracy and macro F1 of labels; RMSE, MAE and R² of numbers. The configuration is the task.

    Predictions and references are class numbers (rows), zeros and ones (rows × classes) or numbers (rows).
    """

    def _info(self) -> Any:
        if self.config_name not in FEATURES:
            raise ValueError(f"The configuration is one of {', '.join(FEATURES)}, not {self.config_name}.")
        kind = FEATURES[self.config_name]
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(str(self.__doc__), citation="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return scores(np.asarray(predictions), np.asarray(references), self.config_name)


def loaded(task: Task, place: Path) -> Any:
    """This module for a task; `place`: a folder for what evaluate writes."""
    evaluate.config.HF_MODULES_CACHE = place  # not the home folder, which may be read-only
    return evaluate.load(__file__, task, cache_dir=str(place), keep_in_memory=True)
