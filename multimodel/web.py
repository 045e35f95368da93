"""What stands between the internet and the app: which hosts may be named, which origins may ask, what a page may load.

Pure ASGI, so that streams and disconnects pass through untouched.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DOCUMENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Of a page that is saved as a file: no script, and nothing from outside."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio compiles component templates in the page
        "style-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "img-src 'self' data: blob:",  # a picture from elsewhere would tell its server what was said here
        "media-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co",
    )
)
HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def own_names() -> frozenset[str]:
    """The names under which this machine may be addressed: never one that somebody's DNS can point here."""
    return frozenset({"localhost", socket.gethostname().lower()})


def host_allowed(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names this machine: by number, or by one of `names` (no DNS rebinding).

    >>> [host_allowed(h, frozenset({"localhost"})) for h in ("localhost:7860", "127.0.0.1", "[::1]:80", "evil.com")]
    [True, True, True, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def same_origin(origin: str, host: str) -> bool:
    """Whether a request's Origin is the page it is sent to; no Origin is a program, not a page.

    >>> same_origin("", "a:1"), same_origin("http://a:1", "a:1"), same_origin("null", "a:1")
    (True, True, False)
    """
    return not origin or urlsplit(origin).netloc.lower() == host.lower()


class Guard:
    """Refuses foreign hosts and cross-site requests, and adds the security headers to every answer."""

    def __init__(self, app: App, *, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._names = own_names() | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed; 403 for the rest."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif self._refused(scope):
            await _forbid(scope["type"], send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> bool:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if not host_allowed(host, self._names):
            return True
        writes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return writes and not same_origin(headers.get(b"origin", ""), headers.get(b"x-forwarded-host", host))


async def _forbid(kind: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    text = b"Not allowed: this address or page may not use the app. Allow its name with MULTIMODEL_ALLOWED_HOSTS."
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return wrapped
