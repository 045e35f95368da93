"""What the lines that a page follows show of one column, as assets/board.js puts them together."""

from __future__ import annotations

from typing import Any


class Screen:
    """The newest answer of a column."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.ended = False  # whether a line has said that nothing is answered any more
        self._key = ""
        self._turn = ""  # its HTML once it has ended
        self._blocks: list[str] = []
        self._tail = ""

    @property
    def html(self) -> str:
        """What is to be seen of the answer."""
        return self._turn or "".join([*self._blocks, self._tail])

    def take(self, line: dict[str, Any]) -> str:
        """The same after one more line."""
        if view := line.get("view"):
            column = view["columns"][self.index]
            self._key, self._blocks, self._tail = column["key"], [], ""
            self._turn = "" if column["live"] else "".join(column["turns"][-1:])
            self._news(column["live"] or {})
        self._news(line.get("columns", {}).get(self._key, {}))
        self.ended = self.ended or "end" in line
        return self.html

    def _news(self, news: dict[str, Any]) -> None:
        if "turn" in news:
            self._turn = news["turn"]
        if "blocks" in news:
            self._blocks[news["keep"] :] = news["blocks"]
        self._tail = news.get("tail", self._tail)
