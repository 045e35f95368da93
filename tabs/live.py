"""Running answers as a page follows them: lines of JSON over HTTP, each what has changed since the line before.

It goes past Gradio's queue: there every update would be compared as a whole on both sides, and a page that is slower
than the answers would fall behind them. Whoever reads slowly here is told less often, and never anything old.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from multimodel import blind
from multimodel.board import Board, Column
from multimodel.boards import Boards

from .view import Live, board_head, board_view, column_head, column_turn

PATH = "/chat/live"
KEEP_ALIVE = 1.0
"""Seconds after which there is a line even when nothing is new: the page knows by it that the stream is alive."""
LARGEST = 4096  # bytes of a request
LONG = (
    4000  # characters of an answer whose end is shown before all of it is put in its place, which takes the page longer
)


class Follower:
    """What one page knows of a board, and what it must be told next."""

    def __init__(self, board: Board, revision: int | None, running: Iterable[str]) -> None:
        """`revision` and `running`, keys of columns: what the page shows."""
        self._board = board
        self._revision = revision
        self._running = set(running)
        self._lives: dict[str, Live] = {}
        self._head: dict[str, Any] = {}  # what was told beside the columns
        self.behind = False  # whether an answer has ended and only the rest of its text was told

    @property
    def over(self) -> bool:
        """Whether the page shows the end of every answer."""
        return not self._running and not self._outdated

    @property
    def _outdated(self) -> bool:
        return self._revision != self._board.revision

    def news(self) -> dict[str, Any] | None:
        """What is new since it was asked last; None where the page must be sent the whole view."""
        columns = blind.shown(self._board)  # may begin the next answers
        if self._outdated:
            return None
        told = {column.key: self._column(column) for column in columns}
        self._running = set(self._lives)
        self.behind = any(column.key in self._running and not column.live for column in columns)
        news: dict[str, Any] = {"columns": changed} if (changed := {k: n for k, n in told.items() if n}) else {}
        head = board_head(self._board, columns)
        if (head := head | {"running": max(1, head["running"])}) != self._head:  # `end` is what ends it
            self._head = news["board"] = head
        return news

    def _column(self, column: Column) -> dict[str, Any]:
        if column.live:
            return self._lives.setdefault(column.key, Live()).news(column)
        if column.key in self._running and column.turns:
            answer, live = column.turns[-1].answer, self._lives.get(column.key)
            if live and len(answer.text) > LONG and (rest := live.rest(answer.text)):
                return rest
            return self._ended(column, live)
        return {}

    def _ended(self, column: Column, live: Live | None) -> dict[str, Any]:
        if live:
            live.finish(column.turns[-1].answer.text)
            del self._lives[column.key]
        turn = column_turn(self._board, column, column.turns[-1])
        return {"at": len(column.turns) - 1, "turn": turn, **column_head(self._board, column)}

    def view(self) -> dict[str, Any]:
        """The whole board; takes a while where it is long."""
        self._revision, self._lives, self._head = self._board.revision, {}, {}
        view = board_view(self._board, self._lives)
        self._running = set(self._lives)
        return {"view": view}

    def end(self) -> dict[str, Any]:
        """What is beside the columns once nothing is answered any more, of the revision that the page shows."""
        return {"end": board_head(self._board, blind.shown(self._board)) | {"running": 0, "revision": self._revision}}


async def follow(
    board: Board, per_second: float, revision: int | None = None, running: Iterable[str] = ()
) -> AsyncGenerator[dict[str, Any]]:
    """Lines until every answer has ended: {"view": the whole board} where the page shows another revision; what is new,
    "columns" by key (of a running answer, or "turn" and its place "at" now that it has ended) and "board", what is
    beside them; {} where nothing is; and last {"end": what is beside the columns}.

    A column's first text is told at once, everything else at most `per_second` times.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if not changed.is_set():  # waking the loop costs more than a token of a small model
            loop.call_soon_threadsafe(changed.set)

    page, unwatch = Follower(board, revision, running), board.watch(wake)
    try:
        while True:
            changed.clear()
            spoken = board.spoken()
            news = page.news()
            yield await asyncio.to_thread(page.view) if news is None else news
            if page.over:
                break
            await _pause(board, spoken, changed, 1 / per_second)
            await _wait(changed, 0 if page.behind else KEEP_ALIVE)
    finally:
        unwatch()
    await asyncio.to_thread(board.flush)  # what is over is written down, or the page says that it is not
    yield page.end()


async def _pause(board: Board, spoken: frozenset[str], changed: asyncio.Event, pause: float) -> None:
    """Sleep, but not past the first word of a column that was silent. `changed` stays set when anything happened."""
    due, news = time.monotonic() + pause, False
    while (left := due - time.monotonic()) > 0 and board.spoken() <= spoken:
        if board.all_spoken():
            await asyncio.sleep(left)
        else:
            await _wait(changed, left)
            news = news or changed.is_set()
            changed.clear()
    if news:
        changed.set()


async def _wait(changed: asyncio.Event, timeout: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), timeout)


@dataclass(frozen=True)
class Wanted:
    """A request: the address of a board, and what the page shows of it."""

    address: str
    revision: int | None
    running: tuple[str, ...]


def asked(body: bytes) -> Wanted:
    """The request in a body. Raises ValueError where it is none.

    >>> asked(b'{"address": "a.b", "revision": 3, "running": ["k"]}')
    Wanted(address='a.b', revision=3, running=('k',))
    """
    said = json.loads(body)
    if not (isinstance(said, dict) and isinstance(said.get("address"), str) and isinstance(said.get("running"), list)):
        raise ValueError("address, revision and running are wanted")
    revision = said.get("revision")
    return Wanted(said["address"], None if revision is None else int(revision), tuple(map(str, said["running"])))


def live_route(boards: Boards, per_second: float) -> Route:
    """Where a page follows the board whose address it holds. 404 for no address, or that of another's conversation."""

    async def live(request: Request) -> Response:
        try:
            wanted = asked(await _body(request))
        except (ValueError, TypeError, OverflowError, RecursionError):  # numbers beyond all, brackets without end
            return PlainTextResponse("The request must name a board and what is shown of it.", 400)
        board = await asyncio.to_thread(boards.get, wanted.address)
        if board.id != wanted.address:
            return PlainTextResponse("There is no such board any more. Load the page again.", 404)
        lines = _lines(follow(board, per_second, wanted.revision, wanted.running))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # proxies pass each line on at once
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)

    return Route(PATH, live, methods=["POST"])


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise ValueError("too long")
    return body


async def _lines(news: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    async with aclosing(news):
        async for line in news:
            yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
