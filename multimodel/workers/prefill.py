"""How much of the prompts a step evaluates: chunked prefill, by what a token has cost so far."""

from __future__ import annotations

MOST = 256  # tokens
SHARED = 32  # tokens beside answers that decode, whose next token waits for them; more where they are read in STALL
LEAST = 8  # tokens
STALL = 0.2  # seconds an answer on its way may wait for the prompts of others, at a time
REST = 0.25  # of such a time, in which it then goes on alone: so it keeps a pace that can be read along
SLOW = 0.5  # seconds; longer steps would obey a cancel late
FEW = 16  # tokens: a smaller chunk tells too little of what one costs


class Chunks:
    """The size of the next chunk of prompt tokens.

    >>> chunks = Chunks()
    >>> chunks.size(shared=False), chunks.size(shared=True)
    (256, 32)
    >>> chunks.took(100, seconds=0.1)
    >>> chunks.size(shared=False), chunks.size(shared=True)
    (256, 200)
    >>> chunks.took(32, seconds=3.2)
    >>> chunks.size(shared=False), chunks.size(shared=True)
    (9, 9)
    >>> chunks.took(32, seconds=3.2, shared=True)
    >>> chunks.rested(0.5)
    >>> chunks.size(shared=False), chunks.size(shared=True)
    (8, 0)
    """

    def __init__(self) -> None:
        self._cost: float | None = None  # seconds a token
        self._owed = 0.0  # seconds of rest

    def size(self, *, shared: bool) -> int:
        """Tokens of all prompts together; `shared`: while others decode, who may have the next steps to themselves."""
        if shared and self._owed > 0:
            return 0
        if self._cost is None:
            return SHARED if shared else MOST
        slow = max(LEAST, int(SLOW / self._cost))
        quick = max(SHARED, round(STALL / self._cost)) if shared else MOST
        return min(quick, slow, MOST)

    def took(self, tokens: int, seconds: float, *, shared: bool = False) -> None:
        """A step with so many tokens took so long; `shared`: others, which decode, waited for it."""
        self._owed = REST * seconds if shared else 0.0
        if tokens >= FEW:
            cost = max(seconds / tokens, 1e-9)
            self._cost = cost if self._cost is None else (self._cost + cost) / 2

    def rested(self, seconds: float) -> None:
        """A step without prompts took so long."""
        self._owed -= seconds
