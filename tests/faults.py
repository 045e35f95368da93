"""A server of the OpenAI protocol on loopback that misbehaves: the first part of the path names the fault.

`http://127.0.0.1:PORT/stall/v1` stalls, `/429/v1` answers every request with that status, and so on; FAULTS lists all.
It speaks raw sockets, because most faults are below what an HTTP library would send.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self

MODELS = ("good-model", "good-model-large", "other")
PATIENCE = 20.0
"""Seconds after which a fault that waits for its client gives up, so that no test hangs."""


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    fault: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Talk:
    """One connection, from the server's side."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(PATIENCE)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Whether the client has left within the time."""
        self._connection.settimeout(seconds)
        try:
            return not self._connection.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def request(self) -> Request | None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (block := self._connection.recv(65536)):
                return None
            received += block
        head, body = received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._connection.recv(65536)
        return Request(path.strip("/").split("/")[0], method, path, headers, json.loads(body) if body else None)


def event(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream; `delta` may be a text."""
    delta = {"content": delta} if isinstance(delta, str) else delta
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return data(body)


def data(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


HEL, LO = event("Hel"), event("lo")
FIN = event({}, "stop")
USAGE = event({}, "stop", choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})
DONE = b"data: [DONE]\n\n"
GOOD = HEL + LO + FIN + USAGE + DONE

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
END = b"0\r\n\r\n"


def chunk(part: bytes) -> bytes:
    return f"{len(part):x}\r\n".encode() + part + b"\r\n"


def streamed(*parts: bytes) -> bytes:
    """A whole response in chunks."""
    return STREAM + b"".join(chunk(part) for part in parts) + END


def reply(status: int, body: Any = None, *headers: str, kind: str = "application/json") -> bytes:
    """A whole response that is no stream."""
    if body is None:
        body = {"error": {"message": f"fault {status}", "type": "fault", "code": None}}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"Content-Type: {kind}", f"Content-Length: {len(raw)}", "Connection: close", *headers]
    return f"HTTP/1.1 {status} X\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def error(message: str, code: str | None = None, kind: str = "fault", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": kind, **more}}


def in_three_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)


def _stall(talk: Talk) -> None:
    talk.send(STREAM + chunk(HEL) + chunk(LO))
    talk.wait()


def _stall_before_text(talk: Talk) -> None:
    talk.send(STREAM + chunk(event({"role": "assistant"})))
    talk.wait()


def _finish_then_stall(talk: Talk) -> None:
    talk.send(STREAM + chunk(HEL) + chunk(FIN))
    talk.wait()


def _pings(talk: Talk, first: bytes = b"") -> None:
    talk.send(STREAM + (chunk(first) if first else b""))
    while not talk.wait(0.05):
        talk.send(chunk(b": ping\n\n"))


def _slow_head(talk: Talk) -> None:
    for byte in reply(200, {}).partition(b"\r\n\r\n")[0]:
        if talk.wait(0.2):
            return
        talk.send(bytes([byte]))


def _endless(talk: Talk) -> None:
    talk.send(STREAM)
    piece = chunk(event("word " * 1000))
    while True:
        talk.send(piece)


def _one_line_without_end(talk: Talk) -> None:
    talk.send(STREAM + chunk(b"data: "))
    for _ in range(64):
        talk.send(chunk(b"A" * (1 << 20)))
    talk.send(END)


def _reset_in_the_middle(talk: Talk) -> None:
    talk.send(STREAM + chunk(HEL) + chunk(LO))
    talk.wait(0.2)  # or the reset would overtake the text
    talk.reset()


EMOJI = event("né€😀")
SPLIT = [EMOJI[i : i + 1] for i in range(len(EMOJI))]
RAW_EMOJI = 'data: {"choices":[{"index":0,"delta":{"content":"né€😀"},"finish_reason":null}]}\n\n'.encode()
BAD_UTF8 = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\x80"},"finish_reason":null}]}\n\n'
HTML = b"<html><script>alert(1)</script><b>Bad</b> Gateway</html>"

FAULTS: dict[str, bytes | Callable[[Talk], None]] = {
    # none
    "good": streamed(HEL, LO, FIN, USAGE, DONE),
    "no-usage": streamed(HEL, LO, FIN, DONE),
    "reasoning": streamed(event({"reasoning_content": "Hm. "}), event({"reasoning": "So."}), LO, FIN, DONE),
    "refusal": streamed(event({"refusal": "I will not."}), FIN, DONE),
    "cached": streamed(
        LO,
        FIN,
        data(
            {
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}},
            }
        ),
        DONE,
    ),
    "whole": reply(200, {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}),
    # statuses
    **{str(status): reply(status) for status in (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)},
    "429-seconds": reply(429, None, "Retry-After: 1"),
    "429-long": reply(429, None, "Retry-After: 3600"),
    "429-negative": reply(429, None, "Retry-After: -5"),
    "429-date": lambda talk: talk.send(reply(429, None, f"Retry-After: {in_three_seconds()}")),
    "quota": reply(429, error("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
    "402": reply(402, {"error": "You have exceeded your monthly included credits"}),
    "context": reply(400, error("This model's maximum context length is 8 tokens.", "context_length_exceeded")),
    "context-llama": reply(
        400, error("the request exceeds the available context size", None, "exceed_context_size_error")
    ),
    "loading": reply(503, {"error": "Model x is currently loading", "estimated_time": 20.5}),
    "gated": reply(403, {"error": "Access to model x is restricted"}, "X-Error-Code: GatedRepo"),
    "html-502": reply(502, HTML, kind="text/html"),
    "redirect": reply(302, b"", "Location: http://127.0.0.1:9/secret"),
    "redirect-307": reply(307, b"", "Location: http://127.0.0.1:9/secret"),
    # no stream
    "html-200": reply(200, b"<html>please log in</html>", kind="text/html"),
    "empty": reply(200, b"", kind="text/event-stream"),
    "plain": reply(200, b"hello, I am no chat server", kind="text/plain"),
    "json-error": reply(200, error("out of cheese")),
    "no-answer": Talk.wait,
    "slow-head": _slow_head,
    "reset": Talk.reset,
    "hang-up": lambda talk: None,
    # streams that break
    "stall": _stall,
    "stall-before-text": _stall_before_text,
    "finish-then-stall": _finish_then_stall,
    "pings": _pings,
    "pings-after-text": lambda talk: _pings(talk, HEL),
    "drop": STREAM + chunk(HEL) + chunk(LO),
    "drop-in-chunk": STREAM + chunk(HEL) + chunk(LO)[:20],
    "drop-before-text": STREAM,
    "reset-in-the-middle": _reset_in_the_middle,
    "end-without-finish": streamed(HEL, LO),
    "done-without-finish": streamed(HEL, LO, DONE),
    "done-at-once": streamed(DONE),
    "cut-json": streamed(HEL, LO[:40]),
    "bad-json": streamed(HEL, b"data: {not json\n\n", FIN, DONE),
    "no-object": streamed(HEL, b"data: [1, 2]\n\n", FIN, DONE),
    "deep-json": streamed(HEL, b"data: " + b"[" * 100_000 + b"\n\n", DONE),
    "error-object": streamed(HEL, data(error("overloaded mid stream", None, "server_error")), DONE),
    "error-event": streamed(HEL, b'event: error\ndata: {"message":"boom"}\n\n', DONE),
    "error-string": streamed(HEL, data({"error": "plain string"}), DONE),
    "error-code": streamed(data({"error": {"message": "slow down", "code": 429}}), DONE),
    "content-filter": streamed(event("par"), event({}, "content_filter"), DONE),
    "length": streamed(event("par"), event({}, "length"), DONE),
    "thinking-only": streamed(event({"reasoning_content": "Hm."}), event({}, "length"), DONE),
    # odd streams
    "huge": streamed(event("A" * (2 << 20)), FIN, DONE),
    "one-line-without-end": _one_line_without_end,
    "endless": _endless,
    "bad-utf8": streamed(BAD_UTF8, FIN, DONE),
    "split-escapes": streamed(*SPLIT, FIN, DONE),
    "split-utf8": streamed(*(RAW_EMOJI[i : i + 1] for i in range(len(RAW_EMOJI))), FIN, DONE),
    "no-choices": streamed(data({"hello": 1}), data({"choices": "x"}), HEL, LO, FIN, DONE),
    "empty-choices": streamed(event("", choices=[]), HEL, LO, FIN, DONE),
    "null-delta": streamed(event(None), HEL, LO, FIN, DONE),
    "null-delta-only": streamed(event(None), event(None)),
    "strange-types": streamed(event({"content": 5}), data({"choices": [7], "usage": 3}), HEL, LO, FIN, DONE),
    "parts": streamed(event({"content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}), FIN, DONE),
    "comments": streamed(b": keep-alive\n\n" * 5, HEL, b": keep-alive\n\n", LO, FIN, DONE),
    "crlf": streamed(GOOD.replace(b"\n", b"\r\n")),
    "split-crlf": streamed(*(bytes([b]) for b in GOOD.replace(b"\n", b"\r\n"))),
    "cr": streamed(GOOD.replace(b"\n", b"\r")),
    "bom": streamed(b"\xef\xbb\xbf" + GOOD),
    "no-space": streamed(GOOD.replace(b"data: ", b"data:")),
    "two-lines": streamed(HEL.replace(b'"object"', b'\ndata: "object"'), LO, FIN, DONE),
    "no-last-line": streamed(HEL + LO + FIN.rstrip()),
    "control": streamed(event("a\x00b\x1b[31m\ud800c\x07"), FIN, DONE),
}


class FaultServer:
    """The server; a context manager."""

    def __enter__(self) -> Self:
        self.requests: list[Request] = []
        self._changed = threading.Condition()  # between the threads of the connections and the test
        self._open = 0
        self._once: dict[str, list[bytes]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="faults", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, fault: str = "good") -> str:
        return f"http://127.0.0.1:{self.port}/{fault}/v1"

    def asked(self, fault: str) -> list[Request]:
        """The questions for that fault; lists of models are not counted."""
        return [r for r in self.requests if r.fault == fault and r.method == "POST"]

    def once(self, fault: str, *responses: bytes) -> None:
        """Answer the next questions for `fault` with these first."""
        self._once.setdefault(fault, []).extend(responses)

    def idle(self, timeout: float = 3.0) -> bool:
        """Whether every client has left within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout)

    def reached(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Whether so many requests have come in within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, timeout)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._count(1)
            threading.Thread(target=self._serve, args=(connection,), name="fault", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                talk = Talk(connection)
                if request := talk.request():
                    self._note(request)
                    self._answer(talk, request)
        except OSError:
            pass  # the client left first
        finally:
            self._count(-1)

    def _answer(self, talk: Talk, request: Request) -> None:
        waiting = self._once.get(request.fault, [])
        if request.method == "GET":
            talk.send(reply(200, {"object": "list", "data": [{"id": name} for name in MODELS]}))
        elif waiting:
            talk.send(waiting.pop(0))
        elif isinstance(fault := FAULTS[request.fault], bytes):
            talk.send(fault)
        else:
            fault(talk)

    def _note(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def _count(self, by: int) -> None:
        with self._changed:
            self._open += by
            self._changed.notify_all()
