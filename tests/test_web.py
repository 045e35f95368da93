"""The guard in front of the app: who is refused, and what every answer carries. Pure ASGI, no server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from multimodel.web import CONTENT_SECURITY_POLICY, Guard, same_origin


class Inner:
    """An app that notes what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await send({"type": "http.response.body", "body": b"last"})


def ask(kind: str = "http", *, method: str = "GET", allowed: tuple[str, ...] = (), **headers: str) -> tuple[Inner, Any]:
    """One request to a guarded app: the app, and the messages that came back."""
    inner, sent = Inner(), []
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "headers": pairs} | ({"method": method} if kind == "http" else {})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(inner, allowed_hosts=allowed)(scope, receive, send))
    return inner, sent


def refused(kind: str = "http", **asked: Any) -> bool:
    inner, sent = ask(kind, **asked)
    if inner.reached:
        return False
    assert sent[0] == {"type": "websocket.close", "code": 1008} or sent[0]["status"] == 403
    return True


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:80", "localhost.evil.com", "127.0.0.1.evil.com", "127.0.0.1@evil.com", "", ":80", "[::1",
     "a b", "localhost\x00", "0x7f.1", "127.1", "\xff"],
)  # fmt: skip
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    assert refused(host=host)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:7860", "127.0.0.1:7860", "192.168.1.7", "[::1]:1", "[fe80::1]"]
)
def test_numbers_and_own_names_pass(host: str) -> None:
    assert not refused(host=host)


def test_the_machine_knows_its_own_name() -> None:
    assert not refused(host=f"{socket.gethostname()}:7860")


def test_a_name_can_be_allowed() -> None:
    assert refused(host="chat.example.org")
    assert not refused(host="chat.example.org", allowed=("Chat.Example.Org",))
    assert refused(host="other.example.org", allowed=("chat.example.org",))


def test_a_request_without_host_is_refused() -> None:
    assert refused()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "WHATEVER"])
@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:2", "https://127.0.0.1.evil.com"])
def test_what_changes_something_must_come_from_the_own_page(method: str, origin: str) -> None:
    assert refused(method=method, host="127.0.0.1:1", origin=origin)
    assert not refused(method=method, host="127.0.0.1:1", origin="http://127.0.0.1:1")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_only_reads_may_be_linked_to(method: str) -> None:
    assert not refused(method=method, host="127.0.0.1:1", origin="http://evil.com")


def test_a_program_sends_no_origin() -> None:
    assert not refused(method="POST", host="127.0.0.1:1")
    assert not refused("websocket", host="127.0.0.1:1")


def test_a_websocket_of_another_page_is_closed() -> None:
    assert refused("websocket", host="127.0.0.1:1", origin="http://evil.com")
    assert refused("websocket", host="evil.com", origin="http://evil.com")
    assert not refused("websocket", host="127.0.0.1:1", origin="http://127.0.0.1:1")


def test_behind_a_proxy_the_page_has_the_address_the_proxy_tells() -> None:
    behind = {"method": "POST", "host": "127.0.0.1:7860", "x_forwarded_host": "chat.example.org"}
    assert not refused(**behind, origin="https://chat.example.org")
    assert refused(**behind, origin="https://evil.com")


def test_what_is_neither_request_nor_socket_passes() -> None:
    assert not refused("lifespan")


def test_answers_pass_piece_by_piece_with_the_headers_added() -> None:
    _, sent = ask(host="localhost")
    assert [message.get("body") for message in sent] == [None, b"first", b"last"]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"text/plain"
    assert headers[b"content-security-policy"].decode() == CONTENT_SECURITY_POLICY
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_a_refusal_says_what_to_set() -> None:
    _, sent = ask(host="evil.com")
    assert b"MULTIMODEL_ALLOWED_HOSTS" in sent[1]["body"]


def test_the_policy_lets_nothing_out() -> None:
    parts = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    out = ("default-src", "connect-src", "img-src", "media-src", "font-src", "style-src", "form-action", "frame-src")
    for name in out:
        assert not {"*", "http:", "https:"} & set(parts[name].split()), name
        assert "//" not in parts[name], name


def test_origins_are_compared_whole() -> None:
    assert same_origin("http://LOCALHOST:1", "localhost:1")
    assert not same_origin("http://localhost:1.evil.com", "localhost:1")
    assert not same_origin("http://evil.com#localhost:1", "localhost:1")
    assert not same_origin("http://localhost", "localhost:1")
