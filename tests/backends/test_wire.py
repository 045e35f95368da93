"""From the bytes of a response to its events, however they are cut, and from a hung-up line to a free thread."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest

from multimodel.backends import remote
from multimodel.backends.service import Service
from multimodel.errors import ProtocolFailure
from multimodel.pump import Arrived
from multimodel.settings import ApiSettings
from multimodel.types import Chunk, Sent, TokenLogprob

from ..faults import FaultServer

pytest.importorskip("httpx2")
from multimodel.backends.wire import EVENT_LIMIT, ErrorEvent, Event, Wire, events

GOOD = [{"a": "né€😀"}, {"b": [1, {"c": None}]}]
BODY = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in GOOD).encode() + b"data: [DONE]\n\n"


def read(*blocks: bytes, kind: str = "text/event-stream") -> list[Event]:
    return list(events(blocks, kind))


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


# Events


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_however_a_body_is_cut_it_says_the_same(size: int, end: bytes, mark: bytes) -> None:
    assert read(*pieces(mark + BODY.replace(b"\n", end), size)) == GOOD


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_a_body_in_two_pieces_may_be_cut_anywhere(end: bytes) -> None:
    body = BODY.replace(b"\n", end)
    for at in range(len(body) + 1):
        assert read(body[:at], body[at:]) == GOOD


def test_a_line_end_cut_in_two_is_one_line_end() -> None:
    """As two, it would be an empty line, which ends the event in its middle."""
    body = b'data: {"a":\r\ndata: 1}\r\n\r\n'
    for at in range(len(body) + 1):
        assert read(body[:at], b"", body[at:]) == [{"a": 1}]


def test_empty_pieces_change_nothing() -> None:
    body = BODY.replace(b"\n", b"\r\n")
    assert read(*(part for byte in pieces(body, 1) for part in (byte, b""))) == GOOD


@pytest.mark.parametrize(
    "body",
    [
        b': hello\n\n: \n\ndata: {"a": 1}\n: between\n\n',
        b'data:{"a": 1}\n\n',  # the space is not a must
        b'id: 7\nretry: 100\nevent: message\ndata: {"a": 1}\n\n',
        b'data: {"a":\ndata: 1}\n\n',  # one event over two lines
        b'data: {"a": 1}\r\n\n\r\n',
        b'\n\n\n\ndata: {"a": 1}\n\n\n\n',
        b'data\n\ndata: {"a": 1}\n\n',
        b'event: ping\n\ndata: {"a": 1}\n\n',
        b'unknown: x\ndata: {"a": 1}\n\n',
        b'data: {"a": 1}',  # the last event may lack its end
        b'data: {"a": 1}\n',
        b'data: {"a": 1}\r',
        b'data: {"a": 1}\n\ndata: [DONE]',
        b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"b": 2}\n\ndata: not even JSON\n\n',
    ],
)
def test_one_event_in_many_forms(body: bytes) -> None:
    assert read(body) == read(*pieces(body, 1)) == [{"a": 1}]


@pytest.mark.parametrize("rest", [b'data: {"b":', b'data: {"b":\n', b"dat", b'data: {"b": "\xc3', b": ping"])
def test_an_event_that_is_cut_off_is_left_out(rest: bytes) -> None:
    assert read(b'data: {"a": 1}\n\n' + rest) == [{"a": 1}]


@pytest.mark.parametrize("space", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\xa0"])
def test_only_line_feeds_and_carriage_returns_end_a_line(space: str) -> None:
    raw = json.dumps({"a": f"x{space}y"}, ensure_ascii=False) if space > "\x20" else json.dumps({"a": f"x{space}y"})
    assert read(f"data: {raw}\n\n".encode()) == [{"a": f"x{space}y"}]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert read(b'data: {"a": "\xff\xc3"}\n\n') == [{"a": "\ufffd\ufffd"}]


def test_a_mark_inside_of_the_text_stays() -> None:
    assert read('data: {"a": "\ufeff"}\n\n'.encode()) == [{"a": "\ufeff"}]


@pytest.mark.parametrize(
    "data", ["{not json", "[1]", '"text"', "7", "null", "{" * 50_000, "[" * 50_000, '{"a": 1} {"b": 2}', "NaN"]
)
def test_what_is_no_object_is_refused_after_what_was_good(data: str) -> None:
    found = events([f'data: {{"a": 1}}\n\ndata: {data}\n\ndata: {{"b": 2}}\n\n'.encode()])
    assert next(found) == {"a": 1}
    with pytest.raises(ProtocolFailure) as caught:
        next(found)
    assert caught.value.hint


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"message": "boom"}\n\n',
        b'data: {"error": {"message": "boom"}}\n\n',
        b'data: {"error": "boom"}\n\n',
    ],
)
def test_an_error_in_the_stream_is_raised_with_what_it_says(body: bytes) -> None:
    with pytest.raises(ErrorEvent) as caught:
        read(body)
    assert "boom" in str(caught.value.event)


def test_the_name_of_an_event_is_its_own() -> None:
    with pytest.raises(ErrorEvent):
        read(b'event: error\ndata: {"a": 1}\n\n')
    assert read(b'event: error\n\ndata: {"a": 1}\n\n') == [{"a": 1}]


@pytest.mark.parametrize("size", [1 << 16, EVENT_LIMIT + 100])
def test_a_line_just_below_the_limit_is_read(size: int) -> None:
    text = "x" * (EVENT_LIMIT - 100)
    assert read(*pieces(f'data: {{"a": "{text}"}}\n\n'.encode(), size)) == [{"a": text}]


ENDLESS = [
    (b"x" * 4096 for _ in range(1 << 12)),
    (b"data: " + b"x" * 4096 + b"\n" for _ in range(1 << 12)),
    ((b"data: " + b"x" * 58 + b"\n") * 64 for _ in range(1 << 12)),
]


@pytest.mark.parametrize("blocks", ENDLESS, ids=["one line", "long lines", "short lines"])
def test_an_event_without_end_is_not_collected(blocks: Iterable[bytes]) -> None:
    with pytest.raises(ProtocolFailure, match="1 MB"):
        list(events(blocks))
    assert next(iter(blocks), None), "it went on reading"


def test_an_answer_that_does_not_stream_is_one_event() -> None:
    assert read(b'{"a": ', b"1}", kind="application/json; charset=utf-8") == [{"a": 1}]
    with pytest.raises(ProtocolFailure):
        read(*[b" " * 65536] * 17, kind="application/json")


def test_a_page_is_no_answer() -> None:
    with pytest.raises(ProtocolFailure, match="web page") as caught:
        read(b"<html>", kind="text/html; charset=utf-8")
    assert "/v1" in caught.value.hint


# Hanging up


def _reader(wire: Wire, url: str, ended: Signal) -> Thread:
    def work() -> None:
        import httpx2

        try:
            with wire.client.stream("POST", f"{url}/chat/completions", json={}) as response:
                list(response.iter_bytes())
        except httpx2.HTTPError:
            pass
        finally:
            ended.set()

    return Thread(target=work)


@pytest.mark.parametrize("fault", ["no-answer", "stall", "pings", "endless"])
def test_hanging_up_wakes_a_reader_wherever_it_is(fault: str) -> None:
    with FaultServer() as server:
        wire, ended = Wire(), Signal()
        thread = _reader(wire, server.url(fault), ended)
        thread.start()
        assert server.reached()
        wire.hang_up()
        wire.hang_up()
        assert ended.wait(10)
        thread.join()
        wire.client.close()
        assert server.idle()


def test_one_who_was_hung_up_on_before_it_began_gets_nothing() -> None:
    with FaultServer() as server:
        wire, ended = Wire(), Signal()
        wire.hang_up()
        thread = _reader(wire, server.url("no-answer"), ended)
        thread.start()
        assert ended.wait(10)
        thread.join()
        wire.client.close()
        assert server.idle()


# The end of an answer

SERVICE = Service("local", "local", "http://127.0.0.1/v1")
FOREVER = ApiSettings(first_token_timeout=600.0, stall_timeout=600.0)
TEXT = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}


class Line:
    """A wire whose service says some events, and then keeps the connection open."""

    def __init__(self, *said: Event) -> None:
        self.said = said
        self.left = Signal()
        self.client = Wire().client
        self.open_at_the_end = False

    def hang_up(self) -> None:
        self.left.set()

    def send(self, wire: Any) -> Generator[Event]:
        yield from self.said
        yield from self.more()
        self.open_at_the_end = self.left.wait(20)

    def more(self) -> Iterable[Event]:
        return ()

    def sent(self) -> Sent:
        return Sent()


def ending(monkeypatch: pytest.MonkeyPatch, *said: Event) -> tuple[Line, list[Chunk]]:
    monkeypatch.setattr(remote, "AFTER_FINISH", 0.1)
    line: Any = Line(*said)
    return line, list(remote.answer(line.send, SERVICE, "m", FOREVER, line))


@pytest.mark.parametrize(("last", "estimated"), [((), True), ((USAGE,), False)])
def test_a_finished_answer_does_not_wait_for_the_line_to_close(
    monkeypatch: pytest.MonkeyPatch, last: tuple[Event, ...], estimated: bool
) -> None:
    line, chunks = ending(monkeypatch, TEXT, FINISH, *last)
    assert line.open_at_the_end, "the service was waited for"
    assert [chunk.note for chunk in chunks if chunk.note] == []
    assert (chunks[-1].finish_reason, chunks[-1].usage and chunks[-1].usage.estimated) == ("stop", estimated)


def test_a_finished_answer_is_not_kept_open_by_events_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def beating(line: Line) -> Iterable[Event]:
        while not line.left.wait(0.01):
            yield {"choices": []}

    monkeypatch.setattr(Line, "more", beating)
    line, chunks = ending(monkeypatch, TEXT, FINISH)
    assert line.left.is_set()
    assert chunks[-1].finish_reason == "stop"


def test_text_after_a_finish_reason_is_part_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    _, chunks = ending(monkeypatch, FINISH, TEXT, TEXT, FINISH)
    assert "".join(chunk.text for chunk in chunks) == "HelHel"


def test_an_empty_finish_reason_is_none() -> None:
    choice = {"index": 0, "delta": {"content": "Hel"}, "finish_reason": ""}
    story = remote.Story()
    story.told(Arrived({"choices": [choice]}, at=1.0))
    assert story.finish_reason is None and not story.overdue(100.0)
    story.told(Arrived(FINISH, at=2.0))
    assert not story.overdue(2.0 + remote.AFTER_FINISH) and story.overdue(2.1 + remote.AFTER_FINISH)


# Log-probabilities


def logprob(token: object, value: object = -0.5, **more: object) -> dict[str, object]:
    return {"token": token, "logprob": value, **more}


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        (None, ()),
        ([], ()),
        ({"content": None}, ()),
        ({"content": "x"}, ()),
        ({"content": ["x", None, {}, logprob("a", None), logprob("a", "0"), logprob("a", float("nan"))]}, ()),
        ({"content": [logprob("é")]}, (TokenLogprob("é", -0.5),)),
        ({"content": [logprob("\\xe2\\x82", bytes=[226, 130])]}, (TokenLogprob("\ufffd", -0.5, (), b"\xe2\x82"),)),
        ({"content": [logprob("a", bytes=[97, 300])]}, (TokenLogprob("a", -0.5),)),
        ({"content": [logprob("a", bytes=None)]}, (TokenLogprob("a", -0.5),)),
        ({"content": [logprob("\x1b[31mred\x00")]}, (TokenLogprob("red", -0.5),)),
        ({"content": [logprob("\ud800")]}, (TokenLogprob("\ufffd", -0.5),)),
        ({"content": [logprob("a", -9999.0, top_logprobs=None)]}, (TokenLogprob("a", -9999.0),)),
        ({"content": [logprob(7)]}, (TokenLogprob("", -0.5),)),
    ],
)
def test_what_a_server_tells_of_tokens_is_taken_where_it_is_one(told: object, heard: tuple[TokenLogprob, ...]) -> None:
    assert remote.logprobs_of({"logprobs": told}) == heard


def test_alternatives_have_none_of_their_own_and_are_as_many_as_can_be_asked_for() -> None:
    nested = logprob("b", top_logprobs=[logprob("c")])
    (token,) = remote.logprobs_of({"logprobs": {"content": [logprob("a", top_logprobs=[nested] * 30)]}})
    assert token.alternatives == (TokenLogprob("b", -0.5),) * 20


def test_a_server_that_tells_of_tokens_for_ever_is_hung_up_on() -> None:
    story = remote.Story()
    event = {"choices": [{"delta": {}, "logprobs": {"content": [logprob("a")] * 1000}}]}
    with pytest.raises(ProtocolFailure):
        for at in range(200):
            story.told(Arrived(event, float(at)))
