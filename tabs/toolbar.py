"""Menus of the toolbar: a button, and below it rows that are Gradio buttons like any other.

A thing that is used rarely is a row of the menu "More", not one more button in the toolbar:

    with menu("More", "mm-more"):
        row = gr.Button("Copy link", elem_id="mm-copy-link")
    row.click(...)

A press of a row closes the menu. What is no button, such as a checkbox, leaves it open.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from html import escape

import gradio as gr

from .scripted import asset


def opener(title: str, panel: str) -> str:
    """The button that opens the panel of that id."""
    return (
        f'<button type="button" class="mm-drop-button" aria-haspopup="true" aria-expanded="false"'
        f' aria-controls="{panel}" title="{escape(title)}">{escape(title)}</button>'
    )


@contextmanager
def menu(title: str, id: str) -> Generator[None]:
    """Blocks made inside are the rows of a menu; its button is in `#ID`, its rows are in `#ID-rows`."""
    rows = f"{id}-rows"
    with gr.Column(elem_id=id, elem_classes="mm-drop", min_width=0, scale=0):
        gr.HTML(
            opener(title, rows),
            js_on_load=asset("toolbar.js"),
            apply_default_css=False,
        )
        with gr.Column(elem_id=rows, elem_classes="mm-drop-rows", min_width=0):
            yield
