"""The last word on a trained model: calibrated on the validation rows, judged on the test rows, its errors listed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import metrics, probability
from .classifier import logits
from .data import Dataset, normal
from .events import Writer
from .labels import LabelMap
from .prepare import Prepared
from .reporter import BEAT

MOST_ERRORS = 200
MOST_TEXT = 1000  # characters of a text in the list of errors


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures, the label map with what was fitted, and the rows that are wrong, the surest first."""

    metrics: dict[str, Any]
    labels: LabelMap
    errors: list[dict[str, Any]]


def judged(run: Prepared, writer: Writer) -> Judgement:
    """Judge the weights that the model has now."""
    writer.phase("evaluating", "judging the best model")
    outputs = {name: _outputs(run, name, writer) for name in ("validation", "test") if len(run.sets[name])}
    truth = {name: np.asarray(run.sets[name].truth) for name in outputs}
    labels = run.labels
    if "validation" in outputs:
        labels = fitted(labels, outputs["validation"], truth["validation"])
    found = {name: figures(labels, outputs[name], truth[name]) for name in outputs}
    shown = run.plan["judged_on"]
    whole = {"split": shown, **found.get(shown, {}), "baseline": run.plan["baseline"]}
    if shown:
        whole["trained_on"] = trained_on(run.data, shown)
    if shown == "test" and "validation" in found:
        whole["validation"] = {k: v for k, v in found["validation"].items() if isinstance(v, int | float)}
    errors = _errors(run, labels, outputs[shown], truth[shown]) if shown else []
    return Judgement(whole, labels, errors)


def trained_on(data: Dataset, split: str) -> int:
    """How many rows of a split have a text that training has too."""
    known = {normal(text) for text in data.of("train").texts}
    return sum(normal(text) in known for text in data.of(split).texts)


def _outputs(run: Prepared, name: str, writer: Writer) -> Any:
    last = 0.0

    def progress(done: float) -> None:
        nonlocal last
        if time.perf_counter() - last > BEAT:
            last = time.perf_counter()
            writer.write("evaluating", fraction=done)

    return logits(run.model, run.sets[name].ids, run.pad, progress=progress)


def fitted(labels: LabelMap, outputs: Any, truth: Any) -> LabelMap:
    """With temperature and thresholds fitted on these rows."""
    degree = probability.temperature(outputs, truth, labels.task)
    if labels.task != "multi_label":
        return labels.calibrated(degree, ())
    shares = probability.probabilities(outputs, labels.task, degree)
    return labels.calibrated(degree, probability.thresholds(shares, truth))


def figures(labels: LabelMap, outputs: Any, truth: Any) -> dict[str, Any]:
    """All figures of some rows; numbers in their own unit."""
    if labels.task == "regression":
        scale = labels.deviation
        return metrics.full(outputs * scale, truth * scale, labels.task, labels.classes)
    shares = probability.probabilities(outputs, labels.task, labels.temperature)
    found = metrics.full(shares, truth, labels.task, labels.classes, labels.thresholds or None)
    raw = metrics.full(probability.probabilities(outputs, labels.task), truth, labels.task, labels.classes)
    found["calibration"] |= {"temperature": labels.temperature, "ece_before": raw["calibration"]["ece"]}
    return found


def _errors(run: Prepared, labels: LabelMap, outputs: Any, truth: Any) -> list[dict[str, Any]]:
    """The rows of the judged split that are wrong, the surest first; for numbers those farthest off."""
    part = run.data.of(run.plan["judged_on"])
    predictions = labels.predictions(outputs)
    if labels.task == "regression":
        rank = np.abs(outputs.reshape(-1) - truth) * labels.deviation
        wrong = np.arange(len(truth))
    else:
        shares = probability.probabilities(outputs, labels.task, labels.temperature)
        missed = probability.decide(shares, labels.task, labels.thresholds or None) != truth
        wrong = np.flatnonzero(missed if missed.ndim == 1 else missed.any(axis=1))
        rank = shares.max(axis=1)
    chosen = sorted(wrong.tolist(), key=lambda i: -rank[i])[:MOST_ERRORS]
    return [
        {
            "text": part.texts[i][:MOST_TEXT],
            "label": part.labels[i],
            "predicted": predictions[i].label,
            "score": round(float(rank[i]), 4),
            "row": part.rows[i],
        }
        for i in chosen
    ]
