"""Widgets of our own: a template and a script in assets/, which the page runs when it makes the widget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parents[1] / "assets"
QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
"""Of an event that is answered at once."""
QUICK_EACH: dict[str, Any] = {**QUICK, "trigger_mode": "multiple"}
"""The same where a second press must not be lost while the first is on its way."""


def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (ASSETS / name).read_text("utf-8")


def scripted(name: str, id: str, value: Any, *, template: str | None = None, **options: Any) -> gr.HTML:
    """The widget of assets/NAME.js with the element id `id`; its template is assets/NAME.html unless one is given."""
    return gr.HTML(
        value,
        html_template=asset(f"{name}.html") if template is None else template,
        js_on_load=asset(f"{name}.js"),
        apply_default_css=False,
        elem_id=id,
        **options,
    )
