"""The engine connects once, asks, lets nothing escape and gives everything back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from multimodel import Engine, Message, ModelId, ModelSpec, SamplingParams, Settings, Snapshot, race
from multimodel.errors import MissingKey, RateLimited, ServerFailure, Unexpected
from multimodel.settings import ApiSettings, PerformanceSettings
from multimodel.types import Chunk

from .support import Fakes, eventually, fails, says, until

A, B = ModelId("fake", "a"), ModelId("fake", "b")
HELLO = [Message("user", "hello")]


def last(engine: Engine, model: ModelId = A, params: SamplingParams = SamplingParams()) -> Snapshot:
    *_, end = engine.ask(model, HELLO, params)
    return end


def test_an_answer_grows_and_ends_once() -> None:
    with Engine(connect=Fakes(says("one ", "two")).connect) as engine:
        seen = list(engine.ask(A, HELLO))
    assert [s.done for s in seen] == [False] * (len(seen) - 1) + [True]
    assert list(dict.fromkeys(s.text for s in seen)) == ["", "one ", "one two"]
    assert seen[-1].finish_reason == "stop" and seen[-1].error is None
    assert seen[-1].usage is not None and seen[-1].usage.output_tokens == 2


def test_the_parameters_and_the_conversation_arrive_as_given() -> None:
    fakes, params = Fakes(says("x")), SamplingParams(temperature=0.0, stop=("\n",))
    with Engine(connect=fakes.connect) as engine:
        last(engine, params=params)
    assert fakes["a"].asked == [tuple(HELLO)]
    assert fakes["a"].params == [params]


def test_the_settings_reach_the_model() -> None:
    chosen = Settings(performance=PerformanceSettings(threads=3))
    fakes = Fakes(says("x"))
    with Engine(chosen, connect=fakes.connect) as engine:
        last(engine)
    assert fakes.specs == [ModelSpec(A)]
    assert engine.pool.cores.total == 3


@pytest.mark.parametrize("error", [MissingKey("no key", hint="set it"), KeyError("a bug")])
def test_a_model_that_cannot_be_connected_is_an_answer_with_an_error(error: Exception) -> None:
    def connect(*_: object) -> Any:
        raise error

    with Engine(connect=connect) as engine:
        end = last(engine)
    assert end.finish_reason == "error" and end.error is not None and end.error.hint
    assert isinstance(end.error, MissingKey if isinstance(error, MissingKey) else Unexpected)


def test_an_error_keeps_what_was_said() -> None:
    with Engine(connect=Fakes(fails(ServerFailure("gone"), "so far")).connect) as engine:
        end = last(engine)
    assert (end.text, end.finish_reason) == ("so far", "error")
    assert isinstance(end.error, ServerFailure)


def test_a_stream_without_a_finish_reason_is_incomplete() -> None:
    def reply(_: Sequence[Message]) -> Iterable[Chunk]:
        yield Chunk("half")

    with Engine(connect=Fakes(reply).connect) as engine:
        end = last(engine)
    assert (end.text, end.finish_reason, end.error) == ("half", "incomplete", None)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_asks_again_as_often_as_the_settings_say(retries: int) -> None:
    fakes = Fakes(fails(RateLimited("busy", retry_after=0.0)))
    with Engine(Settings(api=ApiSettings(retries=retries)), connect=fakes.connect) as engine:
        end = last(engine)
    assert isinstance(end.error, RateLimited)
    assert len(fakes["a"].asked) == retries + 1


def test_a_failed_connection_is_tried_again_by_the_next_question() -> None:
    fakes, attempts = Fakes(says("back")), []

    def connect(*args: Any) -> Any:
        attempts.append(args)
        if len(attempts) == 1:
            raise MissingKey("no key")
        return fakes.connect(*args)

    with Engine(connect=connect) as engine:
        assert last(engine).error is not None
        assert last(engine).text == "back"


def test_however_many_ask_a_model_is_connected_once() -> None:
    fakes, asked, go = Fakes(says("x")), [], Event()

    def slow(*args: Any) -> Any:
        asked.append(args)
        assert go.wait(20)
        return fakes.connect(*args)

    with Engine(connect=slow) as engine, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(last, engine) for _ in range(8)]
        eventually(lambda: bool(asked))
        go.set()
        assert [answer.result(20).text for answer in answers] == ["x"] * 8
    assert len(asked) == len(fakes.made) == 1


def test_a_model_that_takes_long_to_connect_holds_up_no_other() -> None:
    fakes, go = Fakes(says("x")), Event()

    def connect(spec: Any, *args: Any) -> Any:
        assert spec.id != A or go.wait(20)
        return fakes.connect(spec, *args)

    with Engine(connect=connect) as engine, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(last, engine, A)
        assert last(engine, B).text == "x"
        assert not slow.done()
        go.set()
        assert slow.result(20).text == "x"


def test_an_unloaded_model_is_given_back_and_comes_again() -> None:
    fakes = Fakes(says("x"))
    with Engine(connect=fakes.connect) as engine:
        last(engine)
        engine.unload(A)
        engine.unload(A)
        assert [fake.closed for fake in fakes.made] == [1]
        last(engine)
    assert [fake.closed for fake in fakes.made] == [1, 1]


def test_closing_an_answer_ends_its_work() -> None:
    fakes = Fakes(until(Event(), "never ends"))
    with Engine(connect=fakes.connect) as engine:
        answer = engine.ask(A, HELLO)
        next(s for s in answer if s.text)
        answer.close()
        assert fakes["a"].ended == 1


def test_closing_the_engine_stops_every_run_and_closes_every_model() -> None:
    fakes = Fakes(until(Event(), "never ends"))
    engine = Engine(connect=fakes.connect)
    runs = [engine.start(model, HELLO) for model in (A, A, B)]
    eventually(lambda: all(run.newest.snapshot.text for run in runs))
    engine.close()
    engine.close()
    assert [run.newest.state for run in runs] == ["stopped"] * 3
    assert [run.newest.snapshot.finish_reason for run in runs] == ["stopped"] * 3
    assert {fake.model.name: (fake.ended, fake.closed) for fake in fakes.made} == {"a": (2, 1), "b": (1, 1)}


def test_a_run_goes_on_without_a_follower_and_can_be_followed_later() -> None:
    with Engine(connect=Fakes(says("a", "b", "c")).connect) as engine:
        run = engine.start(A, HELLO)
        run.join(20)
        (event,) = run.follow()
        assert (event.snapshot.text, event.state) == ("abc", "done")
        assert list(run.follow(after=event.cursor)) == []


def test_a_stopped_run_keeps_its_text_and_frees_its_model() -> None:
    fakes = Fakes(until(Event(), "so far"))
    with Engine(connect=fakes.connect) as engine:
        run = engine.start(A, HELLO)
        eventually(lambda: run.newest.snapshot.text == "so far")
        run.stop()
        assert (run.newest.snapshot.text, run.newest.snapshot.finish_reason) == ("so far", "stopped")
        run.join(20)
        assert fakes["a"].ended == 1


def test_one_bad_lane_ends_alone() -> None:
    fakes = Fakes(says("fine"), a=fails(ServerFailure("broken", retry_after=3600.0)))
    with Engine(connect=fakes.connect) as engine:
        lanes = {str(model): engine.ask(model, HELLO) for model in (A, B)}
        ends = {name: snapshot for name, snapshot in race(lanes) if snapshot.done}
    assert isinstance(ends["fake:a"].error, ServerFailure)
    assert ends["fake:b"].text == "fine"


def test_what_is_not_known_of_a_model_is_none() -> None:
    def connect(*_: object) -> Any:
        raise MissingKey("no key")

    with Engine(connect=connect) as engine:
        assert engine.capabilities(A) is None
        assert engine.measure(A, HELLO) is None


def test_what_is_known_comes_from_the_model() -> None:
    fakes = Fakes(says("x"))
    with Engine(connect=fakes.connect) as engine:
        assert engine.capabilities(A) is fakes["a"].capabilities
        size = engine.measure(A, HELLO)
    assert size is not None and size.tokens == 1


def test_the_echo_answers_through_the_whole_engine() -> None:
    with Engine() as engine:
        end = last(engine, ModelId("echo", "any"), SamplingParams(max_tokens=1))
    assert (end.text, end.finish_reason) == ("hello", "stop")
    assert end.timing.ttft is not None and end.timing.ttft >= 0
