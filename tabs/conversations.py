"""The list of conversations beside the columns: open, search, rename, pin, delete, take out and bring in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.errors import BadRequest, MultimodelError
from multimodel.exchange import from_json, to_json, to_markdown

from .export import line, to_html
from .fairlane_page import fair_markdown
from .scripted import QUICK, scripted
from .view import problem_text

TAG = 40  # characters of a tag


def entries_view(boards: Boards, board: Board, words: str = "", **more: Any) -> dict[str, Any]:
    """What the page shows of a visitor's conversations. Texts are plain: the page's script makes no HTML of them.

    `words`: only those in which they occur. `more`: "deleted", a title and an id that can be brought back;
    "download", a name, type and text to save; "invitation", a code for another browser; "problem", a
    sentence.
    """
    try:
        found = boards.entries(board.id, words)
    except MultimodelError as error:
        found, more = [], {"problem": problem_text(error), **more}
    rows = [[entry.id, entry.title, entry.updated, entry.pinned, entry.excerpt, entry.tag] for entry in found]
    return {"items": rows, "current": board.chat, "words": words, "note": boards.store.note, **more}


def list_widget() -> gr.HTML:
    """The place of the list in the page."""
    return scripted("conversations", "mm-list", {})


class ConversationList:
    """What a person does in the list."""

    def __init__(self, boards: Boards, widget: gr.HTML, show: Callable[[Board, str], dict[Component, Any]]) -> None:
        """`show`: what changes in the page when it shows a board, and the list those that hold some words."""
        self.boards = boards
        self.widget: Any = widget
        self._show = show

    def act(self, id: str, event: gr.EventData) -> dict[Component, Any]:
        """Every event of the list: its name is `op`, the conversation it is about `chat`."""
        board, words = self.boards.get(id), str(getattr(event, "words", ""))
        try:
            if event.op == "open":
                return self._show(self.boards.open(id, str(event.chat)), words)
            if event.op == "import":
                return self._show(self.boards.keep(id, *from_json(str(event.text))), "")
            more = self._change(board, event)
        except MultimodelError as error:
            more = {"problem": problem_text(error)}
        return {self.widget: entries_view(self.boards, board, words, **more)}

    def _change(self, board: Board, event: gr.EventData) -> dict[str, Any]:
        store, owner = self.boards.store, self.boards.owner(board.id)
        chat = str(getattr(event, "chat", ""))
        match event.op:
            case "rename":
                if title := str(event.title).strip()[:200]:
                    store.rename(owner, chat, title)
            case "pin":
                store.pin(owner, chat, bool(event.pinned))
            case "restore":
                store.restore(owner, chat)
            case "delete":
                store.delete(owner, chat)
                return {"deleted": [chat, str(event.title)]}
            case "tag":
                store.tag(owner, chat, " ".join(str(event.tag).split())[:TAG])
            case "invite":
                return {"invitation": self.boards.invite(board.id)}
            case "export":
                return {"download": self._download(board.id, chat, str(event.kind))}
        return {}

    def _download(self, id: str, chat: str, kind: str) -> list[str]:
        """The name, type and text of a file."""
        if self.boards.open(id, chat).hidden:
            raise BadRequest(
                "The names of this conversation are hidden until the vote.", hint="Vote first, then export."
            )
        kept = self.boards.kept(id, chat)
        stem = re.sub(r"[^\w-]+", "-", kept.title).strip("-")[:50] or "conversation"
        if kind == "json":
            return [f"{stem}.json", "application/json", to_json(kept, self.boards.store.logprobs(chat))]
        if kind == "md":
            return [f"{stem}.md", "text/markdown", to_markdown(kept, line, fair_markdown)]
        return [f"{stem}.html", "text/html", to_html(kept)]

    def connect(self, id: Component, outputs: list[Component]) -> None:
        """Connect the widget."""
        self.widget.act(self.act, [id], outputs, **QUICK)
