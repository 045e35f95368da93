"""The keys of the Chat tab, and the sheet that shows them.

The table is what the page obeys and what the sheet says. A button that is made elsewhere gets a key by saying so:
`aria-keyshortcuts="1"` on it, and a row here with an empty `does`, so that the sheet knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from .scripted import asset, scripted


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A key as the browser calls it, what it is for, and what it does.

    `does`: "press" and a selector of the page, or "here" and one of the current column, whose last match is pressed;
    "focus" and a selector; or the name of a function in assets/shortcuts.js. Empty: done elsewhere.
    """

    key: str
    words: str
    does: str = ""


GROUPS: dict[str, tuple[Shortcut, ...]] = {
    "Ask": (
        Shortcut("/", "Go to the prompt", "focus #mm-prompt textarea"),
        Shortcut("Enter", "Send, in the prompt"),
        Shortcut("Shift+Enter", "A new line, in the prompt"),
        Shortcut("/", "Insert a saved prompt, in the empty prompt"),
        Shortcut("Escape", "Stop all answers, or leave a field"),
        Shortcut("u", "Undo the last step", "press #mm-undo"),
    ),
    "Columns": (
        Shortcut("j", "Next column", "next"),
        Shortcut("k", "Previous column", "previous"),
        Shortcut("m", "Choose the model", "here .mm-model"),
        Shortcut("o", "Settings of the column", "here .mm-tools [data-act=settings]"),
        Shortcut("a", "Add a column", "press #mm-add"),
    ),
    "The last answer of a column": (
        Shortcut("r", "Ask again here", "here .mm-tools [data-act=regenerate]"),
        Shortcut("R", "Ask again in all columns", "here [data-act=regenerate-all]"),
        Shortcut("ArrowLeft", "Earlier version, in a column", "here .mm-figures .mm-i-before"),
        Shortcut("ArrowRight", "Later version, in a column", "here .mm-figures .mm-i-after"),
        Shortcut("c", "Copy it", "here [data-copy=answer]"),
        Shortcut("e", "Edit its prompt", "here [data-edit]"),
    ),
    "Vote on the newest answers": (
        Shortcut("1", "First button: that answer is better, or next in order"),
        Shortcut("2", "Second one, and so on to 4"),
        Shortcut("=", "Of more than two: the next one ties with the last"),
        Shortcut("v", "Of more than two: vote with this order"),
        Shortcut("0", "Take the vote back"),
        Shortcut("b", "Blind: hide the names until the vote, or no more", "press #mm-blind"),
    ),
    "Conversations": (
        Shortcut("n", "New chat", "press #mm-new"),
        Shortcut("l", "Show or hide the list", "press #mm-list-button"),
        Shortcut("f", "Search", "search"),
        Shortcut("p", "Presets", "press #mm-presets .mm-drop-button"),
        Shortcut("s", "Settings of all columns", "press #mm-settings-button"),
        Shortcut("?", "This sheet", "sheet"),
    ),
}
CAPS = {"Escape": "Esc", "ArrowLeft": "←", "ArrowRight": "→", "R": "Shift+R"}
"""How a key is called on the sheet, where that is not its name."""


def keys() -> dict[str, str]:
    """What the page does, by key."""
    return {row.key: row.does for rows in GROUPS.values() for row in rows if row.does}


def sheet_html() -> str:
    """The groups of the sheet."""
    return "".join(
        f"<section><h3>{escape(name)}</h3><dl>{''.join(map(_row, rows))}</dl></section>"
        for name, rows in GROUPS.items()
    )


def _row(row: Shortcut) -> str:
    caps = "+".join(
        f"<kbd>{escape(part)}</kbd>"
        for part in CAPS.get(row.key, row.key if len(row.key) > 1 else row.key.upper()).split("+")
    )
    return f"<div><dt>{caps}</dt><dd>{escape(row.words)}</dd></div>"


def sheet() -> gr.HTML:
    """The sheet, and the script that obeys the keys."""
    template = asset("shortcuts.html").replace("SHEET", sheet_html())
    return scripted("shortcuts", "mm-sheet", keys(), template=template, elem_classes="mm-aside")
