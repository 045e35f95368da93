"""The list of conversations beside the columns: open, search, rename, pin, delete, take out and bring in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.errors import MultimodelError
from multimodel.exchange import from_json, to_json, to_markdown
from multimodel.leaderboard import MOST, Ballot, Gap, gaps, ratings
from multimodel.types import ModelId

from .export import line, to_html
from .format import called
from .view import problem_text

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def entries_view(boards: Boards, board: Board, words: str = "", **more: Any) -> dict[str, Any]:
    """What the page shows of a visitor's conversations. Texts are plain: the page's script makes no HTML of them.

    `words`: only those in which they occur. `more`: "deleted", a title and an id that can be brought back;
    "download", a name, type and text to save; "invitation", a code for another browser; "ranking", the leaderboard;
    "problem", a sentence.
    """
    try:
        found = boards.entries(board.id, words)
    except MultimodelError as error:
        found, more = [], {"problem": problem_text(error), **more}
    rows = [[entry.id, entry.title, entry.updated, entry.pinned, entry.excerpt] for entry in found]
    return {"items": rows, "current": board.chat, "words": words, "note": boards.store.note, **more}


def ranking(ballots: Sequence[Ballot]) -> dict[str, Any]:
    """The leaderboard: rows of a name, its rating with what holds 95 % of it, and its votes; and what they say."""
    rows = [
        [called(ModelId(*rating.model.split(":", 1))), rating.rating, rating.low, rating.high, rating.votes]
        for rating in ratings(ballots)
    ]
    return {"rows": rows, "said": [_apart(gap) for gap in gaps(ballots)], "votes": len(ballots)}


def _apart(gap: Gap) -> str:
    better, worse = (called(ModelId(*model.split(":", 1))) for model in (gap.better, gap.worse))
    if gap.apart:
        return f"{better} is better than {worse}."
    votes = f"About {gap.more} more votes" if gap.more < MOST else f"More than {MOST} votes"
    return f"{votes} to separate {better} and {worse}."


def list_widget() -> gr.HTML:
    """The place of the list in the page."""
    return gr.HTML(
        {},
        html_template=(ASSETS / "conversations.html").read_text("utf-8"),
        js_on_load=(ASSETS / "conversations.js").read_text("utf-8"),
        apply_default_css=False,
        elem_id="mm-list",
    )


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
            case "leaderboard":
                return {"ranking": ranking(store.ballots(owner))}
            case "invite":
                return {"invitation": self.boards.invite(board.id)}
            case "export":
                return {"download": self._download(board.id, chat, str(event.kind))}
        return {}

    def _download(self, id: str, chat: str, kind: str) -> list[str]:
        """The name, type and text of a file."""
        kept = self.boards.kept(id, chat)
        stem = re.sub(r"[^\w-]+", "-", kept.title).strip("-")[:50] or "conversation"
        if kind == "json":
            return [f"{stem}.json", "application/json", to_json(kept, self.boards.store.logprobs(chat))]
        if kind == "md":
            return [f"{stem}.md", "text/markdown", to_markdown(kept, line)]
        return [f"{stem}.html", "text/html", to_html(kept)]

    def connect(self, id: Component, outputs: list[Component]) -> None:
        """Connect the widget."""
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        self.widget.act(self.act, [id], outputs, **quick)
