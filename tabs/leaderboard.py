"""The leaderboard of a person's own votes: a panel above the Chat tab."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel.boards import Boards
from multimodel.errors import MultimodelError

from .explorer_list import error_html
from .leaderboard_page import Choice, download, page_html
from .scripted import QUICK, scripted


class LeaderboardPanel:
    """The widget and what a person does in it."""

    def __init__(self, boards: Boards) -> None:
        self.boards = boards

    def build(self) -> None:
        """Make the widget; it is seen once somebody asks for it."""
        self.widget: Any = scripted("leaderboard", "mm-leaderboard", {})

    def connect(self, id: Component) -> None:
        """Connect it to the visitor's board."""
        self.widget.act(self.act, [id], [self.widget], **QUICK)

    def act(self, id: str, event: gr.EventData) -> dict[str, Any]:
        """What is shown: {html}, and where a file was asked for {download}: its name, type and text."""
        choice = Choice(
            topic=str(getattr(event, "topic", ""))[:100],
            blind=bool(getattr(event, "blind", False)),
            controlled=bool(getattr(event, "controlled", False)),
        )
        try:
            votes = self.boards.store.votes(self.boards.owner(self.boards.get(id).id))
        except MultimodelError as error:
            return {"html": error_html(error)}
        what, _, kind = str(getattr(event, "file", "")).partition(" ")
        if what in ("votes", "ratings") and kind in ("csv", "json"):
            return {"download": download(votes, choice, what, kind)}  # type: ignore[arg-type]
        return {"html": page_html(votes, choice)}
