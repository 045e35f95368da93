"""From the outputs of a model to probabilities and decisions. Numpy only: predicting needs no more.

Shapes: `logits` and `shares` (rows, classes); `truth` (rows,) of class indexes, (rows, classes) of 0 and 1 for several
labels, or (rows,) of numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .types import Task

Array = NDArray[np.float64]
BINS = 15
SHARPEST = 0.5  # the lowest temperature: a few dozen rows that are all right do not justify more certainty
ENOUGH = 50  # rows from which a temperature or thresholds are fitted


def probabilities(logits: Any, task: Task, temperature: float = 1.0) -> Array:
    """Softmax over the classes, or for several labels a sigmoid each; numbers stay what they are.

    >>> probabilities([[0.0, 0.0]], "single_label").tolist(), probabilities([[0.0]], "multi_label").tolist()
    ([[0.5, 0.5]], [[0.5]])
    """
    scaled = np.asarray(logits, dtype=np.float64)
    if task == "regression":
        return scaled
    scaled = scaled / temperature
    if task == "multi_label":
        found: Array = 0.5 * (1.0 + np.tanh(0.5 * scaled))  # a sigmoid that does not overflow
        return found
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def log_odds(logits: Any, column: int, task: Task, temperature: float = 1.0) -> Array:
    """How strongly each row speaks for a class: log p/(1 - p), which does not saturate as p does; numbers as they are.

    >>> log_odds([[2.0, 0.0]], 0, "single_label").tolist()
    [2.0]
    """
    scaled = np.asarray(logits, dtype=np.float64)
    if task != "single_label":
        return scaled[:, column] if task == "regression" else scaled[:, column] / temperature
    scaled = scaled / temperature
    others = np.delete(scaled, column, axis=1)
    most = others.max(axis=1)
    found: Array = scaled[:, column] - most - np.log(np.exp(others - most[:, None]).sum(axis=1))
    return found


def decide(shares: Any, task: Task, thresholds: Any = None) -> Any:
    """The class of each row; for several labels 1 where the share reaches the threshold, 0.5 where there is none."""
    if task == "single_label":
        return np.asarray(shares).argmax(axis=1)
    return (np.asarray(shares) >= (0.5 if thresholds is None else np.asarray(thresholds))).astype(int)


def calibration(confidence: Any, right: Any) -> dict[str, Any]:
    """Expected calibration error (Guo et al. 2017, 15 equal bins) and the bins: mean confidence, share right, rows."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    which = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    bins = []
    for index in range(BINS):
        inside = which == index
        if inside.any():
            bins.append((float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    error = sum(abs(sure - true) * count for sure, true, count in bins) / max(1, len(confidence))
    return {"ece": error, "bins": [list(row) for row in bins]}


def temperature(logits: Any, truth: Any, task: Task) -> float:
    """The number to divide logits by so that probabilities fit (Guo et al. 2017); 1.0 where rows are too few."""
    logits, truth = np.asarray(logits, dtype=np.float64), np.asarray(truth)
    if task == "regression" or len(logits) < ENOUGH:
        return 1.0
    low, high = np.log(SHARPEST), np.log(10.0)
    for _ in range(40):  # golden section: the loss has one valley
        a, b = high - (high - low) * 0.618, low + (high - low) * 0.618
        if _surprise(logits, truth, task, float(np.exp(a))) < _surprise(logits, truth, task, float(np.exp(b))):
            high = b
        else:
            low = a
    return round(float(np.exp((low + high) / 2)), 4)


def _surprise(logits: Array, truth: Any, task: Task, degree: float) -> float:
    """Mean negative log likelihood at a temperature."""
    shares = np.clip(probabilities(logits, task, degree), 1e-12, 1 - 1e-12)
    if task == "multi_label":
        return float(-np.mean(truth * np.log(shares) + (1 - truth) * np.log(1 - shares)))
    return float(-np.mean(np.log(shares[np.arange(len(truth)), truth.astype(int)])))


def thresholds(shares: Any, truth: Any) -> list[float]:
    """For several labels: from which share on each is said, by its best F1; 0.5 for labels hardly seen."""
    shares, truth = np.asarray(shares), np.asarray(truth).astype(int)
    steps = np.arange(0.05, 0.96, 0.05)
    found = []
    for column in range(shares.shape[1]):
        if len(shares) < ENOUGH or truth[:, column].sum() < 3:
            found.append(0.5)
            continue
        scores = [_f1(shares[:, column] >= step, truth[:, column]) for step in steps]
        best = [step for step, score in zip(steps, scores, strict=True) if score == max(scores)]
        found.append(round(float(best[len(best) // 2]), 2))
    return found


def _f1(said: Any, truth: Any) -> float:
    hits = float(np.sum(said & (truth == 1)))
    return 2 * hits / max(1.0, float(said.sum()) + float(truth.sum()))
