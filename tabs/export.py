"""A conversation as a page of its own: columns side by side, no script, and nothing from outside."""

from __future__ import annotations

from html import escape

from multimodel.attachment import Attachment
from multimodel.conversation import Conversation, Turn
from multimodel.exchange import rows
from multimodel.types import Snapshot
from multimodel.web import DOCUMENT_POLICY

from . import markdown
from .fairlane_page import fair_table
from .format import called, figures
from .parts import calls_html, facts

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f8; --card: #fff; --sunk: #f1f1f4; --line: #dedee4; --text: #1c1c21;
  --soft: #5f5f6b; --accent: #4f46e5; --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --page: #131316; --card: #1b1b1f; --sunk: #25252b; --line: #34343c;
  --text: #ececf0; --soft: #a3a3b0; --accent: #8b85ff; --bad: #ff8f85 } }
* { box-sizing: border-box }
body { margin: 0; padding: 24px; background: var(--page); color: var(--text); font: 15.5px/1.55 system-ui, sans-serif }
h1 { margin: 0 0 16px; font-size: 20px } h2 { margin: 28px 0 4px; font-size: 16px }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(280px, 1fr); gap: 12px; overflow-x: auto }
.cell { min-width: 0; padding: 4px 16px 12px; background: var(--card); border: solid var(--line); border-width: 0 1px;
  overflow-wrap: anywhere }
.row:first-of-type .cell { padding-top: 10px; border-top-width: 1px; border-radius: 12px 12px 0 0; font-weight: 600 }
.row:last-of-type .cell { border-bottom-width: 1px; border-radius: 0 0 12px 12px }
.prompt { width: fit-content; max-width: 88%; margin: 12px 0 12px auto; padding: 8px 12px; background: var(--sunk);
  border-radius: 12px 12px 4px; white-space: pre-wrap }
.by, .figures { color: var(--soft); font-size: 12.5px; font-variant-numeric: tabular-nums }
.error { color: var(--bad) }
details { color: var(--soft); font-size: 14px; white-space: pre-wrap }
.attached { display: block; max-width: 88%; max-height: 320px; margin: 12px 0 0 auto; overflow: auto }
.mm-call { margin: 8px 0 } .mm-call-head { color: var(--soft); font-size: 12.5px } .mm-call b { margin-left: 6px }
pre { padding: 10px 12px; border: 1px solid var(--line); border-radius: 8px; overflow-x: auto }
pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13.5px }
a { color: var(--accent) }
table { border-collapse: collapse } th, td { padding: 4px 10px; border: 1px solid var(--line);
  overflow-wrap: normal }
.mm-table { overflow-x: auto } .mm-code-head { display: none }
blockquote { margin: 0 0 10px; padding-left: 12px; border-left: 3px solid var(--line); color: var(--soft) }
@media (max-width: 760px) { body { padding: 8px } .row { grid-auto-columns: 88% } }
"""


def line(answer: Snapshot) -> str:
    """The figures of an answer in one line."""
    return ", ".join(figure for figure, _ in figures(answer)) or "no figures"


def to_html(kept: Conversation) -> str:
    """The standalone page of what the columns show; every text is escaped."""
    head = "".join(f'<div class="cell">{escape(called(lane.model))}</div>' for lane in kept.states[-1].lanes)
    body = "".join(f'<div class="row">{"".join(map(_cell, row))}</div>' for row in rows(kept))
    title = escape(kept.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{DOCUMENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f'<body><h1>{title}</h1><div class="row">{head}</div>{body}'
        f"{''.join(map(fair_table, kept.measured))}</body></html>\n"
    )


def _cell(turn: Turn | None) -> str:
    if not turn:
        return '<div class="cell"></div>'
    said = turn.answer
    thoughts = f"<details><summary>Thoughts</summary>{escape(said.reasoning)}</details>" if said.reasoning else ""
    error = f'<p class="error">{escape(str(said.error))}</p>' if said.error else ""
    return (
        f'<div class="cell">{"".join(map(_file, turn.files))}<div class="prompt">{escape(turn.prompt)}</div>'
        f'<div class="by">{escape(str(said.model))}</div>'
        f"{thoughts}{markdown.render(said.text)}{calls_html(said)}{error}"
        f'<div class="figures">{escape(line(said))}</div></div>'
    )


def _file(file: Attachment) -> str:
    name = escape(f"{file.name}, {facts(file)}")
    if file.image:
        return f'<img class="attached" src="{file.image.url}" alt="{name}" title="{name}">'
    return f'<details class="attached"><summary>{name}</summary>{escape(file.text)}</details>'
