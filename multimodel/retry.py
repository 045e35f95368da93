"""When to ask again, and how long to wait first. The only retries there are: those of the SDKs are switched off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .errors import Retryable
from .types import Backend, Chunk, Message, SamplingParams, Stage

BEAT = 0.25
"""Seconds between two heartbeats of anything that waits."""


def _now() -> datetime:
    return datetime.now(UTC)


def retry_after(headers: Mapping[str, str], now: Callable[[], datetime] = _now) -> float | None:
    """Seconds asked for by a Retry-After header, which is a number or a date (RFC 9110, 10.2.3); None without one.

    >>> retry_after({"retry-after": "2"}), retry_after({"retry-after": "-5"}), retry_after({"retry-after": "soon"})
    (2.0, 0.0, None)
    """
    value = headers.get("retry-after") or headers.get("Retry-After") or ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - now()).total_seconds())
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; a service that names a time gets just that time."""

    attempts: int = 3
    base_delay: float = 0.5  # seconds
    max_delay: float = 8.0
    patience: float = 60.0  # a longer Retry-After is not waited for
    jitter: Callable[[], float] = random.random

    def delay(self, attempt: int, error: Retryable) -> float | None:
        """Seconds to wait after the failed attempt 1, 2, ...; None: do not ask again.

        >>> policy = RetryPolicy(jitter=lambda: 1.0)
        >>> [policy.delay(n, Retryable("")) for n in (1, 2, 3)]
        [0.5, 1.0, None]
        >>> policy.delay(1, Retryable("", retry_after=3600.0)) is None
        True
        """
        if attempt >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.patience else None
        full = min(self.base_delay * 2.0 ** (attempt - 1), self.max_delay)
        return full * (0.5 + 0.5 * self.jitter())


def stream_with_retries(
    backend: Backend,
    messages: Sequence[Message],
    params: SamplingParams,
    policy: RetryPolicy,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[Chunk]:
    """`backend.stream`, started again after a retryable failure as long as nothing was shown yet."""
    attempt = 0
    while True:
        attempt += 1
        shown = False
        try:
            with closing(backend.stream(messages, params)) as chunks:
                for chunk in chunks:
                    shown = shown or bool(chunk.text or chunk.reasoning)
                    yield chunk
            return
        except Retryable as error:
            delay = None if shown else policy.delay(attempt, error)
            if delay is None:
                raise
            yield from _countdown(delay, str(error), clock, sleep)


def _countdown(
    delay: float, reason: str, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Generator[Chunk]:
    until = clock() + delay
    while (left := until - clock()) > 0:
        yield Chunk(stage=Stage("retrying", reason, seconds=left))
        sleep(min(BEAT, left))
