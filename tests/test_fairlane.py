"""The fair lane: each model alone, warm, several times; never a turn, and kept with the conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, ForeignFile, InvalidParameter, ServerFailure
from multimodel.exchange import from_json, to_json, to_markdown
from multimodel.fairlane import FairLane, FairModel, FairUpdate, Sample, rough, spread
from multimodel.measuring import Measuring, Pace
from multimodel.settings import ApiSettings, ChatSettings, Settings
from multimodel.types import Cost, Message, ModelId, SamplingParams, Snapshot, Timing, Usage
from tabs.export import line, to_html
from tabs.fairlane import FairPanel, fair_view
from tabs.fairlane_page import cells, fair_html, fair_markdown, fair_table, remarks, state_text, verdict

from .support import Fakes, eventually, fails, needs, says

LONG = "one two three four five six seven eight nine ten"


@pytest.fixture
def engine() -> Iterator[Engine]:
    chat = ChatSettings(columns=("echo:any", "echo:slow"), data_dir=Path("data"))
    with Engine(Settings(chat=chat)) as made:
        yield made


def asked(engine: Engine, prompt: str = LONG) -> Board:
    board = Boards(engine).get(None)
    assert board.send(prompt)
    eventually(lambda: not board.active())
    return board


def ended(board: Board) -> FairLane:
    eventually(lambda: not board.measuring(), 60.0)
    found = board.fair()
    assert found
    return found.lane


# what is measured


def test_each_model_is_asked_as_often_as_was_said_and_no_turn_is_added(engine: Engine) -> None:
    board = asked(engine, "one two three")
    before = board.kept()
    board.measure_alone(2)
    lane = ended(board)
    assert lane.state == "done"
    assert lane.prompt == "one two three"
    assert [len(model.warm) for model in lane.models] == [2, 2]
    assert [str(model.model) for model in lane.models] == ["echo:any", "echo:slow"]
    assert all(sample.alone and not sample.error for model in lane.models for sample in model.samples)
    slow = spread(lane.models[1].fair, lambda sample: sample.rate)
    assert slow
    assert slow.low <= slow.middle <= slow.high < 50
    assert lane.models[1].beside.rate is not None
    assert board.kept().turns == before.turns
    assert board.kept().states == before.states


def test_the_request_is_the_one_that_was_answered() -> None:
    fakes = Fakes(says("fine"))
    with Engine(connect=fakes.connect) as engine:
        board = Board(engine, [ModelId("fake", "a")])
        for prompt in ("first", "second"):
            assert board.send(prompt)
            eventually(lambda: not board.active())
        board.measure_alone(2)
        ended(board)
        talks = [[(m.role, m.content) for m in messages] for messages in fakes["a"].asked]
    assert talks[1] == talks[2] == talks[3] == [("user", "first"), ("assistant", "fine"), ("user", "second")]


@needs("llama_cpp")
def test_a_local_model_reads_its_prompt_afresh_unless_a_cached_prefix_is_wanted(tmp_path: Path) -> None:
    with Engine(Settings(chat=ChatSettings(data_dir=tmp_path))) as engine:
        board = Board(engine, [ModelId("gguf", "guide")])
        assert board.send("What is a token? " * 20)
        eventually(lambda: not board.active(), 60.0)
        board.measure_alone(2, cold=True)
        fresh = ended(board)
        board.measure_alone(2, cached=True, cold=False)
        cached = ended(board)
    (model,), (again,) = fresh.models, cached.models
    assert model.cold
    assert model.cold.loading > 0
    assert [sample.usage.reused_tokens for sample in model.warm if sample.usage] == [0, 0]
    assert [sample.reused for sample in model.warm] == [0, 0]
    assert all((sample.reused or 0) > 0.5 for sample in again.warm)
    assert again.cold is None
    assert all(sample.loading < 0.2 for sample in model.warm)
    assert [s.usage.output_tokens for s in model.warm if s.usage] == [
        s.usage.output_tokens for s in again.warm if s.usage
    ]


@needs("torch", "transformers")
def test_a_fresh_prompt_is_read_whole_by_transformers_too(tiny_folder: Path) -> None:
    from multimodel.types import LoadOptions
    from multimodel.workers.torch import load

    runtime = load(tiny_folder, LoadOptions(), 1, lambda *_: None)
    first, fresh, cached = reused(runtime)
    assert first == fresh == 0
    assert cached > 0


@needs("llama_cpp")
def test_a_fresh_prompt_is_read_whole_by_llama_cpp_too(tiny_gguf_file: Path) -> None:
    from multimodel.types import LoadOptions
    from multimodel.workers.llama import load

    runtime = load(tiny_gguf_file, LoadOptions(), 1, lambda *_: None)
    first, fresh, cached = reused(runtime)
    assert first == fresh == 0
    assert cached > 0


def reused(runtime: Any) -> list[int]:
    """The tokens that a cache held, of a first prompt, of the same asked afresh, and of the same as usual."""
    from multimodel.workers.protocol import Request

    found = []
    for id, fresh in enumerate((False, True, False)):
        params = SamplingParams(max_tokens=2, temperature=0.0)
        runtime.admit(Request(id, (Message("user", "What is a token, and what is none?"),), params, fresh))
        events = []
        while runtime.active():
            events += runtime.step()
        runtime.drop(id)
        usage = next(event["usage"] for event in events if event["event"] == "done")
        found.append(usage.reused_tokens if isinstance(usage, Usage) else usage["reused_tokens"])
    runtime.close()
    return found


# other work


def test_it_waits_for_other_work_and_is_alone_then(engine: Engine) -> None:
    board = asked(engine)
    holding = engine.pool.cores.share(lambda count: None)
    with holding:
        board.measure_alone(1)
        eventually(lambda: "until this machine is free" in doing(board))
        assert done(board) == 0
    lane = ended(board)
    assert all(sample.alone for model in lane.models for sample in model.warm)


def test_what_was_not_alone_is_marked(engine: Engine) -> None:
    board = asked(engine)
    vars(engine)["measuring"] = Measuring(engine, patience=0.0)
    with engine.pool.cores.share(lambda count: None):
        board.measure_alone(1)
        lane = ended(board)
    assert [model.shared for model in lane.models] == [1, 1]
    assert all(model.fair == model.warm for model in lane.models)


def test_work_that_begins_in_the_middle_marks_a_sample(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(1)
    eventually(lambda: "asking echo:slow" in doing(board) and done(board) == 3)  # after its warm-up
    with engine.pool.cores.share(lambda count: None), engine.pool.cores.share(lambda count: None):
        lane = ended(board)
    assert lane.models[1].shared == 1
    assert lane.models[0].shared == 0


def test_two_visitors_measure_one_after_the_other(engine: Engine) -> None:
    one, other = asked(engine), asked(engine)
    one.measure_alone(1)
    eventually(lambda: "asking" in doing(one))
    other.measure_alone(1)
    lanes = ended(one), ended(other)
    assert all(sample.alone for lane in lanes for model in lane.models for sample in model.warm)


def doing(board: Board) -> str:
    found = board.fair()
    return found.doing if found else ""


def done(board: Board) -> int:
    found = board.fair()
    return found.done if found else 0


# stop, errors, refusals


def test_stopping_keeps_what_was_measured_and_frees_the_model(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(5)
    eventually(lambda: done(board) >= 7)  # the slow one has begun
    board.stop_measuring()
    lane = ended(board)
    assert lane.state == "stopped"
    assert len(lane.models[0].warm) == 5
    assert len(lane.models[1].warm) < 5
    assert engine.measuring._turn.acquire(timeout=5.0)
    engine.measuring._turn.release()


def test_a_model_that_fails_is_asked_once_and_the_others_go_on() -> None:
    errors = iter([says("fine"), *[fails(ServerFailure("broken"))] * 9])
    fakes = Fakes(lambda messages: next(errors)(messages), b=says("good"))
    with Engine(Settings(api=ApiSettings(retries=0)), connect=fakes.connect) as engine:
        board = Board(engine, [ModelId("fake", "a"), ModelId("fake", "b")])
        assert board.send("hi")
        eventually(lambda: not board.active())
        board.measure_alone(3)
        lane = ended(board)
    assert [sample.error for sample in lane.models[0].warm] == ["broken"]
    assert lane.models[0].fair == ()
    assert len(lane.models[1].warm) == 3


def test_what_cannot_be_measured_is_refused(engine: Engine) -> None:
    board = Boards(engine).get(None)
    with pytest.raises(BadRequest, match="no answer to compare"):
        board.measure_alone(1)
    board = asked(engine)
    for repeats in (0, 11):
        with pytest.raises(InvalidParameter):
            board.measure_alone(repeats)
    board.measure_alone(1)
    with pytest.raises(BadRequest, match="measured already"):
        board.measure_alone(1)
    board.stop_measuring()
    assert board.send("again")
    with pytest.raises(BadRequest, match="still answering"):
        board.measure_alone(1)


def test_closing_the_engine_ends_it(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(10)
    engine.close()
    assert not board.measuring()


def test_its_answers_are_paid_too() -> None:
    settings = Settings(api=ApiSettings(prices={"fake:a": (1000.0, 2000.0)}))
    with Engine(settings, connect=Fakes(says("four")).connect) as engine:
        board = Board(engine, [ModelId("fake", "a")])
        assert board.send("four")
        eventually(lambda: not board.active())
        once = board.spent().amount
        board.measure_alone(2)
        lane = ended(board)
        asked_again = len(lane.models[0].samples)
        assert board.spent().amount == pytest.approx((1 + asked_again) * once)


# kept


def test_it_is_found_again_after_the_app_has_ended() -> None:
    chat = ChatSettings(columns=("echo:any",), data_dir=Path("data"))
    with Engine(Settings(chat=chat)) as engine:
        board = asked(engine)
        board.measure_alone(2)
        lane, id = ended(board), board.id
    with Engine(Settings(chat=chat)) as engine:
        again = Boards(engine).get(id)
        assert again.fair() == FairUpdate(lane)
        again.measure_alone(1)
        assert ended(again).number == 2


def test_one_that_the_end_of_the_app_cut_short_is_marked() -> None:
    chat = ChatSettings(columns=("echo:any",), data_dir=Path("data"))
    with Engine(Settings(chat=chat)) as engine:
        board = asked(engine)
        board.measure_alone(1)
        lane, id = ended(board), board.id
        engine.store.record("", board.chat).measured(replace(lane, state="running"))
    with Engine(Settings(chat=chat)) as engine:
        found = Boards(engine).get(id).fair()
    assert found
    assert found.lane.state == "interrupted"


def test_it_travels_with_the_conversation(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(1)
    lane = ended(board)
    kept = board.kept()
    assert kept.measured == (lane,)
    text = to_json(kept, {})
    assert from_json(text)[0].measured == (lane,)
    assert Boards(engine).keep(board.id, from_json(text)[0]).fair() == FairUpdate(lane)
    column = board.columns()[0]
    assert board.branch(column.key, column.turns[0].id).measured == (lane,)
    for broken in (text.replace('"turn": 1', '"turn": 99'), text.replace('"repeats": 1', '"repeats": 4711')):
        assert broken != text
        with pytest.raises(ForeignFile):
            from_json(broken)


def test_it_is_shown_while_its_answers_are(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(1)
    lane = ended(board)
    assert board.send("and more")
    eventually(lambda: not board.active())
    assert board.fair() == FairUpdate(lane)
    board.clear()
    assert board.fair() is None


# what is shown


def measured(**more: Any) -> FairLane:
    """A lane of two models, whose figures are easy to read."""

    def sample(ttft: float, rate: float, **rest: Any) -> Sample:
        return Sample(ttft, rate, Usage(100, 100, reused_tokens=rest.pop("reused", 0)), **rest)

    warm = tuple(sample(ttft, rate) for ttft, rate in ((0.1, 40.0), (0.2, 50.0), (0.3, 45.0)))
    one = FairModel(
        "k1", 1, ModelId("gguf", "o/one"), sample(0.4, 20.0, reused=50), sample(0.5, 9.0, loading=2.5), warm
    )
    shared = (sample(1.0, 10.0, alone=False, cost=Cost(0.0001)), Sample(error="<b>no</b>"))
    two = FairModel("k2", 2, ModelId("paid", "two|x"), sample(0.8, 10.0), None, shared)
    return replace(FairLane(1, 0.0, "<i>Why?</i>", 3, False, (one, two), "done"), **more)


def test_a_row_of_the_table() -> None:
    one, two = (cells(model) for model in measured().models)
    assert one == (
        *("one (GGUF)", "400 ms", "200 ms (100 ms to 300 ms)", "20 tok/s", "45 tok/s (40 tok/s to 50 tok/s)"),
        *("2.5 s", "50%", "0%", "–"),
    )
    assert two == ("two|x (paid)", "800 ms", "1.0 s", "10 tok/s", "10 tok/s", "–", "0%", "0%", "$0.00010")


def test_what_contention_did_is_said() -> None:
    one, two = measured().models
    assert verdict(one) == "2.2 times as fast alone"
    assert verdict(two) == "as fast alone as side by side"
    assert verdict(replace(one, warm=())) == ""
    assert remarks(one, measured()) == []
    cut = replace(measured(), repeats=9).ended("stopped")
    assert remarks(one, cut) == [f"Measured {len(one.warm)} of 9 times."]
    assert remarks(two, measured()) == [
        "Failed: <b>no</b>",
        "Other work ran on this machine during 1 of 2: they are left out.",
    ]


def test_bars_of_a_figure_have_one_scale_and_texts_are_escaped() -> None:
    html = fair_html(FairUpdate(measured()), {"k1": 1, "k2": 0})
    widths = re.findall(r"<i style=.width:([\d.]+)%", html)
    assert widths == ["40.0", "20.0", "40.0", "90.0", "80.0", "100.0", "20.0", "20.0"]  # of 1 s, and of 50 tok/s
    assert 'data-index="1"' in html.split('data-index="0"')[0]
    assert "<i>Why?</i>" not in html
    assert "<b>no</b>" not in html
    assert "Stop measuring" not in html


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("running", "2 of 8, about 3 s left: asking x"),
        ("done", "3 times each, alone and warm"),
        ("stopped", "Stopped. Meant to be 3 times each, alone and warm"),
        ("interrupted", "Interrupted: the app ended before it did"),
    ],
)
def test_how_it_stands_is_said(state: Any, text: str) -> None:
    update = FairUpdate(measured(state=state), 2, 8, "asking x", 3.2)
    assert state_text(update) == text
    assert (">Stop measuring<" in fair_html(update, {})) == (state == "running")


def test_exports_have_it(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(1)
    ended(board)
    markdown, html = to_markdown(board.kept(), line, fair_markdown), to_html(board.kept())
    assert f"## One after another: {LONG}" in markdown
    assert re.search(r"^\| slow \(Echo\) \| \d+ ms \|", markdown, re.MULTILINE)
    assert "<td>slow (Echo)</td>" in html
    hostile = fair_table(measured()) + fair_markdown(measured())
    assert "<td>two|x (paid)</td>" in hostile
    assert "| two/x (paid) |" in hostile
    assert "<i>Why?</i></h2>" not in hostile


def test_the_page_can_start_and_stop_it_and_is_told_what_is_wrong(engine: Engine) -> None:
    panel, board = FairPanel(Boards(engine)), asked(engine)
    panel = FairPanel(boards := Boards(engine))
    address = {"address": board.id}
    assert boards.get(board.id) is not board  # found again in the store
    assert panel.fair(address)["ready"]
    for wrong in ("3", 0, 11, None):
        assert panel.fair(address | {"op": "start", "repeats": wrong})["problem"]
    said = panel.fair(address | {"op": "start", "repeats": 2})
    assert said["running"]
    assert "Stop measuring" in said["html"]
    assert panel.fair(address | {"op": "stop"})["html"].count("Stopped") == 1
    assert "error" in panel.fair({"address": "somebody.else"})
    assert "error" in panel.fair({})


def test_while_names_are_hidden_nothing_is_measured_or_shown(engine: Engine) -> None:
    board = asked(engine)
    board.measure_alone(1)
    ended(board)
    board.set_blind(True)
    assert board.send("blindly")
    eventually(lambda: not board.active())
    assert board.hidden
    assert board.fair() is None
    view = fair_view(board)
    assert (view["html"], view["ready"], view["spent"], view["each"]) == ("", False, None, "")
    with pytest.raises(BadRequest, match="tell the models apart"):
        board.measure_alone(1)


# figures


def test_the_time_left_follows_what_was_measured() -> None:
    answers = [lasting(seconds) for seconds in (2.0, 4.0)]
    lane = FairLane(1, 0.0, "", 1, False, ())
    pace = Pace(answers, [2, 2])
    assert pace.update(lane).seconds_left == 12.0
    pace.ended(0, 1.0)
    assert pace.update(lane).seconds_left == 9.0
    pace.gave_up(0)
    update = pace.update(lane)
    assert (update.seconds_left, update.done, update.total) == (8.0, 1, 3)


def lasting(seconds: float) -> Snapshot:
    return Snapshot(ModelId("a", "b"), "", Timing(0.0, 0.1, seconds))


def test_short_or_uncounted_answers_make_rough_rates() -> None:
    assert not rough([Sample(rate=20.0, usage=Usage(1, 40)), Sample()])
    assert rough([Sample(rate=20.0, usage=Usage(1, 39))])
    assert rough([Sample(rate=20.0, usage=Usage(1, 400, estimated=True))])
    assert rough([Sample(rate=5000.0, usage=Usage(1, 400))])  # over in 80 ms


def test_only_what_was_alone_counts_where_anything_was() -> None:
    alone, shared, failed = Sample(ttft=1.0), Sample(ttft=9.0, alone=False), Sample(error="no")
    model = FairModel("k", 1, ModelId("a", "b"), Sample(), warm=(alone, shared, failed))
    assert model.fair == (alone,)
    assert replace(model, warm=(shared, failed)).fair == (shared,)
