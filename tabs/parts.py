"""What goes with a prompt or an answer beside its words, as HTML: files, calls of tools, and their results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from multimodel.attachment import Attachment
from multimodel.conversation import Turn
from multimodel.types import Snapshot, ToolCall, ToolResult

from .format import counted, size

PLACE = "attached"
"""Where the server has what was attached: `attached/HASH`, as seen from the page."""


def facts(file: Attachment) -> str:
    """How much a file is, in a line."""
    tokens = f"about {counted(file.tokens, 'token')}" if file.tokens else ""
    return ", ".join(filter(None, [size(file.size), file.detail, tokens]))


def files_html(files: Sequence[Attachment]) -> str:
    """Chips of the files that went with a prompt; each opens what the model was given of it."""
    return f'<div class="mm-files">{"".join(map(_chip, files))}</div>' if files else ""


def _chip(file: Attachment) -> str:
    place, name = f"{PLACE}/{file.hash}", escape(file.name)
    title = escape(" ".join([f"{facts(file)}.", *file.notes, "Open what the model was given."]))
    if file.image:
        picture = f'<img src="{place}" alt="{name}" loading="lazy" />'
        return (
            f'<a class="mm-file mm-file-picture" href="{place}" target="_blank" title="{name}: {title}">{picture}</a>'
        )
    return (
        f'<a class="mm-file" href="{place}" target="_blank" data-name="{name}" title="{title}">'
        f"<b>{name}</b><span>{escape(file.detail)}</span></a>"
    )


def question_html(turn: Turn) -> str:
    """The bubble of what a person asked: the prompt, or the results of calls."""
    if turn.results:
        return f'<div class="mm-prompt mm-results">{"".join(map(_result, turn.results))}</div>'
    return f'<div class="mm-prompt">{escape(turn.prompt)}</div>'


def _result(result: ToolResult) -> str:
    shown = escape(result.content) if result.content else "<em>empty</em>"
    return f'<div class="mm-by">Result of {escape(result.name) or "the call"}</div><pre>{shown}</pre>'


def calls_html(answer: Snapshot, turn: int = 0) -> str:
    """Cards of the calls that an answer asks for, with a place for their results once it is whole.

    The page shows that place only under the last turn of a column. `turn`: its id; 0 while it is on its way.
    """
    if not answer.calls:
        return ""
    ask = bool(turn) and answer.done
    cards = "".join(_card(call, ask) for call in answer.calls)
    words = "Send the result" if len(answer.calls) == 1 else "Send the results"
    button = f'<button type="button" class="mm-primary" data-results="{turn}">{words}</button>' if ask else ""
    return f'<div class="mm-calls">{cards}{button}</div>'


def _card(call: ToolCall, ask: bool) -> str:
    name = escape(call.name) or "no name"
    field = ""
    if ask:
        field = f'<textarea rows="1" aria-label="Result of {name}" placeholder="Type what {name} returns"></textarea>'
    return (
        f'<div class="mm-call"><div class="mm-call-head"><span>Wants to call</span><b>{name}</b></div>'
        f"<pre>{escape(pretty(call.arguments))}</pre>{field}</div>"
    )


def pretty(arguments: str) -> str:
    """JSON with one member a line; what is no JSON, or not whole yet, as it is.

    >>> pretty('{"a":1}'), pretty('{"a":')
    ('{\\n  "a": 1\\n}', '{"a":')
    """
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
