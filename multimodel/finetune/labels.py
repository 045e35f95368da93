"""What a model's outputs mean: the classes in their order, or the scale of a number. Saved beside the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Self

from ..errors import BrokenFile
from .data import Dataset, Label
from .probability import decide, log_odds, probabilities
from .types import Prediction, Task

FILE = "label_map.json"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The meaning of a model's outputs, and how they become an answer."""

    task: Task
    classes: tuple[str, ...] = ()
    mean: float = 0.0  # of the numbers that were learnt
    deviation: float = 1.0
    temperature: float = 1.0  # divides the logits; fitted on the validation rows
    thresholds: tuple[float, ...] = ()  # several labels: from which probability on each is said

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """What there is to learn in a data set: the classes of its training rows."""
        train = data.of("train")
        if data.task == "regression":
            numbers = [label for label in train.labels if isinstance(label, float)]
            return cls(data.task, ("value",), fmean(numbers), pstdev(numbers) or 1.0)
        return cls(data.task, train.classes)

    @property
    def outputs(self) -> int:
        """How many numbers the model gives."""
        return len(self.classes)

    def truth(self, labels: Sequence[Label]) -> list[Any]:
        """Labels as the model sees them: class indexes, rows of 0 and 1, or numbers around zero."""
        if self.task == "regression":
            return [(label - self.mean) / self.deviation for label in labels if isinstance(label, float)]
        index = {name: i for i, name in enumerate(self.classes)}
        if self.task == "single_label":
            return [index[label] for label in labels if isinstance(label, str)]
        return [[float(name in label) for name in self.classes] for label in labels if isinstance(label, tuple)]

    def known(self, data: Dataset) -> Dataset:
        """Only rows whose labels the model can have: training decides what there is."""
        names = set(self.classes)
        return data.where(lambda i: self.task == "regression" or set(data.tags(i)) <= names)

    def predictions(self, logits: Any, threshold: float | None = None) -> list[Prediction]:
        """What logits (rows, outputs) say. `threshold` replaces those of several labels."""
        shares = probabilities(logits, self.task, self.temperature)
        if self.task == "regression":
            numbers = (shares.reshape(-1) * self.deviation + self.mean).tolist()
            return [Prediction(f"{number:.4g}", number, {}) for number in numbers]
        limits = threshold if threshold is not None else self.thresholds or None
        decided = decide(shares, self.task, limits)
        return [self._said(row, choice) for row, choice in zip(shares.tolist(), decided.tolist(), strict=True)]

    def at(self, said: Prediction, threshold: float | None) -> Prediction:
        """A prediction as it is with another threshold: of several labels others may be said. None: the model's own."""
        if self.task != "multi_label":
            return said
        shares = list(said.scores.values())
        limits = threshold if threshold is not None else self.thresholds or None
        return self._said(shares, decide([shares], self.task, limits)[0])

    def sure(self, said: Prediction, threshold: float | None) -> bool:
        """Whether the one label of a text is at least so probable; several labels and numbers know no such doubt."""
        return self.task != "single_label" or threshold is None or said.score >= threshold

    def doubt(self, said: Prediction, threshold: float | None = None) -> float:
        """How near a prediction is to being another one, 0..1; 0 for numbers."""
        if self.task == "regression":
            return 0.0
        if self.task == "single_label":
            return 1.0 - said.score
        limits = self.thresholds if threshold is None and self.thresholds else [threshold or 0.5] * len(said.scores)
        return 1.0 - min(abs(p - limit) for p, limit in zip(said.scores.values(), limits, strict=True))

    def strength(self, logits: Any, label: str) -> list[float]:
        """How strongly each row of logits speaks for a label: its log-odds; for numbers the number itself."""
        column = self.classes.index(label) if label in self.classes else 0
        odds = log_odds(logits, column, self.task, self.temperature)
        return [float(value) for value in (odds * self.deviation if self.task == "regression" else odds)]

    def _said(self, shares: list[float], choice: Any) -> Prediction:
        scores = dict(zip(self.classes, shares, strict=True))
        if self.task == "single_label":
            name = self.classes[choice]
            return Prediction(name, scores[name], scores, (name,))
        names = tuple(name for name, said in zip(self.classes, choice, strict=True) if said)
        surest = max((scores[name] for name in names), default=1.0 - max(shares, default=0.0))
        return Prediction(", ".join(names), surest, scores, names)

    def calibrated(self, temperature: float, thresholds: Sequence[float]) -> LabelMap:
        """With what was fitted on the validation rows."""
        return replace(self, temperature=temperature, thresholds=tuple(thresholds))

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The map of a model's folder. Raises BrokenFile."""
        try:
            values = json.loads((folder / FILE).read_text(encoding="utf-8"))
            values |= {"classes": tuple(values["classes"]), "thresholds": tuple(values["thresholds"])}
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            hint = "Fine-tune it again, or restore the folder."
            raise BrokenFile(f"{FILE} of {folder.name} cannot be read: {error}", hint=hint) from error
