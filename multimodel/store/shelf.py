"""What a visitor keeps under names, of several kinds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from ..conversation import now

Change = Callable[[sqlite3.Connection], object]
Rows = Callable[[str, Iterable[object]], list[tuple[str, ...]]]


class Shelf:
    """Texts by owner, kind and name. Every method raises StoreError where the file does not take or give them."""

    def __init__(self, change: Callable[[Change], None], rows: Rows) -> None:
        self._change = change
        self._rows = rows

    def items(self, owner: str, kind: str) -> dict[str, str]:
        """The texts of one kind by their names, in the order of the alphabet."""
        sql = "SELECT name, body FROM shelf WHERE owner = ? AND kind = ? ORDER BY name COLLATE NOCASE"
        return {name: body for name, body in self._rows(sql, (owner, kind))}

    def chosen(self, owner: str, kind: str) -> str:
        """The name of the chosen one; empty where none is."""
        rows = self._rows("SELECT name FROM shelf WHERE owner = ? AND kind = ? AND chosen", (owner, kind))
        return rows[0][0] if rows else ""

    def put(self, owner: str, kind: str, items: dict[str, str]) -> None:
        """Keep these, in the place of those that have the names."""
        sql = (
            "INSERT INTO shelf (owner, kind, name, at, body) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (owner, kind, name) DO UPDATE SET body = excluded.body, at = excluded.at"
        )
        rows = [(owner, kind, name, now(), body) for name, body in items.items()]
        self._change(lambda connection: connection.executemany(sql, rows))

    def rename(self, owner: str, kind: str, name: str, to: str, body: str) -> None:
        """Give one another name and text."""
        sql = "UPDATE shelf SET name = ?, body = ? WHERE owner = ? AND kind = ? AND name = ?"
        self._change(lambda connection: connection.execute(sql, (to, body, owner, kind, name)))

    def remove(self, owner: str, kind: str, name: str) -> None:
        """Take one away."""
        sql = "DELETE FROM shelf WHERE owner = ? AND kind = ? AND name = ?"
        self._change(lambda connection: connection.execute(sql, (owner, kind, name)))

    def choose(self, owner: str, kind: str, name: str) -> None:
        """Let this be the chosen one, or with "" none."""
        sql = "UPDATE shelf SET chosen = (name = ?) WHERE owner = ? AND kind = ?"
        self._change(lambda connection: connection.execute(sql, (name, owner, kind)))
