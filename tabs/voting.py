"""The vote on the newest answers, as the page shows and sends it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from multimodel import blind
from multimodel.board import MAX_COLUMNS, Board, Column
from multimodel.errors import BadRequest
from multimodel.types import ModelId

from .format import called, short_name

VERDICTS = ("best", "tie", "bad", "ranked", "none")


def vote_view(board: Board, columns: Sequence[Column]) -> dict[str, Any]:
    """What the bar below the columns shows: rows of a column's key, its name, how its answer stands and its place in
    the vote; the vote; and what it revealed. `columns`: as they may be seen."""
    row, ballot = board.row(), board.newest_vote()
    names = dict(zip((column.key for column in columns), _names([column.model for column in columns]), strict=True))
    return {
        "row": max((stand.turn for stand in row), default=0),
        "columns": [[stand.key, names[stand.key], stand.state, stand.place] for stand in row if stand.key in names],
        "verdict": ballot.verdict if ballot else "none",
        "revealed": _revealed(columns) if ballot and ballot.blind and board.blind == "shown" else "",
    }


def decide(board: Board, event: Any) -> None:
    """Cast the vote that a page sends. Raises BadRequest for one that is none."""
    verdict, places = str(getattr(event, "verdict", "")), getattr(event, "places", None) or {}
    numbers = isinstance(places, dict) and all(isinstance(n, int) and 1 <= n <= MAX_COLUMNS for n in places.values())
    if verdict not in VERDICTS or not numbers or (verdict in ("best", "ranked") and not places):
        raise BadRequest("This is no vote.", hint="Say which answer is the best, or that they tie, or are all bad.")
    board.decide(verdict, places, stop=bool(getattr(event, "stop", False)))  # type: ignore[arg-type]


def _names(models: list[ModelId]) -> list[str]:
    """A short name for each; of two that are called alike with the backend, or else with its place."""
    shorts = [model.name if model.backend == blind.HIDDEN else short_name(model) for model in models]
    alike = Counter(shorts)
    names = [short if alike[short] == 1 else called(model) for short, model in zip(shorts, models, strict=True)]
    same = Counter(names)
    return [name if same[name] == 1 else f"{name} ({at})" for at, name in enumerate(names, 1)]


def _revealed(columns: Sequence[Column]) -> str:
    """Which model was which."""
    return ", ".join(f"{blind.letter(at)[-1]} is {called(column.model)}" for at, column in enumerate(columns))
