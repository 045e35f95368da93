"""Fifty people at once: what they cost the server while answers stream to all of them, and what they leave behind.

Each opens the page, asks two columns that say ten words a second each, and follows the answers to their end, as a
browser does it; then all ask again and leave in the middle.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from . import report
from .bare import cpu, environment
from .report import Report, Table
from .startup import HELLO, free_port, running

PEOPLE = 50
WORDS = 100  # of an answer: ten seconds
COLUMNS = ("echo:slow", "echo:slow")
PATIENCE = httpx.Timeout(60.0)


@dataclass(frozen=True)
class Handlers:
    """The numbers under which Gradio knows what a page calls."""

    load: int
    send: int


@dataclass
class Seen:
    """What one person saw."""

    updates: int = 0
    whole: bool = False  # every column showed the whole answer in the end


class Person:
    """A page without a browser."""

    def __init__(self, web: httpx.AsyncClient, handlers: Handlers, name: str) -> None:
        self._web = web
        self._handlers = handlers
        self._session = name
        self._id = ""
        self._beat: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the page; its heartbeat goes on until `leave`."""
        (await self._web.get("/")).raise_for_status()
        self._beat = asyncio.create_task(self._listen())
        self._id = (await self._call(self._handlers.load, None))[0]

    async def ask(self, prompt: str) -> dict[str, Any]:
        """Send a prompt; the view of the board."""
        view: dict[str, Any] = (await self._call(self._handlers.send, prompt, self._id, None))[1]
        return view

    async def follow(self, view: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """What the page is told until all have answered."""
        keys = [column["key"] for column in view["columns"] if column["running"]]
        body = {"address": view["address"], "revision": view["revision"], "running": keys}
        async with self._web.stream("POST", "/chat/live", content=json.dumps(body)) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                yield json.loads(line)

    async def leave(self) -> None:
        """Close the page."""
        if self._beat:
            self._beat.cancel()
            with suppress(asyncio.CancelledError):
                await self._beat

    async def _call(self, number: int, *data: object) -> list[Any]:
        body = {"data": data, "fn_index": number, "session_hash": self._session, "event_data": None, "trigger_id": 0}
        reply = (await self._web.post("/gradio_api/run/predict", json=body)).raise_for_status()
        found: list[Any] = reply.json()["data"]
        return found

    async def _listen(self) -> None:
        async with self._web.stream("GET", f"/gradio_api/heartbeat/{self._session}", timeout=None) as reply:
            async for _ in reply.aiter_bytes():
                pass


async def handlers(web: httpx.AsyncClient) -> Handlers:
    """Look the numbers up as a page does."""
    events = (await web.get("/config")).raise_for_status().json()["dependencies"]
    found = {word: [e["id"] for e in events if word in str(e.get("js"))] for word in ("mmAddress", "mmSend")}
    return Handlers(found["mmAddress"][0], found["mmSend"][0])


async def talk(person: Person, prompt: str) -> Seen:
    """One question, followed to the end of its answers."""
    seen, whole = Seen(), 0
    async for line in person.follow(await person.ask(prompt)):
        news = line.get("columns", {})
        seen.updates += bool(news)
        whole += sum(prompt in change.get("turn", "") for change in news.values())
    seen.whole = whole == len(COLUMNS)
    return seen


async def walk_out(person: Person, prompt: str) -> None:
    """One question, and away in the middle of the answers."""
    async for line in person.follow(await person.ask(prompt)):
        if any(change.get("tail") for change in line.get("columns", {}).values()):
            return


@dataclass(frozen=True)
class Day:
    """What fifty people cost."""

    seen: list[Seen]
    seconds: float
    used: float  # seconds of the server's processor
    idle: float  # of a core, before anybody came
    open: float  # of a core, with all pages open and nothing asked
    after: float  # of a core, once all have left in the middle and the answers have ended
    memory: tuple[int, int]  # bytes of the server, before anybody came and in the end
    connections: int  # that are open in the end


async def day(url: str, server: psutil.Process, people: int, words: int) -> Day:
    """All of it."""
    prompt = " ".join(f"word{number}" for number in range(words))
    limits = httpx.Limits(max_connections=None)
    idle, memory = await share(server), server.memory_info().rss
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits, trust_env=False) as web:
        numbers = await handlers(web)
        guests = [Person(web, numbers, f"person{i}") for i in range(people)]
        for guest in guests:
            await guest.open()
        opened = await share(server)
        began, before = time.perf_counter(), cpu(server)
        seen = await asyncio.gather(*(talk(guest, prompt) for guest in guests))
        seconds, used = time.perf_counter() - began, cpu(server) - before
        await asyncio.gather(*(walk_out(guest, prompt) for guest in guests))
        await asyncio.gather(*(guest.leave() for guest in guests))
    await asyncio.sleep(words / 10 + 5)
    after = await share(server)
    left = sum(c.status == psutil.CONN_ESTABLISHED for c in server.net_connections("tcp"))
    return Day(seen, seconds, used, idle, opened, after, (memory, server.memory_info().rss), left)


async def share(server: psutil.Process, seconds: float = 5.0) -> float:
    """Of a core that a process uses."""
    began, before = time.perf_counter(), cpu(server)
    await asyncio.sleep(seconds)
    return (cpu(server) - before) / (time.perf_counter() - began)


def hello() -> float:
    """Of a core that Gradio's own hello world uses when nobody is there."""
    with tempfile.TemporaryDirectory() as folder:
        script, port = Path(folder) / "hello.py", free_port()
        script.write_text(HELLO)
        with running([str(script), str(port)], port) as process:
            time.sleep(1.0)
            return asyncio.run(share(psutil.Process(process.pid)))


def measure(people: int, words: int) -> Report:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        variables = environment() | {"MULTIMODEL_COLUMNS": json.dumps(COLUMNS), "MULTIMODEL_DATA_DIR": folder}
        with running(["app.py", "--no-browser", "--port", str(port)], port, env=variables) as process:
            found = asyncio.run(day(f"http://127.0.0.1:{port}", psutil.Process(process.pid), people, words))
    return Report(
        name="people",
        title=f"{people} people at once",
        tables=(Table(("what", "found", "target"), tuple(rows(found, hello()))),),
        notes=(
            f"{len(COLUMNS)} columns each, {words} words at ten a second; the models are built in (echo), and their "
            "work is in the figures. Processor time of the server's process.",
            "Idle and at the end: over 5 seconds. Everybody leaves in the middle of a second answer, and what was "
            "asked is answered to its end.",
        ),
        packages=("gradio", "httpx"),
    )


def rows(found: Day, bare: float) -> list[tuple[str, str, str]]:
    """The figures of a day."""
    updates = sum(seen.updates for seen in found.seen)
    before, after = (size / 1e6 for size in found.memory)
    return [
        ("people who saw every answer whole", f"{sum(s.whole for s in found.seen)} of {len(found.seen)}", "all"),
        ("updates a second and person", f"{updates / found.seconds / len(found.seen):.1f}", ""),
        ("server, ms an update", f"**{1000 * found.used / max(1, updates):.2f}**", "2"),
        ("server, of a core meanwhile", f"{found.used / found.seconds:.0%}", ""),
        ("idle, beyond Gradio's hello world, of a core", f"**{found.idle - bare:.1%}**", "1%"),
        ("idle, all of it", f"{found.idle:.1%}", ""),
        ("with all pages open and nothing asked, of a core", f"{found.open:.1%}", ""),
        ("after all have left in the middle, of a core", f"{found.after:.1%}", ""),
        ("connections left then", str(found.connections), "0"),
        ("memory before and after, MB", f"{before:.0f}, {after:.0f}", ""),
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE, help="how many")
    options = parser.parse_args(argv)
    before = report.load()
    measured = measure(*((3, 10) if options.tiny else (options.people, WORDS)))
    return report.finish(measured, options, before, "one server process")


if __name__ == "__main__":
    sys.exit(main())
