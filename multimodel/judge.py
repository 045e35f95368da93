"""A fine-tuned classifier as the judge of answers: what it says of each text, asked once and then kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from .errors import WorkerCrashed
from .finetune.store import MANIFEST

if TYPE_CHECKING:
    from .finetune.labels import LabelMap
    from .finetune.predict import Predictors
    from .finetune.types import Prediction

KEPT = 10_000  # verdicts; the one unused for longest leaves first
LONGEST = 20_000  # characters of an answer that are read; no classifier reads further


class Judge:
    """Says what a fine-tuned model makes of texts. Several threads may ask."""

    def __init__(self, predictors: Predictors) -> None:
        self._predictors = predictors
        self._lock = Lock()  # between the requests of all visitors
        self._kept: OrderedDict[tuple[str, float, str], Prediction] = OrderedDict()

    def verdicts(self, model: str, texts: Sequence[str]) -> tuple[LabelMap, list[Prediction]]:
        """What the labels of a model mean, and what it says of each text. Raises LoadError, BackendError."""
        predictor = self._predictors.get(model)
        manifest = predictor.folder / MANIFEST
        version = (str(predictor.folder), manifest.stat().st_mtime if manifest.exists() else 0.0)
        keys = [(*version, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()) for text in texts]
        with self._lock:
            known = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text[:LONGEST] for key, text in zip(keys, texts, strict=True) if key not in known}
        try:
            said = predictor(list(new.values()))
        except WorkerCrashed:  # a new process may do better, once
            predictor = self._predictors.get(model)
            return predictor.labels, predictor([text[:LONGEST] for text in texts])
        found = dict(zip(new, said, strict=True))
        with self._lock:
            for key in keys:
                self._kept[key] = (known | found)[key]
                self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return predictor.labels, [(known | found)[key] for key in keys]
