"""Labels that may be wrong: rows whose label a model that never saw them finds unlikely. A ranking, no verdict."""

from __future__ import annotations

from dataclasses import dataclass

from .baseline import FOLDS, out_of_fold
from .data import Dataset


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label may be wrong."""

    index: int  # in the data set
    row: int  # in the source, counted from 1
    label: str
    suggested: str  # the label that is likelier
    doubt: float  # 0..1: how unlikely the label was found


def suspects(data: Dataset, most: int = 100, *, seed: int = 0) -> list[Suspect]:
    """The rows whose label is least likely, the most doubtful first; only where another label is likelier.

    Out-of-fold probabilities of the label, as in confident learning (Northcutt et al. 2021, self-confidence). Seconds
    to a minute of one core. For one label a text; empty for other tasks and for too few rows.
    """
    usable = [i for i in range(len(data)) if data.labelled(i) and isinstance(data.labels[i], str)]
    classes = data.take(usable).classes
    counts = data.take(usable).counts
    if data.task != "single_label" or len(classes) < 2 or sum(n >= FOLDS for n in counts.values()) < 2:
        return []
    index = {name: i for i, name in enumerate(classes)}
    truth = [index[str(data.labels[i])] for i in usable]
    shares = out_of_fold([data.texts[i] for i in usable], truth, len(classes), seed)
    found = [
        Suspect(i, data.rows[i], classes[label], classes[int(row.argmax())], 1.0 - float(row[label]))
        for i, label, row in zip(usable, truth, shares, strict=True)
        if int(row.argmax()) != label
    ]
    return sorted(found, key=lambda suspect: -suspect.doubt)[:most]
