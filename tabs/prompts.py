"""The library of prompts: saved with gaps to fill, found by "/" in the empty prompt box, tended in a dialog."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel.boards import Boards
from multimodel.errors import MultimodelError
from multimodel.habits import Habits, Prompt, made, to_json

from .presets import brought
from .scripted import QUICK_EACH, scripted
from .view import problem_text


def prompts_widget() -> gr.HTML:
    """The dialog of the library, and the list that "/" opens."""
    return scripted("prompts", "mm-prompts", {}, elem_classes="mm-aside")


class PromptLibrary:
    """What a person does with kept prompts."""

    def __init__(self, boards: Boards, widget: gr.HTML) -> None:
        self.boards = boards
        self.widget: Any = widget
        self.habits = Habits(boards.store)

    def act(self, id: str, event: gr.EventData) -> dict[str, Any]:
        """Every event of the library: its name is `op`, the prompt it is about `name`."""
        owner = self.boards.owner(self.boards.get(id).id)
        try:
            more = self._change(owner, event)
        except MultimodelError as error:
            more = {"problem": problem_text(error)}
        try:
            kept = self.habits.prompts.items(owner)
        except MultimodelError as error:
            kept, more = (), {"problem": problem_text(error)}
        return {"prompts": [[prompt.name, prompt.text, prompt.variables] for prompt in kept], **more}

    def _change(self, owner: str, event: gr.EventData) -> dict[str, Any]:
        drawer, name = self.habits.prompts, str(getattr(event, "name", ""))
        match event.op:
            case "save":
                prompt = made(Prompt, name=name, text=str(event.text))
                was = str(getattr(event, "was", ""))
                if was:
                    drawer.change(owner, was, prompt)
                else:
                    drawer.add(owner, prompt)
                return {"saved": prompt.name}
            case "delete":
                found = drawer.find(owner, name)
                drawer.remove(owner, name)
                return {"deleted": [name, to_json((), [found])]} if found else {}
            case "export":
                return {"download": ["prompts.json", "application/json", to_json((), drawer.items(owner))]}
            case "import" | "restore":
                return {"said": brought(*self.habits.bring(owner, str(event.text)))}
        return {}

    def connect(self, id: Component) -> None:
        """Connect the widget."""
        self.widget.act(self.act, [id], [self.widget], **QUICK_EACH)
