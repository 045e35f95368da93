"""The pump: what comes goes on, with the time it came; what does not come ends; who leaves is not held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from threading import Event

import pytest

from multimodel import pump as pumps
from multimodel.errors import RateLimited, TimedOut
from multimodel.pump import AHEAD, pump

from .support import eventually

FAR = 60.0  # seconds that no test waits
WOKEN = 20.0  # seconds after which a thread that was not woken gives up


class Pipe:
    """A source that says items and then blocks until it is hung up on, as a socket would."""

    def __init__(self, *items: str, then: Callable[[], None] = lambda: None) -> None:
        self.hung_up = Event()
        self.hang_ups = 0
        self.closed = Event()
        self.woken = False
        self._items, self._then = items, then

    def open(self) -> Generator[str]:
        try:
            yield from self._items
            self._then()
            self.woken = self.hung_up.wait(WOKEN)
        finally:
            self.closed.set()

    def close(self) -> None:
        self.hang_ups += 1
        self.hung_up.set()


def items(*values: str) -> Callable[[], Generator[str]]:
    return lambda: (value for value in values)


def test_all_items_come_in_order_and_then_it_ends() -> None:
    arrived = list(pump(items("a", "b", "c"), lambda: None, first_timeout=FAR, stall_timeout=FAR))
    assert [a.item for a in arrived if a] == ["a", "b", "c"]


def test_nothing_at_all_is_an_end_too() -> None:
    assert not any(pump(items(), lambda: None, first_timeout=FAR, stall_timeout=FAR))


def test_an_item_is_stamped_when_it_comes_not_when_it_is_taken() -> None:
    said_all = Event()
    pipe = Pipe("a", "b", "c", then=said_all.set)
    with closing(pump(pipe.open, pipe.close, first_timeout=FAR, stall_timeout=FAR, beat=0.01)) as arrived:
        began = time.perf_counter()
        first = next(item for item in arrived if item)
        assert said_all.wait(WOKEN)
        said = time.perf_counter()
        stamps = [first.at, *(item.at for item in (next(arrived), next(arrived)) if item)]
    assert len(stamps) == 3 and [began, *stamps, said] == sorted([began, *stamps, said])


def test_a_wait_is_full_of_beats() -> None:
    pipe = Pipe("a")
    with closing(pump(pipe.open, pipe.close, first_timeout=FAR, stall_timeout=FAR, beat=0.01)) as arrived:
        first = next(item for item in arrived if item)
        assert first.item == "a"
        assert [next(arrived) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("said", "first", "stall", "says"),
    [((), 0.05, FAR, "No answer began within 0.05 s"), (("a",), FAR, 0.05, "Nothing more came for 0.05 s")],
)
def test_each_wait_has_its_own_deadline(said: tuple[str, ...], first: float, stall: float, says: str) -> None:
    pipe = Pipe(*said)
    heard = list[str]()
    with pytest.raises(TimedOut, match=says) as caught:
        for item in pump(pipe.open, pipe.close, first_timeout=first, stall_timeout=stall, beat=0.01):
            heard += [item.item] if item else []
    assert caught.value.hint and heard == list(said)
    assert pipe.woken and pipe.closed.is_set()


def test_every_item_begins_the_wait_anew() -> None:
    """Each wait lasts a good part of the deadline, all together several of them."""

    def slowly() -> Generator[int]:
        for number in range(8):
            time.sleep(0.1)
            yield number

    arrived = pump(slowly, lambda: None, first_timeout=FAR, stall_timeout=0.5, beat=0.01)
    assert [a.item for a in arrived if a] == list(range(8))


def test_one_who_was_long_away_finds_what_came_meanwhile() -> None:
    go, said_all = Event(), Event()

    def source() -> Generator[str]:
        go.wait(WOKEN)
        yield "a"
        said_all.set()

    with closing(pump(source, go.set, first_timeout=0.05, stall_timeout=0.05, beat=0.01)) as arrived:
        assert next(arrived) is None
        go.set()
        assert said_all.wait(WOKEN)
        time.sleep(0.06)  # longer than the deadline
        assert [a.item for a in arrived if a] == ["a"]


def test_an_error_comes_after_all_that_was_said_before_it() -> None:
    def failing() -> Generator[str]:
        yield "a"
        yield "b"
        raise RateLimited("slow down", hint="wait")

    heard, error = list[str](), None
    try:
        for item in pump(failing, lambda: None, first_timeout=FAR, stall_timeout=FAR):
            heard += [item.item] if item else []
    except RateLimited as caught:
        error = caught
    assert heard == ["a", "b"] and error and (str(error), error.hint) == ("slow down", "wait")


def test_an_error_before_the_first_item_is_raised_as_it_is() -> None:
    def refused() -> Generator[str]:
        raise KeyError("no")

    with pytest.raises(KeyError):
        list(pump(refused, lambda: None, first_timeout=FAR, stall_timeout=FAR))


@pytest.mark.parametrize("said", [(), ("a",)])
def test_leaving_wakes_a_reader_that_blocks(said: tuple[str, ...]) -> None:
    pipe = Pipe(*said)
    arrived = pump(pipe.open, pipe.close, first_timeout=FAR, stall_timeout=FAR, beat=0.01)
    for _ in range(2):
        next(arrived)
    arrived.close()
    assert pipe.woken and pipe.closed.is_set() and pipe.hang_ups == 1


def test_leaving_stops_a_reader_that_has_run_far_ahead() -> None:
    produced, ended = list[int](), Event()

    def endless() -> Generator[int]:
        try:
            while True:
                produced.append(1)
                yield 0
        finally:
            ended.set()

    arrived = pump(endless, lambda: None, first_timeout=FAR, stall_timeout=FAR)
    next(arrived)
    eventually(lambda: len(produced) > AHEAD)
    arrived.close()
    assert ended.wait(WOKEN)
    assert len(produced) <= AHEAD + 3


def test_a_reader_that_cannot_be_woken_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "GRACE", 0.01)
    deaf = Pipe()
    arrived = pump(deaf.open, lambda: None, first_timeout=FAR, stall_timeout=FAR, beat=0.01)
    next(arrived)
    arrived.close()
    assert not deaf.closed.is_set()
    deaf.close()
    assert deaf.closed.wait(WOKEN)


def test_it_hangs_up_once_however_it_ends() -> None:
    def ended(said: tuple[str, ...], error: Exception | None) -> int:
        def source() -> Generator[str]:
            yield from said
            if error:
                raise error

        calls = list[int]()
        with suppress(ValueError):
            list(pump(source, lambda: calls.append(1), first_timeout=FAR, stall_timeout=FAR))
        return len(calls)

    assert [ended(("a",), None), ended((), ValueError()), ended(("a",), ValueError())] == [1, 1, 1]


def test_nothing_starts_before_the_first_item_is_asked_for() -> None:
    before = threading.active_count()
    arrived = pump(items("a"), lambda: None, first_timeout=FAR, stall_timeout=FAR)
    assert threading.active_count() == before
    arrived.close()
