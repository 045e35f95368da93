"""How many threads a model decodes with: at most its share of the cores, fewer where that is quicker.

An engine divides every operation among its threads and waits for the last of them, so a thread whose core is busy
elsewhere holds up all: measured on two busy cores, 151 tokens a second with one thread and 2 with two. The count is
chosen by a short trial when the model is loaded. Then steps are watched: where they take much longer than usual, half
the threads are tried; after a while, one more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from statistics import median

RECENT = 5  # decoding steps whose median is what a step takes now: one that was held up says nothing
SLOW = 1.5  # of the usual time of a step: something is in the way
WORTH = 0.95  # of the time before: a change that saves less is taken back, for threads are dear to others
DRIFT = 1.001  # by which the usual time may grow with each step, as a conversation does
PATIENCE = 5.0  # seconds until one more thread is tried; twice as many each time in vain
MOST_PATIENCE = 120.0
MANY = 1 << 16  # threads: no count has proved to be enough
TRIALS = 3  # steps with each count, or as many as TRIAL_SECONDS allow
TRIAL_SECONDS = 0.2


class Pace:
    """Chooses the threads of one runtime. With a share of one core it never does anything."""

    def __init__(
        self, set_threads: Callable[[int], None], share: int = 1, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.threads = share
        self._share = share  # the most it may take, said by the app, which divides the cores
        self._useful = MANY  # how many have proved so
        self._set_threads = set_threads
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=RECENT)  # seconds
        self._usual = inf  # seconds of a step when nothing is in the way
        self._answers = 0  # of the steps that are compared
        self._tried: dict[int, float] = {}  # during a search: threads, and seconds of a step; the first as it was
        self._patience = PATIENCE
        self._next_try = clock() + PATIENCE

    def allow(self, share: int) -> None:
        """Take at most this many threads from now on."""
        self._share = share
        self._restart()
        self._set(min(share, self._useful))

    def probe(self, step: Callable[[], object]) -> None:
        """Find the count that a step is quickest with, the smallest of those that are about as quick."""
        if self._share == 1:
            return
        self._set(1)
        step()  # the first one also fetches the weights from the disk
        best, least = 1, inf
        for count in _counts(self._share):
            self._set(count)
            took = self._shortest(step)
            if took > WORTH * least:
                break
            best, least = count, took
        self._settle(best)

    def took(self, seconds: float, answers: int) -> None:
        """Take note of a step that decoded one token of each of `answers` answers."""
        if self._share == 1:
            return
        if answers != self._answers:
            self._answers = answers
            self._restart()
        self._recent.append(seconds)
        if self._tried:
            self._judge(seconds)
        elif len(self._recent) == RECENT:
            self._consider(median(self._recent))

    def _consider(self, now: float) -> None:
        """Change the count where the time of a step asks for it."""
        self._usual = min(now, self._usual * DRIFT)
        if now > SLOW * self._usual and self.threads > 1:
            self._try(self.threads // 2, now)
        elif self.threads < self._share and self._clock() >= self._next_try:
            self._try(self.threads + 1, now)

    def _try(self, count: int, now: float) -> None:
        self._tried[self.threads] = now
        self._recent.clear()
        self._set(count)

    def _judge(self, seconds: float) -> None:
        """Go on with the search, or end it at the best count; a far slower step is enough to see that more is worse."""
        start, before = next(iter(self._tried.items()))
        more = self.threads > start
        if len(self._recent) < RECENT and not (more and seconds > 2 * before):
            return
        now = median(self._recent)
        better = now < WORTH * before
        if not (better or more or self.threads == 1):
            self._try(self.threads // 2, now)
            return
        self._patience = min(MOST_PATIENCE, 2 * self._patience) if more and not better else PATIENCE
        self._usual = now if better else before
        self._settle(self.threads if better else start)

    def _settle(self, count: int) -> None:
        self._useful = count if count < self._share else MANY
        self._set(count)
        self._tried.clear()
        self._recent.clear()
        self._next_try = self._clock() + self._patience

    def _restart(self) -> None:
        """What was measured so far does not compare with what comes; a search is given up."""
        if self._tried:
            self._set(min(self._share, next(iter(self._tried))))
        self._tried.clear()
        self._recent.clear()
        self._usual = inf

    def _set(self, count: int) -> None:
        if count != self.threads:
            self.threads = count
            self._set_threads(count)

    def _shortest(self, step: Callable[[], object]) -> float:
        shortest, began = inf, self._clock()
        for _ in range(TRIALS):
            at = self._clock()
            step()
            shortest = min(shortest, self._clock() - at)
            if self._clock() - began > TRIAL_SECONDS:
                break
        return shortest


def _counts(share: int) -> Iterator[int]:
    """The counts worth trying.

    >>> list(_counts(1)), list(_counts(6)), list(_counts(8))
    ([1], [1, 2, 4, 6], [1, 2, 4, 8])
    """
    count = 1
    while count < share:
        yield count
        count *= 2
    yield share
