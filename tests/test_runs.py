"""A run belongs to the server: it goes on whoever looks, can be followed from anywhere, and stops at once."""

from __future__ import annotations

import threading
from collections.abc import Generator
from threading import Event

from multimodel import Engine, Message, ModelId
from multimodel.errors import ServerFailure
from multimodel.runs import Run
from multimodel.types import Snapshot, Timing

PATIENCE = 5.0
MODEL = ModelId("a", "b")
FIRST = Snapshot(MODEL, "", Timing(0.0))


def shot(text: str, *, done: bool = False, error: ServerFailure | None = None) -> Snapshot:
    reason = "error" if error else "stop" if done else None
    return Snapshot(MODEL, text, Timing(0.0), finish_reason=reason, error=error)  # type: ignore[arg-type]


class Tap:
    """A source that gives a snapshot each time it is opened, and says when it was closed."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self._snapshots = snapshots
        self._turns = threading.Semaphore(0)
        self.closed = Event()

    def open(self, count: int = 1) -> None:
        self._turns.release(count)

    def source(self) -> Generator[Snapshot]:
        now = FIRST
        try:
            yield now
            for snapshot in self._snapshots:
                while not self._turns.acquire(timeout=0.01):
                    yield now  # a heartbeat
                now = snapshot
                yield now
        finally:
            self.closed.set()


def test_a_run_goes_on_without_followers() -> None:
    tap = Tap(shot("a"), shot("ab", done=True))
    run = Run(tap.source(), FIRST)
    tap.open(2)
    run.join(PATIENCE)
    assert (run.newest.snapshot.text, run.newest.state, run.active) == ("ab", "done", False)
    assert tap.closed.is_set()


def test_a_follower_sees_the_newest_each_time_until_the_end() -> None:
    tap = Tap(shot("a"), shot("ab"), shot("abc", done=True))
    run = Run(tap.source(), FIRST)
    seen = []
    for event in run.follow():
        seen.append((event.cursor, event.snapshot.text))
        tap.open()
    assert seen == sorted(seen) and seen[-1][1] == "abc" and len({cursor for cursor, _ in seen}) == len(seen)


def test_a_page_that_comes_back_follows_from_its_cursor() -> None:
    tap = Tap(shot("a"), shot("ab"), shot("abc", done=True))
    run = Run(tap.source(), FIRST)
    tap.open()
    left_at = next(event for event in run.follow() if event.snapshot.text == "a").cursor
    tap.open(2)
    run.join(PATIENCE)
    (event,) = run.follow(after=left_at)
    assert (event.snapshot.text, event.state) == ("abc", "done")
    assert list(run.follow(after=event.cursor)) == []


def test_two_followers_see_the_same_end() -> None:
    tap = Tap(shot("a"), shot("ab", done=True))
    run = Run(tap.source(), FIRST)
    first, second = run.follow(), run.follow()
    next(first), next(second)
    tap.open(2)
    assert [*first][-1] == [*second][-1] == run.newest


def test_stop_is_seen_at_once_and_frees_the_work() -> None:
    tap = Tap(shot("half"), shot("whole", done=True))
    run = Run(tap.source(), FIRST)
    tap.open()
    assert next(event for event in run.follow() if event.snapshot.text)
    run.stop()
    now = run.newest
    assert (now.state, now.snapshot.finish_reason, now.snapshot.text) == ("stopped", "stopped", "half")
    assert tap.closed.wait(PATIENCE)
    tap.open()
    run.join(PATIENCE)
    assert run.newest is now  # nothing comes after the end
    run.stop()
    assert run.newest is now


def test_stopping_what_has_ended_changes_nothing() -> None:
    tap = Tap(shot("a", done=True))
    run = Run(tap.source(), FIRST)
    tap.open()
    run.join(PATIENCE)
    run.stop()
    assert run.newest.state == "done"


def test_an_error_is_a_failed_run() -> None:
    tap = Tap(shot("half", error=ServerFailure("gone")))
    run = Run(tap.source(), FIRST)
    tap.open()
    run.join(PATIENCE)
    assert (run.newest.state, run.newest.snapshot.text) == ("failed", "half")


def test_a_listener_hears_every_event_until_it_leaves() -> None:
    tap = Tap(shot("a"), shot("ab"), shot("abc", done=True))
    run = Run(tap.source(), FIRST)
    heard = threading.Semaphore(0)
    leave = run.on_change(heard.release)
    tap.open()
    assert heard.acquire(timeout=PATIENCE)
    leave()
    leave()  # leaving twice is safe
    tap.open(2)
    run.join(PATIENCE)
    assert not heard.acquire(blocking=False)


def test_waiting_gives_up_after_its_time() -> None:
    tap = Tap(shot("a", done=True))
    run = Run(tap.source(), FIRST)
    cursor = run.newest.cursor
    assert run.wait(cursor + 5, timeout=0.01).state == "running"
    tap.open()
    run.join(PATIENCE)
    assert run.wait(99, timeout=PATIENCE).state == "done"  # an ended run is not waited for


def test_an_engine_that_closes_stops_its_runs() -> None:
    with Engine() as engine:
        run = engine.start(ModelId("echo", "slow"), [Message("user", "word " * 200)])
        next(event for event in run.follow() if event.snapshot.text)
    assert run.newest.state == "stopped"
    run.join(PATIENCE)
    assert run.newest.snapshot.text.startswith("word ")
