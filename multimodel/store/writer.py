"""The one writer: a thread that commits what is new several times a second, all of it in one transaction.

A running answer costs its run nothing. The writer looks at its newest snapshot and appends what has come since.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition, RLock, Thread

from ..errors import MultimodelError, NotKept
from ..runs import Run
from ..types import Snapshot, ToolCall, whole
from .database import transaction
from .forms import CALLS, LOGPROBS, ending, logprobs_form, written

BEAT = 0.1  # seconds between two commits while something is being answered
SHARE = 0.02  # of a core that the writer may take: it beats more slowly where a commit takes long
SLOWEST = 2.0  # seconds between two attempts where the disk refuses

_LOG = logging.getLogger(__name__)

Change = Callable[[sqlite3.Connection], object]
Key = tuple[str, int]
"""A conversation and a turn of it."""


@dataclass(frozen=True, slots=True)
class _Followed:
    """A run, and how much of it has been written."""

    run: Run
    snapshot: Snapshot | None = None
    text: int = 0
    reasoning: int = 0
    logprobs: int = 0
    pieces: int = 0


class Writer:
    """Writes changes in their order, and answers as they grow. Thread-safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.lock = RLock()  # around the connection, which the readers' threads use too
        self.problem: MultimodelError | None = None
        self._connection = connection
        self._changes: deque[Change] = deque()
        self._followed: dict[Key, _Followed] = {}
        self._wake = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def add(self, change: Change) -> None:
        """Write this soon."""
        with self._wake:
            self._changes.append(change)
            self._wake.notify()

    def follow(self, key: Key, run: Run) -> None:
        """Write this answer as it grows, and its end."""
        with self._wake:
            self._followed[key] = _Followed(run)
            self._wake.notify()

    def flush(self) -> None:
        """Write everything now. What cannot be written stays for the next time; `problem` says why."""
        with self.lock:
            with self._wake:
                changes, followed = list(self._changes), dict(self._followed)
            news = {key: now for key, then in followed.items() if (now := _now(then)) is not then}
            if not changes and not news:
                return
            try:
                with transaction(self._connection):
                    for change in changes:
                        self._make(change)
                    for key, now in news.items():
                        _write(self._connection, key, followed[key], now)
            except sqlite3.Error as error:
                self.problem = told(error)
            else:
                self.problem = None
                self._done(len(changes), news)

    def _make(self, change: Change) -> None:
        """One change; it is left out where no later attempt would do better either, and the others are made."""
        try:
            change(self._connection)
        except (sqlite3.IntegrityError, ValueError) as error:
            _LOG.error("A change of a conversation could not be written: %s", error)

    def _done(self, changes: int, news: dict[Key, _Followed]) -> None:
        with self._wake:
            for _ in range(changes):
                self._changes.popleft()
            self._followed |= news
            for key, now in news.items():
                if now.snapshot and now.snapshot.done:
                    del self._followed[key]

    def close(self) -> None:
        """Write what is left, and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self.flush()

    def _work(self) -> None:
        pause = 0.0
        while self._wait(pause):
            began = time.thread_time()
            self.flush()
            pause = SLOWEST if self.problem else max(BEAT, (time.thread_time() - began) / SHARE)

    def _wait(self, pause: float) -> bool:
        """Sleep until there may be something to write, but at least this long; False once it is over."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed, pause)
            self._wake.wait_for(lambda: self._closed or self._changes or self._followed)
            return not self._closed


def _now(then: _Followed) -> _Followed:
    """How it stands; the same object where nothing has changed."""
    snapshot = then.run.newest.snapshot
    if snapshot is then.snapshot:
        return then
    lengths = len(snapshot.text), len(snapshot.reasoning), len(snapshot.logprobs)
    known = lengths == (then.text, then.reasoning, then.logprobs) and snapshot.calls == _calls(then)
    if known and not snapshot.done:
        return then
    text, reasoning, logprobs = lengths
    return _Followed(then.run, snapshot, text, reasoning, logprobs, then.pieces + 1)


def _calls(followed: _Followed) -> tuple[ToolCall, ...]:
    return followed.snapshot.calls if followed.snapshot else ()


def _write(connection: sqlite3.Connection, key: Key, then: _Followed, now: _Followed) -> None:
    snapshot = now.snapshot
    assert snapshot
    if now.logprobs > then.logprobs:
        body = LOGPROBS.dump_json(logprobs_form(snapshot.logprobs[then.logprobs :])).decode()
        connection.execute("INSERT INTO logprobs VALUES (?, ?, ?, ?)", (*key, now.pieces, body))
    if snapshot.done:
        end(connection, key, snapshot)
        return
    text, reasoning = whole(snapshot.text[then.text :]), whole(snapshot.reasoning[then.reasoning :])
    calls = written(CALLS, _clean(snapshot).calls) if snapshot.calls != _calls(then) else ""
    row = (*key, now.pieces, text, reasoning, snapshot.timing.ttft, snapshot.timing.total, calls)
    connection.execute("INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def end(connection: sqlite3.Connection, key: Key, answer: Snapshot) -> None:
    """The answer as a whole, once; its pieces are not needed any more."""
    body = ending(_clean(answer)).model_dump_json(exclude_defaults=True)
    connection.execute(
        "UPDATE turns SET text = ?, reasoning = ?, ending = ? WHERE conversation = ? AND id = ? AND ending IS NULL",
        (whole(answer.text), whole(answer.reasoning), body, *key),
    )
    connection.execute("DELETE FROM pieces WHERE conversation = ? AND turn = ?", key)


def _clean(answer: Snapshot) -> Snapshot:
    error = answer.error
    if error:
        error = type(error)(whole(str(error)), hint=whole(error.hint))
    calls = tuple(ToolCall(whole(call.name), whole(call.arguments), whole(call.id)) for call in answer.calls)
    return replace(answer, error=error, notes=tuple(map(whole, answer.notes)), calls=calls)


def told(error: sqlite3.Error) -> NotKept:
    """What a person should know of a database that does not take what is written."""
    name = getattr(error, "sqlite_errorname", "")
    hint = "It is tried again every few seconds, and nothing that you see is lost as long as the app runs."
    if name.startswith("SQLITE_FULL"):
        return NotKept("Conversations are not being kept: the disk is full.", hint=f"Make room. {hint}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return NotKept("Conversations are not being kept: another program holds their file.", hint=f"Close it. {hint}")
    return NotKept(f"Conversations are not being kept: {error}.", hint=hint)
