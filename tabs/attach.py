"""Files on their way to a prompt: read as they are added, shown as chips above the prompt box, sent with the prompt.

They wait on the server, with the board they are for, so that a page that reloads finds them again.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from html import escape
from threading import Lock
from typing import Any

import gradio as gr

from multimodel.attach import read
from multimodel.attachment import LARGEST, Attachment, check
from multimodel.board import Board
from multimodel.engine import Engine
from multimodel.errors import MultimodelError, StoreError
from multimodel.messages import why_no_pictures

from .files import uploaded
from .format import called, listed
from .parts import PLACE, facts
from .scripted import asset, scripted
from .view import warning

BOARDS = 200  # whose files wait at most; those that wait longest leave first
SPACE = 256_000_000  # bytes of them all, likewise


class Pending:
    """The files that wait to be sent, by the ids of their boards. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()  # between the events of all visitors
        self._files: OrderedDict[str, tuple[Attachment, ...]] = OrderedDict()

    def of(self, id: str) -> tuple[Attachment, ...]:
        """Those of a board."""
        with self._lock:
            return self._files.get(id, ())

    def add(self, id: str, file: Attachment) -> None:
        """One more, in the place of one with the same content. Raises BadRequest where there are too many."""
        with self._lock:
            files = (*(other for other in self._files.get(id, ()) if other.hash != file.hash), file)
            check(files)
            self._files[id] = files
            self._files.move_to_end(id)
            while len(self._files) > 1 and (len(self._files) > BOARDS or self._held() > SPACE):
                self._files.popitem(last=False)

    def _held(self) -> int:
        return sum(len(file.body) for files in self._files.values() for file in files)

    def remove(self, id: str, hash: str) -> None:
        """Send this one no more."""
        with self._lock:
            self._files[id] = tuple(file for file in self._files.get(id, ()) if file.hash != hash)

    def clear(self, id: str) -> None:
        """They were sent."""
        with self._lock:
            self._files.pop(id, None)


class AttachPanel:
    """The widget above the prompt box. `pending`: what it shows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.pending = Pending()

    def build(self) -> gr.HTML:
        """The widget, in the composer."""
        self.widget: Any = scripted(
            "attach", "mm-attach", {}, template=asset("attach.html").replace("LARGEST", str(LARGEST))
        )
        return self.widget

    def view(self, board: Board, problem: str = "") -> dict[str, Any]:
        """What the page shows: the chips, and which columns take no pictures. `problem`: what was refused, as HTML."""
        files = self.pending.of(board.id)
        return {"html": "".join(map(chip_html, files)), "said": self._refusals(board, files), "problem": problem}

    def act(self, board: Board, event: gr.EventData) -> dict[str, Any]:
        """A file came, or is not to be sent: the view. `event.op`: add, with `path` and `name`; remove, with `file`."""
        problem = ""
        if event.op == "remove":
            self.pending.remove(board.id, str(event.file))
        elif event.op == "add":
            try:
                self._add(board, event)
            except MultimodelError as error:
                problem = warning(f"{error} {error.hint}")
        return self.view(board, problem)

    def _add(self, board: Board, event: gr.EventData) -> None:
        path = uploaded(event.path)
        try:
            file = read(path, str(event.name))
        finally:
            path.unlink(missing_ok=True)  # what is kept of it is kept elsewhere
        self.pending.add(board.id, file)
        with suppress(StoreError):  # a disk that takes nothing: the page says so, and there is no preview
            self._engine.store.keep([file])

    def _refusals(self, board: Board, files: tuple[Attachment, ...]) -> str:
        """Columns that take no pictures, said before anything is sent."""
        if not any(file.image for file in files):
            return ""
        said: dict[str, list[str]] = {}
        for column in board.columns():
            capabilities = self._engine.capabilities(board.spec(column))
            if capabilities and not capabilities.images:
                said.setdefault(why_no_pictures(capabilities), []).append(called(column.model))
        if board.hidden:
            return warning(f"At least one of the models will refuse the picture. {NO_PICTURES}") if said else ""
        return "".join(
            warning(f"{listed(names)} will refuse the picture: {why}. {NO_PICTURES}") for why, names in said.items()
        )


NO_PICTURES = "Choose another model there, or remove the picture; the other columns are asked."


def chip_html(file: Attachment) -> str:
    """A file that waits to be sent."""
    name, place = escape(file.name), f"{PLACE}/{file.hash}"
    notes = "".join(f"<em>{escape(note)}</em>" for note in file.notes)
    picture = f'<img src="{place}" alt="" />' if file.image else ""
    link = f'href="{place}" target="_blank" data-name="{name}" title="Open what the model is given"'
    remove = f'data-remove="{file.hash}" title="Remove {name}"'
    return (
        f'<div class="mm-chip-file" role="listitem">{picture}<a class="mm-file-name" {link}>{name}</a>'
        f"<span>{escape(facts(file))}</span>{notes}"
        f'<button type="button" class="mm-icon mm-i-close" {remove}>Remove {name}</button></div>'
    )
