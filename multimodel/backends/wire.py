"""HTTP for remote models: a client that can be hung up from another thread, and the events of its responses."""

from __future__ import annotations

import codecs
import json
import re
import socket
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from ssl import SSLContext
from threading import Lock
from typing import Any

import httpx2

from ..errors import ProtocolFailure
from ..types import Sent
from .service import PLACEHOLDER

Event = dict[str, Any]

EVENT_LIMIT = 1 << 20
"""Bytes of one event; a server that sends more is not streaming a chat."""

CONNECT_TIMEOUT = 10.0
"""Seconds to reach a server. Later waits are bounded by the pump, which hangs up."""

ID_LIMIT = 200  # characters of the name that a service gives a request

HEADERS = re.compile(
    r"(host|accept(-encoding)?|connection|content-(type|length)|user-agent|x-stainless-[a-z-]+)$", re.IGNORECASE
)
"""What a request may carry beside its key; the SDK finds its own way by the last kind."""

_LINE_END = re.compile(r"\r\n|\n|\r")


class ErrorEvent(Exception):
    """A service reports an error in the middle of a stream."""

    def __init__(self, event: Event) -> None:
        super().__init__("an error in the stream")
        self.event = event


class Wire:
    """An HTTP client for one exchange. Redirects are not followed: a key goes nowhere but to its own address.

    With a key, that key and the headers a chat needs are all that is sent: what an SDK reads from the environment for
    its own service (organisation, extra headers) is not for others.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self.client = httpx2.Client(
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT),
            verify=_trusted(),
            headers={"Accept-Encoding": "identity"},  # compressed text comes late, and may be a bomb
            event_hooks={"request": [self._watch], "response": [self._hear]},
        )
        self._asked: httpx2.Request | None = None  # the newest that asked for an answer
        self._request_id = ""
        self._lock = Lock()  # between the thread that reads and the one that hangs up
        self._socket: socket.socket | None = None
        self._over = False

    def hang_up(self) -> None:
        """End the exchange from any thread; a read that blocks in another one ends at once. Safe to call twice."""
        with self._lock:
            self._over = True
            self._shut_down()

    def sent(self) -> Sent:
        """The newest request as it was sent, without its messages; headers, which hold the key, are not in it."""
        if not self._asked:
            return Sent()
        url, body = self._asked.url, json.loads(self._asked.content)
        body.pop("messages", None)
        port = f":{url.port}" if url.port else ""
        address = f"{url.scheme}://{url.host}{port}{url.path}"  # the rest of it may be a secret
        return Sent(address=address, request=json.dumps(body), request_id=self._request_id)

    def _hear(self, response: httpx2.Response) -> None:
        self._request_id = response.headers.get("x-request-id", "")[:ID_LIMIT]

    def _watch(self, request: httpx2.Request) -> None:
        if request.method == "POST":
            self._asked = request
        if self._key is not None:
            for name in [name for name in request.headers if not HEADERS.match(name)]:
                del request.headers[name]
            request.headers["Authorization"] = f"Bearer {self._key or PLACEHOLDER}"
        request.extensions = {**request.extensions, "trace": self._trace}

    def _trace(self, name: str, info: dict[str, Any]) -> None:
        """Keep hold of the socket: closing a client does not wake a thread that waits in `recv`, shutting down does."""
        with self._lock:
            if name.endswith(("connect_tcp.complete", "start_tls.complete")):
                self._socket = info["return_value"].get_extra_info("socket")
                if self._over:
                    self._shut_down()
            elif name.endswith("response_closed.started"):
                self._socket = None  # it ends by itself

    def _shut_down(self) -> None:
        if not self._socket:
            return
        with suppress(OSError):  # a reset, or a server blocked in sending learns of the end only by its slow probes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):  # not connected any more
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@lru_cache(maxsize=1)
def _trusted() -> SSLContext:
    """The certificates to trust: reading them takes longer than connecting, so it is done once."""
    return httpx2.create_ssl_context()


def events(blocks: Iterable[bytes], content_type: str = "text/event-stream") -> Generator[Event]:
    """The JSON objects of a response body, up to its [DONE].

    Raises ErrorEvent where the service reports an error, ProtocolFailure where the body is something else. A server
    that does not stream answers with one JSON object; that is one event.

    >>> list(events([b': hi\\n\\ndata: {"a"', b': 1}\\n\\ndata: [DONE]\\n\\n']))
    [{'a': 1}]
    """
    if "html" in content_type:
        raise ProtocolFailure(
            "A web page came back instead of an answer.",
            hint="Check the address of the server: for most servers it ends in /v1.",
        )
    if "json" in content_type:
        blocks = (f"data: {whole(blocks, EVENT_LIMIT)}\n\n".encode(),)
    for name, data in _fields(_lines(blocks)):
        if data.startswith("[DONE]"):
            return
        event = parsed(data)
        if name == "error" or event.get("error"):
            raise ErrorEvent(event)
        yield event


def _fields(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(name, data) of each server-sent event. One that the end of the body cuts off is left out."""
    name, data, size = "", list[str](), 0
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
            _limited(size := size + len(value) + 1)
        elif not line:
            if text := "\n".join(data).strip():
                yield name, text
            name, data, size = "", [], 0
    if data and _is_whole(text := "\n".join(data).strip()):  # some servers leave out the last empty line
        yield name, text


def _lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a body in UTF-8, whose characters and line ends may be split between blocks."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    line, size = list[str](), 0  # the pieces of one that has not ended; joining them each time would take for ever
    half_end = ""  # what a new block may begin with that is the rest of the last line's end
    for block in blocks:
        if not (text := decoder.decode(block)):
            continue
        first, *more = _LINE_END.split(text.removeprefix(half_end))
        half_end = "\n" if text.endswith("\r") else ""
        line.append(first)
        if more:
            *whole_lines, rest = "".join(line), *more
            yield from whole_lines
            line, size = [rest], 0
        _limited(size := size + len(line[-1]))
    if rest := "".join(line) + decoder.decode(b"", final=True):
        yield rest


def whole(blocks: Iterable[bytes], limit: int) -> str:
    """A body that is no stream. Raises ProtocolFailure above `limit` bytes."""
    body = bytearray()
    for block in blocks:
        body += block
        _limited(len(body), limit)
    return body.decode("utf-8-sig", "replace")


def _limited(size: int, limit: int = EVENT_LIMIT) -> None:
    if size > limit:
        raise ProtocolFailure(
            f"The server sent more than {limit >> 20} MB in one piece.",
            hint="Check its address: this does not look like a chat.",
        )


def parsed(data: str) -> Event:
    """One JSON object. Raises ProtocolFailure for anything else."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise ProtocolFailure("The server sent something that is not JSON.", hint="Try again, or check its address.")
    return event


def _is_whole(data: str) -> bool:
    with suppress(ProtocolFailure):
        return data.startswith("[DONE]") or bool(parsed(data))
    return False
