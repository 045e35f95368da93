"""Using the fine-tuned models: the Predict view, and the panel that holds it beside the Models view.

The page (assets/predict.js) asks the functions of `Predicting`, which answer with finished HTML. It listens for the
browser events `mm-model-ready` {name}, a run has ended with a model, and `mm-predict-open` {name}, show that model;
and sends `mm-train-data` {corrections: true, model, path, file}: a CSV with the columns text and label (and split), at
`path` among Gradio's uploads like any file a person uploads, wants to become training data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any

from multimodel.engine import Engine
from multimodel.errors import BadRequest, ModelNotFound
from multimodel.finetune.bases import maskers
from multimodel.finetune.batches import Batch, Batches, tally, write_rows
from multimodel.finetune.corrections import SEPARATOR, Correction, Corrections
from multimodel.finetune.data import text_column
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.predict import Predictor, texts_of
from multimodel.finetune.reading import read
from multimodel.finetune.store import SavedModel, Store

from .asking import Answer, answering, served
from .files import download_place, link_html, uploaded, url_of
from .format import seconds
from .models import Models
from .predict_page import (
    DIFFERENT,
    ORDERS,
    agreement_html,
    answer_html,
    batch_html,
    correct_html,
    corrections_html,
    fillings_html,
    opened_html,
    ordered,
    progress_html,
    words_html,
)
from .scripted import scripted

LONGEST = 100_000  # characters of one text
LINES = 5_000  # pasted texts
AT_ONCE = 0.4  # seconds that an answer may wait for a batch to end, instead of showing a bar
FIRST = 3  # texts shown of a file
TABLE = '<button type="button" class="mx-primary" data-do="table">Download the table</button>'
GAP = re.compile(r"\[MASK\]|<mask>")
FILL = "fill:"  # before the name of a base model, in the choice of models


class Predicting:
    """What the Predict view can ask. Every value it sends is checked: these are public addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = Store(engine.settings)
        self.corrections = Corrections(engine.settings)
        self.batches = Batches(lambda name: engine.predictors.get(name))

    @answering
    def listed(self, asked: Answer) -> Answer:
        """The models to choose from: {options, other, tasks, count}."""
        saved = self.store.all()
        return {
            "options": _choices(saved, maskers(self.engine.settings)),
            "other": '<option value="">nothing</option>' + "".join(map(_choice, saved)),
            "tasks": {model.name: model.task for model in saved},
            "count": len(saved),
        }

    @answering
    def warm(self, asked: Answer) -> Answer:
        """Bring a model into memory before it is asked, and have a process ready for the next one: {}."""
        name = str(asked.get("model", ""))
        self.engine.predictors.get(self._filler(name) if name.startswith(FILL) else self._name(asked))
        self.engine.predictors.prepare()
        return {}

    @answering
    def one(self, asked: Answer) -> Answer:
        """What one or two models say of a text: {html, speed}."""
        text = _text(asked)
        if not text.strip():
            return {"html": ""}
        threshold, names = _threshold(asked), self._names(asked)
        models = [self._predictor(name) for name in names]
        started = time.perf_counter()  # from here on: loading is another matter
        answers = [(model.labels, model([text])[0]) for model in models]
        took = seconds(time.perf_counter() - started)
        alike = len({labels.classes for labels, _ in answers}) == 1 and answers[0][0].task != "regression"
        both = agreement_html(answers, threshold) if alike and len(answers) > 1 else ""
        parts = [answer_html(name, *answer, threshold) for name, answer in zip(names, answers, strict=True)]
        return {"html": f'{both}<div class="mp-answers">{"".join(parts)}</div>', "speed": f"Answered in {took}"}

    @answering
    def explain(self, asked: Answer) -> Answer:
        """Which words of a text speak for a label: {html}."""
        text, model = _text(asked), self._predictor(self._name(asked))
        said = model([text])[0]
        name = str(asked.get("label", "")) or max(said.scores, key=lambda label: said.scores[label], default="")
        task = model.labels.task
        found = model.explain(text, name if task != "regression" else None)
        return {"html": words_html(text, found, name, task), "label": name}

    # many texts, and files

    @answering
    def many(self, asked: Answer) -> Answer:
        """Ask one or two models about pasted texts, one a line: the view of a batch."""
        lines = [line.strip() for line in str(asked.get("text", "")).splitlines() if line.strip()]
        if not lines:
            raise BadRequest("There is no text to predict.", hint="Paste texts, one a line.")
        if len(lines) > LINES:
            raise BadRequest(f"{len(lines):,} lines are many for a page.", hint="Save them as a file, and use A file.")
        id = self.batches.texts(self._names(asked), [line[:LONGEST] for line in lines])
        return self._batch(self.batches.wait(id, AT_ONCE), asked)

    @answering
    def opened(self, asked: Answer) -> Answer:
        """A file that was uploaded, before it is predicted: {html}."""
        path = uploaded(asked.get("path"))
        table = read(path)
        column = text_column(table)
        first = texts_of(table, column)[:FIRST]
        return {"html": opened_html(path.name, table.columns, column, len(table.rows), first)}

    @answering
    def whole(self, asked: Answer) -> Answer:
        """Predict every row of an uploaded file: the view of a batch."""
        source, name = uploaded(asked.get("path")), self._name(asked)
        target = download_place(f"{source.stem[:80]}-{name}.csv")
        column = str(asked.get("column", "")) or None
        id = self.batches.file(name, source, target, column=column, threshold=_threshold(asked))
        return self._batch(self.batches.wait(id, AT_ONCE), asked)

    @answering
    def batch(self, asked: Answer) -> Answer:
        """A batch as it stands: {html, id, running}. With `stop` it is stopped."""
        id = str(asked.get("id", ""))
        return self._batch(self.batches.stop(id) if asked.get("stop") else self.batches.get(id), asked)

    def _batch(self, batch: Batch, asked: Answer) -> Answer:
        if batch.error:
            raise batch.error
        found = {"id": batch.id, "running": batch.state == "running"}
        if batch.state == "running":
            return {**found, "html": progress_html(batch)}
        if batch.state == "stopped":
            return {**found, "html": '<div class="mx-quiet">Cancelled. Nothing was written.</div>'}
        order, threshold = _order(asked), _threshold(asked)
        counts, unsure = batch.counts, batch.unsure
        if not batch.file:
            counts, unsure = tally(batch.labels[0], [row.said[0] for row in batch.rows], threshold)
        download = link_html(batch.file, "Download the table") if batch.file else TABLE
        return {**found, "html": batch_html(batch, counts, unsure, threshold, order, download)}

    @answering
    def table(self, asked: Answer) -> Answer:
        """The rows of pasted texts as they are shown, as a file: {file, url}."""
        batch, threshold = self.batches.get(str(asked.get("id", ""))), _threshold(asked)
        if batch.state != "done":
            raise BadRequest("These texts have no answer yet.", hint="Predict them first.")
        target = download_place(f"texts-{batch.models[0]}.csv")
        path = write_rows(target, batch, ordered(batch, threshold, _order(asked)), threshold)
        return {"file": path.name, "url": url_of(path)}

    # corrections

    @answering
    def correct(self, asked: Answer) -> Answer:
        """Keep what is right for a text, or for a row of a batch: {count, text}."""
        name = self._name(asked)
        labels = self._predictor(name).labels
        if asked.get("id"):
            batch = self.batches.get(str(asked["id"]))
            row = next((row for row in batch.rows if row.number == asked.get("row")), None)
            if not row or name not in batch.models:
                raise BadRequest("This row is not kept any more.", hint="Predict the texts again.")
            text, said = row.text, row.said[batch.models.index(name)]
        else:
            text = _text(asked)
            said = self._predictor(name)([text])[0]
        right = right_label(asked.get("right"), labels)
        self.corrections.add(name, Correction(text, right, said.label, round(said.score, 4)))
        return {"count": len(self.corrections.of(name)), "text": f"Kept: {right or 'no label'}."}

    @answering
    def choices(self, asked: Answer) -> Answer:
        """The labels a row of a batch could have instead: {html}."""
        batch = self.batches.get(str(asked.get("id", "")))
        row = next((row for row in batch.rows if row.number == asked.get("row")), None)
        if not row:
            raise BadRequest("This row is not kept any more.", hint="Predict the texts again.")
        return {"html": correct_html(batch.labels[0], row.said[0])}

    @answering
    def corrected(self, asked: Answer) -> Answer:
        """The corrections of a model: {html, count}. `drop`: a text to forget; `clear`: forget all."""
        name = self._name(asked)
        if asked.get("clear"):
            self.corrections.remove(name)
        elif isinstance(asked.get("drop"), str):
            self.corrections.remove(name, asked["drop"])
        found = self.corrections.of(name)
        return {"html": corrections_html(name, found, self.corrections.has_rows(name)), "count": len(found)}

    @answering
    def export(self, asked: Answer) -> Answer:
        """The corrections of a model as files: {path, file, url}. `path` as they were said, `url` for a spreadsheet."""
        name = self._name(asked)
        if not self.corrections.of(name):
            raise BadRequest("Nothing has been corrected yet.", hint="Correct an answer first.")
        file, whole = f"{name}-corrections.csv", bool(asked.get("whole"))
        plain = self.corrections.csv(name, download_place(file), whole=whole, safe=False)
        path = self.corrections.csv(name, download_place(file), whole=whole)
        return {"path": str(plain), "file": path.name, "url": url_of(path), "model": name}

    # a gap

    @answering
    def fill(self, asked: Answer) -> Answer:
        """The likeliest words for the first gap of a text: {html, speed}."""
        text, name = _text(asked), self._filler(str(asked.get("model", "")))
        model = self.engine.predictors.get(name)
        started = time.perf_counter()
        found = model.fill(text, top=8)
        gaps = len(GAP.findall(text))
        return {"html": fillings_html(found, gaps), "speed": f"Answered in {seconds(time.perf_counter() - started)}"}

    # behind them

    def _predictor(self, name: str) -> Predictor:
        return self.engine.predictors.get(name)

    def _name(self, asked: Answer) -> str:
        """Only a saved model: any other name might start a download, or open a folder."""
        name = str(asked.get("model", ""))
        if name not in self.store.names():
            raise ModelNotFound("That model is not here any more.", hint="Choose another one.")
        return name

    def _names(self, asked: Answer) -> list[str]:
        other = {"model": asked.get("other")}
        return [self._name(asked), *([self._name(other)] if asked.get("other") else [])]

    def _filler(self, name: str) -> str:
        wanted = name.removeprefix(FILL)
        if wanted not in maskers(self.engine.settings):
            raise ModelNotFound("That base model is not here any more.", hint="Choose another one.")
        return wanted


def right_label(right: Any, labels: LabelMap) -> str:
    """What a person says is right, as it is written into a cell. Raises BadRequest for what the model cannot say."""
    if labels.task == "regression":
        with suppress(TypeError, ValueError):
            return f"{float(right):g}"
        raise BadRequest("This is no number.", hint="Write a number, such as 3.5.")
    names = [str(name) for name in right] if isinstance(right, list) else [str(right)]
    if not set(names) <= set(labels.classes) or (labels.task == "single_label" and len(names) != 1):
        raise BadRequest("The model has no such label.", hint=f"It has {', '.join(labels.classes[:20])}.")
    return SEPARATOR.join(names)


def _choices(saved: Sequence[SavedModel], fillers: Sequence[str]) -> str:
    own = f'<optgroup label="Fine-tuned here">{"".join(map(_choice, saved))}</optgroup>' if saved else ""
    others = "".join(f'<option value="{FILL}{escape(name)}">{escape(name)}</option>' for name in fillers)
    return own + (f'<optgroup label="Base models: fill a gap">{others}</optgroup>' if others else "")


def _choice(model: SavedModel) -> str:
    name = escape(model.name)
    return f'<option value="{name}">{name}</option>'


def _text(asked: Answer) -> str:
    text = asked.get("text", "")
    if not isinstance(text, str) or len(text) > LONGEST:
        raise BadRequest(f"A text has at most {LONGEST:,} characters.", hint="Shorten it; no model reads that far.")
    return text


def _order(asked: Answer) -> str:
    """How the rows of a batch are to be shown; those most in doubt come first where nobody chose."""
    order = str(asked.get("order", ""))
    return order if order in (*ORDERS, DIFFERENT) else "doubt"


def _threshold(asked: Answer) -> float | None:
    """The threshold of the slider, 0..1; None where it is off."""
    value = asked.get("threshold")
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


# widgets


class PredictPanel:
    """The widgets of the Predict and Models views; whoever shows the one hides the other."""

    def __init__(self, engine: Engine) -> None:
        self.predicting = Predicting(engine)
        self.models = Models(engine, self.predicting.corrections)

    def build(self) -> None:
        """Make the widgets, `mm-finetune-predict` and `mm-finetune-models`."""
        _component(self.predicting, "predict", "mm-finetune-predict")
        _component(self.models, "models", "mm-finetune-models")


def _component(asked: Predicting | Models, asset: str, id: str) -> None:
    names = [name for name, value in vars(type(asked)).items() if not name.startswith("_") and callable(value)]
    scripted(asset, id, {}, server_functions=[served(getattr(asked, name)) for name in names])
