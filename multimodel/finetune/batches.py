"""Predicting many texts, or a whole file, in the background: how far it is, what was said, and how it is stopped."""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal

from ..errors import BadRequest, MultimodelError, Unexpected
from .export import write_csv
from .labels import LabelMap
from .predict import Predictor, answer_columns, texts_of, write_predictions
from .reading import read
from .types import Prediction

KEPT = 500  # rows of a file that are shown: those the model doubts most
KNOWN = 1.0  # seconds of answering from which on the speed is known
REMEMBERED = 64  # batches; the oldest leaves first

State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One text, and what each model says of it."""

    number: int  # its place among the texts, or its line in the file; from 1
    text: str
    said: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Many texts on their way; each replaces the one before."""

    id: str
    models: tuple[str, ...]
    total: int = 0  # texts
    state: State = "running"
    fraction: float = 0.0
    seconds: float = 0.0  # since the model was found, or that it took
    first: tuple[float, float] | None = None  # the seconds and the fraction with which the first rows were answered
    labels: tuple[LabelMap, ...] = ()  # of each model
    rows: tuple[Row, ...] = ()  # all, in their order; of a long file those in most doubt
    counts: Mapping[str, int] = field(default_factory=dict)  # rows by label, of the first model
    unsure: int = 0  # rows below the threshold
    file: Path | None = None  # the finished table
    error: MultimodelError | None = None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the speed since the first rows, which waited for the weights.

        None until that speed is known.

        >>> Batch("a", ("m",), fraction=0.5, seconds=30.0, first=(20.0, 0.25)).seconds_left
        20.0
        """
        seconds, fraction = self.first or (self.seconds, self.fraction)
        since, done = self.seconds - seconds, self.fraction - fraction
        return since * (1 - self.fraction) / done if since >= KNOWN and done > 0 and self.fraction < 1 else None


class _Stopped(Exception):
    """A person does not want it any more. Never leaves its thread."""


class _Work:
    """A batch and the thread that works on it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.stopping, self.ended = Event(), Event()
        self.started = time.perf_counter()

    def show(self, **changes: object) -> None:
        """The batch with these changes, for everybody. Only the thread that works on it calls this."""
        self.batch = replace(self.now(), **changes)  # type: ignore[arg-type]

    def now(self) -> Batch:
        """The batch as it stands, up to this second."""
        return replace(self.batch, seconds=time.perf_counter() - self.started)


class Batches:
    """The batches of this server. `get`: a model by its name."""

    def __init__(self, get: Callable[[str], Predictor]) -> None:
        self._get = get
        self._lock = Lock()  # between the requests of all visitors
        self._all: OrderedDict[str, _Work] = OrderedDict()

    def texts(self, models: Sequence[str], texts: Sequence[str]) -> str:
        """Ask each of the models about the texts; the id of the batch."""

        def work(mine: _Work) -> None:
            mine.show(total=len(texts))
            said = [self._said(mine, index, texts, None) for index in range(len(models))]
            rows = tuple(Row(i, *row) for i, row in enumerate(zip(texts, zip(*said, strict=True), strict=True), 1))
            mine.show(rows=rows, fraction=1.0)

        return self._start(tuple(models), work)

    def file(
        self, model: str, source: Path, target: Path, *, column: str | None = None, threshold: float | None = None
    ) -> str:
        """Ask a model about every row of a file, and write the table `target`; the id of the batch."""

        def work(mine: _Work) -> None:
            table = read(source)
            texts = texts_of(table, column)
            mine.show(total=len(texts))
            said = self._said(mine, 0, texts, threshold)
            labels = mine.batch.labels[0]
            path = write_predictions(target, table, said, labels, threshold)
            doubtful = sorted(range(len(said)), key=lambda i: -labels.doubt(said[i], threshold))[:KEPT]
            rows = tuple(Row(table.lines[i], texts[i], (said[i],)) for i in sorted(doubtful))
            counts, unsure = tally(labels, said, threshold)
            mine.show(rows=rows, counts=counts, unsure=unsure, file=path, fraction=1.0)

        return self._start((model,), work)

    def get(self, id: str) -> Batch:
        """A batch as it stands. Raises BadRequest for one that is not remembered any more."""
        work = self._find(id)
        return work.now() if work.batch.state == "running" else work.batch

    def wait(self, id: str, seconds: float) -> Batch:
        """The batch once it has ended, or as it stands after so long. Raises BadRequest."""
        self._find(id).ended.wait(seconds)
        return self.get(id)

    def stop(self, id: str) -> Batch:
        """Stop a batch within about a second; nothing of it is kept. Raises BadRequest."""
        self._find(id).stopping.set()
        return self.wait(id, 3.0)

    def _find(self, id: str) -> _Work:
        with self._lock:
            if id not in self._all:
                raise BadRequest("These predictions are not kept any more.", hint="Start them again.")
            return self._all[id]

    def _start(self, models: tuple[str, ...], work: Callable[[_Work], None]) -> str:
        mine = _Work(Batch(secrets.token_urlsafe(16), models))
        with self._lock:
            self._all[mine.batch.id] = mine
            while len(self._all) > REMEMBERED:
                self._all.popitem(last=False)[1].stopping.set()
        Thread(target=_run, args=(mine, work), name="batch", daemon=True).start()
        return mine.batch.id

    def _said(self, mine: _Work, index: int, texts: Sequence[str], threshold: float | None) -> list[Prediction]:
        """What one model says of the texts; how far all models are is shown."""
        count = len(mine.batch.models)
        predictor = self._get(mine.batch.models[index])
        if not index:
            mine.started = time.perf_counter()  # loading is another matter
        mine.show(labels=(*mine.batch.labels, predictor.labels))
        with closing(predictor.stream(texts, threshold=threshold)) as steps:
            while True:
                if mine.stopping.is_set():
                    raise _Stopped
                try:
                    fraction = (index + next(steps)) / count
                    mine.show(fraction=fraction)
                    if fraction and not mine.batch.first:
                        mine.show(first=(mine.batch.seconds, fraction))
                except StopIteration as end:
                    found: list[Prediction] = end.value
                    return found


def _run(mine: _Work, work: Callable[[_Work], None]) -> None:
    try:
        work(mine)
        mine.show(state="done")
    except _Stopped:
        mine.show(state="stopped")
    except MultimodelError as error:
        mine.show(state="failed", error=error)
    except Exception as error:  # a bug of ours is shown where the batch is
        own = Unexpected(f"{type(error).__name__}: {error}", hint="Try again; if it stays, report it.")
        mine.show(state="failed", error=own)
    finally:
        mine.ended.set()


def write_rows(target: Path, batch: Batch, rows: Sequence[Row], threshold: float | None) -> Path:
    """A CSV file of rows of a batch in this order: their number, the text, what each model says. Raises DiskFull."""
    heads, answers = ["row", "text"], []
    for i, (model, labels) in enumerate(zip(batch.models, batch.labels, strict=True)):
        said = [labels.at(row.said[i], threshold) for row in rows]
        names, cells = answer_columns(said, labels, threshold)
        heads += [f"{model}: {name}" if len(batch.models) > 1 else name for name in names]
        answers.append(cells)
    table = ([str(row.number), row.text, *chain(*parts)] for row, *parts in zip(rows, *answers, strict=True))
    return write_csv(target, heads, table)


def tally(labels: LabelMap, said: Iterable[Prediction], threshold: float | None) -> tuple[dict[str, int], int]:
    """How many rows have each label, the most frequent first, and how many are not sure; nothing for numbers."""
    if labels.task == "regression":
        return {}, 0
    counts: Counter[str] = Counter()
    unsure = 0
    for one in said:
        if labels.sure(one, threshold):
            counts.update(labels.at(one, threshold).labels)
        else:
            unsure += 1
    return dict(counts.most_common()), unsure
