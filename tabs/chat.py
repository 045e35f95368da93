"""The Chat tab: up to four models side by side, one prompt for all.

The board and its runs belong to the server; the page follows them. Every handler changes the board and returns its
whole view; while anything is being answered, the page follows the stream of tabs/live.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel import blind
from multimodel.board import Board, Column, Options
from multimodel.boards import Boards
from multimodel.catalog import catalog, discover, nearest
from multimodel.engine import Engine
from multimodel.errors import InvalidModelId, MultimodelError
from multimodel.registry import source
from multimodel.schema import schema_from
from multimodel.settings import Settings
from multimodel.tools import tools_from
from multimodel.types import ModelId

from .attach import AttachPanel
from .controls import (
    LABELS,
    LOADING_LABELS,
    TEXTS,
    loading_controls,
    more_loading_controls,
    options_from,
    refused,
    sampling_controls,
    updates,
    within_sliders,
)
from .conversations import ConversationList, entries_view, list_widget
from .cost import CostLine
from .fairlane import FairPanel
from .format import called, overflows
from .judge import JudgePanel
from .leaderboard import LeaderboardPanel
from .meter import meter_widget, meters
from .page import announcer
from .presets import Presets, link_widget, presets_widget
from .prompts import PromptLibrary, prompts_widget
from .saw import SawPanel
from .scripted import QUICK, asset
from .shortcuts import sheet
from .toolbar import menu
from .view import board_view, warning
from .voting import decide
from .waiting import WaitingList, waiting_widget

BRANCHED = "This conversation went on in another tab: your prompt is another version beside it. Its arrows show both."
EXAMPLES = ("What can this app do?", "How do I add another model?", "What is the KV cache?")
SEEN = "(prompt, id) => window.mmSend(prompt, id)"


def model_lister(settings: Settings) -> Callable[[], list[dict[str, str]]]:
    """The function the model picker calls in the page: what is known at once, and what servers list."""

    def models(_: object = None) -> list[dict[str, str]]:  # Gradio passes what the page sent: nothing
        newest = deque(discover(settings), maxlen=1)  # each list replaces the one before
        return [asdict(entry) for entry in (newest[0] if newest else catalog(settings))]

    return models


def typed_model(text: str, settings: Settings) -> ModelId:
    """The model a person typed. Raises InvalidModelId, with the nearest right ids where there are any."""
    try:
        model = ModelId.parse(text)
        source(model.backend, settings)
        return model
    except InvalidModelId as error:
        near = nearest(text, catalog(settings))
        hint = f"Did you mean {' or '.join(near)}?" if near else error.hint
        raise InvalidModelId(str(error), hint=hint) from None


class ChatTab:
    """The widgets of the tab and what they do. `boards` and `engine` are the server's; the page holds only an id."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self.engine = engine
        self.boards = boards
        self.judge = JudgePanel(engine)
        self.saw = SawPanel(engine, boards)
        self.cost = CostLine(boards)
        self.leaderboard = LeaderboardPanel(boards)
        self.attach = AttachPanel(engine)
        self.fair = FairPanel(boards)

    # handlers: each takes the board's id and returns what changes

    def load(self, id: str | None) -> dict[Component, Any]:
        """A page opens: it finds its board again, running answers included.

        "join CODE ID": it was opened by a link that another browser of the same person made; "link QUERY ID": by one
        that says what to show.
        """
        if id and id.startswith("link "):
            return self._load_link(*(*id.split(" "), "", "")[1:3])
        if not (id and id.startswith("join ")):
            return self.show(self.boards.get(id))
        _, code, own = (*id.split(" "), "", "")[:3]
        try:
            return self.show(self.boards.join(code, own))
        except MultimodelError as error:
            return {**self.show(self.boards.get(own)), self.warning: _warning([f"{error} {error.hint}"])}

    def _load_link(self, query: str, own: str) -> dict[Component, Any]:
        settings = self.engine.settings
        board, prompt, said = self.presets.follow_link(own, query, lambda text: typed_model(text, settings))
        return {**self.show(board), self.prompt: prompt, self.warning: _warning(said)}

    def show(self, board: Board, words: str = "") -> dict[Component, Any]:
        """Let the page show this board from now on, and the conversations in which the words occur."""
        entries = self.entries(board, words=words)
        view = board_view(board, opening=True)
        files = self.attach.view(board)
        return {self.id: board.id, self.stage: view, self.warning: "", self.list: entries, self.attach.widget: files}

    def entries(self, board: Board, **more: Any) -> dict[str, Any]:
        """The visitor's conversations as the page lists them."""
        return entries_view(self.boards, board, **more)

    def send(self, prompt: str, id: str, seen: float | None) -> dict[Component, Any]:
        """One prompt for all columns. It stays in the box when it cannot be sent.

        `seen`: the revision of the page; below zero where the page is still opening, and will send it again.
        """
        if seen is not None and seen < 0:
            return {self.warning: ""}
        board = self.boards.get(id)
        revision = None if seen is None else int(seen)
        branched, files = board.moved_on(revision), self.attach.pending.of(id)
        if files and not prompt.strip():
            return {self.warning: _warning(["Write what to do with the file."])}
        try:
            sent = board.send(prompt, seen=revision, files=files)
        except MultimodelError as error:
            return {self.warning: _warning([f"{error} {error.hint}"])}
        if not sent:
            return {self.stage: self._view(board)}
        self.attach.pending.clear(id)
        return {
            self.prompt: "",
            self.warning: _warning([BRANCHED] if branched else []),
            self.stage: self._view(board),
            self.list: self.entries(board),
            self.attach.widget: self.attach.view(board),
        }

    def act(self, id: str, event: gr.EventData) -> dict[Component, Any]:
        """What a person did in a column."""
        board, op, key = self.boards.get(id), event.op, event.key
        if not any(column.key == key for column in board.columns()):
            return {self.stage: self._view(board)}
        if op == "settings" and not board.hidden:
            return self._open_settings(board, key)
        try:
            blind.refuse(board, op)
            if op == "branch":
                return self.show(self.boards.keep(id, board.branch(key, int(event.turn))))
            self._change(board, event)
        except MultimodelError as error:
            return {self.stage: self._view(board), self.warning: _warning([f"{error} {error.hint}"])}
        files = {self.attach.widget: self.attach.view(board)} if op == "choose" else {}
        return {self.stage: self._view(board), self.warning: "", **files}

    def attached(self, id: str, event: gr.EventData) -> dict[str, Any]:
        """A file for the next prompt came, or is not to be sent."""
        return self.attach.act(self.boards.get(id), event)

    def _change(self, board: Board, event: gr.EventData) -> None:
        key, settings = event.key, self.engine.settings
        turn = int(event.turn) if hasattr(event, "turn") else None
        everywhere = bool(getattr(event, "everywhere", False))
        actions = {
            "stop": lambda: board.stop(key),
            "regenerate": lambda: board.regenerate(key, turn),
            "regenerate-all": lambda: board.regenerate(key, turn, everywhere=True),
            "anyway": lambda: board.regenerate(key, anyway=True),
            "edit": lambda: board.edit(key, turn or 0, str(event.prompt), everywhere=everywhere),
            "walk": lambda: board.walk(key, turn or 0),
            "resume": lambda: board.resume(key),
            "best": lambda: board.vote(key, turn or 0, "best"),
            "tie": lambda: board.vote(key, turn or 0, "tie"),
            "bad": lambda: board.vote(key, turn or 0, "bad"),
            "decide": lambda: decide(board, event),
            "reveal": lambda: board.reveal(),
            "results": lambda: board.answer_calls(key, turn or 0, [str(text) for text in event.results]),
            "continue-all": lambda: board.continue_all(key, turn or 0),
            "clear": lambda: board.clear(key),
            "remove": lambda: board.remove(key),
            "left": lambda: board.move(key, -1),
            "right": lambda: board.move(key, 1),
            "choose": lambda: board.choose(key, typed_model(str(event.model), settings)),
        }
        if event.op in actions:
            actions[event.op]()

    def undo(self, id: str) -> dict[str, Any]:
        """Take back the last step."""
        board = self.boards.get(id)
        board.undo()
        return self._view(board)

    def blind(self, id: str) -> dict[str, Any]:
        """Hide the names until the vote, or no more."""
        board = self.boards.get(id)
        board.set_blind(not board.blind)
        return self._view(board)

    def add(self, id: str) -> dict[str, Any]:
        """One more column, with the first default model that no column shows yet."""
        board = self.boards.get(id)
        shown = {column.model for column in board.columns()}
        known = [ModelId.parse(text) for text in self.engine.settings.chat.columns]
        board.add(next((model for model in known if model not in shown), known[-1]))
        return self._view(board)

    def stop(self, id: str) -> dict[str, Any]:
        """Stop all columns."""
        board = self.boards.get(id)
        board.stop()
        return self._view(board)

    def new_chat(self, id: str) -> dict[Component, Any]:
        """A new conversation with the same columns; the one before stays in the list."""
        return self.show(self.boards.fresh(id))

    def measure(self, prompt: str, id: str) -> tuple[str, list[dict[str, Any]]]:
        """A note above the prompt box when the prompt does not fit somewhere, before it is sent; and all meters."""
        if not prompt.strip():
            return "", []
        board = self.boards.get(id)
        sizes = board.measure(prompt, self.attach.pending.of(id))
        found = overflows((column.model, size) for column, size in sizes)
        if board.hidden:  # how long a context is tells models apart
            return _warning([blind.TOO_LONG] if found else []), []
        return _warning(found), meters(sizes)

    # settings

    def shared_settings(self, id: str) -> dict[Component, Any]:
        """Open the settings that all columns share."""
        return self._open_settings(self.boards.get(id), None)

    def save(self, id: str, target: str | None, system: str, **values: Any) -> dict[Component, Any]:
        """Keep what the widgets say for the column that is being set, or for all."""
        board = self.boards.get(id)
        column = _column(board, target)
        if wrong := refused(values):  # what was typed stays where it is, to be mended
            return {self.stage: self._view(board), **self._refusal(wrong)}
        options = options_from(system, values)
        board.set_options(options, column.key if column else None)
        return {self.stage: self._view(board), self.doubt: texts_doubt(options), self.refused: gr.update(visible=False)}

    def _refusal(self, wrong: dict[str, str]) -> dict[Component, Any]:
        """Say what is wrong in the boxes for numbers, below those of sampling and below those of loading."""
        sampling, loading = (
            [f"{words} Until then the settings stay as they were." for name, words in wrong.items() if name in labels]
            for labels in (LABELS, LOADING_LABELS)
        )
        return {
            self.doubt: _warning(sampling),
            self.refused: gr.update(value=_warning(loading), visible=bool(loading)),
        }

    def own(self, id: str, target: str | None, own: bool) -> dict[Component, Any]:
        """Unlink a column from the shared settings, or link it again."""
        board = self.boards.get(id)
        if column := _column(board, target):
            board.set_options(board.options(column), column.key) if own else board.share(column.key)
        return self._open_settings(board, target)

    def _open_settings(self, board: Board, key: str | None) -> dict[Component, Any]:
        column = None if board.hidden else _column(board, key)
        options = board.options(column) if column else board.shared
        columns = [column] if column else list(board.columns())
        refusals = {} if board.hidden else self._refusals(columns)
        linked = column is not None and column.own is None
        where = called(column.model) if column else "all columns"
        return {
            self.stage: self._view(board),
            self.panel: gr.update(visible=True),
            self.target: column.key if column else None,
            self.heading: f"### Settings\nfor {where}",
            self.doubt: texts_doubt(options),
            self.refused: gr.update(visible=False),
            self.own_switch: gr.update(visible=column is not None, value=not linked),
            self.system: gr.update(value=options.system, interactive=not linked),
            **updates(self.options, options, refusals, columns=len(columns), linked=linked, devices=self._devices()),
        }

    def _devices(self) -> list[str]:
        """The kinds of device that this machine has."""
        return [kind for kind in ("cpu", "cuda", "mps") if self.engine.device(kind).kind == kind]

    def _refusals(self, columns: list[Column]) -> dict[str, list[str]]:
        """For each option, the models of these columns that do not take it, as far as that is known."""
        refusals: dict[str, list[str]] = {}
        for column in columns:
            if capabilities := self.engine.capabilities(column.model):
                taken = capabilities.params | source(column.model.backend, self.engine.settings).loads
                for name in self.options.keys() - taken:
                    refusals.setdefault(name, []).append(called(column.model))
        return refusals

    def _view(self, board: Board) -> dict[str, Any]:
        return board_view(board)

    # widgets

    def build(self, page: gr.Blocks) -> None:
        """Make the widgets and connect them."""
        # Gradio's own key would be another at every start, and the browser could not read what it keeps any more
        self.id = gr.BrowserState(None, storage_key="multimodel-board", secret="multimodel")
        self.target = gr.State(None)
        self.seen = gr.Number(visible=False)  # the page fills it in when it sends
        with gr.Row(elem_id="mm-chat", equal_height=True):
            self.list = list_widget()
            with gr.Column(elem_id="mm-main", scale=4, min_width=280):
                self._build_toolbar()
                self.stage = gr.HTML(
                    {},
                    html_template=asset("board.html"),
                    js_on_load=asset("board.js") + asset("votes.js") + asset("draft.js"),
                    apply_default_css=False,
                    elem_id="mm-board",
                    server_functions=[model_lister(self.engine.settings)],
                )
                self.fair.build()
                self._build_composer()
                self.judge.build_badges()
                self.leaderboard.build()
                self.meter = meter_widget()
                self.saw.build()
            self._build_settings()
        sheet()
        announcer()
        self.link = link_widget()
        self.library = PromptLibrary(self.boards, prompts_widget())
        self._connect(page)

    def _build_toolbar(self) -> None:
        with gr.Row(elem_id="mm-toolbar"):
            self.list_button = gr.Button("Conversations", elem_id="mm-list-button", size="sm")
            self.new_button = gr.Button("New chat", elem_id="mm-new", size="sm")
            self.add_button = gr.Button("Add column", elem_id="mm-add", size="sm")
            self.presets = Presets(self.engine, self.boards, presets_widget())
            self.blind_button = gr.Button("Blind", elem_id="mm-blind", size="sm")
            with menu("More", "mm-more"):
                self.fair.build_button("mm-fair-row", size="sm")
                self.library_button = gr.Button("Prompt library", elem_id="mm-library-button", size="sm")
                self.keep_button = gr.Button("Save this prompt", elem_id="mm-keep-button", size="sm")
                self.link_button = gr.Button("Copy link to these columns", elem_id="mm-link-button", size="sm")
                self.sheet_button = gr.Button("Keyboard shortcuts", elem_id="mm-sheet-button", size="sm")

    def _build_composer(self) -> None:
        with gr.Column(elem_id="mm-composer"):
            with gr.Row(elem_id="mm-examples"):
                self.examples = [gr.Button(text, size="sm") for text in EXAMPLES]
            self.waiting = waiting_widget()
            self.attach.build()
            self.warning = gr.HTML("", elem_id="mm-warning")
            self.size = gr.HTML("", elem_id="mm-size")  # of its own: typing must not wipe a refusal away
            self.cost.build()
            with gr.Row(elem_id="mm-prompt-row", equal_height=True):
                self.prompt = gr.Textbox(
                    placeholder="Ask all columns",
                    show_label=False,
                    label="Prompt",
                    lines=1,
                    max_lines=8,
                    max_length=400_000,
                    autofocus=True,
                    container=False,
                    elem_id="mm-prompt",
                    scale=10,
                )
                self.clip_button = gr.Button("Attach files", elem_id="mm-clip", min_width=40)
                self.undo_button = gr.Button("Undo the last step", elem_id="mm-undo", min_width=40)
                self.settings_button = gr.Button("Settings", elem_id="mm-settings-button", min_width=44)
                self.fair.build_button("mm-fair-button", min_width=36)
                self.stop_button = gr.Button("Stop all", elem_id="mm-stop", min_width=84)
                self.send_button = gr.Button("Send", variant="primary", elem_id="mm-send", min_width=84)

    def _build_settings(self) -> None:
        with gr.Column(elem_id="mm-settings", visible=False, scale=1, min_width=300) as self.panel:
            self.close_button = gr.Button("Close settings", elem_id="mm-settings-close", size="sm")
            self.heading = gr.Markdown("### Settings\nfor all columns", elem_id="mm-settings-head")
            self.own_switch = gr.Checkbox(
                label="Own settings", info="Off: this column follows the shared settings", visible=False
            )
            self.system = gr.Textbox(
                label="System prompt", info="Sent before the conversation", lines=3, max_lines=10, max_length=100_000
            )
            self.judge.build_choice()
            sampling = sampling_controls()
            self.doubt = gr.HTML("", elem_id="mm-doubt")  # of schema and tools, which come before it
            with gr.Accordion("How local models are loaded", open=False, elem_id="mm-loading"):
                self.options = sampling | loading_controls()
                self.refused = gr.HTML("", visible=False)  # numbers of loading that cannot be
                with gr.Accordion("More about loading", open=False, elem_id="mm-loading-more"):
                    self.options |= more_loading_controls()

    def _connect(self, page: gr.Blocks) -> None:
        board = [self.id, self.stage, self.warning, self.list, self.attach.widget]
        head = [self.panel, self.target, self.heading, self.own_switch]
        panel = [*head, self.system, self.doubt, self.refused, *self.options.values()]
        page.load(self.load, [self.id], [*board, self.prompt], js="(id) => window.mmAddress(id)", **QUICK)
        gr.on(
            [self.prompt.submit, self.send_button.click],
            self.send,
            [self.prompt, self.id, self.seen],
            [self.prompt, *board[1:]],
            js=SEEN,
            **QUICK,
        )
        self.stage.act(self.act, [self.id], [*board, *panel], **QUICK)
        for button in self.examples:
            button.click(self.send, [button, self.id, self.seen], [self.prompt, *board[1:]], js=SEEN, **QUICK)
        self.attach.widget.act(self.attached, [self.id], [self.attach.widget], trigger_mode="multiple", **QUICK)
        self.clip_button.click(None, js="() => window.mmAttach()")
        self.new_button.click(self.new_chat, [self.id], board, **QUICK)
        self.undo_button.click(self.undo, [self.id], [self.stage], **QUICK)
        self.list_button.click(None, js="() => window.mmToggleList()")
        self.presets.connect(self.id, self.stage)
        self.library.connect(self.id)
        self.library_button.click(None, js="() => window.mmPrompts.show()")
        self.keep_button.click(None, js="() => window.mmPrompts.keep()")
        self.link_button.click(self.presets.link, [self.id, self.prompt], [self.link], **QUICK)
        self.sheet_button.click(None, js="() => window.mmSheet()")
        ConversationList(self.boards, self.list, self.show).connect(self.id, board)
        WaitingList(self.boards, self.waiting).connect(self.id, self.stage)
        self.add_button.click(self.add, [self.id], [self.stage], **QUICK)
        self.blind_button.click(self.blind, [self.id], [self.stage], **QUICK)
        self.leaderboard.connect(self.id)
        self.stop_button.click(self.stop, [self.id], [self.stage], **QUICK)
        # `change`, for `input` of a Gradio text box tells of keys only, not of what is pasted or dictated
        self.prompt.change(
            self.measure, [self.prompt, self.id], [self.size, self.meter], trigger_mode="always_last", **QUICK
        )
        self.cost.connect(self.prompt, self.id)
        self._connect_settings(panel)
        self.judge.connect(page)

    def _connect_settings(self, panel: list[Component]) -> None:
        self.settings_button.click(self.shared_settings, [self.id], [self.stage, *panel], **QUICK)
        self.close_button.click(lambda: gr.update(visible=False), None, [self.panel], **QUICK)
        self.own_switch.input(self.own, [self.id, self.target, self.own_switch], [self.stage, *panel], **QUICK)
        named = {"id": self.id, "target": self.target, "system": self.system, **self.options}
        changes = [widget.input for widget in (self.system, *self.options.values())]  # type: ignore[attr-defined]
        changes += [widget.blur for widget in (self.system, *(self.options[name] for name in TEXTS))]  # type: ignore[attr-defined]
        gr.on(
            changes,
            self.save,
            inputs_kwargs=named,
            outputs=[self.stage, self.doubt, self.refused],
            js=within_sliders(named.values()),
            trigger_mode="always_last",
            **QUICK,
        )


def texts_doubt(options: Options) -> str:
    """What is wrong with the schema and the tools that a person typed; empty when nothing is."""
    wrong = []
    for text, read in ((options.params.json_schema, schema_from), (options.params.tools, tools_from)):
        try:
            if text:
                read(text)
        except MultimodelError as error:
            wrong.append(f"{error} {error.hint}")
    return _warning(wrong)


def _column(board: Board, key: str | None) -> Column | None:
    return next((column for column in board.columns() if column.key == key), None)


def _warning(sentences: list[str]) -> str:
    return "".join(map(warning, sentences))
