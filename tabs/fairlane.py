"""The fair lane in Chat: the last prompt again, one model after another, and what came of it below the answers.

The page asks how it stands by `FairPanel.fair`; assets/fairlane.js puts the answer in place.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.errors import BadRequest, MultimodelError
from multimodel.fairlane import MOST_REPEATS
from multimodel.prices import spent_text, total

from .asking import Answer, answering, served
from .fairlane_page import fair_html
from .format import spent_figure
from .scripted import scripted


class FairPanel:
    """The widgets, and what the page can ask. Every value it sends is checked: this is a public address."""

    def __init__(self, boards: Boards) -> None:
        self._boards = boards

    def build(self) -> None:
        """Make the panel, between the columns and the prompt box."""
        scripted("fairlane", "mm-fair", "", server_functions=[served(self.fair)])

    def build_button(self, id: str, **options: Any) -> None:
        """A button that opens it."""
        button = gr.Button("Run one after another", elem_id=id, **options)
        button.click(None, js="() => window.mmFair()")

    @answering
    def fair(self, asked: Answer) -> Answer:
        """How the measurement of a board stands, after what was asked was done: {html, running, number, ready, each}.

        The page sends the address of its board, and to do something the `op`: "start" or "stop".
        """
        board = self._boards.get(str(asked.get("address", "")))
        if board.id != asked.get("address"):
            raise BadRequest("There is no such conversation any more.", hint="Load the page again.")
        problem = ""
        try:
            _change(board, asked)
        except MultimodelError as error:
            problem = f"{error} {error.hint}"
        return fair_view(board) | {"problem": problem}


def _change(board: Board, asked: Answer) -> None:
    if asked.get("op") == "stop":
        board.stop_measuring()
    if asked.get("op") == "start":
        repeats = asked.get("repeats")
        if not isinstance(repeats, int):
            raise BadRequest("How many times is not a number.", hint=f"Choose 1 to {MOST_REPEATS}.")
        board.measure_alone(repeats, cached=asked.get("cached") is True, cold=asked.get("cold") is True)


def fair_view(board: Board) -> Answer:
    """What the page shows of a board's measurement."""
    columns, update, named = board.columns(), board.fair(), not board.hidden
    costs = total(column.turns[-1].answer.cost for column in columns if column.turns)
    return {
        "html": fair_html(update, {column.key: i for i, column in enumerate(columns)}) if update else "",
        "running": board.measuring(),
        "number": update.lane.number if update else 0,
        "ready": named and any(column.turns and column.turns[-1].answer.text for column in columns),
        "spent": _spent(board) if named else None,
        "each": f"Each round costs about {spent_text(costs)}." if costs and named else "",
    }


def _spent(board: Board) -> list[Any]:
    """What the conversation has cost, and what each column."""
    each = {column.key: spent_figure(board.spent(column.key)) for column in board.columns()}
    return [spent_figure(board.spent()), each]
