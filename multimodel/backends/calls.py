"""The calls of one answer, put together from the pieces in which services of OpenAI's protocol send them."""

from __future__ import annotations

import json
from typing import Any

from ..tools import MOST
from ..types import ToolCall


class Calls:
    """The fold of the `tool_calls` of all deltas. Its length is the characters so far.

    >>> calls = Calls()
    >>> _ = calls.told([{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}])
    >>> calls.told([{"index": 0, "function": {"arguments": ": 1}"}}])
    (ToolCall(name='f', arguments='{"x": 1}', id='a'),)
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def told(self, pieces: object) -> tuple[ToolCall, ...]:
        """All calls after these pieces; () where they say nothing."""
        rows = [piece for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
        for row in rows:
            self._add(row)
        if not rows:
            return ()
        return tuple(
            ToolCall(call["name"], call["arguments"], call["id"] or f"call_{at}")
            for at, call in enumerate(self._calls, 1)
        )

    def _add(self, row: dict[str, Any]) -> None:
        function = row.get("function")
        function = function if isinstance(function, dict) else {}
        id, name, arguments = _text(row.get("id")), _text(function.get("name")), function.get("arguments")
        call = self._place(row.get("index"), id, name)
        if call is None:
            return
        piece = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
        call["id"] = call["id"] or id
        call["name"] = call["name"] or name
        call["arguments"] += piece
        self._length += len(piece) + 1

    def _place(self, index: object, id: str, name: str) -> dict[str, str] | None:
        """The call that a piece belongs to, perhaps a new one; some services number none, or all of them 0."""
        at = index if isinstance(index, int) and 0 <= index < MOST else None
        if at is not None and at < len(self._calls) and id in ("", self._calls[at]["id"]):
            return self._calls[at]
        if id and (known := next((call for call in self._calls if call["id"] == id), None)):
            return known
        if not (id or name) and self._calls:
            return self._calls[-1]
        if len(self._calls) >= MOST:
            return None
        self._calls.append({"id": "", "name": "", "arguments": ""})
        return self._calls[-1]


def _text(value: object) -> str:
    """A field that is a short text."""
    return value[:200] if isinstance(value, str) else ""
