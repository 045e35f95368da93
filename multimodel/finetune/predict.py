"""Using a model: one text or many, a whole file, which words decided, and words for a gap.

In a script the model is in the same process; in the app in one of its own, which is kept warm.
"""

from __future__ import annotations

import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from threading import Lock, RLock
from typing import BinaryIO, Protocol, Self, cast
from weakref import finalize

from ..compute import Cores
from ..errors import BrokenFile, InvalidParameter, ModelNotFound, WorkerCrashed
from ..settings import Settings
from ..workers.process import reason, spawn
from ..workers.protocol import Frame, encode, error_from, read
from .bases import base_folder
from .data import text_column
from .export import write_csv
from .labels import LabelMap
from .reading import read as read_table
from .report import Count
from .store import MANIFEST, Store
from .tables import Cell, Table
from .tokens import counter
from .types import BUILT_IN, Attribution, Filling, Precision, Prediction

FIRST = 64  # texts of the first piece of many; later pieces take about PIECE seconds
PIECE = 0.5
COUNTED = 2000  # texts whose tokens are counted at once
MOST_COUNTED = 100_000  # seconds of work; of more texts the letters are counted, which pads more
GRACE = 2.0  # seconds that a process may take to end by itself
NAMED = 5  # saved models that are named where one is not found
WARM = 3  # models kept in memory


class Runtime(Protocol):
    """A loaded model, here or in a process of its own."""

    labels: LabelMap | None  # None: no classifier

    def logits(self, texts: Sequence[str]) -> list[list[float]]: ...
    def occluded(self, text: str) -> tuple[list[tuple[int, int]], list[list[float]]]: ...
    def fillings(self, text: str, top: int) -> list[tuple[str, float, str]]: ...
    def close(self) -> None: ...


class Predictor:
    """A fine-tuned model by its name or folder, or a classifier from the Hub.

    `Predictor("reviews")(["lovely", "dull"])` gives a Prediction for each text, in their order.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Precision = "float32",
        settings: Settings | None = None,
        runtime: Callable[[Path, Precision], Runtime] | None = None,
    ) -> None:
        """`precision`: "int8" is several times as fast, once the model was exported (`onnx.export`).

        `runtime`: how the folder is loaded; in this process where it is not given. Raises LoadError, MissingDependency.
        """
        self.folder = find(model, settings or Settings.load())
        self._runtime = (runtime or Here)(self.folder, precision)

    @property
    def labels(self) -> LabelMap:
        """The classes in their order, the task, temperature and thresholds. Raises BrokenFile for no classifier."""
        if found := self._runtime.labels:
            return found
        raise BrokenFile(f"{self.folder.name} is no classifier.", hint="Fine-tune it first, or choose one that is.")

    def __call__(self, texts: Iterable[str], *, threshold: float | None = None) -> list[Prediction]:
        """What the model says of each text, in their order; a text alone is a list of one.

        `threshold` (0..1): from which probability on one of several labels is said, instead of the model's own.
        Raises BackendError or LoadError, and InvalidParameter for what is no text.
        """
        steps = self.stream(texts, threshold=threshold)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: list[Prediction] = end.value
                return found

    def stream(
        self, texts: Iterable[str], *, threshold: float | None = None
    ) -> Generator[float, None, list[Prediction]]:
        """The same, telling the fraction of the words that is done (0..1) twice a second. Closing it stops the work.

        Equal texts are asked once; long ones together and first, so that little is padded.
        """
        texts, labels = only_texts(texts), self.labels
        unique = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        different = list(unique)
        lengths = yield from self._lengths(different)
        order = sorted(range(len(different)), key=lambda i: -lengths[i])
        ends = list(accumulate(lengths[i] + 1 for i in order))
        found: list[list[float]] = [[]] * len(different)
        done, size = 0, FIRST
        while done < len(order):
            part, started = order[done : done + size], time.perf_counter()
            for index, row in zip(part, self._runtime.logits([different[i] for i in part]), strict=True):
                found[index] = row
            done += len(part)
            size = max(16, min(4096, round(len(part) * PIECE / max(1e-3, time.perf_counter() - started))))
            yield ends[done - 1] / ends[-1]
        said = labels.predictions(found, threshold) if found else []
        return [said[unique[text]] for text in texts]

    def _lengths(self, texts: Sequence[str]) -> Generator[float, None, list[int]]:
        """How long each text is, in tokens; in characters where counting those would not pay."""
        lengths: list[int] = []
        if FIRST < len(texts) <= MOST_COUNTED and (count := self._count):
            for start in range(0, len(texts), COUNTED):
                lengths += count(texts[start : start + COUNTED])
                yield 0.0
        return lengths or [len(text) for text in texts]

    @cached_property
    def _count(self) -> Count | None:
        return counter(self.folder)

    def explain(self, text: str, label: str | None = None) -> list[Attribution]:
        """How much each word speaks for `label` (the predicted one): the log-odds it takes along when it is left out.

        Occlusion (Zeiler and Fergus 2014). For numbers: what the number loses. Of long texts several words at once.
        Raises InvalidParameter for a label the model does not have.
        """
        labels = self.labels
        if label is not None and label not in labels.classes:
            raise InvalidParameter(f"The model has no label {label!r}.", hint=f"It has {', '.join(labels.classes)}.")
        pieces, found = self._runtime.occluded(text)
        scores = labels.predictions(found[:1])[0].scores
        name = label or max(scores, key=lambda name: scores[name], default="")
        whole, *without = labels.strength(found, name)
        return [
            Attribution(text[start:end], start, whole - other)
            for (start, end), other in zip(pieces, without, strict=True)
        ]

    def fill(self, text: str, top: int = 5) -> list[Filling]:
        """The likeliest words for the first [MASK] of a text, by a masked language model. Raises BadRequest."""
        return [Filling(*row) for row in self._runtime.fillings(text, top)]

    def file(
        self, source: Path, target: Path, *, column: str | None = None, threshold: float | None = None
    ) -> Generator[float, None, Path]:
        """Predict every row of a file of any kind into a CSV file: see `write_predictions`.

        Tells the fraction that is done. `column`: the texts; found by itself. Raises DataError, DiskFull.
        """
        table = read_table(source)
        said = yield from self.stream(texts_of(table, column), threshold=threshold)
        return write_predictions(target, table, said, self.labels, threshold)

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def only_texts(given: Iterable[str]) -> list[str]:
    """Texts as a list; a text alone is one of them. Raises InvalidParameter.

    >>> only_texts("lovely"), only_texts(("lovely", "dull"))
    (['lovely'], ['lovely', 'dull'])
    """
    hint = "Give a list of texts, such as ['lovely', 'dull']."
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise InvalidParameter(f"{type(given).__name__} is no list of texts.", hint=hint)
    texts = list(given)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidParameter(f"texts[{place}] is {text!r:.80}, which is no text.", hint=hint)
    return texts


def texts_of(table: Table, column: str | None = None) -> list[str]:
    """The texts of a table; the column is found by itself where it is not named. Raises DataError."""
    return [_joined(cell) for cell in table.column(column or text_column(table))]


def write_predictions(
    target: Path, table: Table, said: Sequence[Prediction], labels: LabelMap, threshold: float | None = None
) -> Path:
    """A CSV file of a table's columns, then those of `answer_columns`. Raises DiskFull."""
    heads, answers = answer_columns(said, labels, threshold)
    cells = ([*map(_joined, row), *answer] for row, answer in zip(table.rows, answers, strict=True))
    return write_csv(target, [*table.columns, *heads], cells)


def answer_columns(
    said: Sequence[Prediction], labels: LabelMap, threshold: float | None
) -> tuple[list[str], Iterator[list[str]]]:
    """What a model said, as columns of a table: label, score and the probability of each label; (heads, rows).

    With a threshold for one label a text, a column more says whether the score reaches it.
    """
    shares = said[0].scores if said else {}
    doubtful = threshold is not None and labels.task == "single_label"
    heads = ["predicted", "score", *(["sure"] if doubtful else []), *(f"p({name})" for name in shares)]
    rows = (
        [
            one.label,
            f"{one.score:.6g}",
            *(["yes" if labels.sure(one, threshold) else "no"] if doubtful else []),
            *(f"{share:.6g}" for share in one.scores.values()),
        ]
        for one in said
    )
    return heads, rows


def _joined(cell: Cell) -> str:
    return cell if isinstance(cell, str) else "; ".join(cell)


def find(model: str | Path, settings: Settings) -> Path:
    """The folder of a model: a saved one by name, a path, the built-in encoder, or the Hub's. Raises LoadError."""
    if Path(model).is_dir() and ("/" in str(model) or isinstance(model, Path)):
        return Path(model).resolve()
    store, name = Store(settings), str(model)
    if name in store.names():
        return store.path(name).resolve()
    if not name.strip():
        raise ModelNotFound("The name of the model is empty.", hint=_known(store))
    steps = base_folder(name, settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return Path(end.value)
        except ModelNotFound as error:
            if "/" in name or name == BUILT_IN:
                raise
            raise ModelNotFound(str(error), hint=_known(store)) from error


def _known(store: Store) -> str:
    """The saved models, or how one is made."""
    names = store.names()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    if names:
        return f"Saved are {', '.join(names[:NAMED])}{more}; a classifier of the Hub is OWNER/REPO."
    return "No model is saved yet. Make one: python -m multimodel.finetune reviews.csv --name reviews"


class Here:
    """A model in this process."""

    def __init__(self, folder: Path, precision: Precision = "float32") -> None:
        self._model = import_module("multimodel.finetune.predicting").Model(folder, precision=precision)
        try:
            self.labels: LabelMap | None = self._model.labels
        except BrokenFile:
            self.labels = None

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        """See Runtime."""
        found: list[list[float]] = self._model.logits(texts)
        return found

    def occluded(self, text: str) -> tuple[list[tuple[int, int]], list[list[float]]]:
        """See Runtime."""
        found: tuple[list[tuple[int, int]], list[list[float]]] = self._model.occluded(text)
        return found

    def fillings(self, text: str, top: int) -> list[tuple[str, float, str]]:
        """See Runtime."""
        found: list[tuple[str, float, str]] = self._model.fillings(text, top)
        return found

    def close(self) -> None:
        """See Runtime."""
        self._model = None


class Apart:
    """A model in a process of its own. Several threads may ask; one is answered at a time."""

    def __init__(self, cores: Cores | None = None) -> None:
        """Start the process; it loads its libraries at once, a model when told to."""
        self.labels: LabelMap | None = None
        self._cores = cores
        self._lock = Lock()  # question and answer: between the threads that ask
        self._writing = Lock()  # the pipe: between those and the one that tells the share of the cores
        threads = cores.total if cores else 1
        self._process = spawn("multimodel.finetune.predict_child", threads=threads, errors=subprocess.DEVNULL)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def load(self, folder: Path, precision: Precision = "float32") -> Self:
        """Bring a model in. Raises LoadError, MissingDependency."""
        found = self._ask({"op": "load", "folder": str(folder), "precision": precision})["labels"]
        if found:
            found |= {"classes": tuple(found["classes"]), "thresholds": tuple(found["thresholds"])}
            self.labels = LabelMap(**found)
        return self

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        """See Runtime."""
        with self._share():
            found: list[list[float]] = self._ask({"op": "logits", "texts": list(texts)})["logits"]
        return found

    def occluded(self, text: str) -> tuple[list[tuple[int, int]], list[list[float]]]:
        """See Runtime."""
        with self._share():
            found = self._ask({"op": "occluded", "text": text})
        return [(start, end) for start, end in found["pieces"]], found["logits"]

    def fillings(self, text: str, top: int) -> list[tuple[str, float, str]]:
        """See Runtime."""
        with self._share():
            rows = self._ask({"op": "fillings", "text": text, "top": top})["fillings"]
        return [(token, score, whole) for token, score, whole in rows]

    def close(self) -> None:
        """End the process. Safe to call twice."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout and not self._lock.locked():
            self._process.stdout.close()

    def _share(self) -> AbstractContextManager[None]:
        return self._cores.share(self._tell) if self._cores else nullcontext()

    def _tell(self, count: int) -> None:
        with suppress(OSError, ValueError):
            self._send({"op": "threads", "count": count})

    def _send(self, command: Frame) -> None:
        with self._writing:
            if self._process.stdin:
                self._process.stdin.write(encode(command))
                self._process.stdin.flush()

    def _ask(self, command: Frame) -> Frame:
        with self._lock:
            try:
                self._send(command)
                found = read(cast(BinaryIO, self._process.stdout))
            except (OSError, ValueError):
                found = None
        if found is None:
            code = self._process.wait()
            hint = "Ask again to start it anew. If it ends again, memory may be short."
            raise WorkerCrashed(f"The process that predicts ended ({reason(code)}).", hint=hint)
        if found.get("event") == "error":
            raise error_from(found)
        return found


Key = tuple[str, Precision, float]
"""A model's folder, how it is loaded, and when its manifest was written."""


class Predictors:
    """The models in use in the app, each in a process that stays warm; the least recently used one leaves first."""

    def __init__(self, settings: Settings, cores: Cores | None = None) -> None:
        self._settings, self._cores = settings, cores
        self._lock = RLock()  # between the threads of the pages
        self._warm: OrderedDict[Key, tuple[Predictor, Apart]] = OrderedDict()
        self._gates: dict[Key, Lock] = {}  # of models that are being loaded
        self._loading: list[Apart] = []
        self._leaving: list[finalize[[], Predictor]] = []  # out of use here; whoever asks them now is still answered
        self._spare: Apart | None = None

    def prepare(self) -> None:
        """Start a process that has its libraries loaded by the time a model is ready: call it when training ends."""
        with self._lock:
            if not (self._spare and self._spare.alive):
                self._spare = Apart(self._cores)

    def get(self, model: str | Path, precision: Precision = "float32") -> Predictor:
        """A model, loaded; one that was trained anew since is loaded anew. Raises LoadError, MissingDependency."""
        folder = find(model, self._settings)
        manifest = folder / MANIFEST
        key = (str(folder), precision, manifest.stat().st_mtime if manifest.exists() else 0.0)
        with self._lock:
            if found := self._found(key):
                return found
            gate = self._gates.setdefault(key, Lock())
        with gate:  # whoever asks for this model waits; those who ask for others do not
            with self._lock:
                if found := self._found(key):
                    return found
                process = self._take_spare()
                self._loading.append(process)
            return self._load(key, folder, process)

    def _found(self, key: Key) -> Predictor | None:
        """A model that is loaded and whose process lives; the caller holds the lock."""
        predictor, process = self._warm.pop(key, (None, None))
        if not (predictor and process):
            return None
        if not process.alive:
            process.close()
            return None
        self._warm[key] = (predictor, process)
        return predictor

    def _load(self, key: Key, folder: Path, process: Apart) -> Predictor:
        """Bring a model into a process and keep it; what is too much leaves."""
        try:
            predictor = self._loaded(folder, process, key[1])
        except BaseException:
            with self._lock:
                self._loading.remove(process)
            raise
        with self._lock:
            self._loading.remove(process)
            if process.alive:
                self._warm[key] = (predictor, process)
            old = [k for k in self._warm if k[:2] == key[:2] and k != key]
            while len(self._warm) - len(old) > WARM:
                old.append(next(k for k in self._warm if k not in old))
            for other in old:
                self._leave(*self._warm.pop(other))
        return predictor

    def _leave(self, predictor: Predictor, process: Apart) -> None:
        """End a process once nobody holds its predictor any more."""
        self._leaving = [one for one in self._leaving if one.alive] + [finalize(predictor, process.close)]

    def unload(self, model: str | Path) -> None:
        """Give back the memory of a model; one that is not loaded is ignored."""
        folder = str(Store(self._settings).path(str(model)).resolve()) if isinstance(model, str) else str(model)
        with self._lock:
            for key in [key for key in self._warm if key[0] == folder]:
                self._warm.pop(key)[0].close()

    def close(self) -> None:
        """End every process. Safe to call twice."""
        with self._lock:
            while self._warm:
                self._warm.popitem()[1][0].close()
            while self._leaving:
                self._leaving.pop()()
            for process in self._loading:
                process.close()
            if self._spare:
                self._spare.close()
                self._spare = None

    def _loaded(self, folder: Path, process: Apart, precision: Precision) -> Predictor:
        try:
            return Predictor(folder, precision=precision, settings=self._settings, runtime=process.load)
        except BaseException:
            process.close()
            raise

    def _take_spare(self) -> Apart:
        spare, self._spare = self._spare, None
        return spare if spare and spare.alive else Apart(self._cores)
