"""The transport of large files: connections that stay open, and httpx2's errors for what goes wrong with them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import httpx2
import pytest

from multimodel.hub import straight

from .hub import FakeHub, Repo

CONTENT = bytes(range(256)) * 4000
PATH = "/o/g/resolve/main/m.gguf"


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with straight.client() as made:
        yield made


@pytest.fixture
def opened(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> list[HTTPConnection]:
    """Every connection that is made to the Hub from now on."""
    hub.repos["o/g"] = Repo({"m.gguf": CONTENT})
    hub.redirects = False
    made: list[HTTPConnection] = []
    connect = HTTPConnection.connect

    def counted(self: HTTPConnection) -> None:
        made.append(self)
        connect(self)

    monkeypatch.setattr(HTTPConnection, "connect", counted)
    return made


def test_a_connection_is_used_again_and_a_new_one_made_where_it_was_closed(
    hub: FakeHub, client: httpx2.Client, opened: list[HTTPConnection]
) -> None:
    for _ in range(2):
        assert client.get(hub.url + PATH).content == CONTENT
    assert len(opened) == 1
    hub.cut_after = [len(CONTENT)]  # all of it, then the connection is closed without a word
    for _ in range(2):
        assert client.get(hub.url + PATH).content == CONTENT
    assert len(opened) == 2


def test_an_answer_that_was_not_read_to_its_end_costs_its_connection(
    hub: FakeHub, client: httpx2.Client, opened: list[HTTPConnection]
) -> None:
    with client.stream("GET", hub.url + PATH):
        pass
    assert opened[0].sock is None
    assert client.get(hub.url + PATH, headers={"Range": "bytes=5-9"}).content == CONTENT[5:10]


def test_what_goes_wrong_is_told_in_the_words_of_httpx2(
    hub: FakeHub, client: httpx2.Client, opened: list[HTTPConnection]
) -> None:
    hub.cut_after = [10]
    with pytest.raises(httpx2.RemoteProtocolError, match="closed early"):
        client.get(hub.url + PATH)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(httpx2.ReadTimeout):
            client.get(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    with pytest.raises(httpx2.ConnectError):
        client.get(address)
    with pytest.raises(httpx2.UnsupportedProtocol):
        client.get("ftp://127.0.0.1/file")


def test_a_proxy_is_respected(hub: FakeHub, opened: list[HTTPConnection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", hub.url)
    with straight.client() as client:
        assert client.get(f"http://elsewhere.invalid{PATH}").content == CONTENT
    assert not opened
