"""The Fine-tune tab: from a spreadsheet to a classifier in use.

The page (assets/finetune.js) asks the functions of `Training`, each of which answers with finished HTML and, for
curves, with points. Runs belong to the server: a reload, a second tab and the next start of the app find them again.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from multimodel.engine import Engine

ASSETS = Path(__file__).resolve().parents[1] / "assets"
VIEWS = {"train": "Train"}


def views_html() -> str:
    """The row that chooses what the tab shows."""
    buttons = "".join(
        f'<button type="button" role="tab" data-view="{key}">{words}</button>' for key, words in VIEWS.items()
    )
    return f'<div class="mx mf-views"><div class="mx-views" role="tablist" aria-label="Fine-tune">{buttons}</div></div>'


class FinetuneTab:
    """The widgets of the tab and what they do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def build(self) -> None:
        """Make the widgets: the row of views, and one widget for each."""
        with gr.Column(elem_id="mm-finetune"):
            gr.HTML(views_html(), elem_id="mm-finetune-views", apply_default_css=False)
            gr.HTML(
                {},
                html_template=(ASSETS / "finetune.html").read_text("utf-8"),
                js_on_load=(ASSETS / "finetune.js").read_text("utf-8"),
                apply_default_css=False,
                elem_id="mm-finetune-train",
            )
