"""A server of the OpenAI protocol on loopback that says numbered words at a rate: `python -m bench.peer`.

The model's name is the rate in tokens a second ("80"). Words of the prompt set the rest: `tokens=200 chars=6 rate=40
wait=0.1`, or `seconds=5` instead of the tokens. Rate 0 says everything at once. `GET /log` tells when each request came
and when each token left, by time.perf_counter(), and forgets it.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from .report import ROOT

WORD = re.compile(r"w(\d+)_")
"""How a reader finds the number of a token in any text or HTML."""
FILLER = "stream of plain words that a model might say about columns and figures "


@dataclass
class Ask:
    """What a request asks of the server."""

    rate: float  # tokens a second
    tokens: int
    chars: int  # of a token, on average
    wait: float  # seconds before the first token


@dataclass
class Entry:
    """One request as the server saw it; times by time.perf_counter()."""

    model: str
    received: float
    sent: list[float] = field(default_factory=list)  # of each token


def asked(body: dict[str, Any]) -> Ask:
    """The wishes of a request.

    >>> asked({"model": "80", "messages": [{"content": "go tokens=5 wait=0.5"}]})
    Ask(rate=80.0, tokens=5, chars=6, wait=0.5)
    """
    wishes = dict(re.findall(r"\b(rate|tokens|seconds|chars|wait)=([\d.]+)", body["messages"][-1]["content"]))
    rate = float(wishes.get("rate", body["model"]))
    tokens = rate * float(wishes["seconds"]) if "seconds" in wishes else float(wishes.get("tokens", 100))
    return Ask(rate, max(2, round(tokens)), int(wishes.get("chars", 6)), float(wishes.get("wait", 0)))


def word(number: int, chars: int) -> str:
    """Token `number` of an answer that reads like Markdown: headings, lists, bold words, a little code.

    >>> word(1, 6), word(2, 12)
    ('w1_    ', 'w2_ ream of ')
    """
    start = {0: "\n\n## ", 20: "\n\n- ", 25: "\n- ", 30: "\n- ", 35: "\n\n", 50: "\n\n```python\n", 58: "\n```\n\n"}
    marked = f"w{number}_ "
    if number % 60 == 5:
        marked = f"**w{number}_** "
    filled = marked + FILLER[2 : 2 + max(0, chars - len(marked))].ljust(max(0, chars - len(marked)))
    return start.get(number % 60, "") * (number > 0) + filled


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _chunk(text: str = "", **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": None} | more
    return _event(
        json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]})
    )


async def answer(body: dict[str, Any], entry: Entry) -> AsyncGenerator[bytes]:
    """The events of one answer, each token at its time however late the one before was."""
    ask = asked(body)
    await asyncio.sleep(ask.wait)
    begun = time.perf_counter()
    for number in range(ask.tokens):
        if ask.rate:
            await asyncio.sleep(max(0.0, begun + number / ask.rate - time.perf_counter()))
        entry.sent.append(time.perf_counter())
        yield _chunk(word(number, ask.chars))
    yield _chunk(finish_reason="stop")
    usage = {"prompt_tokens": 10, "completion_tokens": ask.tokens, "total_tokens": ask.tokens + 10}
    yield _event(json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
    yield _event("[DONE]")


class Server:
    """HTTP by hand: one request a connection, nothing between the token and the socket."""

    def __init__(self) -> None:
        self.log: list[Entry] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith("POST"):
                await self._stream(json.loads(body), writer)
            else:
                self._tell(head, writer)
            await writer.drain()
        writer.close()

    async def _stream(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        entry = Entry(body["model"], time.perf_counter())
        self.log.append(entry)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        async for piece in answer(body, entry):
            writer.write(piece)
            await writer.drain()

    def _tell(self, head: str, writer: asyncio.StreamWriter) -> None:
        if " /log " in head:
            told: Any = [vars(entry) for entry in self.log]
            self.log.clear()
        else:
            told = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("10", "40", "80")]}
        text = json.dumps(told).encode()
        size = f"Content-Length: {len(text)}\r\n".encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n" + size + b"\r\n" + text
        )


@dataclass(frozen=True)
class Peer:
    """The server as its user sees it."""

    url: str

    def log(self) -> list[Entry]:
        """The requests since the last call, in the order they came."""
        with urllib.request.urlopen(f"{self.url}/log", timeout=10) as reply:
            return [Entry(**entry) for entry in json.load(reply)]


@contextmanager
def peer() -> Generator[Peer]:
    """The server in a process of its own."""
    command = [sys.executable, "-m", "bench.peer"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Peer(process.stdout.readline().strip())
        finally:
            process.terminate()


async def _main() -> None:
    server = await asyncio.start_server(Server().handle, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
