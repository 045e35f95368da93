"""Work that belongs to the server, not to a page: an answer is a run, and any page may follow it.

A run has an id, a state and a newest event; every event replaces the one before, so a follower that was away misses
nothing. A page that reloads follows the same run from its last cursor.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Condition, Event, Thread
from typing import Literal

from .retry import BEAT
from .types import Snapshot

State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Where a run stands: `cursor` counts its events."""

    cursor: int
    snapshot: Snapshot
    state: State


class Run:
    """One answer being made by a thread of the server."""

    def __init__(
        self, source: Generator[Snapshot], first: Snapshot, finish: Callable[[Snapshot], Snapshot] | None = None
    ) -> None:
        """`finish`: adds to the last snapshot of an answer that is stopped."""
        self.id = secrets.token_urlsafe(16)
        self._event = RunEvent(0, first, "running")
        self._finish = finish or (lambda snapshot: snapshot)
        self._stop = Event()
        self._changed = Condition()  # between the run's thread and its followers
        self._listeners: list[Callable[[], object]] = []
        self._thread = Thread(target=self._work, args=(source,), name=f"run-{self.id[:6]}", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> RunEvent:
        """The run as it stands now."""
        return self._event

    @property
    def active(self) -> bool:
        return self._event.state == "running"

    def stop(self) -> None:
        """End the work. What was said so far stays, marked stopped, at once; the work is freed within a heartbeat."""
        self._stop.set()
        with self._changed:
            if self.active:
                now = self._event.snapshot
                self._publish(self._finish(replace(now, finish_reason="stopped", stage=None)), "stopped")

    def follow(self, after: int = -1) -> Generator[RunEvent]:
        """Events newer than the cursor `after`, the newest each time, until the run has ended."""
        while True:
            event = self.wait(after)
            if event.cursor > after:
                yield event
                after = event.cursor
            if event.state != "running":
                return

    def wait(self, after: int, timeout: float = BEAT) -> RunEvent:
        """The newest event as soon as its cursor is above `after`, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._event.cursor > after or not self.active, timeout)
            return self._event

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended and its work is freed."""
        self._thread.join(timeout)

    def on_change(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` (from the run's thread) after every event; returns the function that ends this."""
        with self._changed:
            self._listeners.append(listener)
        return lambda: self._forget(listener)

    def _work(self, source: Generator[Snapshot]) -> None:
        with closing(source):
            for snapshot in source:
                with self._changed:
                    if self._stop.is_set():
                        return
                    if snapshot is not self._event.snapshot:
                        self._publish(snapshot, _state(snapshot))

    def _publish(self, snapshot: Snapshot, state: State) -> None:
        """The caller holds the condition."""
        self._event = RunEvent(self._event.cursor + 1, snapshot, state)
        self._changed.notify_all()
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:  # a page that is gone must not end the answer
                self._forget(listener)

    def _forget(self, listener: Callable[[], object]) -> None:
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)


def _state(snapshot: Snapshot) -> State:
    if not snapshot.done:
        return "running"
    return "failed" if snapshot.error else "done"
