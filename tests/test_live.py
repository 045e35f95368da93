"""The stream of a board: the lines that a page is sent, folded as the page folds them, are the board."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.settings import ChatSettings, Settings
from multimodel.types import ModelId, Snapshot, Timing, Usage
from tabs.live import KEEP_ALIVE, LARGEST, PATH, asked, follow, live_route
from tabs.markdown import render
from tabs.view import board_head, board_view

ANY, SLOW = ModelId("echo", "any"), ModelId("echo", "slow")
WAITING = Snapshot(ANY, "", Timing(0.0))


def said(text: str, **more: Any) -> Snapshot:
    return replace(Snapshot(ANY, text, Timing(0.0, 0.25, 1.25), Usage(7, 101)), **more)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(Settings(chat=ChatSettings(columns=("echo:any", "echo:slow")))) as engine:
        yield engine


class Page:
    """What a page makes of the lines, as assets/board.js does."""

    def __init__(self, view: dict[str, Any] | None = None) -> None:
        self.view: dict[str, Any] = {}
        self.live: dict[str, dict[str, Any]] = {}
        self.problem: str | None = None
        if view:
            self.take({"view": view})

    def take(self, line: dict[str, Any]) -> Page:
        if view := line.get("view"):
            self.view, self.live = json.loads(json.dumps(view)), {}
            for column in self.view["columns"]:
                if column["live"]:
                    self._news(column["key"], column["live"])
        for key, news in line.get("columns", {}).items():
            column = next(column for column in self.view["columns"] if column["key"] == key)
            if "turn" in news:
                column["turns"][news["at"] :] = [news["turn"]]
                column |= {name: value for name, value in news.items() if name not in ("at", "turn")}
                self.live.pop(key, None)
            else:
                self._news(key, news)
        self.view |= line.get("board", {})
        if end := line.get("end"):
            self.view |= end
            self.problem = end["problem"]
        return self

    def _news(self, key: str, news: dict[str, Any]) -> None:
        if "asked" in news:
            self.live[key] = {"blocks": [], "thoughts": ""}
        live = self.live[key]
        live |= {name: news[name] for name in ("asked", "wait", "foot", "tail") if name in news}
        if "thoughts" in news:
            more, text = news["thoughts"]
            live["thoughts"] = live["thoughts"] * more + text
        if "blocks" in news:
            assert news["keep"] in (0, len(live["blocks"]))
            live["blocks"] = live["blocks"][: news["keep"]] + news["blocks"]

    def text(self, at: int = 0) -> str:
        """The HTML of the running answer of a column; "" where there is none."""
        live = self.live.get(self.view["columns"][at]["key"])
        return "".join([*live["blocks"], live["tail"]]) if live else ""

    def shown(self) -> dict[str, Any]:
        """What is to be seen, once nothing is on its way."""
        return {column["key"]: column["turns"] for column in self.view["columns"]}

    def whole(self) -> dict[str, Any]:
        """The view, as one would be sent that is asked for now."""
        columns = [column | {"live": None} for column in self.view["columns"]]
        return json.loads(json.dumps(self.view | {"columns": columns, "partial": False}))  # type: ignore[no-any-return]


def lines_of(board: Board, per_second: float = 15.0, **shown: Any) -> list[dict[str, Any]]:
    async def all_lines() -> list[dict[str, Any]]:
        return [line async for line in follow(board, per_second, **shown)]

    return asyncio.run(all_lines())


def say(engine: Engine, *texts: str, pause: float = 0.02, **more: Any) -> None:
    """Let every model say these, one after the other."""

    def speaking(*_: Any) -> Generator[Snapshot]:
        for text in texts:
            yield said(text, **more)
            time.sleep(pause)
        yield said(texts[-1], **more | {"finish_reason": "stop"})

    engine.ask = speaking  # type: ignore[assignment, method-assign]


def test_an_idle_board_is_shown_once(engine: Engine) -> None:
    board = Board(engine, [ANY])
    first, end = lines_of(board)
    assert first["view"]["running"] == 0
    assert first["view"]["empty"]
    assert end["end"] == board_head(board, board.columns())
    known = lines_of(board, revision=board.revision)
    assert [list(line) for line in known] == [["board"], ["end"]]  # a page that knows it is told no more


def test_the_first_text_comes_at_once(engine: Engine) -> None:
    """However rare the updates are: here the first word is gone again, into the whole answer, before a second one."""
    seen = Event()

    def speaking(*_: Any) -> Generator[Snapshot]:
        yield said("one")
        seen.wait(8.0)
        yield said("one two three", finish_reason="stop")

    engine.ask = speaking  # type: ignore[assignment, method-assign]
    board = Board(engine, [ANY])
    board.send("hello")

    async def first_text() -> str:
        page = Page()
        async for line in follow(board, per_second=1 / 20):
            if text := page.take(line).text():
                return text
        return ""

    assert asyncio.run(first_text()) == "<p>one</p>\n"
    seen.set()


TEXT = "# One\n\nTwo *three*\nfour\n\n- five\n- six\n\n```python\nx = 1\n\ny = 2\n```\n\n| a |\n|---|\n| 7 |\n\nEight."


def test_what_is_shown_is_at_any_time_what_the_whole_text_would_be(engine: Engine) -> None:
    texts = [TEXT[:end] for end in range(1, len(TEXT) + 1, 3)]
    say(engine, *texts, TEXT, pause=0.005)
    board = Board(engine, [ANY])
    board.send("hello")
    page, seen = Page(), set()
    for line in lines_of(board, per_second=1000):
        if text := page.take(line).text():
            seen.add(text)
    assert seen <= {render(text) for text in [*texts, TEXT]}
    assert len(seen) >= 3
    assert f'<div class="mm-md">{render(TEXT)}</div>' in page.view["columns"][0]["turns"][0]
    assert page.whole() == Page(board_view(board)).whole()


def test_finished_blocks_are_sent_once(engine: Engine) -> None:
    texts = ["\n\n".join(f"Paragraph {number}." for number in range(count)) for count in range(1, 60)]
    say(engine, *texts, pause=0.01)
    board = Board(engine, [ANY])
    board.send("hello")
    (key,) = (column.key for column in board.columns())
    lines = lines_of(board, per_second=1000)
    blocks = [html for line in lines for html in line.get("columns", {}).get(key, {}).get("blocks", ())]
    assert len("".join(blocks)) <= len(render(texts[-1]))
    tails = [line["columns"][key].get("tail", "") for line in lines[2:-2] if key in line.get("columns", {})]
    assert len(tails) > 5
    assert max(map(len, tails)) < 100


@pytest.mark.parametrize(("words", "first"), [(1000, True), (10, False)])
def test_the_end_of_a_long_answer_is_shown_before_all_of_it_is_put_in_its_place(
    engine: Engine, words: int, first: bool
) -> None:
    text = "\n\n".join(f"Paragraph {number}." for number in range(words))
    say(engine, text[: len(text) // 2], text, pause=0.05)
    board = Board(engine, [ANY])
    board.send("hello")
    page, shown = Page(), []
    for line in lines_of(board, per_second=4):  # the end comes while the page is not to be told yet
        shown.append(page.take(line).text())
    assert (render(text) in shown) is first
    assert f'<div class="mm-md">{render(text)}</div>' in page.view["columns"][0]["turns"][0]
    assert not page.view["running"]


def test_a_page_opened_in_the_middle_is_shown_the_same(engine: Engine) -> None:
    texts = [" ".join(["word"] * count) + "\n\nEnd" for count in range(1, 40)]
    say(engine, *texts, reasoning="thinking")
    board = Board(engine, [ANY, ANY])
    board.send("hello")
    view = board_view(board)
    running = [column["key"] for column in view["columns"]]
    pages = {"first": Page(view), "second": Page()}

    async def watch(name: str, after: float, **shown: Any) -> None:
        await asyncio.sleep(after)
        async for line in follow(board, 20.0, **shown):
            pages[name].take(line)

    async def both() -> None:
        await asyncio.gather(watch("first", 0.0, revision=view["revision"], running=running), watch("second", 0.3))

    asyncio.run(both())
    assert pages["first"].whole() == pages["second"].whole() == Page(board_view(board)).whole()
    assert all("<p>End</p>" in turns[0] for turns in pages["first"].shown().values())


def test_an_answer_that_ended_before_the_page_followed_is_told(engine: Engine) -> None:
    board = Board(engine, [ANY])
    board.send("hello")
    page = Page(board_view(board))
    (key,) = page.shown()
    while board.active():
        time.sleep(0.01)
    for line in lines_of(board, revision=board.revision, running=[key]):
        page.take(line)
    assert page.whole() == Page(board_view(board)).whole()
    assert not page.live


def test_what_another_page_changes_is_told_in_the_middle(engine: Engine) -> None:
    board = Board(engine, [SLOW, SLOW])
    board.send("one two three four five six seven eight")
    page = Page()

    async def read() -> None:
        async for line in follow(board, 15.0):
            page.take(line)
            keys = list(page.shown())
            if len(keys) == 2 and page.text(1).count(" ") > 1:
                board.remove(keys[0])
                board.add(ANY)

    asyncio.run(read())
    assert len(page.shown()) == 2
    assert page.whole() == Page(board_view(board)).whole()
    assert page.view["revision"] == board.revision


def test_a_prompt_that_waited_is_followed_too(engine: Engine) -> None:
    board = Board(engine, [SLOW])
    board.send("one two three")
    page = Page(board_view(board))
    board.send("four five six")
    lines = lines_of(board, revision=board.revision, running=list(page.shown()))
    for line in lines:
        page.take(line)
    assert any(line.get("board", {}).get("waiting") for line in lines)
    assert page.whole() == Page(board_view(board)).whole()
    assert [len(turns) for turns in page.shown().values()] == [2]


def test_thoughts_are_sent_on_as_they_grow(engine: Engine) -> None:
    def thinking(*_: Any) -> Generator[Snapshot]:
        for end in range(1, 20):
            yield said("", reasoning="thought \U0001f600 " * end)
            time.sleep(0.02)
        yield said("done", reasoning="thought \U0001f600 " * 19, finish_reason="stop")

    engine.ask = thinking  # type: ignore[assignment, method-assign]
    board = Board(engine, [ANY])
    board.send("hello")
    page, sent, seen = Page(), 0, ""
    for line in lines_of(board, per_second=1000):
        page.take(line)
        for news in line.get("columns", {}).values():
            sent += len(news.get("thoughts", ["", ""])[1])
        seen = max([seen, *(live["thoughts"] for live in page.live.values())], key=len)
    assert seen.startswith("thought \U0001f600 thought")
    assert sent <= len("thought \U0001f600 " * 19)


def test_the_end_says_when_nothing_is_kept() -> None:
    with Engine() as engine:
        board = Boards(engine).get(None)
        board.send("one")
        assert lines_of(board)[-1]["end"]["problem"] == ""
        connection = engine.store._connection
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        board.send("x" * 100_000)
        page = Page()
        for line in lines_of(board):
            page.take(line)
        assert "the disk is full. Make room" in (page.problem or "")
        assert all(len(turns) == 2 for turns in page.shown().values())
        connection.execute("PRAGMA max_page_count = 1000000")
        board.send("two")
        assert lines_of(board)[-1]["end"]["problem"] == ""


def test_a_quiet_stream_beats_all_the_same(engine: Engine) -> None:
    """Or the page would not know that it is alive."""

    def silent(*_: Any) -> Generator[Snapshot]:
        for _ in range(int(KEEP_ALIVE / 0.25) * 3):
            time.sleep(0.25)
            yield WAITING
        yield said("one", finish_reason="stop")

    engine.ask = silent  # type: ignore[assignment, method-assign]
    board = Board(engine, [ANY])
    board.send("hello")
    assert len(lines_of(board)) >= 4


def test_a_stream_that_is_closed_watches_no_more(engine: Engine) -> None:
    watched: list[str] = []

    class Watched(Board):
        def watch(self, listener: Any) -> Any:
            watched.append("watch")
            end = super().watch(listener)
            return lambda: (watched.append("unwatch"), end())[1]

    board = Watched(engine, [SLOW])
    board.send("one two three four five six")

    async def leave() -> None:
        stream = follow(board, 15.0)
        assert isinstance(stream, AsyncGenerator)
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert watched[-1] == "unwatch" and watched.count("watch") == watched.count("unwatch")
    assert board.active()
    board.stop()
    page = Page()
    for line in lines_of(board):
        page.take(line)
    assert "Stopped." in page.view["columns"][0]["turns"][0]


# over HTTP


def post(boards: Boards, body: bytes) -> httpx.Response:
    async def answer() -> httpx.Response:
        app = Starlette(routes=[live_route(boards, 15.0)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(PATH, content=body)

    return asyncio.run(answer())


def test_the_stream_is_lines_of_json(engine: Engine) -> None:
    boards = Boards(engine)
    board = boards.get(None)
    board.send("one\u2028\ud800 two")
    reply = post(boards, json.dumps({"address": board.id, "revision": None, "running": []}).encode())
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    page = Page()
    for line in reply.text.strip("\n").split("\n"):
        page.take(json.loads(line))
    assert page.problem == ""
    assert all("one" in turns[0] for turns in page.shown().values())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"address": 1, "running": []}', 400),
        (b'{"address": "x", "revision": "much", "running": []}', 400),
        (b'{"address": "x", "revision": [], "running": []}', 400),
        (b'{"address": "x", "revision": 1}', 400),
        (b'{"address": "x", "revision": 1e999, "running": []}', 400),
        (b"[" * LARGEST, 400),
        (b" " * (LARGEST + 1), 400),
        (b'{"address": "nobody", "revision": null, "running": []}', 404),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(engine: Engine, body: bytes, status: int) -> None:
    reply = post(Boards(engine), body)
    assert reply.status_code == status
    assert reply.text.endswith(".")


def test_a_request_is_read() -> None:
    assert asked(b'{"address": "a", "revision": null, "running": ["k"]}').revision is None
