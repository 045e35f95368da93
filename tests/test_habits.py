"""Presets, the library of prompts and links, without a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import pytest

from multimodel import Engine, ModelId, SamplingParams
from multimodel.board import Board, Options
from multimodel.boards import Boards, arrange, preset_of
from multimodel.errors import BadRequest, ForeignFile, InvalidName
from multimodel.habits import MOST, Habits, Pane, Preset, Prompt, built_in, from_json, made, to_json
from multimodel.links import LONGEST, Link, read, write
from multimodel.settings import ChatSettings, Settings
from multimodel.types import LoadOptions
from tabs.chat import typed_model
from tabs.presets import Presets, free_to_ask

from .support import eventually

ANY, SLOW = ModelId("echo", "any"), ModelId("echo", "slow")
COLD = Options(SamplingParams(temperature=0.0, seed=7), "Be brief.")
PAIR = Preset(name="Pair", columns=(Pane(model=ANY, own=COLD), Pane(model=SLOW)), shared=Options(system="Hello"))
USUAL = Preset(name="usual", columns=(Pane(model=ANY),))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    chat = ChatSettings(data_dir=tmp_path / "data", columns=["echo:any", "echo:slow"])
    with Engine(Settings(chat=chat)) as made:
        yield made


@pytest.fixture
def habits(engine: Engine) -> Habits:
    return Habits(engine.store)


# what is kept


def test_presets_are_kept_renamed_and_deleted_by_their_owner(habits: Habits) -> None:
    drawer = habits.presets
    drawer.add("me", PAIR)
    assert drawer.items("me") == (PAIR,) and drawer.items("you") == ()
    with pytest.raises(InvalidName, match="a preset called 'Pair' already"):
        drawer.add("me", PAIR)
    drawer.add("me", made(Preset, name="  Other \n one ", columns=PAIR.columns))
    with pytest.raises(InvalidName, match="already"):
        drawer.change("me", "Pair", made(Preset, name="Other one", columns=PAIR.columns))
    drawer.change("me", "Pair", made(Preset, name="Both", columns=PAIR.columns[:1]))
    assert [(item.name, len(item.columns)) for item in drawer.items("me")] == [("Both", 1), ("Other one", 2)]
    drawer.choose("me", "Both")
    drawer.choose("me", "Other one")
    assert drawer.chosen("me").name == "Other one" and drawer.chosen("you") is None  # type: ignore[union-attr]
    drawer.remove("you", "Both")
    drawer.remove("me", "Other one")
    assert [item.name for item in drawer.items("me")] == ["Both"] and drawer.chosen("me") is None


@pytest.mark.parametrize("name", ["", "  \n", "x" * 81])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="cannot be kept"):
        made(Prompt, name=name, text="text")


def test_a_file_comes_back_as_it_was_and_brings_nothing_twice(habits: Habits) -> None:
    prompt = Prompt(name="Explain", text="Explain {{topic}} to {{ whom }}, and {{topic}} again")
    text = to_json([PAIR], [prompt])
    assert from_json(text).presets == (PAIR,) and from_json(text).prompts == (prompt,)
    assert prompt.variables == ("topic", "whom")
    assert habits.bring("me", text) == (1, 1) and habits.bring("me", text) == (0, 0)
    other = PAIR.model_copy(update={"columns": PAIR.columns[:1]})
    assert habits.bring("me", to_json([other])) == (1, 0)
    assert [item.name for item in habits.presets.items("me")] == ["Pair", "Pair (2)"]
    crowd = to_json([], [Prompt(name=f"n{i}", text="t") for i in range(MOST)])
    with pytest.raises(InvalidName, match="more than 200 prompts"):
        habits.bring("me", crowd)
    assert len(habits.prompts.items("me")) == 1


GOOD = json.loads(to_json([PAIR]))
PAIR_FORM = GOOD["presets"][0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": "multimodel-conversation", "version": 1}',
        json.dumps(GOOD | {"version": 2}),
        json.dumps(GOOD | {"more": 1}),
        json.dumps(GOOD | {"presets": [PAIR_FORM | {"columns": []}]}),
        json.dumps(GOOD | {"presets": [PAIR_FORM | {"columns": PAIR_FORM["columns"] * 3}]}),
        json.dumps(GOOD | {"presets": [PAIR_FORM | {"columns": [{"model": {"backend": "echo", "name": " "}}]}]}),
        json.dumps(GOOD | {"presets": [PAIR_FORM | {"shared": {"params": {"temperature": 9}}}]}),
        json.dumps(GOOD | {"presets": [PAIR_FORM | {"shared": {"load": {"adapter": "/etc/passwd"}}}]}),
        json.dumps(GOOD | {"prompts": [{"name": "a", "text": "  "}]}),
        "x" * 5_000_001,
    ],
)  # fmt: skip
def test_a_foreign_or_hostile_file_is_refused_and_changes_nothing(habits: Habits, text: str) -> None:
    with pytest.raises(ForeignFile) as caught:
        habits.bring("me", text)
    assert caught.value.hint and not habits.presets.items("me")


def test_what_another_browser_kept_comes_along(engine: Engine, habits: Habits) -> None:
    boards = Boards(engine)
    mine, other = boards.get(None), boards.get(None)
    for board, extra in ((mine, "mine"), (other, "theirs")):
        habits.prompts.add(boards.owner(board.id), Prompt(name="Same", text=extra))
    habits.prompts.add(boards.owner(other.id), Prompt(name="Only there", text="text"))
    boards.join(boards.invite(mine.id), other.id)
    kept = habits.prompts.items(boards.owner(mine.id))
    theirs = ("Same (other browser)", "theirs")
    assert [(item.name, item.text) for item in kept] == [("Only there", "text"), ("Same", "mine"), theirs]


def test_the_built_in_presets_can_be_shown_here(engine: Engine) -> None:
    for preset in built_in(engine.settings, COLD):
        assert preset.shared == COLD and all((pane.own or COLD).system == COLD.system for pane in preset.columns)
        assert all(pane.model.name == "guide" for pane in preset.columns)
        assert len({(pane.model, pane.own) for pane in preset.columns}) == 2


# on a board


def test_a_preset_changes_the_columns_and_undo_brings_them_back(engine: Engine) -> None:
    board = Board(engine, [SLOW, SLOW, SLOW])
    board.send("hello")
    with pytest.raises(BadRequest, match="still answering"):
        arrange(board, PAIR)
    eventually(lambda: not board.active())
    arrange(board, PAIR)
    assert [(column.model, column.own) for column in board.columns()] == [(ANY, COLD), (SLOW, None)]
    assert [column.turns[0].answer.text for column in board.columns()] == ["hello", "hello"]
    assert preset_of(board, "Pair") == PAIR
    board.undo()
    assert [column.model for column in board.columns()] == [SLOW] * 3


def test_new_chats_begin_with_the_chosen_preset(engine: Engine, habits: Habits) -> None:
    boards = Boards(engine)
    board = boards.get(None)
    owner = boards.owner(board.id)
    assert boards.fresh(board.id) is board
    habits.presets.add(owner, PAIR)
    habits.presets.choose(owner, "Pair")
    assert preset_of(boards.fresh(board.id), "Pair") == PAIR
    board.send("hello")
    board.remove(board.columns()[0].key)
    fresh = boards.fresh(board.id)
    assert fresh is not board and preset_of(fresh, "Pair") == PAIR
    habits.presets.choose(owner, "")
    assert len(boards.fresh(board.id).columns()) == 1  # as before: like the one at hand


# links


def link(query: str, engine: Engine) -> Link:
    return read(query, (PAIR,), USUAL, lambda text: typed_model(text, engine.settings))


def test_a_link_says_models_settings_and_question(engine: Engine) -> None:
    found = link(
        "?models=echo:slow,%20echo:any&temperature=0,1.5&max_tokens=9&system=Be%20kind&q=What%3F&send=1", engine
    )
    first, second = found.preset.columns
    assert (first.model, second.model) == (SLOW, ANY)
    assert [pane.own.params.temperature for pane in found.preset.columns] == [0.0, 1.5]  # type: ignore[union-attr]
    assert found.preset.shared == Options(SamplingParams(max_tokens=9), "Be kind")
    assert (found.prompt, found.send, found.problems) == ("What?", True, ())


def test_what_is_written_is_read_again(engine: Engine) -> None:
    comma = ModelId("gguf", "/models/a,b&c=d.gguf")
    shared = Options(
        SamplingParams(top_p=0.5, seed=3, stop=("a,b", "\n"), json_schema='{"type": "object"}', tools="[]"),
        "é & ü",
        LoadOptions(context_length=512),
    )
    board = Board(engine, [comma, ANY], shared)
    query, left_out = write(board.columns(), board.shared, "a+b & 100 %")
    found = link(query, engine)
    assert [pane.model for pane in found.preset.columns] == [comma, ANY]
    assert found.preset.shared == board.shared
    assert (found.prompt, left_out) == ("a+b & 100 %", ())
    own = Options(SamplingParams(temperature=0.5, tools="[1]"), "other", LoadOptions(dtype="int4", kv_type="q8_0"))
    board.set_options(own, board.columns()[1].key)
    query, left_out = write(board.columns(), board.shared)
    assert left_out == ("system prompts of single columns", "stop sequences", "the JSON schema", "tools")
    first, second = link(query, engine).preset.columns
    assert second.own == Options(SamplingParams(temperature=0.5), shared.system, own.load)
    assert first.own == replace(shared, params=SamplingParams(top_p=0.5, seed=3))


def test_a_link_carries_how_models_are_loaded_but_for_the_chat_template(engine: Engine) -> None:
    load = LoadOptions(device="cpu", gpu_layers=0, flash_attention=False, rope_scaling="yarn", rope_factor=2.5)
    board = Board(engine, [ANY, SLOW], Options(load=replace(load, chat_template="{{ messages }}")))
    query, left_out = write(board.columns(), board.shared)
    assert "device=cpu&gpu_layers=0&flash_attention=off&rope=yarn:2.5" in query
    assert left_out == ("the chat template",)
    assert link(query, engine).preset.shared.load == load
    board.set_options(Options(load=LoadOptions(flash_attention=True)), board.columns()[1].key)
    query, _ = write(board.columns(), board.shared)
    first, second = link(query, engine).preset.columns
    assert first.own and first.own.load == load and second.own and second.own.load == LoadOptions(flash_attention=True)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            "models=echo:any&device=tpu",
            "The device of the link was left out. There is no 'tpu'. Choose one of auto, cpu",
        ),
        ("models=echo:any&rope=yarn", "The rope of the link was left out. rope_factor is 1 with yarn."),
        ("models=echo:any&rope=yarn:nan", "The rope of the link was left out. rope_factor is 'nan'. Write a number."),
        ("models=echo:any&gpu_layers=-1", "The gpu_layers of the link was left out. gpu_layers is -1."),
        ("models=ehco:any,echo:any", "There is no backend called 'ehco'"),
        ("models=guide&models=echo:any", "'guide' is not a model id"),
        ("preset=Nothing&models=echo:any", "a preset 'Nothing', which is not among yours"),
        ("models=echo:any&temperature=hot", "The temperature of the link was left out. 'hot' is no number."),
        ("models=echo:any&temperature=nan", "The temperature of the link was left out."),
        ("models=echo:any&temperature=3", "Choose a value from 0 to 2."),
        ("models=echo:any&max_tokens=" + "9" * 5000, "The max_tokens of the link was left out."),
        ("models=echo:any&dtype=int5", "The dtype of the link was left out. There is no 'int5'. Choose one of auto, "),
        ("models=echo:any&context_length=0", "The context_length of the link was left out. context_length is 0."),
        ("models=echo:any&tools=" + "x" * (LONGEST + 1), "The tools of the link was left out. It is longer than"),
        ("models=echo:any&q=" + "x" * (LONGEST + 1), "longer than 20,000 characters and was cut"),
        ("models=" + ",".join(["echo:any"] * 5), "names 5 models; these are the first 4"),
    ],
)
def test_what_a_link_says_wrongly_is_told_and_the_rest_is_used(engine: Engine, query: str, problem: str) -> None:
    found = link(query, engine)
    assert found.problems and problem in " ".join(found.problems)
    assert {pane.model for pane in found.preset.columns} == {ANY}
    assert found.preset.shared == Options()


@pytest.mark.parametrize(
    "query", ["", "?", "&" * 5000, "models=", "models=,,&q=&temperature=", "%ff=%ff&q=%00%ff", "q"]
)
def test_a_link_of_nothing_shows_a_usual_new_chat(engine: Engine, query: str) -> None:
    found = link(query, engine)
    assert found.preset == USUAL and not found.send and not found.problems


@pytest.mark.parametrize(
    ("models", "asked"),
    [
        ("echo:any,echo:slow", True),
        ("gguf:guide", True),
        ("gguf:guide&context_length=4096", False),
        ("openai:gpt-5.4-mini", False),
        ("echo:any,gguf:Qwen/Qwen3-0.6B-GGUF:Q8_0", False),
        ("transformers:/some/folder", False),
    ],
)
def test_a_link_asks_by_itself_only_where_it_takes_nothing(engine: Engine, models: str, asked: bool) -> None:
    found = link(f"models={models}", engine)
    assert all(free_to_ask(pane, found.preset.shared, engine) for pane in found.preset.columns) is asked


def test_a_link_opens_a_new_chat_and_leaves_the_one_at_hand(engine: Engine) -> None:
    boards = Boards(engine)
    board = boards.get(None)
    board.send("before")
    presets = Presets(engine, boards, None)  # type: ignore[arg-type]
    parse = ModelId.parse
    filled, prompt, said = presets.follow_link(board.id, "models=echo:any&q=" + quote("what now"), parse)
    assert filled.empty and prompt == "what now" and said == ["This question came with a link. Press Enter to ask it."]
    paid, prompt, _ = presets.follow_link(board.id, "models=openai:gpt-5.4-mini&q=spend&send=1", parse)
    assert paid.empty and prompt == "spend"
    sent, prompt, said = presets.follow_link(board.id, "models=echo:any&q=hello&send=1", parse)
    eventually(lambda: not sent.active())
    assert (prompt, said) == ("", []) and sent.columns()[0].turns[0].answer.text == "hello"
    assert boards.get(board.id) is board and not board.empty
    assert len({board.id, filled.id, paid.id, sent.id}) == 4
    assert boards.owner(sent.id) == boards.owner(board.id)


def test_a_blind_comparison_is_told_to_nobody(engine: Engine) -> None:
    boards = Boards(engine)
    board = boards.get(None)
    presets = Presets(engine, boards, None)  # type: ignore[arg-type]
    board.set_blind(True)
    board.send("hello")
    eventually(lambda: not board.active())
    assert board.hidden and "query" not in presets.link(board.id, "")
    for op in ("save", "update", "apply"):
        event = gr.EventData(None, {"op": op, "name": "Greedy and warm", "built_in": True})
        shown, _ = presets.act(board.id, event)
        assert "hidden until the vote" in shown["problem"] and not shown["own"]
    fresh = boards.fresh(board.id)  # the columns of both are shuffled
    assert fresh.blind and {column.model for column in fresh.columns()} == {ANY, SLOW}
