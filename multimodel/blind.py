"""Blind comparison: what a person may see of the columns until the vote.

Only what may be seen is copied into the values that the page gets, so that a new figure of an answer stays hidden
until somebody decides otherwise here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from .board import Board, Column
from .conversation import Turn
from .errors import BadRequest
from .types import ModelId, Snapshot, Stage, Timing

HIDDEN = "hidden"
"""The backend that a model seems to have while its name is hidden."""

ALLOWED = frozenset(
    [
        "decide",
        "reveal",
        "results",
        "stop",
        "regenerate",
        "regenerate-all",
        "edit",
        "resume",
        "clear",
        "remove",
        "refresh",
    ]
)
"""What a person can do in a column while names are hidden."""

EARLIER = "Hidden until the vote: by an earlier answer a model could be recognised."
FAILED = "This model failed. What went wrong can be seen after the vote."
TOO_LONG = (
    "For one of the models this is too long: the oldest messages would be left out, or nothing could be answered."
)
WORKING = Stage("reading")


def shown(board: Board) -> tuple[Column, ...]:
    """The columns as a person may see them now."""
    columns = board.columns()
    return tuple(masked(column, at) for at, column in enumerate(columns)) if board.hidden else columns


def refuse(board: Board, op: str) -> None:
    """Raises BadRequest where doing this would tell which model is which, or undo the shuffle."""
    if board.blind and op in ("left", "right"):
        raise BadRequest("Columns are shuffled in a blind comparison.", hint="Switch Blind off to move them.")
    if board.hidden and op not in ALLOWED:
        raise BadRequest("The names are hidden until the vote.", hint="Vote first, or press Show names.")


def letter(at: int) -> str:
    """What the column at this place is called while names are hidden.

    >>> letter(0), letter(3)
    ('Model A', 'Model D')
    """
    return f"Model {chr(ord('A') + at)}"


def masked(column: Column, at: int) -> Column:
    """A column without a name; of its answers only the newest, and of that only what was said."""
    name = ModelId(HIDDEN, letter(at))
    count = len(column.turns) if column.live else len(column.turns) - 1
    folded = _folded(column.turns[:count], name)
    newest = [
        _asked(t, Turn(t.prompt, _said(t.answer, name), t.id, t.parent, t.column, t.at)) for t in column.turns[count:]
    ]
    live = _said(column.live, name) if column.live else None
    sent = _asked(column.sent, Turn(column.asked, _earlier(name))) if column.sent else None
    return Column(column.key, name, (*folded, *newest), None, column.asked, live, column.cursor, sent)


@lru_cache(maxsize=64)  # columns: the page asks for the same ones at every update
def _folded(turns: tuple[Turn, ...], name: ModelId) -> tuple[Turn, ...]:
    return tuple(_asked(turn, Turn(turn.prompt, _earlier(name))) for turn in turns)


def _earlier(name: ModelId) -> Snapshot:
    return Snapshot(name, "", Timing(0.0), notes=(EARLIER,))


def _asked(turn: Turn, shown: Turn) -> Turn:
    """What a person sent along is no secret."""
    return replace(shown, files=turn.files, results=turn.results)


def _said(answer: Snapshot, name: ModelId) -> Snapshot:
    return Snapshot(
        name,
        answer.text,
        Timing(0.0),
        finish_reason=answer.finish_reason,
        error=BadRequest(FAILED) if answer.error else None,
        stage=WORKING if answer.stage else None,
        reasoning=answer.reasoning,
        calls=answer.calls,
    )
