"""How good a classifier is. Over scikit-learn; no text, no model. Shapes as in `probability`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

from .probability import calibration, decide
from .types import Task


def quick(logits: Any, truth: Any, task: Task) -> dict[str, float]:
    """The figures of an evaluation during training."""
    found, truth = np.asarray(logits), np.asarray(truth)
    if task == "regression":
        return _numbers(found.reshape(-1), truth.reshape(-1))
    if task == "multi_label":
        decided, truth = (found > 0).astype(int), truth.astype(int)
    else:
        decided = found.argmax(axis=1)
    return _scores(decided, truth, task)


def _scores(decided: Any, truth: Any, task: Task) -> dict[str, float]:
    """Accuracy (all labels of a row right) and F1, macro-averaged over the classes that occur or were said."""
    return {
        "accuracy": float(sk.accuracy_score(truth, decided)),
        "f1": float(sk.f1_score(truth, decided, average="macro", zero_division=0)),
    }


def _numbers(found: Any, truth: Any) -> dict[str, float]:
    known = len(truth) > 1 and float(np.var(truth)) > 0
    return {
        "rmse": float(np.sqrt(sk.mean_squared_error(truth, found))),
        "mae": float(sk.mean_absolute_error(truth, found)),
        "r2": float(sk.r2_score(truth, found)) if known else 0.0,
    }


def full(shares: Any, truth: Any, task: Task, classes: Sequence[str], thresholds: Any = None) -> dict[str, Any]:
    """Everything for the record: figures, per class, confusion, calibration. `shares`: `probabilities`."""
    shares, truth = np.asarray(shares), np.asarray(truth)
    if task == "regression":
        return {"rows": len(truth), **_numbers(shares.reshape(-1), truth.reshape(-1))}
    decided = decide(shares, task, thresholds)
    labels = list(range(len(classes)))
    truth = truth.astype(int)
    rows = sk.precision_recall_fscore_support(truth, decided, labels=labels, zero_division=0)
    per_class = [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, *rows, strict=True)
    ]
    found = {"rows": len(truth), **_scores(decided, truth, task), "per_class": per_class}
    if task == "single_label":
        found["confusion"] = sk.confusion_matrix(truth, decided, labels=labels).tolist()
        found["calibration"] = calibration(shares.max(axis=1), decided == truth)
    else:
        found["micro_f1"] = float(sk.f1_score(truth, decided, average="micro", zero_division=0))
        found["calibration"] = calibration(shares.reshape(-1), truth.reshape(-1) == 1)
    return found
