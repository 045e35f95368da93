"""Work in a thread that somebody waits for: where it is now, and whether anyone still waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TypeVar

from .types import Chunk, Stage

T = TypeVar("T")

HEARTBEAT = 0.2  # seconds
WINDOW = 5.0  # seconds over which a speed is taken


class Cancelled(Exception):
    """Nobody waits for this job any more. Never leaves its thread."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is, in bytes; `rate` in bytes a second, over the last seconds."""

    done: int = 0
    total: int = 0
    rate: float = 0.0

    @property
    def fraction(self) -> float | None:
        """The share that is done."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at this rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


NOTHING = Progress()


class Job:
    """Work in a thread: where it is now, and whether anyone still waits for it."""

    def __init__(self, held: Progress = NOTHING) -> None:
        self.meter: Meter | None = None  # once it is known how much there is to do
        self.parts: tuple[Path, ...] = ()  # where what is not yet whole is kept
        self.reserved: Callable[[], int] = int  # bytes of disk space that other jobs will still take
        self._held = held
        self._cancelled = Event()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.meter.progress() if self.meter else self._held

    @property
    def stage(self) -> Stage:
        """The same in words."""
        return self.meter.stage() if self.meter else Stage("downloading", "asking the Hub")

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled.set()

    def pause(self, seconds: float = 0.0) -> None:
        """Wait a little. Raises Cancelled once nobody waits for the result."""
        if self._cancelled.wait(seconds) if seconds else self._cancelled.is_set():
            raise Cancelled


def in_background(work: Callable[[Job], T]) -> Generator[Chunk, None, T]:
    """Run `work` in a thread: its stage every HEARTBEAT, then its result or error. Closing this cancels the job."""
    job = Job()
    future = spawn(lambda: work(job))
    try:
        while not future.done():
            with suppress(TimeoutError):
                future.result(HEARTBEAT)
            if not future.done():
                yield Chunk(stage=job.stage)
        return future.result()
    finally:
        job.cancel()


def spawn(work: Callable[[], T]) -> Future[T]:
    """What `work` returns or raises, from a thread of its own that does not keep the program alive."""
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="job", daemon=True).start()
    return future


class Meter:
    """How far a download is, how fast, and how long it will still take. Several threads may add to it."""

    def __init__(
        self, name: str, total: int, held: int, job: Job, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.job = job
        self._name, self._total, self._done = name, total, held
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), held)])
        self._lock = Lock()  # between the connections of a transfer, and who looks at it
        job.meter = self

    def add(self, count: int) -> None:
        """So many bytes more; fewer where what was held is of no use. Raises Cancelled."""
        with self._lock:
            self._done += count
            now = self._clock()
            if count < 0:  # it is fetched again: the speed begins anew
                self._seen = deque([(now, self._done)])
            elif now - self._seen[-1][0] >= HEARTBEAT / 2:
                self._seen.append((now, self._done))
        self.job.pause()

    def progress(self) -> Progress:
        """How far it is now; the speed of the last seconds, which falls while nothing comes."""
        with self._lock:
            now = self._clock()
            while len(self._seen) > 1 and now - self._seen[0][0] > WINDOW:
                self._seen.popleft()
            since, before = self._seen[0]
            rate = (self._done - before) / (now - since) if now > since else 0.0
            return Progress(self._done, self._total, rate)

    def stage(self) -> Stage:
        """The same in words."""
        found = self.progress()
        return Stage("downloading", f"{self._name}, {size(self._total)}", found.fraction, found.seconds_left)


def size(count: float) -> str:
    """Bytes for people.

    >>> size(999), size(4_700_000_000)
    ('999 B', '4.7 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
