"""How full the context of each column is while a prompt is written: values that assets/meter.js puts in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from multimodel.board import Column
from multimodel.types import PromptSize

from .format import size_words
from .scripted import scripted

QUIET = 0.5  # of the context, below which a column shows a line and no words


def meters(sizes: Sequence[tuple[Column, PromptSize]]) -> list[dict[str, Any]]:
    """Of each column that can tell: its key, the share of the context in percent, how loud to say it, and words."""
    return [{"key": column.key, **_meter(measured)} for column, measured in sizes]


def _meter(measured: PromptSize) -> dict[str, Any]:
    """The meter of one column.

    >>> _meter(PromptSize(512, 1024))
    {'share': 50, 'level': 'seen', 'words': '512 of 1,024 tokens (50%)'}
    >>> _meter(PromptSize(1210, 1024, dropped=2, estimated=True))["words"]
    'about 1,210 of 1,024 tokens, oldest 2 messages left out'
    """
    share = measured.tokens / max(1, measured.context_length)
    full = measured.dropped > 0 or share >= 1
    level = "full" if full else "seen" if share >= QUIET else "quiet"
    which = "oldest message" if measured.dropped == 1 else f"oldest {measured.dropped} messages"
    then = f", {which} left out" if measured.dropped else ", too long" if full else f" ({share:.0%})"
    return {"share": round(100 * min(1.0, share)), "level": level, "words": size_words(measured) + then}


def meter_widget() -> gr.HTML:
    """What puts the meters in place; it is never seen itself."""
    return scripted("meter", "mm-meters", [], template="<span hidden></span>")
