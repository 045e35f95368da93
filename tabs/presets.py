"""The menu of presets: columns and settings that a person comes back to. And links that carry them elsewhere."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel import blind, links
from multimodel.board import Board, Options
from multimodel.boards import Boards, arrange, preset_of
from multimodel.engine import Engine
from multimodel.errors import MultimodelError
from multimodel.habits import Habits, Pane, Preset, built_in, made, to_json
from multimodel.locate import GUIDE

from .format import called
from .scripted import QUICK_EACH, scripted
from .toolbar import menu
from .view import board_view, problem_text


def presets_widget() -> gr.HTML:
    """The menu, to be made in the toolbar."""
    with menu("Presets", "mm-presets"):
        return scripted("presets", "mm-presets-list", {})


def link_widget() -> gr.HTML:
    """The dialog that shows a link."""
    return scripted("link", "mm-link", {}, elem_classes="mm-aside")


def detail(preset: Preset) -> str:
    """The models of a preset, and the temperatures where its columns have their own."""
    return ", ".join(called(pane.model) + _warmth(pane) for pane in preset.columns)


def _warmth(pane: Pane) -> str:
    temperature = pane.own.params.temperature if pane.own else None
    return "" if temperature is None else f" at temperature {temperature:g}"


def free_to_ask(pane: Pane, shared: Options, engine: Engine) -> bool:
    """Whether a question to this column costs nothing and loads nothing but what ships with the app."""
    model, load = pane.model, (pane.own or shared).load
    if load.changed():  # in another way than it is loaded already
        return False
    local = model.backend in ("gguf", "transformers")
    return (
        model.backend == "echo"
        or (local and model.name == GUIDE)
        or (local and any(resident.spec.id == model for resident in engine.pool.residents()))
    )


class Presets:
    """What a person does with presets. `boards` and `engine` are the server's."""

    def __init__(self, engine: Engine, boards: Boards, widget: gr.HTML) -> None:
        self.engine = engine
        self.boards = boards
        self.widget: Any = widget
        self.habits = Habits(boards.store)

    def act(self, id: str, event: gr.EventData) -> tuple[Any, Any]:
        """Every event of the menu: its name is `op`, the preset it is about `name`."""
        board = self.boards.get(id)
        try:
            if event.op in ("apply", "save", "update"):
                blind.refuse(board, "preset")
            more = self._change(board, self.boards.owner(board.id), event)
        except MultimodelError as error:
            more = {"problem": problem_text(error)}
        return self._shown(board, **more), board_view(board)

    def all(self, owner: str) -> tuple[Preset, ...]:
        """A visitor's own presets, then the built-in ones."""
        return (*self.habits.presets.items(owner), *built_in(self.engine.settings))

    def _shown(self, board: Board, **more: Any) -> dict[str, Any]:
        owner = self.boards.owner(board.id)
        try:
            own, chosen = self.habits.presets.items(owner), self.habits.presets.chosen(owner)
        except MultimodelError as error:
            return {"own": [], "built_in": [], "chosen": "", "problem": problem_text(error)}
        return {
            "own": [[preset.name, detail(preset)] for preset in own],
            "built_in": [[preset.name, detail(preset)] for preset in built_in(self.engine.settings)],
            "chosen": chosen.name if chosen else "",
            **more,
        }

    def _change(self, board: Board, owner: str, event: gr.EventData) -> dict[str, Any]:
        drawer, name = self.habits.presets, str(getattr(event, "name", ""))
        match event.op:
            case "apply":
                self._apply(board, owner, name, bool(event.built_in))
            case "save":
                shown = preset_of(board)
                drawer.add(owner, made(Preset, name=name, columns=shown.columns, shared=shown.shared))
                return {"said": f"Saved: {name}"}
            case "update":
                drawer.change(owner, name, preset_of(board, name))
                return {"said": f"Updated: {name}"}
            case "rename":
                if found := drawer.find(owner, name):
                    fields = {"columns": found.columns, "shared": found.shared}
                    drawer.change(owner, name, made(Preset, name=str(event.to), **fields))
            case "choose":
                drawer.choose(owner, name)
            case "delete":
                found = drawer.find(owner, name)
                drawer.remove(owner, name)
                return {"deleted": [name, to_json([found])]} if found else {}
            case "export":
                return {"download": ["presets.json", "application/json", to_json(drawer.items(owner))]}
            case "import" | "restore":
                return {"said": brought(*self.habits.bring(owner, str(event.text)))}
        return {}

    def _apply(self, board: Board, owner: str, name: str, is_built_in: bool) -> None:
        presets = built_in(self.engine.settings, board.shared) if is_built_in else self.habits.presets.items(owner)
        for preset in presets:
            if preset.name == name:
                arrange(board, preset)

    # links

    def follow_link(self, id: str | None, query: str, model: Any) -> tuple[Board, str, list[str]]:
        """A new chat as a link wants it, the question to fill in, and what a person should know.

        The question is asked at once only where the link says so and no model is paid or loaded for it: anybody can
        make a link, and a press of a link is not a press of Send.
        """
        board = self.boards.get(id)
        link = links.read(query, self.all(self.boards.owner(board.id)), self.boards.usual(board.id), model)
        begun = self.boards.begin(board.id, link.preset)
        said = list(link.problems)
        if link.send and all(free_to_ask(pane, link.preset.shared, self.engine) for pane in link.preset.columns):
            begun.send(link.prompt)
            return begun, "", said
        if link.prompt.strip():
            said.append("This question came with a link. Press Enter to ask it.")
        return begun, link.prompt, said

    def link(self, id: str, prompt: str) -> dict[str, Any]:
        """The link to what the page shows now."""
        board = self.boards.get(id)
        if board.hidden:
            return {"refused": "The names are hidden until the vote, and a link would tell them. Vote first."}
        query, left_out = links.write(board.columns(), board.shared, prompt)
        note = f"Not in the link: {', '.join(left_out)}." if left_out else ""
        if "q=" in query:
            note = f"It brings along the question in the prompt box, to be sent by whoever opens it. {note}".strip()
        return {"query": query, "note": note}

    def connect(self, id: Component, stage: Component) -> None:
        """Connect the menu."""
        self.widget.act(self.act, [id], [self.widget, stage], **QUICK_EACH)


def brought(presets: int, prompts: int) -> str:
    """What an import brought, in a sentence.

    >>> brought(1, 0), brought(0, 0)
    ('1 preset was brought in.', 'Nothing in this file is new.')
    """
    counts = ((presets, "preset"), (prompts, "prompt"))
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count]
    if not parts:
        return "Nothing in this file is new."
    return f"{' and '.join(parts)} {'was' if presets + prompts == 1 else 'were'} brought in."
