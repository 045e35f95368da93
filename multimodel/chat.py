"""Ask one model. The only place that folds chunks into snapshots and knows what their times mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from .errors import MultimodelError, Unexpected
from .messages import taken
from .retry import RetryPolicy, stream_with_retries
from .spoken import Spoken
from .types import Backend, Chunk, Message, ModelId, SamplingParams, Sent, Snapshot, Timing, digest_of

RESTARTS_CLOCK = frozenset({"queued", "downloading", "starting", "loading", "retrying"})
"""Stages before the model is asked (again): the time to first token starts when the last of them ends."""


def ask(
    backend: Backend,
    messages: Sequence[Message],
    params: SamplingParams = SamplingParams(),
    *,
    policy: RetryPolicy = RetryPolicy(),
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    sent: Sent | None = None,
) -> Generator[Snapshot]:
    """Snapshots of one answer; the last one is done. Errors arrive as the last snapshot.

    `sent`: what is known of the request before the backend tells of it.

    While nothing is new the same snapshot is yielded again, at least every quarter of a second: a chance to close.
    """
    honoured, known = params.only(backend.capabilities.params), replace(sent or Sent(), messages=digest_of(messages))
    now = Snapshot(backend.model, "", Timing(clock()), params=honoured, sent=known)
    yield now
    try:
        messages, notes = taken(messages, backend.capabilities)
        now, spoken = replace(now, notes=notes) if notes else now, Spoken(calls=params.tools is not None)
        with closing(stream_with_retries(backend, messages, params, policy, clock, sleep)) as chunks:
            for chunk in chunks:
                now = fold(now, spoken.told(chunk), clock)
                yield now
        if not now.done:
            yield replace(now, finish_reason="incomplete", stage=None)
    except Exception as error:
        yield failed(now, error)


def go_on(answer: Generator[Snapshot], before: Snapshot) -> Generator[Snapshot]:
    """An answer that goes on from `before`: its snapshots hold both texts, and the figures of the new one."""
    last = joined = None
    with closing(answer):
        for now in answer:
            if now is not last:
                last, joined = now, _joined(before, now)
            yield joined  # type: ignore[misc]


def _joined(before: Snapshot, now: Snapshot) -> Snapshot:
    return replace(
        now,
        text=before.text + now.text,
        reasoning=before.reasoning + now.reasoning,
        notes=before.notes + now.notes,
        logprobs=before.logprobs + now.logprobs,
        sent=replace(now.sent, begun=len(before.text)) if now.sent else None,
    )


def failed(now: Snapshot, error: Exception) -> Snapshot:
    """The last snapshot of an answer that ended in an error; its text so far is kept."""
    if not isinstance(error, MultimodelError):
        hint = "This is a fault of the app. Please report it with this text; the other columns are not affected."
        error = Unexpected(f"{type(error).__name__}: {error}", hint=hint)
    return replace(now, finish_reason="error", error=error, stage=None)


def refused(model: ModelId, error: Exception, started: float) -> Snapshot:
    """The snapshot of an answer that could not even start."""
    return failed(Snapshot(model, "", Timing(started)), error)


def fold(now: Snapshot, chunk: Chunk, clock: Callable[[], float]) -> Snapshot:
    """The snapshot after one more chunk; the same object when the chunk is a heartbeat.

    >>> start = Snapshot(ModelId("echo", "any"), "", Timing(1.0))
    >>> after = fold(start, Chunk("Hi", at=1.5), clock=lambda: 9.9)
    >>> after.text, after.timing.ttft
    ('Hi', 0.5)
    >>> fold(after, Chunk(), clock=lambda: 9.9) is after
    True
    """
    if chunk == Chunk():
        return now
    at = clock() if chunk.at is None else chunk.at
    return replace(
        now,
        text=now.text + chunk.text,
        reasoning=now.reasoning + chunk.reasoning,
        timing=_timing(now.timing, chunk, at, waiting=_restarts(now)),
        usage=chunk.usage or now.usage,
        finish_reason=chunk.finish_reason,
        stage=None if chunk.text or chunk.reasoning or chunk.calls or chunk.finish_reason else chunk.stage or now.stage,
        notes=(*now.notes, chunk.note) if chunk.note and chunk.note not in now.notes else now.notes,
        logprobs=now.logprobs + chunk.logprobs,
        cost=chunk.cost or now.cost,
        provider=chunk.provider or now.provider,
        memory=now.memory if chunk.memory is None else max(chunk.memory, now.memory or 0),
        sent=(now.sent or Sent()).merge(chunk.sent) if chunk.sent else now.sent,
        calls=chunk.calls or now.calls,
    )


def _restarts(now: Snapshot) -> bool:
    return now.stage is not None and now.stage.name in RESTARTS_CLOCK


def _timing(timing: Timing, chunk: Chunk, at: float, *, waiting: bool) -> Timing:
    if waiting and timing.decoding is None:  # up to here the model had not been asked
        loading = timing.loading + max(0.0, at - timing.started)
        timing = replace(timing, started=at, loading=loading)
    if not (chunk.text or chunk.reasoning or chunk.calls):
        return timing
    first = at if chunk.text and timing.first_token is None else timing.first_token
    begun = at if not chunk.text and timing.decoding is None else timing.begun
    return replace(timing, first_token=first, last_token=at, begun=begun)
