"""The Fine-tune tab: from a spreadsheet to a classifier in use.

The page (assets/finetune.js) asks the functions of `Training`, each of which answers with finished HTML and, for
curves, with points. Runs belong to the server: a reload, a second tab and the next start of the app find them again.
What a visitor brings is kept under a key that nobody can guess, until newer data takes its place.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from importlib import import_module
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import gradio as gr

from multimodel.engine import Engine
from multimodel.errors import BadRequest, DataError, InvalidModelId, LoadError, MultimodelError, TrainingError
from multimodel.finetune import data as rows
from multimodel.finetune import reading, sources
from multimodel.finetune.bases import ALIASES, built_in
from multimodel.finetune.control import STOP
from multimodel.finetune.fitting import largest_batch, training_of
from multimodel.finetune.report import Base
from multimodel.finetune.runfolder import DATA, Order, read
from multimodel.finetune.store import METRICS, MISCLASSIFIED
from multimodel.finetune.tables import Limits, Table, stack
from multimodel.finetune.tokens import base_in
from multimodel.finetune.types import BUILT_IN, TrainConfig, TrainUpdate
from multimodel.memory import MemoryPlan, Request, target_of
from multimodel.memory import Training as Planning
from multimodel.memory.subject import Subject, at_hand
from multimodel.types import ModelId

from . import finetune_run as running
from . import finetune_runs as listed
from .asking import Answer, answering, served
from .files import uploaded
from .finetune_data import Choices, Examined, columns_html, columns_of, doubts_html, examined, report_html
from .finetune_run import Shown
from .finetune_settings import (
    LABELS,
    SPLITTING,
    USUAL_LENGTH,
    base_of,
    config_of,
    form_html,
    memory_html,
    most_rows,
    settings_of,
    why_html,
)
from .predict import PredictPanel
from .scripted import asset, scripted

VIEWS = {"train": "Train", "predict": "Predict", "models": "Models"}
LIMITS = Limits()
KEPT, KEPT_ROWS = 8, 2_000_000  # data sets of visitors, and rows of all of them
DOUBT_ROWS = 20_000  # rows among which doubtful labels are looked for
SOON = 60.0  # seconds before the end of a run at which the process that will predict is started
SAMPLES = {
    "sentiment": ("Sentiment", "reviews, good or bad"),
    "intent": ("Intent", "what a customer wants"),
    "spam": ("Spam", "messages, wanted or not"),
}


@dataclass(slots=True)
class Draft:
    """Data that a visitor has brought and not yet trained on."""

    source: str
    table: Table
    seen: tuple[str, Examined] | None = None  # what it was last looked at with, and what was seen


class Drafts:
    """The data of all visitors; the oldest leaves when there is too much."""

    def __init__(self) -> None:
        self._lock = Lock()  # between the requests of all visitors
        self._drafts: OrderedDict[str, Draft] = OrderedDict()

    def add(self, source: str, table: Table) -> str:
        """Keep it; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._drafts[key] = Draft(source, table)
            while len(self._drafts) > 1 and (len(self._drafts) > KEPT or self._rows() > KEPT_ROWS):
                self._drafts.popitem(last=False)
        return key

    def get(self, key: object) -> Draft:
        """What has this key. Raises BadRequest."""
        with self._lock:
            if key in self._drafts:
                self._drafts.move_to_end(str(key))
                return self._drafts[str(key)]
        raise BadRequest("The app does not hold this data any more.", hint="Choose it once more.")

    def _rows(self) -> int:
        return sum(len(draft.table.rows) for draft in self._drafts.values())


class Training:
    """What the page can ask. Every value it sends is checked: these are public addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.drafts = Drafts()
        self._lock = Lock()  # between the requests of all visitors
        self._watched: dict[str, str] = {}  # runs whose model somebody waits for, and how far that is
        self._subjects: dict[str, Subject] = {}

    # --- data ---

    @answering
    def bring(self, asked: Answer) -> Answer:
        """Take data in: {draft, source, name, columns}. From an upload, a sample set, pasted text or the Hub.

        `beside`: the data whose test rows these are.
        """
        source, table = self._read(asked)
        if asked.get("beside"):
            first = self.drafts.get(asked["beside"])
            source = f"{first.source} and {source}"
            table = stack([("train", first.table), ("test", table)], LIMITS)
        draft = self.drafts.add(source, table)
        columns = columns_of(table, Choices())
        html = columns_html(table, columns, source)
        return {"draft": draft, "source": source, "name": self._free(source), "columns": html}

    @answering
    def look(self, asked: Answer) -> Answer:
        """The report under a person's choices: {columns, report, recommended, why, ready, rows}."""
        draft, choices = self.drafts.get(asked.get("draft")), Choices.of(asked)
        found = self._examined(draft, choices, asked)
        recommended = found.report.recommended
        return {
            "columns": columns_html(draft.table, found.columns, draft.source),
            "report": report_html(found, choices.ignored),
            "recommended": {name: value for name, (value, _) in recommended.items()},
            "why": why_html(recommended),
            "ready": found.refusal is None,
            "rows": found.splits.get("train"),
        }

    @answering
    def doubts(self, asked: Answer) -> Answer:
        """Rows whose label may be wrong: {html}. Takes seconds to a minute."""
        draft, choices = self.drafts.get(asked.get("draft")), Choices.of(asked)
        data = self._examined(draft, choices, asked).data
        some = data.take(range(min(len(data), DOUBT_ROWS)))
        found = import_module("multimodel.finetune.suspects").suspects(some, 50)
        return {"html": doubts_html(found, data, len(some))}

    # --- settings ---

    @answering
    def memory(self, asked: Answer) -> Answer:
        """What training takes of this machine: {html}."""
        values, name = settings_of(asked), base_of(asked, self.settings)
        config = config_of(values, data="-", name="-", base=name)
        target = target_of(self.engine.device(values.get("device", "auto")))
        length, subject = asked.get("length"), self._subject(name)
        tokens = length if isinstance(length, int) and 8 <= length <= 8192 else USUAL_LENGTH

        def planned(how: Planning) -> MemoryPlan:
            return self.engine.estimator.plan(subject, Request(target=target, training=how))

        how = training_of(config, tokens, subject)
        plan, largest = planned(how), largest_batch(how, planned, target, most_rows(asked.get("rows")))
        return {"html": memory_html(plan, plan.fit(target), target, largest.batch_size)}

    @answering
    def begin(self, asked: Answer) -> Answer:
        """Put a run in line: {run}."""
        draft, choices = self.drafts.get(asked.get("draft")), Choices.of(asked)
        values, base = settings_of(asked), base_of(asked, self.settings)
        found = self._examined(draft, choices, asked)
        if found.refusal:
            raise found.refusal
        columns = found.columns
        config = config_of(
            values,
            data=draft.source,
            name=str(asked.get("name", ""))[:100],
            text_column=columns.text,
            label_column=columns.label,
            split_column=columns.split,
            task=columns.task,
            label_separator=columns.separator or None,
            fixes=choices.fixes,
            base=base,
        )
        with suppress(LoadError, InvalidModelId):  # of a base model that is not here yet the run itself tells
            if self._folder(base):
                training_of(config, USUAL_LENGTH, self._subject(base))
        return {"run": self.engine.jobs.start(config, found.data)}

    # --- runs ---

    @answering
    def watch(self, asked: Answer) -> Answer:
        """All runs, and one of them as it stands: {list, active, states}, and where it is not as `seen`, {shown}.

        `soon`: the run ends before long, so ask more often.
        """
        runs = [self._shown(update) for update in self.engine.jobs.all()]
        answer: Answer = {
            "list": listed.runs_html(runs, datetime.now(UTC)),
            "active": sum(run.active for run in runs),
            "states": {run.update.run: _state(run) for run in runs},
        }
        chosen = next((run for run in runs if run.update.run == asked.get("run")), None)
        if chosen:
            answer["soon"] = self._make_ready(chosen)
            stamp = _stamp(chosen)
            answer["shown"] = {"stamp": stamp} if stamp == asked.get("seen") else self._whole(chosen) | {"stamp": stamp}
        elif asked.get("run"):
            answer["gone"] = True
        return answer

    @answering
    def act(self, asked: Answer) -> Answer:
        """Stop, resume, start anew or discard a run: {}."""
        jobs, name, act = self.engine.jobs, str(asked.get("run", ""))[:100], asked.get("act")
        if act == "stop":
            jobs.stop(name)
        elif act == "resume":
            offered = jobs.get(name).retry if asked.get("retry") else None
            jobs.resume(name, offered)
        elif act == "anew":
            if name in jobs.store.names():
                hint = "Begin a new run with these settings, or delete that model first."
                raise TrainingError(f"{name} has saved a model, which the new start would replace.", hint=hint)
            jobs.resume(name, {"seed": self._order(name).config.seed})  # a setting that no checkpoint survives
        elif act == "discard":
            jobs.discard(name)
        return {}

    @answering
    def settings_used(self, asked: Answer) -> Answer:
        """What another run can begin with: {settings, base, name, draft, choices}, its rows split as they were.

        Without `draft` where the rows are not there any more.
        """
        name = str(asked.get("run", ""))[:100]
        config = self._order(name).config
        values = {name: getattr(config, name) for name in LABELS}
        found = {"settings": values, "base": config.base, "name": self._free(config.name)}
        with suppress(DataError):
            data = rows.load(self.engine.jobs.store.runs / name / DATA)
            found["draft"] = self.drafts.add(config.data, rows.as_table(data))
            found["choices"] = {"text": "text", "label": "label", "split": "split", "task": data.task}
        return found

    @answering
    def compare(self, asked: Answer) -> Answer:
        """Two or more runs side by side: {html, curves}."""
        names = asked.get("runs")
        chosen = [str(name)[:100] for name in names[: listed.MOST]] if isinstance(names, list) else []
        runs = [self._shown(self.engine.jobs.get(name)) for name in dict.fromkeys(chosen)]
        if len(runs) < 2:
            raise BadRequest("Choose two runs or more.", hint="Tick them in the list.")
        curves = {run.update.run: listed.curves_of(run.update) for run in runs}
        return {"html": listed.compare_html(runs), "curves": curves}

    # --- behind them ---

    def _read(self, asked: Answer) -> tuple[str, Table]:
        """(what to call it, its rows). Raises DataError, DownloadFailed, BadRequest."""
        if isinstance(path := asked.get("path"), str):
            return self._uploaded(path)
        if isinstance(text := asked.get("text"), str):
            return "pasted rows", reading.paste(text, LIMITS)
        if (sample := asked.get("sample")) in (known := sources.samples(self.settings)):
            return str(sample), reading.read(known[str(sample)], LIMITS)
        name = str(asked.get("hub", "")).strip()[:200]
        if not sources.ON_HUB.fullmatch(name) or Path(name.partition(":")[0]).exists():
            raise DataError(f"{name!r} names no data set of the Hub.", hint="Write OWNER/NAME, or OWNER/NAME:CONFIG.")
        return name, sources.hub(name, self.settings, LIMITS)

    def _uploaded(self, path: str) -> tuple[str, Table]:
        """Only what this app has taken in as an upload; it is not kept once it has been read."""
        place = uploaded(path)
        try:
            return place.name, reading.read(place, LIMITS)
        finally:
            with suppress(OSError):
                place.unlink()

    def _examined(self, draft: Draft, choices: Choices, asked: Answer) -> Examined:
        base, values = base_of(asked, self.settings), settings_of(asked)
        shares = {name: values[name] for name in SPLITTING if name in values}
        key = f"{base} {choices.key} {shares}"
        if draft.seen and draft.seen[0] == key:
            return draft.seen[1]
        found = examined(draft.table, choices, draft.source, self._base(base), shares)
        draft.seen = (key, found)
        return found

    def _base(self, name: str) -> Base:
        """What a report has to know of a base model; the usual where it is not on this machine."""
        with suppress(MultimodelError):
            if folder := self._folder(name):
                return base_in(folder)
        return Base()

    def _folder(self, base: str) -> Path | None:
        if base == BUILT_IN:
            return built_in(self.settings)
        return at_hand(ModelId("transformers", ALIASES.get(base, base)), self.settings)

    def _subject(self, base: str) -> Subject:
        """The headers of a base model. Raises LoadError."""
        place = self._folder(base) if base == BUILT_IN else None
        return self.engine.estimator.read(place or f"transformers:{ALIASES.get(base, base)}")

    def _free(self, source: str) -> str:
        """A name for a model that is not taken yet."""
        store = self.engine.jobs.store
        stem = Path(source.partition(":")[0]).name.partition(".")[0]
        plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-").lower()[:40] or "model"
        names = (plain, *(f"{plain}-{number}" for number in range(2, 10_000)))
        return next(name for name in names if not _taken(store.taken, name))

    def _order(self, name: str) -> Order:
        """What a run was asked. Raises ModelNotFound, BrokenFile."""
        jobs = self.engine.jobs
        return Order.load(jobs.store.runs / jobs.get(name).run)

    def _shown(self, update: TrainUpdate) -> Shown:
        folder = self.engine.jobs.store.runs / update.run
        config, created = TrainConfig(data="", name=update.run), None
        with suppress(MultimodelError, ValueError):
            order = Order.load(folder)
            config, created = order.config, datetime.fromisoformat(order.created)
        return Shown(update, config, created, stopping=(folder / STOP).exists())

    def _whole(self, run: Shown) -> Answer:
        """Everything that the page shows of a run."""
        update = run.update
        if update.ended:
            saved = update.run in self.engine.jobs.store.names()
            run = replace(run, resumable=update.step > 0, saved=saved, **self._judged(update))
        return {
            "run": update.run,
            "ended": update.ended,
            "model": bool(update.ended and update.model),
            "head": running.head_html(run),
            "bars": running.bars_html(run),
            "plan": running.plan_html(update),
            "log": running.log_html(update),
            "result": running.result_html(run),
            "errors": running.errors_html(run.errors, numbers="rmse" in run.metrics),
            "curves": listed.curves_of(update),
            "steps": update.total_steps,
        }

    def _judged(self, update: TrainUpdate) -> dict[str, Any]:
        """The record of a run's model."""
        found: dict[str, Any] = {}
        if update.model:
            folder = self.engine.jobs.store.path(update.run)
            with suppress(MultimodelError):
                found["metrics"] = read(folder / METRICS)
                found["errors"] = read(folder / MISCLASSIFIED)["errors"]
        return found

    def _make_ready(self, run: Shown) -> bool:
        """Have the process that predicts loaded by the time somebody who watches can use the model.

        Whether that is before long.
        """
        update, name = run.update, run.update.run
        with self._lock:
            stage = self._watched.get(name, "")
            step = ("near" if stage == "near" or _near(run) else "far") if run.active else "over"
            self._watched[name] = step
        if step == "near" and stage != "near":
            Thread(target=self.engine.predictors.prepare, daemon=True).start()
        elif step == "over" and stage in ("near", "far") and update.model:
            Thread(target=self._load, args=(name,), daemon=True).start()
        return step == "near"

    def _load(self, name: str) -> None:
        with suppress(MultimodelError):
            self.engine.predictors.get(name)


def _taken(taken: Callable[[str], bool], name: str) -> bool:
    try:
        return taken(name)
    except MultimodelError:  # a name that is reserved
        return True


def _near(run: Shown) -> bool:
    """Whether a run will end soon, by its steps, by a person's wish, or because nothing gets better."""
    update = run.update
    if run.stopping or update.phase == "saving" or (update.seconds_left is not None and update.seconds_left < SOON):
        return update.step > 0
    return bool(run.config.early_stopping) and stale(update) >= max(1, run.config.early_stopping - 1)


def stale(update: TrainUpdate) -> int:
    """Evaluations since the highest figure."""
    if not update.best:
        return 0
    metric, sign = update.best.metric, 1 if update.best.metric in running.SHARES else -1
    values = [sign * point.value for point in update.curves.get("validation_loss" if metric == "loss" else metric, ())]
    return len(values) - 1 - values.index(max(values)) if values else 0


def _state(run: Shown) -> str:
    """What the page must know of every run, to say when a model has come."""
    return "active" if run.active else "model" if run.update.model else "over"


def _stamp(run: Shown) -> str:
    """The same as long as nothing of a run has changed."""
    update = run.update
    parts = (update.phase, update.step, update.evaluated, update.prepared, update.detail, update.position, run.stopping)
    return "|".join(map(str, (*parts, len(update.log), update.log[-1:], update.model)))


# --- widgets ---


class FinetuneTab:
    """The widgets of the tab and what they do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.training = Training(engine)

    def build(self) -> None:
        """Make the widgets: the row of views, and one widget for each."""
        ask = self.training
        methods = (ask.bring, ask.look, ask.doubts, ask.memory, ask.begin, ask.watch, ask.act, ask.settings_used)
        with gr.Column(elem_id="mm-finetune"):
            gr.HTML(views_html(), elem_id="mm-finetune-views", apply_default_css=False)
            scripted(
                "finetune",
                "mm-finetune-train",
                {},
                template=template(self.engine),
                server_functions=[served(method) for method in (*methods, ask.compare)],
            )
            PredictPanel(self.engine).build()


def views_html() -> str:
    """The row that chooses what the tab shows."""
    buttons = "".join(
        f'<button type="button" role="tab" data-view="{key}">{words}</button>' for key, words in VIEWS.items()
    )
    return f'<div class="mx"><div class="mx-views" role="tablist" aria-label="Fine-tune">{buttons}</div></div>'


def template(engine: Engine) -> str:
    """The page's skeleton with the sample sets and the form."""
    text = asset("finetune.html")
    found = sources.samples(engine.settings)
    samples = "".join(
        _sample(name) for name in (*(n for n in SAMPLES if n in found), *sorted(set(found) - set(SAMPLES)))
    )
    text = text.replace("<!--samples-->", samples).replace("<!--form-->", form_html(engine.settings))
    return text.replace("<!--limit-->", str(LIMITS.file))


def _sample(name: str) -> str:
    title, detail = SAMPLES.get(name, (name.capitalize(), ""))
    inner = f"<b>{escape(title)}</b><span>{escape(detail)}{' (MIT)' * (name in SAMPLES)}</span>"
    return f'<button type="button" data-sample="{escape(name)}">{inner}</button>'
