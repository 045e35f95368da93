"""A blocking stream, read by a thread of its own, so that its consumer can keep an eye on the clock and leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

from .errors import TimedOut

T = TypeVar("T")

AHEAD = 1024
"""How many items the thread may read ahead of its consumer."""

GRACE = 1.0
"""Seconds a consumer that leaves waits for the thread, which has just been hung up on."""


@dataclass(frozen=True, slots=True)
class Arrived(Generic[T]):
    """An item and when it came, by time.perf_counter()."""

    item: T
    at: float


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def pump(
    open: Callable[[], Generator[T]],
    close: Callable[[], None],
    *,
    first_timeout: float,
    stall_timeout: float,
    beat: float = 0.2,
) -> Generator[Arrived[T] | None]:
    """The items of `open()` as they arrive; None whenever nothing came within `beat` seconds.

    `close` is called by the consumer's thread at the end, or where it leaves early; it must wake the reading thread
    wherever that blocks. Raises what `open()` raises; TimedOut without a first item within `first_timeout` seconds or
    a next one within `stall_timeout`.
    """
    items: Queue[Arrived[T] | _End] = Queue(AHEAD)
    left = Event()
    thread = Thread(target=_read, args=(open, items, left), name="pump", daemon=True)
    thread.start()
    deadline, late = time.perf_counter() + first_timeout, f"No answer began within {first_timeout:g} s."
    try:
        while not isinstance(item := _next(items, beat), _End):
            if item is None and time.perf_counter() > deadline:
                raise TimedOut(late, hint="Try again, or choose another model.")
            yield item
            if item:
                deadline, late = time.perf_counter() + stall_timeout, f"Nothing more came for {stall_timeout:g} s."
        if item.error:
            raise item.error
    finally:
        left.set()
        close()
        thread.join(GRACE)


def _next(items: Queue[Arrived[T] | _End], beat: float) -> Arrived[T] | _End | None:
    try:
        return items.get(timeout=beat)
    except Empty:
        return None


def _read(open: Callable[[], Generator[T]], items: Queue[Arrived[T] | _End], left: Event) -> None:
    end = _End()
    try:
        with closing(open()) as source:
            for item in source:
                if not _put(items, Arrived(item, time.perf_counter()), left):
                    break
    except BaseException as error:
        end = _End(error)
    _put(items, end, left)


def _put(items: Queue[Arrived[T] | _End], item: Arrived[T] | _End, left: Event) -> bool:
    """Whether it was taken; False once the consumer has left."""
    while not left.is_set():
        try:
            items.put(item, timeout=0.1)
            return True
        except Full:
            continue
    return False
