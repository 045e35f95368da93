"""Large files for httpx2 over the standard library's connections, which take a third of the processor's time.

httpx2 hands a body on in pieces of 64 kB and copies each three times; read here, a piece is all that has arrived.
Redirects, headers, timeouts and errors stay httpx2's, and behind a proxy so does everything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLContext
from threading import Lock
from urllib.request import getproxies

import httpx2

PIECE = 1 << 20  # bytes of a read, at most
Site = tuple[str, str, int | None]


def client() -> httpx2.Client:
    """For large files; to be closed by who asked for it."""
    proxied = bool(getproxies().keys() - {"no"})
    return httpx2.Client(transport=None if proxied else Straight(), follow_redirects=True)


class Straight(httpx2.BaseTransport):
    """Connections that stay open from one request to the next; several threads may ask at once."""

    def __init__(self) -> None:
        self._idle: defaultdict[Site, list[HTTPConnection]] = defaultdict(list)
        self._closed = False
        self._lock = Lock()  # between the threads that ask

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, its body not yet read. Raises httpx2.TransportError."""
        site = (request.url.scheme, request.url.host, request.url.port)
        if site[0] not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"{request.url} is no web address", request=request)
        connection, answer = self._asked(site, request)
        body = _Body(connection, answer, lambda: self._keep(site, connection))
        return httpx2.Response(answer.status, headers=answer.getheaders(), stream=body)

    def close(self) -> None:
        """No connection stays open but those in use."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _asked(self, site: Site, request: httpx2.Request) -> tuple[HTTPConnection, HTTPResponse]:
        """Over a connection that is open, or a new one where the other side has closed those."""
        while True:
            with self._lock:
                kept = self._idle[site].pop() if self._idle[site] else None
            connection = kept or self._connected(site, request)
            try:
                with _own_errors(httpx2.ReadError):
                    connection.request(request.method, request.url.raw_path.decode("ascii"), headers=_headers(request))
                    return connection, connection.getresponse()
            except httpx2.TransportError:
                connection.close()
                if not kept:
                    raise

    def _connected(self, site: Site, request: httpx2.Request) -> HTTPConnection:
        scheme, host, port = site
        port = port or (443 if scheme == "https" else 80)
        seconds = request.extensions["timeout"]["read"]
        if scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=seconds, context=self._trusted)
        else:
            connection = HTTPConnection(host, port, timeout=seconds)
        with _own_errors(httpx2.ConnectError):
            connection.connect()
        return connection

    def _keep(self, site: Site, connection: HTTPConnection) -> None:
        with self._lock:
            if not self._closed:
                return self._idle[site].append(connection)
        connection.close()

    @cached_property
    def _trusted(self) -> SSLContext:
        return httpx2.create_ssl_context()


class _Body(httpx2.SyncByteStream):
    """The body of an answer, in pieces as large as what has arrived."""

    def __init__(self, connection: HTTPConnection, answer: HTTPResponse, keep: Callable[[], None]) -> None:
        self._connection = connection
        self._answer = answer
        self._keep = keep
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        with _own_errors(httpx2.ReadError):
            while piece := self._answer.read1(PIECE):
                yield piece
        if self._answer.length:
            raise httpx2.RemoteProtocolError("the connection was closed early")
        self._whole = True

    def close(self) -> None:
        self._answer.close()
        if self._whole and not self._answer.will_close:
            self._keep()
        else:
            self._connection.close()


def _headers(request: httpx2.Request) -> dict[str, str]:
    return {name: text for name, text in request.headers.items() if name != "connection"}


@contextmanager
def _own_errors(broken: type[httpx2.TransportError]) -> Iterator[None]:
    """What goes wrong with a connection, in httpx2's words."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
    except HTTPException as error:
        raise httpx2.RemoteProtocolError(str(error) or type(error).__name__) from error
