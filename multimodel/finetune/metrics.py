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
    return scores(decided(logits, task), np.asarray(truth), task)


def decided(logits: Any, task: Task) -> Any:
    """What logits say where every threshold is a half: class numbers, zeros and ones, or numbers."""
    found = np.asarray(logits)
    if task == "regression":
        return found.reshape(-1)
    return (found > 0).astype(int) if task == "multi_label" else found.argmax(axis=1)


def scores(found: Any, truth: Any, task: Task) -> dict[str, float]:
    """Of labels accuracy (all labels of a row right) and F1, macro-averaged over the classes that occur or were said;
    of numbers how far they are off."""
    if task == "regression":
        return _numbers(found, truth.reshape(-1))
    truth = truth.astype(int)
    return {
        "accuracy": float(sk.accuracy_score(truth, found)),
        "f1": float(sk.f1_score(truth, found, average="macro", zero_division=0)),
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
        return {"rows": len(truth), **scores(shares.reshape(-1), truth, task)}
    said = decide(shares, task, thresholds)
    labels = list(range(len(classes)))
    truth = truth.astype(int)
    rows = sk.precision_recall_fscore_support(truth, said, labels=labels, zero_division=0)
    per_class = [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, *rows, strict=True)
    ]
    found = {"rows": len(truth), **scores(said, truth, task), "per_class": per_class}
    if task == "single_label":
        found["confusion"] = sk.confusion_matrix(truth, said, labels=labels).tolist()
        found["calibration"] = calibration(shares.max(axis=1), said == truth)
    else:
        found["micro_f1"] = float(sk.f1_score(truth, said, average="micro", zero_division=0))
        found["calibration"] = calibration(shares.reshape(-1), truth.reshape(-1) == 1)
    return found
