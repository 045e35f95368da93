"""The one owner of the processor: it divides the cores among the local models that are decoding now.

Two engines that each take every core wait for each other at every barrier; measured on two cores, two models at two
threads each fall to a few tokens a second, at one thread each they keep their speed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock


class Cores:
    """Shares `total` cores evenly among the active holders; each is told its share whenever that changes.

    >>> told = []
    >>> cores = Cores(4)
    >>> with cores.share(told.append):
    ...     with cores.share(lambda n: None):
    ...         pass
    >>> told
    [4, 2, 4]
    """

    def __init__(self, total: int) -> None:
        self.total = max(1, total)
        self._lock = Lock()  # between the threads of the runs that start and end
        self._holders: list[Callable[[int], None]] = []

    @property
    def held(self) -> int:
        """How many answers, trainings and predictions hold a share."""
        return len(self._holders)

    @contextmanager
    def share(self, tell: Callable[[int], None]) -> Generator[None]:
        """Hold a share while an answer decodes; `tell` gets the number of threads, at least one."""
        with self._lock:
            self._holders.append(tell)
            self._tell()
        try:
            yield
        finally:
            with self._lock:
                self._holders.remove(tell)
                self._tell()

    def _tell(self) -> None:
        distinct = list(dict.fromkeys(self._holders))  # one model answering twice is one holder
        for tell in distinct:
            tell(max(1, self.total // len(distinct)))
