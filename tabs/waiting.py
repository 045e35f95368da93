"""The prompts that wait while columns still answer, as a list above the prompt box."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.waiting import Queue

from .scripted import QUICK_EACH, scripted
from .view import board_view


def waiting_widget() -> gr.HTML:
    """The place of the list; the view of the board says what is in it."""
    return scripted("waiting", "mm-waiting", {})


class WaitingList:
    """What a person does with what waits."""

    def __init__(self, boards: Boards, widget: gr.HTML) -> None:
        self.boards = boards
        self.widget: Any = widget

    def act(self, id: str, event: gr.EventData) -> dict[str, Any]:
        """Every event of the list: its name is `op`, the prompt it is about `item`."""
        board = self.boards.get(id)
        self._change(board, event)
        return board_view(board)

    def _change(self, board: Board, event: gr.EventData) -> None:
        item = int(getattr(event, "item", 0))
        match event.op:
            case "edit":
                board.requeue(lambda queue: queue.edit(item, str(event.prompt)))
            case "remove":
                board.requeue(lambda queue: queue.remove(item))
            case "earlier":
                board.requeue(lambda queue: queue.move(item, -1))
            case "clear":
                board.requeue(lambda _: Queue())
            case "go on":
                board.go_on()

    def connect(self, id: Component, stage: Component) -> None:
        """Connect the widget."""
        self.widget.act(self.act, [id], [stage], **QUICK_EACH)
