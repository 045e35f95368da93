"""The score to beat: words and pairs of words counted (TF-IDF) into a logistic regression. Seconds, no encoder."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from .metrics import full
from .types import Task

MOST_ROWS = 20_000  # to train on
FOLDS = 5  # at least; a class of fewer rows is left out
MORE_FOLDS = 10  # each model then sees more rows: wrong labels of TREC rank at .976 instead of .974 (AUROC)
QUICK = 200_000  # rows times classes, up to which so many take less than a minute


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]")


def _pipeline(task: Task) -> Pipeline:
    if task == "regression":
        return make_pipeline(_words(), Ridge())
    regression = LogisticRegression(C=10, max_iter=300)
    return make_pipeline(_words(), OneVsRestClassifier(regression) if task == "multi_label" else regression)


def score(
    train: tuple[Sequence[str], Any], judged: tuple[Sequence[str], Any], task: Task, classes: Sequence[str], seed: int
) -> dict[str, float]:
    """Accuracy and F1 (or RMSE) of the baseline on `judged`; (texts, truth) each. Empty where it cannot be trained."""
    texts, truth = train
    chosen = random.Random(seed).sample(range(len(texts)), min(len(texts), MOST_ROWS))
    model = _pipeline(task)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit([texts[i] for i in chosen], np.asarray(truth)[chosen])
            found = _shares(model, judged[0], task, len(classes))
    except ValueError:  # no word in any text, or one class only among the chosen rows
        return {}
    scores = full(found, judged[1], task, classes)
    return {name: scores[name] for name in ("accuracy", "f1", "rmse") if name in scores}


def _shares(model: Pipeline, texts: Sequence[str], task: Task, classes: int) -> Any:
    """Probabilities of all classes, of those too that the chosen rows did not have."""
    if task == "regression":
        return model.predict(texts)
    found = model.predict_proba(texts)
    if task == "multi_label":
        return found
    shares = np.zeros((len(texts), classes))
    shares[:, model.classes_.astype(int)] = found
    return shares


def out_of_fold(texts: Sequence[str], truth: Sequence[int], classes: int, seed: int) -> Any:
    """The probabilities of every row by a baseline that did not see it (rows, classes); for finding wrong labels."""
    labels = np.asarray(truth)
    shares = np.full((len(texts), classes), 1.0 / classes)
    counts = np.bincount(labels, minlength=classes)
    usable = np.flatnonzero(counts[labels] >= FOLDS)
    most = MORE_FOLDS if len(texts) * classes <= QUICK else FOLDS
    count = min(most, min((int(n) for n in counts if n >= FOLDS), default=FOLDS))
    folds = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seen, asked in folds.split(usable, labels[usable]):
            model = _pipeline("single_label")
            model.fit([texts[i] for i in usable[seen]], labels[usable[seen]])
            shares[usable[asked]] = _shares(model, [texts[i] for i in usable[asked]], "single_label", classes)
    return shares
