"""Lanes do not wait for each other, and end alone."""

from __future__ import annotations

import threading
from collections.abc import Generator
from threading import Event

import pytest

from multimodel.compare import race
from multimodel.types import ModelId, Snapshot, Timing

PATIENCE = 5.0


def shot(text: str, *, done: bool = False) -> Snapshot:
    return Snapshot(ModelId("a", "b"), text, Timing(0.0), finish_reason="stop" if done else None)


def counting(last: int) -> Generator[Snapshot]:
    for n in range(last):
        yield shot(str(n))
    yield shot(str(last), done=True)


def held(gate: Event, ended: Event | None = None) -> Generator[Snapshot]:
    """A lane that beats until the gate opens."""
    beat = shot("waiting")
    try:
        yield beat
        while not gate.wait(0.01):
            yield beat
        yield shot("late", done=True)
    finally:
        if ended:
            ended.set()


def test_a_slow_lane_never_holds_a_fast_one() -> None:
    gate = Event()
    ends: list[str] = []
    for lane, snapshot in race({"slow": held(gate), "fast": counting(100)}):
        if snapshot.done:
            ends.append(lane)
            gate.set()  # only now may the slow one end
    assert ends == ["fast", "slow"]


def test_every_lane_delivers_its_last_snapshot_and_in_order() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for lane, snapshot in race({"a": counting(200), "b": counting(50)}):
        seen[lane].append(int(snapshot.text))
    assert seen["a"][-1] == 200 and seen["b"][-1] == 50
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())


def test_a_slow_reader_gets_fewer_and_never_older_ones() -> None:
    finished = Event()

    def lane() -> Generator[Snapshot]:
        yield from counting(500)
        finished.set()

    numbers = []
    for _, snapshot in race({"a": lane()}):
        numbers.append(int(snapshot.text))
        assert finished.wait(PATIENCE)  # the lane has said everything before the reader looks again
    assert numbers[-1] == 500 and len(numbers) < 10


def test_a_heartbeat_is_not_delivered() -> None:
    gate = Event()
    threading.Timer(0.05, gate.set).start()
    assert [snapshot.text for _, snapshot in race({"a": held(gate)})] == ["waiting", "late"]


def test_closing_ends_every_lane() -> None:
    gate, ends = Event(), [Event(), Event()]
    results = race({str(n): held(gate, end) for n, end in enumerate(ends)})
    next(results)
    results.close()
    assert all(end.wait(PATIENCE) for end in ends)
    assert not gate.is_set()


def test_a_bug_in_one_lane_lets_the_others_finish_and_is_raised_then() -> None:
    def broken() -> Generator[Snapshot]:
        raise RuntimeError("a bug")
        yield

    last = ""
    with pytest.raises(RuntimeError):
        for _, snapshot in race({"broken": broken(), "fine": counting(20)}):
            last = snapshot.text
    assert last == "20"


def test_no_lanes_no_snapshots() -> None:
    assert list(race({})) == []
