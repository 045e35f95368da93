"""What a screen reader says of answers: once for each, when it has ended. Pure."""

from __future__ import annotations

from multimodel.blind import HIDDEN
from multimodel.board import Column

from .format import called

ENDED = {
    "stopped": "was stopped",
    "interrupted": "was interrupted",
    "incomplete": "may be cut",
    "length": "reached the length limit",
    "content_filter": "was ended by a content filter",
}
"""By finish reason; all others have answered."""


def told(column: Column) -> str:
    """How the last answer of a column ended, in a few words; empty while it is being made, or where there is none."""
    if column.live or not column.turns:
        return ""
    answer, model = column.turns[-1].answer, column.model
    name = model.name if model.backend == HIDDEN else called(model)
    if answer.error:
        return f"{name} failed: {answer.error}"
    tokens = f", {answer.usage.output_tokens} tokens" if answer.usage else ""
    return f"{name} {ENDED.get(answer.finish_reason or '', 'answered')}{tokens}"
