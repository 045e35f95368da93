"""The interface without a browser: values to words and HTML, widgets to options, the stream of a board, the wiring."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app import build
from multimodel.board import Board, Column, Options, Turn
from multimodel.boards import Boards
from multimodel.conversation import LOADING
from multimodel.engine import Engine
from multimodel.errors import MultimodelError, NotEnoughMemory, ServerFailure, TooLarge
from multimodel.settings import ApiSettings, ChatSettings, Endpoint, Settings
from multimodel.types import (
    RANGES,
    Loaded,
    LoadOptions,
    Message,
    ModelId,
    ModelSpec,
    PromptSize,
    SamplingParams,
    Sent,
    Snapshot,
    Stage,
    StageName,
    Timing,
    Usage,
)
from tabs import controls
from tabs.chat import ChatTab, model_lister, typed_model
from tabs.controls import (
    LABELS,
    LOADING_LABELS,
    NUMBERS,
    OFF,
    loading_controls,
    more_loading_controls,
    options_from,
    refused,
    sampling_controls,
    updates,
    values_of,
)
from tabs.format import FINISH, STAGES, figures, overflow, seconds, short_name, size, speed, stage_text
from tabs.view import _loaded, board_view, column_head, error_html, turn_html

from .support import EOS, GUIDE_GGUF, eventually, needs

GUIDE = ModelId("gguf", "guide")
ANY, SLOW = ModelId("echo", "any"), ModelId("echo", "slow")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&"


def made(make: Callable[[], Any]) -> Any:
    """What `make` makes of Gradio's blocks: outside a running event loop each would make one, and close none."""

    async def inside() -> Any:
        return make()

    return asyncio.run(inside())


def answered(text: str = "hello", **more: Any) -> Snapshot:
    """An answer of a hundred tokens a second."""
    said = Snapshot(ANY, text, Timing(0.0, 0.25, 1.25), Usage(7, 101), "stop")
    return replace(said, **more)


# words


@pytest.mark.parametrize(
    ("snapshot", "shown"),
    [
        (answered(), ["TTFT 250 ms", "100 tok/s", "101 tokens", "finished"]),
        (answered(finish_reason=None), ["TTFT 250 ms", "100 tok/s", "101 tokens"]),
        (answered(finish_reason="length"), ["TTFT 250 ms", "100 tok/s", "101 tokens", "cut at the length limit"]),
        (answered(finish_reason="error"), ["TTFT 250 ms", "100 tok/s", "101 tokens"]),
        (answered(usage=None), ["TTFT 250 ms", "finished"]),
        (answered(usage=Usage(7, 101, estimated=True)), ["TTFT 250 ms", "~100 tok/s", "~101 tokens", "finished"]),
        (answered(usage=Usage(7, 1)), ["TTFT 250 ms", "1 tokens", "finished"]),
        (answered(usage=Usage(7, 11)), ["TTFT 250 ms", "~10 tok/s", "11 tokens", "finished"]),
        (answered(usage=Usage(7, 5)), ["TTFT 250 ms", "~4.0 tok/s", "5 tokens", "finished"]),
        (answered(timing=Timing(0.0)), ["101 tokens", "finished"]),
        (answered(timing=Timing(0.0, 0.25, 0.25)), ["TTFT 250 ms", "101 tokens", "finished"]),
        (answered(timing=Timing(0.0, 2.5, 3.5, loading=4.0)),
         ["TTFT 2.5 s", "100 tok/s", "101 tokens", "finished", "ready after 4.0 s"]),
        (Snapshot(ANY, "", Timing(0.0, loading=4.0)), []),
        (Snapshot(ANY, "", Timing(0.0, loading=4.0), finish_reason="error"), ["waited 4.0 s"]),
        (Snapshot(ANY, "", Timing(0.0, loading=4.0), finish_reason="stopped"), ["stopped", "waited 4.0 s"]),
        (Snapshot(ANY, "", Timing(0.0, loading=4.0), finish_reason="stop"), ["finished", "ready after 4.0 s"]),
    ],
)  # fmt: skip
def test_the_figures_of_an_answer(snapshot: Snapshot, shown: list[str]) -> None:
    assert [figure for figure, _ in figures(snapshot)] == shown


def test_every_figure_says_what_it_is() -> None:
    rows = dict(figures(answered(usage=Usage(7, 101, reused_tokens=3), timing=Timing(0.0, 0.25, 1.25, loading=1.0))))
    assert all(len(help) > 15 for help in rows.values())
    assert "The prompt took 7, 3 of them reused." in rows["101 tokens"]


def test_every_finish_reason_and_stage_has_its_words() -> None:
    from typing import get_args

    from multimodel.types import FinishReason

    assert set(FINISH) == set(get_args(FinishReason))
    assert set(STAGES) == set(get_args(StageName))
    for name in get_args(StageName):
        assert stage_text(Stage(name, seconds=2.0))


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage("downloading", "1.2 of 2.4 GB", 0.5, 75.0), "Downloading 50%: 1.2 of 2.4 GB, 1 min 15 s left"),
        (Stage("loading", fraction=0.0), "Loading the model 0%"),
        (Stage("retrying", "No answer.", seconds=0.0), "No answer. Trying again in 1 s"),
        (Stage("queued", "behind 2 others"), "In line: behind 2 others"),
    ],
)
def test_a_stage_in_words(stage: Stage, text: str) -> None:
    assert stage_text(stage) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0 ms"), (0.9994, "999 ms"), (1.0, "1.0 s"), (60.0, "1 min 0 s")])
def test_a_duration_in_words(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2.5e12, "2500.0 GB")])
def test_a_size_in_words(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("name", "short"),
    [("guide", "guide"), ("a/b", "b"), ("a/b/", "b"), ("/", "/"), ("o/m:Q4_K_M", "m:Q4_K_M"), ("/y.gguf", "y.gguf")],
)  # fmt: skip
def test_a_model_in_the_head_of_a_column(name: str, short: str) -> None:
    assert short_name(ModelId("gguf", name)) == short


@pytest.mark.parametrize(
    ("measured", "part"),
    [
        (PromptSize(10, 100), ""),
        (PromptSize(99, 100), ""),
        (PromptSize(100, 100), "The prompt alone is too long"),
        (PromptSize(90, 100, dropped=1), "The oldest message would be left out"),
        (PromptSize(1234, 1000, dropped=3, estimated=True), "about 1,234 of 1,000 tokens. The oldest 3 messages"),
    ],
)
def test_a_prompt_that_is_too_long_is_said_so(measured: PromptSize, part: str) -> None:
    text = overflow(measured)
    assert part in text
    assert bool(text) == bool(part)


def test_no_speed_without_two_tokens_or_a_clock() -> None:
    assert speed(answered(usage=Usage(1, 1))) == ""
    assert speed(answered(timing=Timing(0.0, 1.0, 1.0))) == ""


# HTML


@pytest.mark.parametrize(
    "snapshot",
    [
        answered(EVIL),
        answered(reasoning=EVIL),
        answered(notes=(EVIL,)),
        answered(error=ServerFailure(EVIL, hint=EVIL), finish_reason="error"),
        answered(model=ModelId("echo", EVIL)),
    ],
)
def test_every_text_of_a_turn_is_escaped(snapshot: Snapshot) -> None:
    from multimodel.board import Turn

    html = turn_html(Turn(EVIL, snapshot), ANY)
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;") >= 2


def test_every_text_of_a_running_answer_is_escaped() -> None:
    for live in (
        answered(EVIL),
        answered("", stage=Stage("queued", EVIL)),
        answered("", reasoning=EVIL, notes=(EVIL,)),
    ):
        view = board_view(FakeBoard(replace(live, finish_reason=None), asked=EVIL))
        news = view["columns"][0]["live"]
        html = "".join([news["asked"], news["wait"], *news["blocks"], news["tail"], news["foot"]])
        assert "<script" not in html
        assert "<img" not in html
        assert html.count("&lt;script&gt;") >= 2


class FakeBoard(Board):
    """A board of one column whose answer stands as given."""

    def __init__(self, live: Snapshot | None, asked: str = "prompt") -> None:
        from multimodel.board import Column

        super().__init__(Engine(), [ANY])
        self._shown = Column("k", ANY, asked=asked, live=live)

    def columns(self) -> Any:
        return (self._shown,)


def test_an_error_says_what_and_what_to_do_with_a_button() -> None:
    html = error_html(ServerFailure("It broke.", hint="Ask later."))
    assert "It broke." in html
    assert "Ask later." in html
    assert 'data-act="regenerate"' in html
    assert error_html(None) == ""


def test_what_is_too_large_can_be_loaded_anyway_while_the_column_has_that_model() -> None:
    from multimodel.board import Turn

    error = TooLarge("m takes 5.2 GB of memory, 3.1 GB is free.", hint="Choose a smaller one.")
    turn = Turn("p", answered(error=error, finish_reason="error"))
    assert 'data-act="anyway"' in turn_html(turn, ANY)
    assert 'data-act="regenerate"' in turn_html(turn, ANY)
    assert 'data-act="anyway"' not in turn_html(turn, ModelId("echo", "other"))
    assert 'data-act="anyway"' not in error_html(NotEnoughMemory("It ran out of memory."))


@pytest.mark.parametrize("reason", ["incomplete", "length", "stopped", "content_filter"])
def test_an_answer_that_did_not_end_by_itself_is_marked(reason: Any) -> None:
    from multimodel.board import Turn

    assert "mm-note" in turn_html(Turn("p", answered(finish_reason=reason)), ANY)
    assert "mm-note" not in turn_html(Turn("p", answered()), ANY)


@pytest.mark.parametrize(
    ("asked", "helps"), [(600, "Begin a new chat"), (8, "Raise Max tokens"), (None, "Begin a new chat")]
)
@needs("llama_cpp")
def test_a_cut_answer_says_what_would_let_it_go_on(tiny_gguf_file: Path, asked: int | None, helps: str) -> None:
    from multimodel.board import Turn

    model = ModelSpec(ModelId("gguf", str(tiny_gguf_file)), LoadOptions(context_length=64))
    params = SamplingParams(max_tokens=asked, temperature=0.0, logit_bias=((EOS, -100.0),))
    with Engine() as engine:
        *_, last = engine.ask(model, [Message("user", "hello")], params)
    assert last.finish_reason == "length"
    html = turn_html(Turn("p", last), ANY)
    assert helps in html and html.count("mm-note") == 1


def test_the_raw_text_is_there_to_be_copied() -> None:
    from multimodel.board import Turn

    assert "**a** &lt;b&gt;" in turn_html(Turn("p", answered("**a** <b>")), ANY)


# the head of a column


def test_a_variant_is_told_in_the_head_of_its_column(engine: Engine) -> None:
    load = LoadOptions(device="cpu", gpu_layers=0, rope_scaling="yarn", rope_factor=4.0, chat_template="{{ messages }}")
    board = Board(engine, [GUIDE], Options(load=load))
    assert column_head(board, board.columns()[0])["backend"] == (
        "GGUF, on CPU, 0 layers on the GPU, context stretched 4 times (yarn), another chat template"
    )


def test_the_head_tells_the_context_that_there_is_once_an_answer_has_told() -> None:
    def head(asked: int | None, given: int) -> str:
        load = LoadOptions(context_length=asked)
        answer = replace(answered("hi"), model=GUIDE, sent=Sent(loaded=Loaded(context_length=given)))
        turn = Turn("p", answer, asked=Options(load=load))
        return ", ".join(_loaded(LoadOptions(context_length=4096), Column("k", GUIDE, (turn,))))

    assert head(4096, 1024) == "1,024 tokens of context"
    assert head(2048, 1024) == head(None, 1024) == "4,096 tokens of context"  # not yet asked with what is set now


@needs("llama_cpp")
@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_a_context_beyond_the_model_is_told_by_head_and_note() -> None:
    with Engine(settings()) as engine:
        board = Board(engine, [GUIDE], Options(SamplingParams(max_tokens=2), load=LoadOptions(context_length=2048)))
        assert "2,048 tokens of context" in column_head(board, board.columns()[0])["backend"]
        for prompt in ("one", "two"):
            board.send(prompt)
            eventually(lambda: not board.active())
        column = board.columns()[0]
        assert column_head(board, column)["backend"] == "GGUF, 1,024 tokens of context"
        assert all("not 2,048" in " ".join(turn.answer.notes) for turn in column.turns)


# settings


def test_the_widgets_are_the_sampling_parameters() -> None:
    def blocks() -> Any:
        with gr.Blocks():
            return sampling_controls()

    controls = made(blocks)
    without = {"logit_bias", "grammar"}
    assert set(controls) == set(LABELS) == {field.name for field in fields(SamplingParams)} - without
    assert not controls["seed"].minimum  # type: ignore[attr-defined]
    for name in RANGES.keys() - without - {"seed"}:
        widget: Any = controls[name]
        low, high = RANGES[name]
        assert widget.minimum == low
        assert widget.maximum <= high


@pytest.mark.parametrize(
    "options",
    [
        Options(SamplingParams(max_tokens=10, temperature=0.0)),
        Options(SamplingParams(max_tokens=1, temperature=1.3, top_p=0.9, top_k=40, min_p=0.05), "Be brief."),
        Options(SamplingParams(max_tokens=5, temperature=2.0, repetition_penalty=1.1, seed=0, stop=("a b", "END"))),
        Options(SamplingParams(max_tokens=5, temperature=0.5, presence_penalty=-2.0, frequency_penalty=1.5)),
        Options(SamplingParams(max_tokens=5, temperature=0.5), load=LoadOptions(dtype="int4", context_length=8192)),
        Options(SamplingParams(max_tokens=5, temperature=0.5), load=LoadOptions(kv_type="q8_0")),
        Options(
            SamplingParams(max_tokens=5, temperature=0.5),
            load=LoadOptions(
                **{"device": "cpu", "gpu_layers": 0, "flash_attention": False, "chat_template": " {{ messages }}\n"},
                **{"rope_scaling": "yarn", "rope_factor": 4.0},
            ),
        ),
        Options(SamplingParams(max_tokens=5, temperature=0.5, json_schema='{"type": "object"}')),
    ],
)
def test_options_come_back_from_the_widgets_as_they_were(options: Options) -> None:
    assert options_from(options.system, values_of(options)) == options


def test_a_slider_at_its_end_sends_nothing() -> None:
    values = values_of(Options(SamplingParams(max_tokens=10, temperature=0.5)))
    assert {name: values[name] for name in OFF} == OFF
    assert options_from("", values).params.asdict() == {"max_tokens": 10, "temperature": 0.5}


@pytest.fixture
def sampling_and_loading() -> dict[str, Any]:
    def blocks() -> Any:
        with gr.Blocks():
            return sampling_controls() | loading_controls() | more_loading_controls()

    return made(blocks)  # type: ignore[no-any-return]


def test_every_way_to_load_that_a_column_may_have_has_a_widget_and_a_line_of_help(
    sampling_and_loading: dict[str, Any],
) -> None:
    assert set(LOADING_LABELS) == set(LOADING) == set(sampling_and_loading) - set(LABELS)
    assert all(sampling_and_loading[name].info for name in LOADING)


@pytest.mark.parametrize("typed", [0, -3, 10**12, None, 1e300])
def test_no_number_that_is_typed_ends_an_event(sampling_and_loading: dict[str, Any], typed: float | None) -> None:
    for name, widget in sampling_and_loading.items():
        if isinstance(widget, gr.Number):
            widget.preprocess(typed)
            assert (name in refused({name: typed})) <= (name in NUMBERS)


def test_a_number_that_cannot_be_is_refused_in_words() -> None:
    wrong = refused({"seed": -1.0, "context_length": 0, "gpu_layers": 0, "rope_factor": 1})
    assert wrong == {
        "seed": "Seed is -1. Choose 0 to 2,147,483,647.",
        "context_length": "Context length is 0. Choose 1 to 10,000,000.",
        "rope_factor": "RoPE factor is 1. Choose 1.1 to 1,000.",
    }


def test_a_refused_number_changes_nothing_and_is_told_where_it_was_typed(engine: Engine) -> None:
    boards = Boards(engine)
    chat = ChatTab(engine, boards)

    def blocks() -> Any:
        with gr.Blocks() as page:
            chat.build(page)
        return page

    made(blocks)
    board = boards.get(None)
    values = values_of(Options(load=LoadOptions(context_length=99)))
    said = chat.save(board.id, None, "", **values)
    assert board.shared.load.context_length == 99 and said[chat.refused]["visible"] is False
    said = chat.save(board.id, None, "new", **values | {"context_length": 0})
    assert (
        "Context length is 0" in said[chat.refused]["value"] and said[chat.refused]["visible"] and not said[chat.doubt]
    )
    assert board.shared.load.context_length == 99 and board.shared.system == ""
    said = chat.save(board.id, None, "", **values | {"seed": -1})
    assert "Seed is -1" in said[chat.doubt] and said[chat.refused]["visible"] is False


def test_what_changes_nothing_here_is_greyed_and_says_why(
    sampling_and_loading: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "llama_on_gpu", lambda: False)

    def shown(load: LoadOptions, **refusals: list[str]) -> dict[str, Any]:
        made = updates(sampling_and_loading, Options(load=load), refusals, columns=1, linked=False, devices=["cpu"])
        return {name: made[widget] for name, widget in sampling_and_loading.items()}

    usual = shown(LoadOptions(), flash_attention=["m (Transformers)"])
    assert (
        usual["device"]["choices"] == [("Automatic", "auto"), ("Processor", "cpu")] and usual["device"]["interactive"]
    )
    assert not usual["gpu_layers"]["interactive"] and "without a GPU" in usual["gpu_layers"]["info"]
    assert not usual["flash_attention"]["interactive"] and "m (Transformers)" in usual["flash_attention"]["info"]
    brought = shown(LoadOptions(gpu_layers=3, device="cuda"))
    assert brought["gpu_layers"]["interactive"] and len(brought["device"]["choices"]) == 3  # to be taken back


def test_numbers_of_the_page_become_whole_where_they_must() -> None:
    params = options_from("", {"max_tokens": 10.0, "top_k": 5.0, "seed": 3.0, "stop": "\n a\n\n"}).params
    assert (params.max_tokens, params.top_k, params.seed, params.stop) == (10, 5, 3, (" a",))
    assert all(type(value) is int for value in (params.max_tokens, params.top_k, params.seed))


# the picker


def settings(**api: Any) -> Settings:
    return Settings(chat=ChatSettings(columns=("echo:any", "echo:slow")), api=ApiSettings(**api))


def test_the_picker_is_given_plain_values() -> None:
    models = model_lister(settings())()
    assert {"id", "group", "label", "detail", "unavailable"} == set(models[0])
    assert "transformers:guide" in {model["id"] for model in models}


@pytest.mark.parametrize(
    ("text", "part"), [("ggfu:guide", "gguf:guide"), ("nonsense", "backend:name"), ("", "backend:name")]
)
def test_what_is_no_model_is_refused_with_a_way_out(text: str, part: str) -> None:
    with pytest.raises(MultimodelError) as caught:
        typed_model(text, settings())
    assert part in caught.value.hint


def test_an_endpoint_is_a_backend() -> None:
    known = settings(endpoints=(Endpoint(name="mine", base_url="http://127.0.0.1:9/v1"),))
    assert typed_model(" mine : a/b:c ", known) == ModelId("mine", "a/b:c")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(settings()) as engine:
        yield engine


# the wiring


@pytest.fixture
def page(engine: Engine) -> gr.Blocks:
    return made(lambda: build(engine))  # type: ignore[no-any-return]


def test_the_widgets_of_every_event_fit_its_handler(page: gr.Blocks) -> None:
    """Gradio does not look at `**values` before the click."""
    events = [block for block in page.fns.values() if callable(block.fn)]
    assert len(events) >= 15
    for block in events:
        named = dict.fromkeys(block.input_keyword_names)
        plain = [None] * (len(block.inputs) - len(named) + added_by_gradio(block.fn))
        assert inspect.signature(block.fn).bind(*plain, **named), block.name


def added_by_gradio(handler: Any) -> int:
    """The parameters that Gradio fills by their type."""
    special = ("Request", "EventData", "SelectData")
    return sum(str(p.annotation).endswith(special) for p in inspect.signature(handler).parameters.values())


def test_no_event_is_an_interface_for_programs(page: gr.Blocks) -> None:
    for block in page.fns.values():
        assert block.api_visibility == "private" or not block.fn, block.name


def test_nothing_that_is_kept_secret_is_a_default(page: gr.Blocks) -> None:
    texts = [getattr(block, "value", None) for block in page.blocks.values()]
    assert not [text for text in texts if isinstance(text, str) and "sk-" in text]
