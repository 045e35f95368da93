"""The Explorer tab: which model can I run, before I download it.

The page (assets/explorer.js) asks the functions of `Explorer`, each of which answers with finished HTML; events are
only what is about a visitor: opening a model in their Chat tab, and their own ratings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from html import escape
from threading import Lock
from typing import Any, cast

import gradio as gr

from multimodel import blind, explorer, hub, stored
from multimodel.board import MAX_COLUMNS
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, DownloadFailed, LoadError, MultimodelError
from multimodel.hub.listing import SORTS
from multimodel.machines import GIB, KNOWN, devices, target
from multimodel.memory import MemoryPlan, Request, Target, Training, target_of
from multimodel.memory.subject import Subject
from multimodel.ratings import import_table, ratings, win_probability
from multimodel.sheet import SAFETENSORS, Offer, Sheet, fits_on, sheet, shipped_sheet
from multimodel.types import ModelId
from multimodel.verdict import request_for

from . import asking, markdown
from .asking import Answer, served
from .chat import ChatTab
from .explorer_list import error_html, rows_html
from .explorer_page import KV_TYPES, SEQUENCES, Knobs, answer_html, page_html, plan_html
from .explorer_panels import downloads_html, freed_text, mine_html, own_html, ratings_html, versus_text
from .format import size
from .scripted import QUICK, asset, scripted
from .view import board_view

CHAT = "chat"  # the id of the Chat tab
KEPT = 64  # pages of models whose facts are kept
CARD_LIMIT = 120_000  # characters of a card that are shown
TABLE_LIMIT = 8_000_000  # characters of a table of ratings
LICENCES = ("apache-2.0", "mit", "llama3.1", "llama3.2", "llama3.3", "gemma", "cc-by-4.0", "cc-by-nc-4.0", "other")
TASKS = {
    "text-generation": "Chat and text",
    "image-text-to-text": "Chat with images",
    "text-classification": "Classification",
    "fill-mask": "Fill-mask",
    "feature-extraction": "Embeddings",
    "translation": "Translation",
    "summarization": "Summaries",
}


answering = partial(asking.answering, retry="retry")


class Explorer:
    """What the page can ask. Every value it sends is checked: these are public addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self._lock = Lock()  # between the requests of all visitors
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()
        self._subjects: OrderedDict[str, Subject] = OrderedDict()

    @answering
    def machines(self, asked: Answer) -> Answer:
        """The devices of this machine, once they have been looked for: {html}, options of a choice."""
        return {"html": machines_html(devices(self.engine.hardware()))}

    @answering
    def browse(self, asked: Answer) -> Answer:
        """A page of results: {rows, cursor, shown, note}."""
        query, sort = query_of(asked), str(asked.get("sort", "trending"))
        place = self._target(asked)
        try:
            found = explorer.browse(query, sort, place, self.settings, str(asked.get("cursor", ""))[:500])
            note = ""
        except DownloadFailed as error:
            if asked.get("cursor"):
                raise
            found = explorer.offline(query, place, self.settings)
            note = error_html(error, "retry") + _catalogue_note(found.as_of)
        fitting = [row for row in found.rows if row.fit.runs] if asked.get("fits") else list(found.rows)
        return {
            "rows": rows_html(fitting, _today()),
            "count": len(fitting),
            "cursor": found.cursor,
            "note": note,
            "place": _place(place),
        }

    @answering
    def model(self, asked: Answer) -> Answer:
        """A model's page: {html, name, label}."""
        found = self._sheet(_name(asked))
        place = self._target(asked)
        best = found.best(place, self.settings)
        length = min(self.settings.models.context_length, found.context_limit)
        knobs = Knobs(best.label if best else "", length)
        levels = fits_on(found, request_for(place, context_length=length), place)
        best_label = best.label if best and levels.get(best.label) in ("fits", "tight") else ""
        html = page_html(found, knobs, levels, best_label, self.settings.models.hub_url, _today())
        return {"html": html, "name": found.listing.name, "label": knobs.label}

    @answering
    def card(self, asked: Answer) -> Answer:
        """The model card as safe HTML: {html}."""
        found = self._sheet(_name(asked))
        text = hub.card(found.repository, self.settings) if found.repository else ""
        if not text:
            return {"html": '<p class="mx-soft">No model card.</p>' if found.repository else ""}
        cut = '<p class="mx-soft">The rest is on the Hub.</p>' if len(text) > CARD_LIMIT else ""
        return {"html": f'<div class="mm-md">{markdown.render(markdown.without_html(text[:CARD_LIMIT]))}</div>{cut}'}

    @answering
    def plan(self, asked: Answer) -> Answer:
        """What an offer takes under the knobs: {answer, html, totals, levels}. `exact`: as llama.cpp or headers say."""
        found, place = self._sheet(_name(asked)), self._target(asked)
        offer = _offer(found, asked)
        request = request_of(asked, place, found)
        plans, note = {other.label: self._by_formula(other, request) for other in found.offers}, ""
        possible = found.repository is not None and not found.refusal
        if asked.get("exact") and possible:
            try:
                plans[offer.label] = self._exact(offer, request)
            except LoadError as error:
                note = f"This is an estimate: the headers could not be read. {error}"
        plan, pending = plans[offer.label], possible and not asked.get("exact")
        verdict, longest = plan.fit(place), plan.longest_context(place)
        return {
            "answer": answer_html(plan, verdict, place),
            "html": plan_html(plan, verdict, longest, pending=pending, note=note),
            "totals": {label: size(other.total) for label, other in plans.items()},
            "levels": {label: other.level(place) for label, other in plans.items()},
        }

    @answering
    def training(self, asked: Answer) -> Answer:
        """What training takes: {html}."""
        found, place = self._sheet(_name(asked)), self._target(asked)
        offer = found.offer(SAFETENSORS)
        if not offer:
            raise BadRequest("Only safetensors files can be trained.", hint="Open the model these were made of.")
        plan = offer.plan(request_for(place, training=training_of(asked)))
        verdict = plan.fit(place)
        return {"html": answer_html(plan, verdict, place) + plan_html(plan, verdict, 0)}

    # downloads

    @answering
    def download(self, asked: Answer) -> Answer:
        """Begin, pause, go on with or cancel a download: {html, active}."""
        model, act = ModelId.parse(str(asked.get("id", ""))), asked.get("act")
        downloads = self.engine.downloads
        if act in ("start", "resume"):
            downloads.start(model)
        elif act == "pause":
            downloads.pause(model)
        elif act == "cancel":
            downloads.cancel(model)
        return self.downloads({})

    @answering
    def downloads(self, asked: Answer) -> Answer:
        """All downloads as they stand: {html, active}."""
        found = self.engine.downloads.all()
        return {"html": downloads_html(found), "active": sum(download.active for download in found)}

    # what is here

    @answering
    def mine(self, asked: Answer) -> Answer:
        """What is on the disk: {html}. With `delete`, keys one a line, after deleting these."""
        claimed = [part for download in self.engine.downloads.all() for part in download.parts]
        note = ""
        if keys := str(asked.get("delete", "")).split("\n") if asked.get("delete") else []:
            gone = {item.model for item in stored.inventory(self.settings, claimed).models if item.key in keys}
            freed = stored.delete(keys, self.settings, claimed)
            for download in self.engine.downloads.all():
                if download.state == "done" and str(download.model) in gone:
                    self.engine.downloads.cancel(download.model)
            note = f'<div class="mx-done" role="status">{escape(freed_text(freed, datetime.now()))}</div>'
        return {"html": note + mine_html(stored.inventory(self.settings, claimed), _today())}

    # ratings

    @answering
    def rated(self, asked: Answer) -> Answer:
        """A snapshot of ratings: {html}."""
        chosen = asked.get("snapshot")
        return {"html": ratings_html(ratings(self.settings), chosen if isinstance(chosen, int) and chosen >= 0 else 0)}

    @answering
    def versus(self, asked: Answer) -> Answer:
        """One model against another: {text}; empty as long as one of them is not known."""
        pair = ratings(self.settings).pair(str(asked.get("one", "")), str(asked.get("other", "")))
        if not pair:
            return {"text": ""}
        return {"text": versus_text(*pair, win_probability(pair[0].score, pair[1].score))}

    @answering
    def import_ratings(self, asked: Answer) -> Answer:
        """Keep a newer table: {html}."""
        text, label = asked.get("text"), str(asked.get("label", "The table"))[:100]
        if not isinstance(text, str) or len(text) > TABLE_LIMIT:
            raise BadRequest(
                f"{label} is too large.", hint=f"A table of ratings has at most {TABLE_LIMIT:,} characters."
            )
        snapshot = import_table(text, label, self.settings, _today())
        rated = ratings(self.settings)
        return {"html": ratings_html(rated, rated.snapshots.index(snapshot))}

    # behind them

    def _target(self, asked: Answer) -> Target:
        key = str(asked.get("machine", ""))[:100]
        return target(key, self.engine.hardware()) if key else target_of(self.engine.device())

    def _sheet(self, name: str) -> Sheet:
        with self._lock:
            if name in self._sheets:
                self._sheets.move_to_end(name)
                return self._sheets[name]
        try:
            found = sheet(name, self.settings)
        except DownloadFailed:
            if shipped := shipped_sheet(name, self.settings):
                return shipped
            raise
        with self._lock:
            self._sheets[name] = found
            while len(self._sheets) > KEPT:
                self._sheets.popitem(last=False)
        return found

    def _by_formula(self, offer: Offer, request: Request) -> MemoryPlan:
        """At once: from the headers where they have been read, else from what is known without them; corrected by what
        was loaded here, as everywhere."""
        with self._lock:
            subject = self._subjects.get(str(offer.id))
        return self.engine.estimator.plan(subject or offer.subject, request, exact=False)

    def _exact(self, offer: Offer, request: Request) -> MemoryPlan:
        """The headers are fetched, llama.cpp is asked."""
        subject = self.engine.estimator.read(offer.id)
        with self._lock:
            self._subjects[str(offer.id)] = subject
            while len(self._subjects) > KEPT:
                self._subjects.popitem(last=False)
        return self.engine.estimator.plan(subject, request)


def machines_html(here: Mapping[str, Target]) -> str:
    """The machines to choose from, this one's devices first."""
    own = "".join(
        f'<option value="{"" if i == 0 else escape(key)}">{escape(f"{found.name}, {size(found.total)}")}</option>'
        for i, (key, found) in enumerate(here.items())
    )
    groups: dict[str, str] = {}
    for machine in KNOWN.values():
        gib = f"{machine.memory / GIB:.0f} GB"
        label = machine.name if gib in machine.name else f"{machine.name}, {gib}"
        option = f'<option value="{escape(machine.key)}">{escape(label)}</option>'
        groups[machine.group] = groups.get(machine.group, "") + option
    others = "".join(f'<optgroup label="{escape(group)}">{rows}</optgroup>' for group, rows in groups.items())
    return f'<optgroup label="This machine">{own}</optgroup>{others}<option value="?">Another size</option>'


# what the page sends


def query_of(asked: Answer) -> hub.Query:
    """The query of a request; what is of the wrong kind is left out."""
    gated = {"open": False, "gated": True}.get(str(asked.get("gated", "")))
    sort = asked.get("sort")
    return hub.Query(
        text=explorer.wanted(str(asked.get("text", ""))[:200]),
        task=_choice(asked, "task", tuple(TASKS)),
        library=_choice(asked, "library", ("gguf", "transformers")),
        author=str(asked.get("author", ""))[:100],
        licence=_choice(asked, "licence", LICENCES),
        smallest=_billions(asked.get("smallest")),
        largest=_billions(asked.get("largest")),
        gated=gated,
        sort=cast("hub.Sort", sort) if sort in SORTS else "trending",
    )


def request_of(asked: Answer, place: Target, found: Sheet) -> Request:
    """The conditions of a request, each within its range."""
    context, sequences = asked.get("context"), asked.get("sequences")
    length = context if isinstance(context, int) and 256 <= context <= found.context_limit else found.context_limit
    return request_for(
        place,
        context_length=length,
        sequences=sequences if sequences in SEQUENCES else 1,
        kv_type=_choice(asked, "kv_type", KV_TYPES) or "f16",
    )


def training_of(asked: Answer) -> Training:
    """The conditions of a training, each within its range."""
    lora = asked.get("method") == "lora"
    return Training(
        batch_size=_whole(asked.get("batch_size"), 8, 512),
        sequence_length=_whole(asked.get("sequence_length"), 128, 8192),
        method="lora" if lora else "full",
        checkpointing=bool(asked.get("checkpointing")),
    )


def _whole(value: Any, default: int, most: int) -> int:
    text = str(value)
    return min(most, int(text)) if text.isdigit() and int(text) > 0 else default


def _choice(asked: Answer, name: str, known: tuple[str, ...]) -> str:
    value = asked.get(name)
    return value if isinstance(value, str) and value in known else ""


def _billions(value: Any) -> float | None:
    try:
        return max(0.001, min(10_000.0, float(value)))
    except (TypeError, ValueError):
        return None


def _name(asked: Answer) -> str:
    return explorer.wanted(str(asked.get("name", ""))[:200])


def _offer(found: Sheet, asked: Answer) -> Offer:
    offer = found.offer(str(asked.get("label", "")))
    if not offer:
        raise BadRequest("There is no such file any more.", hint="Open the model again.")
    return offer


def _today() -> date:
    return datetime.now(UTC).date()


def _place(place: Target) -> str:
    return f"{place.name}, {size(place.usable)} usable"


def _catalogue_note(as_of: date | None) -> str:
    return f'<p class="mx-soft">Shown is the catalogue that ships with the app, as of {as_of:%d %B %Y}.</p>'


# widgets


class ExplorerTab:
    """The widget of the tab and what it does."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self.engine = engine
        self.boards = boards
        self.explorer = Explorer(engine)

    def chat(self, id: str, event: gr.EventData) -> tuple[Any, Any]:
        """Open a model as a column of the Chat tab, in the place of the last one where there is no room."""
        board = self.boards.get(id)
        try:
            model = ModelId.parse(str(event.model))
            columns = board.columns()
            if not any(column.model == model for column in columns):
                if len(columns) < MAX_COLUMNS:
                    board.add(model)
                else:
                    blind.refuse(board, "choose")
                    board.choose(columns[-1].key, model)
        except MultimodelError as error:
            gr.Warning(escape(f"{error} {error.hint}"))
        return board_view(board), gr.Tabs(selected=CHAT)

    def own(self, id: str) -> dict[str, str]:
        """The ratings by the visitor's own votes: {own}, HTML."""
        try:
            votes = self.boards.store.votes(self.boards.owner(self.boards.get(id).id))
        except MultimodelError as error:
            return {"own": error_html(error)}
        return {"own": own_html(votes, ratings(self.engine.settings))}

    def build(self, chat: ChatTab, tabs: gr.Tabs) -> None:
        """Make the widget and connect it: `chat` shows what is opened there, `tabs` holds both."""
        ask = self.explorer
        methods = (ask.machines, ask.browse, ask.model, ask.card, ask.plan, ask.training, ask.download, ask.downloads)
        more = (ask.mine, ask.rated, ask.versus, ask.import_ratings)
        shown = scripted(
            "explorer",
            "mm-explorer",
            {},
            template=template(),
            server_functions=[served(method) for method in (*methods, *more)],
        )
        shown.chat(self.chat, [chat.id], [chat.stage, tabs], **QUICK)
        shown.own(self.own, [chat.id], [shown], **QUICK)


def template() -> str:
    """The page's skeleton with the choices of its filters."""
    tasks = "".join(f'<option value="{key}">{words}</option>' for key, words in TASKS.items())
    licences = "".join(f"<option>{name}</option>" for name in LICENCES)
    text = asset("explorer.html")
    return text.replace("<!--tasks-->", tasks).replace("<!--licences-->", licences)
