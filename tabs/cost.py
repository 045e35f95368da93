"""What is paid: before a prompt is sent what it will cost, and what the conversation has cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr
from gradio.components import Component

from multimodel.board import Column
from multimodel.boards import Boards
from multimodel.prices import Expected, money

from .format import called, sentence
from .scripted import QUICK


class CostLine:
    """A line above the prompt box; nothing is shown while nobody is paid."""

    def __init__(self, boards: Boards) -> None:
        self._boards = boards

    def build(self) -> None:
        """Make the widgets. The second one is filled in by the page's script, from the board it shows."""
        with gr.Row(elem_id="mm-cost"):
            self.next = gr.HTML("", elem_id="mm-expected", apply_default_css=False)
            gr.HTML("<span></span>", elem_id="mm-spent", apply_default_css=False)

    def connect(self, prompt: gr.Textbox, id: Component) -> None:
        """Tell the cost of a prompt while it is written."""
        prompt.change(self.expect, [prompt, id], [self.next], trigger_mode="always_last", **QUICK)

    def expect(self, prompt: str, id: str) -> str:
        """What the prompt will cost in the columns where somebody is paid."""
        board = self._boards.get(id)
        return expected_html(board.expected(prompt), named=not board.hidden) if prompt.strip() else ""


def expected_html(found: Sequence[tuple[Column, Expected]], *, named: bool = True) -> str:
    """The sum for all columns, and in its tooltip each of them, where they may be `named`."""
    known = [each for _, each in found if each.prompt.amount is not None]
    unknown = len(found) - len(known)
    if not found:
        return ""
    why = " ".join(f"{called(column.model)}: {_why(each)}" for column, each in found if named)
    if not known:
        return f'<span title="{escape(why)}">Cost of the next prompt –</span>'
    prompt = sum(each.prompt.amount or 0 for each in known)
    text = f"Sending costs about {money(prompt)}"
    if all(each.most for each in known):
        text += f", with the answers at most {money(sum(each.most.amount or 0 for each in known if each.most))}"
    text += f"; {unknown} of {len(found)} unknown" if unknown else ""
    return f'<span title="{escape(why)}">{escape(text)}</span>'


def _why(each: Expected) -> str:
    if each.prompt.amount is None:
        return each.prompt.about
    most = f", at most {money(each.most.amount)} with the answer" if each.most and each.most.amount else ""
    return f"{money(each.prompt.amount)}{most}. {sentence(each.prompt.source)}; {each.prompt.about}."
