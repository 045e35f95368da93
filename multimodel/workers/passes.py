"""Whether answers that decode share a forward pass or have one each, by which took less time.

A pass reads the weights once for all who share it, but its kernels for a few tokens are not those for one. It depends
on the processor and on the format of the weights: measured with llama.cpp of summer 2026 and 85M parameters at one
thread, in milliseconds for 1, 2, 4 and 8 answers: Q8_0 4.6, 17.5, 25.9 and 28.7; F16 7.2, 14.0, 14.9 and 26.9. So two
answers of the first have twice the speed apart, and eight are better off together.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

RECENT = 8  # steps of each way; the quickest counts, for others may have held up the rest
TRIES = 2  # steps of a way before it is judged
AGAIN = 500  # steps after which the other way is tried anew: the machine may be another one by then
WORTH = 0.95  # of the time of a common pass: a difference below is noise


class Way:
    """What steps took that went one way."""

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=RECENT)
        self.wanted = TRIES  # steps until it is judged

    def took(self, seconds: float) -> None:
        """Take note of a step."""
        self.seconds.append(seconds)
        self.wanted = max(0, self.wanted - 1)

    def again(self) -> None:
        """Forget, and try anew."""
        self.seconds.clear()
        self.wanted = TRIES


class Passes:
    """The choice for each number of answers.

    >>> passes = Passes()
    >>> for seconds in (0.02, 0.02, 0.01, 0.01):
    ...     together = passes.together(2)
    ...     passes.took(2, together, seconds)
    >>> passes.together(1), passes.together(2)
    (True, False)
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Nothing measured so far says anything: the number of threads is another one."""
        self._ways = defaultdict[int, tuple[Way, Way]](lambda: (Way(), Way()))  # together and apart, by the answers
        self._steps = Counter[int]()

    def together(self, answers: int) -> bool:
        """Whether so many are best evaluated in one pass."""
        if answers < 2:
            return True
        common, own = self._ways[answers]
        if common.wanted or own.wanted:
            return bool(common.wanted)
        return min(own.seconds) >= WORTH * min(common.seconds)

    def took(self, answers: int, together: bool, seconds: float) -> None:
        """A step of so many that went this way took so long."""
        if answers < 2:
            return
        self._ways[answers][not together].took(seconds)
        self._steps[answers] += 1
        if self._steps[answers] % AGAIN == 0:
            self._ways[answers][together].again()
