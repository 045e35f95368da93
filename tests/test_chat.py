"""What the figures of an answer mean: when the clock starts, what counts as the first token, how an answer ends."""

from __future__ import annotations

import pytest

from multimodel.chat import ask, refused
from multimodel.errors import BrokenFile, ServerFailure, Unexpected
from multimodel.retry import RetryPolicy
from multimodel.types import Chunk, ModelId, Snapshot, Stage, TokenLogprob, ToolCall, Usage

from .scripted import END, Clock, Scripted, Step

POLICY = RetryPolicy(jitter=lambda: 1.0)


def play(*scripts: list[Step]) -> list[Snapshot]:
    clock = Clock()
    return list(ask(Scripted(clock, *scripts), [], policy=POLICY, clock=clock, sleep=clock.sleep))


def stage(name: str) -> Chunk:
    return Chunk(stage=Stage(name))  # type: ignore[arg-type]


def test_text_and_figures_of_a_plain_answer() -> None:
    *_, last = play(
        [0.5, Chunk("one "), 1.0, Chunk("two "), 1.0, Chunk("three"), Chunk(finish_reason="stop", usage=Usage(9, 5))]
    )
    assert (last.text, last.finish_reason, last.error) == ("one two three", "stop", None)
    assert (last.timing.ttft, last.timing.total, last.timing.loading) == (0.5, 2.5, 0.0)
    assert last.rate == 2.0


@pytest.mark.parametrize("name", ["queued", "downloading", "starting", "loading"])
def test_the_clock_starts_when_loading_has_ended(name: str) -> None:
    *_, last = play([stage(name), 7.0, stage("reading"), 0.5, Chunk("hi"), END])
    assert (last.timing.loading, last.timing.ttft) == (7.0, 0.5)


def test_reading_the_prompt_counts() -> None:
    *_, last = play([stage("reading"), 3.0, Chunk("hi"), END])
    assert (last.timing.loading, last.timing.ttft) == (0.0, 3.0)


def test_the_clock_starts_again_after_the_wait_of_a_retry() -> None:
    *_, last = play([2.0, ServerFailure("busy", retry_after=4.0)], [0.25, Chunk("hi"), END])
    assert last.text == "hi"
    assert last.timing.ttft is not None and last.timing.ttft <= 0.25 + 0.25  # at most one beat of the countdown
    assert last.timing.loading >= 5.0


def test_a_time_that_the_backend_stamped_is_the_time() -> None:
    *_, last = play([5.0, Chunk("a", at=100.5), 5.0, Chunk("b", at=101.0), END])
    assert (last.timing.ttft, last.timing.total) == (0.5, 1.0)


def test_thoughts_are_not_the_first_token() -> None:
    *_, last = play([1.0, Chunk(reasoning="hm"), 1.0, Chunk("hi"), END])
    assert (last.reasoning, last.text, last.timing.ttft) == ("hm", "hi", 2.0)


def test_the_speed_is_that_of_the_tokens_that_were_seen() -> None:
    """Counted, but thought before the first text: they took time before it, not after."""
    seen = [1.0, Chunk(reasoning="hm"), 1.0, Chunk("one "), 1.0, Chunk("two")]
    *_, last = play([*seen, Chunk(finish_reason="stop", usage=Usage(9, 21, reasoning_tokens=10))])
    assert (last.timing.ttft, last.rate) == (2.0, 10.0)
    silent = [2.0, Chunk("one "), 1.0, Chunk("two")]
    *_, last = play([*silent, Chunk(finish_reason="stop", usage=Usage(9, 511, reasoning_tokens=500))])
    assert (last.timing.ttft, last.rate) == (2.0, 10.0)


def test_a_call_is_of_the_answer_as_its_text_is() -> None:
    call = Chunk(calls=(ToolCall("f", "{}", "a"),))
    *_, last = play([1.0, Chunk("one "), 2.0, call, Chunk(finish_reason="tool_calls", usage=Usage(9, 21))])
    assert (last.timing.ttft, last.rate, last.timing.total) == (1.0, 10.0, 3.0)


def test_an_answer_without_text_has_no_first_token() -> None:
    *_, last = play([1.0, END])
    assert last.timing.ttft is None and last.timing.tokens_per_second(0) is None


def test_a_stream_without_a_finish_reason_is_incomplete() -> None:
    *_, last = play([Chunk("cut")])
    assert (last.text, last.finish_reason, last.stage) == ("cut", "incomplete", None)


def test_an_error_keeps_the_text_so_far() -> None:
    error = ServerFailure("gone")
    *_, last = play([Chunk("half"), error])
    assert (last.text, last.finish_reason, last.error) == ("half", "error", error)


def test_a_bug_is_shown_in_its_column_and_says_whose_fault_it_is() -> None:
    *_, last = play([Chunk("half"), ValueError("oops")])
    assert isinstance(last.error, Unexpected) and "ValueError: oops" in str(last.error)
    assert "fault of the app" in last.error.hint


def test_an_answer_that_could_not_start() -> None:
    error = BrokenFile("damaged")
    last = refused(ModelId("a", "b"), error, 1.0)
    assert last.done and last.error is error and last.text == ""


def test_stages_are_shown_until_something_is_said() -> None:
    stages = [s.stage.name if s.stage else None for s in play([stage("loading"), stage("reading"), Chunk("hi"), END])]
    assert stages == [None, "loading", "reading", None, None]


def test_nothing_new_is_the_same_snapshot_again() -> None:
    first, second, *_ = play([Chunk(), Chunk("hi"), END])
    assert second is first


def test_a_note_is_kept_once() -> None:
    *_, last = play([Chunk(note="careful"), Chunk(note="careful"), Chunk("hi"), END])
    assert last.notes == ("careful",)


def test_log_probabilities_add_up_whether_or_not_their_text_can_be_shown_yet() -> None:
    half, rest, stop = (TokenLogprob.of(data, -0.5) for data in (b"\xc3", b"\xa9", b"!"))
    _, first, second, *_, last = play([1.0, Chunk(logprobs=(half,)), 1.0, Chunk("é", logprobs=(rest, stop)), END])
    assert (first.text, first.logprobs, first.timing.ttft) == ("", (half,), None)
    assert (second.text, second.timing.ttft) == ("é", 2.0)
    assert last.logprobs == (half, rest, stop)


def test_closing_ends_the_stream_of_the_backend() -> None:
    clock = Clock()
    backend = Scripted(clock, [Chunk("a"), Chunk("b"), END])
    snapshots = ask(backend, [], clock=clock, sleep=clock.sleep)
    next(snapshots), next(snapshots)
    assert backend.closed == 0
    snapshots.close()
    assert backend.closed == 1
