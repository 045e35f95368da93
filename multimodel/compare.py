"""Ask several models at once. No lane waits for another; no lane's error stops another."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from queue import Empty, SimpleQueue
from threading import Event, Thread

from .types import Snapshot

Arrival = tuple[str, Snapshot | BaseException | None]  # None: the lane has ended


def race(lanes: Mapping[str, Generator[Snapshot]]) -> Generator[tuple[str, Snapshot]]:
    """(lane, snapshot) as they arrive; a reader that is slow gets fewer, never older ones.

    Closing it stops every lane at that lane's next snapshot, heartbeats included. A lane that raises (snapshots carry
    all expected errors, so that is a bug) lets the others finish; then its exception is raised.
    """
    arrivals: SimpleQueue[Arrival] = SimpleQueue()
    stop = Event()
    for name, lane in lanes.items():
        Thread(target=_run, args=(name, lane, arrivals, stop), name=f"lane-{name}", daemon=True).start()
    running, bug = set(lanes), None
    try:
        while running:
            newest: dict[str, Snapshot] = {}
            for name, item in _drain(arrivals):
                if isinstance(item, Snapshot):
                    newest[name] = item
                else:
                    running.discard(name)
                    bug = bug or item
            yield from newest.items()
        if bug:
            raise bug
    finally:
        stop.set()


def _run(name: str, lane: Generator[Snapshot], arrivals: SimpleQueue[Arrival], stop: Event) -> None:
    try:
        with closing(lane):  # a generator must be closed by the thread that runs it
            last = None
            for snapshot in lane:
                if snapshot is not last:
                    arrivals.put((name, snapshot))
                last = snapshot
                if stop.is_set():
                    break
        arrivals.put((name, None))
    except BaseException as bug:
        arrivals.put((name, bug))


def _drain(arrivals: SimpleQueue[Arrival]) -> list[Arrival]:
    """Everything that waits; at least one."""
    waiting = [arrivals.get()]
    while True:
        try:
            waiting.append(arrivals.get_nowait())
        except Empty:
            return waiting
