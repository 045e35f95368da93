"""When a model is asked again, how long the wait is, and that it is shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from multimodel.errors import (
    AuthenticationFailure,
    MultimodelError,
    QuotaExceeded,
    RateLimited,
    Retryable,
    ServerFailure,
)
from multimodel.retry import RetryPolicy, retry_after, stream_with_retries
from multimodel.types import Chunk, SamplingParams

from .scripted import END, Clock, Scripted, Step

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy(jitter=lambda: 1.0)
FINE: list[Step] = [Chunk("hi"), END]


class Tried:
    """What came of asking a scripted backend."""

    def __init__(self, *scripts: list[Step], policy: RetryPolicy = POLICY) -> None:
        clock = Clock()
        self.backend = Scripted(clock, *scripts)
        self.chunks: list[Chunk] = []
        self.error: MultimodelError | None = None
        try:
            for chunk in stream_with_retries(self.backend, [], SamplingParams(), policy, clock, clock.sleep):
                self.chunks.append(chunk)
        except MultimodelError as error:
            self.error = error
        self.waited = clock.now - 100.0
        self.text = "".join(chunk.text for chunk in self.chunks)
        self.stages = [chunk.stage for chunk in self.chunks if chunk.stage]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("-5", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("header", ["retry-after", "Retry-After"])
def test_both_forms_of_retry_after(header: str, value: str, seconds: float | None) -> None:
    assert retry_after({header: value}, now=lambda: NOON) == seconds


def test_no_header_is_no_time() -> None:
    assert retry_after({}) is None


def test_a_failure_before_the_first_text_is_asked_again() -> None:
    tried = Tried([ServerFailure("busy")], FINE)
    assert (tried.text, tried.backend.calls, tried.waited) == ("hi", 2, 0.5)


@pytest.mark.parametrize("said", [Chunk("half"), Chunk(reasoning="hm")])
def test_a_failure_after_something_was_shown_is_not(said: Chunk) -> None:
    tried = Tried([said, ServerFailure("busy")], FINE)
    assert isinstance(tried.error, ServerFailure) and (tried.backend.calls, tried.waited) == (1, 0.0)


def test_stages_and_heartbeats_are_not_text() -> None:
    tried = Tried([Chunk(), Chunk(note="careful"), ServerFailure("busy")], FINE)
    assert tried.text == "hi"


@pytest.mark.parametrize("error", [AuthenticationFailure("no"), QuotaExceeded("empty"), MultimodelError("other")])
def test_what_will_not_pass_is_not_asked_again(error: MultimodelError) -> None:
    tried = Tried([error], FINE)
    assert tried.error is error and tried.backend.calls == 1


def test_the_waits_double_and_the_last_error_is_raised() -> None:
    errors = [ServerFailure(str(n)) for n in range(3)]
    tried = Tried(*([error] for error in errors))
    assert tried.error is errors[-1] and (tried.backend.calls, tried.waited) == (3, 1.5)


def test_a_service_that_names_a_time_gets_just_that_time() -> None:
    tried = Tried([RateLimited("slow", retry_after=7.0)], FINE)
    assert (tried.text, tried.waited) == ("hi", 7.0)


def test_an_hour_is_not_waited_for() -> None:
    tried = Tried([RateLimited("slow", retry_after=3600.0)], FINE)
    assert isinstance(tried.error, RateLimited) and tried.waited == 0.0


def test_the_wait_is_shown_as_a_countdown_with_the_reason() -> None:
    tried = Tried([RateLimited("too many", retry_after=2.0)], FINE)
    left = [stage.seconds for stage in tried.stages]
    assert left == [2.0 - 0.25 * n for n in range(8)]
    assert {(stage.name, stage.detail) for stage in tried.stages} == {("retrying", "too many")}


def test_a_wait_can_be_left() -> None:
    clock = Clock()
    backend = Scripted(clock, [ServerFailure("busy", retry_after=30.0)], FINE)
    chunks = stream_with_retries(backend, [], SamplingParams(), POLICY, clock, clock.sleep)
    assert next(chunks).stage
    chunks.close()
    assert (backend.calls, backend.closed) == (1, 1)


def test_jitter_keeps_a_wait_between_half_and_whole() -> None:
    low, high = (RetryPolicy(jitter=lambda j=j: j).delay(1, Retryable("")) for j in (0.0, 1.0))
    assert (low, high) == (0.25, 0.5)
    assert RetryPolicy(attempts=99, jitter=lambda: 1.0).delay(20, Retryable("")) == 8.0
