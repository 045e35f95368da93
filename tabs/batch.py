"""The Runs tab: prompts times models times parameter sets, asked while nobody watches, into one report.

The page (assets/batch.js) asks the functions of `Asking`, which answer with finished HTML. Runs belong to the server
and to the visitor who started them: a reload, a second tab and the next start of the app find them again.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel import blind
from multimodel.batch import replay
from multimodel.batch.export import FORMS, to_json
from multimodel.batch.jobs import Batches, BatchJob
from multimodel.batch.page import answers_html, asked_html, rows_html, summary_html
from multimodel.batch.plan import INTEGERS, LONGEST_NAME, MOST_SETTINGS, Batch, Setting, prompts_in, prompts_of, text_of
from multimodel.batch.report import Report, report
from multimodel.batch.style import STYLE
from multimodel.boards import Boards
from multimodel.catalog import catalog, discover
from multimodel.engine import Engine
from multimodel.errors import BadRequest, InvalidParameter
from multimodel.types import SamplingParams

from .asking import Answer, answering, served
from .batch_page import head_html, jobs_html, live_html, plan_html, progress_html
from .chat import typed_model
from .files import uploaded
from .scripted import asset, scripted

FIELDS = ("temperature", "max_tokens", "seed", "top_p")
"""The parameters that the table of sets has, beside name and system prompt."""
MOST_MODELS = 50
PAGE = 25  # prompts of a report that the page asks for at a time
TYPES = {"json": "application/json", "md": "text/markdown", "html": "text/html"}
KEPT = 8  # reports that are not made again while nothing has changed


class Asking:
    """What the page can ask. Every value it sends is checked: these are public addresses."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.boards = boards
        self.batches = Batches(engine)
        boards.giving.append(self.batches.give)
        self._lock = Lock()  # between the requests of all visitors
        self._reports: OrderedDict[Path, tuple[int, Report]] = OrderedDict()

    # --- a new run ---

    @answering
    def models(self, asked: Answer) -> Answer:
        """The models that can be picked: {html}, options of a list."""
        newest = deque(discover(self.settings), maxlen=1)
        entries = [e for e in (newest[0] if newest else catalog(self.settings)) if not e.unavailable]
        options = (
            f'<option value="{escape(e.id)}">{escape(", ".join(filter(None, (e.group, e.label, e.detail))))}</option>'
            for e in entries
        )
        return {"html": "".join(options)}

    @answering
    def prompts(self, asked: Answer) -> Answer:
        """The prompts of an uploaded file, as text that a person may change: {text, count}."""
        place = uploaded(asked.get("path"))
        try:
            found = prompts_of(place)
        finally:
            with suppress(OSError):
                place.unlink()
        return {"text": text_of(found), "count": len(found)}

    @answering
    def chat(self, asked: Answer) -> Answer:
        """The prompts, models and settings of the chat at hand: {text, models, sets}."""
        board = self.boards.get(_address(asked))
        blind.refuse(board, "runs")
        columns = board.columns()
        prompts = tuple(dict.fromkeys(turn.prompt for column in columns for turn in column.turns))
        shared = board.shared
        row = {name: _text(getattr(shared.params, name)) for name in FIELDS}
        sets = [row | {"name": "as in chat", "system": shared.system}]
        return {"text": text_of(prompts), "models": list(dict.fromkeys(str(c.model) for c in columns)), "sets": sets}

    @answering
    def plan(self, asked: Answer) -> Answer:
        """What a run would ask: {html}."""
        batch = self._batch(asked)
        return {"html": plan_html(batch, self.batches.seconds(self._owner(asked), batch))}

    @answering
    def begin(self, asked: Answer) -> Answer:
        """Put a run in line: {run}."""
        return {"run": self.batches.start(self._owner(asked), str(asked.get("title", "")), self._batch(asked))}

    @answering
    def bring(self, asked: Answer) -> Answer:
        """Replay an uploaded report: {run}."""
        place = uploaded(asked.get("path"))
        try:
            if place.stat().st_size > replay.LARGEST:
                raise BadRequest("The file is too large for a report.", hint=replay.HINT)
            before = replay.original(place, self.settings)
            text = place.read_text("utf-8-sig")
        finally:
            with suppress(OSError):
                place.unlink()
        return {"run": self.batches.replay(self._owner(asked), f"Replay of {place.name}", before, text)}

    # --- runs ---

    @answering
    def watch(self, asked: Answer) -> Answer:
        """All runs, and one of them as it stands: {list, active}, and where it is not as `seen`, {shown}."""
        jobs = self.batches.all(self._owner(asked))
        answer: Answer = {"list": jobs_html(jobs, datetime.now(UTC)), "active": sum(job.active for job in jobs)}
        chosen = next((job for job in jobs if job.id == asked.get("run")), None)
        if chosen:
            stamp = _stamp(chosen)
            answer["shown"] = {"stamp": stamp} if stamp == asked.get("seen") else self._shown(asked, chosen, stamp)
        elif asked.get("run"):
            answer["gone"] = True
        return answer

    @answering
    def act(self, asked: Answer) -> Answer:
        """Stop, resume, ask errors again, replay, rename or delete: {}, or {run} of a new one."""
        owner, run, act = self._owner(asked), str(asked.get("run", "")), asked.get("act")
        if act == "stop":
            self.batches.stop(owner, run)
        elif act in ("resume", "retry"):
            self.batches.resume(owner, run, retry=act == "retry")
        elif act == "rename":
            self.batches.rename(owner, run, str(asked.get("title", "")))
        elif act == "delete":
            self.batches.delete(owner, run)
        elif act == "replay":
            return {"run": self._replay(owner, run)}
        return {}

    @answering
    def report(self, asked: Answer) -> Answer:
        """The report of a run, or more of its answers from the prompt `start` on: {html, next}; next 0: no more."""
        found = self._report(asked)
        start, total = asked.get("start"), len(found.batch.prompts)
        first = start if isinstance(start, int) and 0 < start < total else 0
        some = range(first, min(first + PAGE, total))
        following = some.stop if some.stop < total else 0
        if first:
            return {"html": rows_html(found, some), "next": following}
        html = f"{summary_html(found)}{answers_html(found, some)}"
        return {"html": html, "asked": asked_html(found), "next": following}

    @answering
    def download(self, asked: Answer) -> Answer:
        """The report as a file: {download: [name, type, text]}."""
        job = self.batches.get(self._owner(asked), str(asked.get("run", "")))
        kind = str(asked.get("kind", ""))
        if kind not in FORMS:
            raise BadRequest("There is no such form of a report.", hint=f"Choose {', '.join(FORMS)}.")
        stem = re.sub(r"[^\w-]+", "-", job.title).strip("-")[:50] or "report"
        return {"download": [f"{stem}.{kind}", TYPES[kind], FORMS[kind](self._report(asked))]}

    # --- behind them ---

    def _owner(self, asked: Answer) -> str:
        return self.boards.owner(_address(asked))

    def _batch(self, asked: Answer) -> Batch:
        """What the form says. Raises BatchError, InvalidModelId, InvalidParameter."""
        models, sets, repeats = asked.get("models"), asked.get("sets"), asked.get("repeats")
        names = [str(name)[:500] for name in models[:MOST_MODELS]] if isinstance(models, list) else []
        rows = [row for row in sets[:MOST_SETTINGS] if isinstance(row, dict)] if isinstance(sets, list) else []
        return Batch(
            prompts=prompts_in(str(asked.get("prompts", ""))),
            models=tuple(typed_model(name, self.settings) for name in names),
            settings=tuple(_setting(row) for row in rows),
            repeats=repeats if isinstance(repeats, int) else 1,
        )

    def _shown(self, asked: Answer, job: BatchJob, stamp: str) -> Answer:
        batch = Batch.load(self.batches.folder(self._owner(asked), job.id))
        return {
            "run": job.id,
            "stamp": stamp,
            "head": head_html(job),
            "progress": progress_html(job, batch),
            "live": live_html(job, batch),
            "done": job.update.done,
            "active": job.active,
        }

    def _report(self, asked: Answer) -> Report:
        """The report, made anew where more was answered since."""
        owner, run = self._owner(asked), str(asked.get("run", ""))
        folder = self.batches.folder(owner, run)
        stamp = self.batches.stamp(folder)
        with self._lock:
            if (known := self._reports.get(folder)) and known[0] == stamp:
                return known[1]
        found = report(folder, self.settings)
        with self._lock:
            self._reports[folder] = (stamp, found)
            while len(self._reports) > KEPT:
                self._reports.popitem(last=False)
        return found

    def _replay(self, owner: str, run: str) -> str:
        title = self.batches.get(owner, run).title
        folder = self.batches.folder(owner, run)
        found = replace(report(folder, self.settings), before=None, verdicts=())
        before = replay.original(folder, self.settings)
        return self.batches.replay(owner, f"Replay of {title.removeprefix('Replay of ')}", before, to_json(found))


def _address(asked: Answer) -> str:
    return str(asked.get("id", ""))[:200]


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _setting(row: dict[str, Any]) -> Setting:
    """A row of the table. Raises InvalidParameter."""
    name = str(row.get("name", "")).strip()[:LONGEST_NAME] or "default"
    values: dict[str, Any] = {}
    for field in FIELDS:
        if text := str(row.get(field) or "").strip():
            values[field] = _number(field, text, name)
    return Setting(name, SamplingParams(**values), str(row.get("system") or "")[:100_000])


def _number(field: str, text: str, name: str) -> float:
    try:
        return int(text) if field in INTEGERS else float(text.replace(",", "."))
    except ValueError:
        words = field.replace("_", " ")
        raise InvalidParameter(f"The {words} of {name!r} is {text[:40]!r}.", hint="Write a number.") from None


def _stamp(job: BatchJob) -> str:
    """The same as long as nothing that the page shows of a run has changed."""
    update, answer = job.update, job.update.answer
    said = (len(answer.text), len(answer.reasoning), answer.stage) if answer else ()
    left = None if update.seconds_left is None else round(update.seconds_left)
    parts = (job.title, job.state, job.trouble, update.done, update.errors, left, update.waiting, said)
    return f"{hash(parts) & 0xFFFFFFFFFFFF:x}"


class BatchTab:
    """The widget of the tab."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self.asking = Asking(engine, boards)

    def build(self, page: gr.Blocks, address: Component) -> None:
        """Make the widget; `address`: what holds the address of the page's board, which says whose runs to show."""
        ask = self.asking
        methods = (ask.models, ask.prompts, ask.chat, ask.plan, ask.begin, ask.bring, ask.watch, ask.act)
        shown = scripted(
            "batch",
            "mm-batch",
            "",
            template=asset("batch.html").replace("<!--style-->", f"<style>{STYLE}</style>"),
            server_functions=[served(method) for method in (*methods, ask.report, ask.download)],
        )
        for tell in (page.load, address.change):  # type: ignore[attr-defined]
            tell(None, [address], [shown], js="(id) => id || ''")
