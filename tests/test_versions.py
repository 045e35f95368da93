"""Nothing that was said is overwritten: prompts and answers have versions, conversations branch, steps are undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from multimodel import Engine, Message, ModelId
from multimodel.board import ASKED_TO_GO_ON, GO_ON, UNDO, Board, Column, Options
from multimodel.boards import Boards
from multimodel.conversation import Tree, cut
from multimodel.errors import BadRequest
from multimodel.settings import ChatSettings, Settings
from multimodel.types import SamplingParams

from .support import Fakes, eventually, needs, says, until

A, B = ModelId("fake", "a"), ModelId("fake", "b")


@pytest.fixture
def fakes() -> Fakes:
    return Fakes(says("fine"))


@pytest.fixture
def board(fakes: Fakes) -> Iterator[Board]:
    """Two columns that were asked one, two, three."""
    with Engine(connect=fakes.connect) as engine:
        made = Board(engine, [A, B])
        for prompt in ("one", "two", "three"):
            made.send(prompt)
            settle(made)
        yield made


def settle(board: Board) -> None:
    eventually(lambda: not board.active())


def prompts(column: Column) -> list[str]:
    return [turn.prompt for turn in column.turns]


def both(board: Board) -> tuple[list[str], list[str]]:
    first, second = board.columns()
    return prompts(first), prompts(second)


ALL = ["one", "two", "three"]


def test_an_edited_prompt_stands_beside_the_old_one(board: Board, fakes: Fakes) -> None:
    first = board.columns()[0]
    board.edit(first.key, first.turns[1].id, "TWO")
    settle(board)
    assert both(board) == (["one", "TWO"], ALL)
    assert fakes["a"].asked[-1] == (Message("user", "one"), Message("assistant", "fine"), Message("user", "TWO"))
    place = board.columns()[0].turns[1].place
    assert (place.prompt, len(place.prompts), len(place.answers)) == (1, 2, 1)
    board.walk(first.key, place.prompts[0])
    assert both(board) == (ALL, ALL)
    board.walk(first.key, place.prompts[1])
    assert both(board) == (["one", "TWO"], ALL)


def test_editing_everywhere_reaches_columns_that_were_asked_the_same(board: Board) -> None:
    first, second = board.columns()
    board.edit(second.key, second.turns[2].id, "other")
    settle(board)
    board.edit(first.key, first.turns[2].id, "THREE", everywhere=True)
    settle(board)
    assert both(board) == (["one", "two", "THREE"], ["one", "two", "other"])
    board.edit(first.key, first.turns[0].id, "ONE", everywhere=True)
    settle(board)
    assert both(board) == (["ONE"], ["ONE"])


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_edit_asks_nobody(board: Board, fakes: Fakes, prompt: str) -> None:
    first = board.columns()[0]
    board.edit(first.key, first.turns[0].id, prompt)
    assert len(fakes["a"].asked) == 3 and both(board) == (ALL, ALL)


def test_an_answer_in_the_middle_can_be_asked_for_again(board: Board) -> None:
    first = board.columns()[0]
    board.regenerate(first.key, first.turns[0].id)
    settle(board)
    assert both(board) == (["one"], ALL)
    place = board.columns()[0].turns[0].place
    assert (place.answer, len(place.answers), len(place.prompts)) == (1, 2, 1)
    board.walk(first.key, place.answers[0])
    assert both(board) == (ALL, ALL)


def test_asking_again_everywhere(board: Board, fakes: Fakes) -> None:
    first = board.columns()[0]
    board.regenerate(first.key, first.turns[1].id, everywhere=True)
    settle(board)
    assert both(board) == (["one", "two"], ["one", "two"])
    assert [len(fakes[name].asked) for name in "ab"] == [4, 4]


def test_going_on_after_an_older_version_keeps_what_followed_it(board: Board) -> None:
    first = board.columns()[0]
    board.regenerate(first.key, first.turns[0].id)
    settle(board)
    board.send("and on")
    settle(board)
    assert both(board) == (["one", "and on"], [*ALL, "and on"])
    board.walk(first.key, board.columns()[0].turns[0].place.answers[0])
    assert both(board)[0] == ALL


def test_all_columns_go_on_from_one_answer(board: Board, fakes: Fakes) -> None:
    first = board.columns()[0]
    board.edit(first.key, first.turns[1].id, "TWO")
    settle(board)
    board.continue_all(first.key, board.columns()[0].turns[1].id)
    assert both(board) == (["one", "TWO"], ["one", "TWO"])
    board.send("and on")
    settle(board)
    assert [m.content for m in fakes["b"].asked[-1]] == ["one", "fine", "TWO", "fine", "and on"]
    assert all(turn.place.prompts == (turn.id,) for turn in [c.turns[-1] for c in board.columns()])


def test_undo_goes_back_step_by_step(board: Board) -> None:
    first, second = board.columns()
    board.edit(first.key, first.turns[0].id, "ONE")
    settle(board)
    board.clear(second.key)
    board.remove(second.key)
    board.choose(first.key, B)
    for _ in range(3):
        assert board.can_undo()
        board.undo()
    assert both(board) == (["ONE"], ALL)
    assert board.columns()[0].model == A
    board.undo()
    assert both(board) == (ALL, ALL)


def test_undo_leaves_the_settings_alone(board: Board) -> None:
    first = board.columns()[0]
    board.clear(first.key)
    board.set_options(Options(SamplingParams(seed=1)))
    board.undo()
    assert both(board) == (ALL, ALL)
    assert board.shared == Options(SamplingParams(seed=1))


def test_undo_of_a_prompt_stops_its_answers() -> None:
    fakes = Fakes(until(Event(), "so far"))
    with Engine(connect=fakes.connect) as engine:
        board = Board(engine, [A, B])
        board.send("go")
        eventually(lambda: all(column.live and column.live.text for column in board.columns()))
        board.undo()
        eventually(lambda: fakes["a"].ended == fakes["b"].ended == 1)
        assert both(board) == ([], [])
        assert not board.can_undo()


def test_undo_has_an_end(board: Board) -> None:
    for _ in range(UNDO + 5):
        board.move(board.columns()[0].key, 1)
    steps = 0
    while board.can_undo():
        board.undo()
        steps += 1
    assert steps <= UNDO


def test_there_is_no_branch_from_an_answer_that_is_not_here(board: Board) -> None:
    with pytest.raises(BadRequest, match="not here any more"):
        board.branch(board.columns()[0].key, 99)


def test_a_branch_is_cut_where_it_was_made_in_every_column(board: Board) -> None:
    first = board.columns()[0]
    branch = board.branch(first.key, first.turns[1].id)
    tree = Tree(branch.turns)
    assert [[turn.prompt for turn in tree.path(lane.head)] for lane in branch.states[-1].lanes] == [ALL[:2]] * 2
    assert len(branch.turns) == 4 and both(board) == (ALL, ALL)


def test_two_pages_that_go_on_from_the_same_place_make_two_versions(board: Board) -> None:
    seen = board.revision
    board.send("from the second", seen=seen)
    settle(board)
    assert board.moved_on(seen)
    board.send("from the first", seen=seen)
    settle(board)
    assert both(board) == ([*ALL, "from the first"],) * 2
    place = board.columns()[0].turns[-1].place
    assert len(place.prompts) == 2
    board.walk(board.columns()[0].key, place.prompts[0])
    assert both(board) == ([*ALL, "from the second"], [*ALL, "from the first"])


def test_settings_of_another_page_are_no_conflict(board: Board) -> None:
    seen = board.revision
    board.set_options(Options(system="Be brief."))
    assert not board.moved_on(seen) and not board.moved_on(None) and not board.moved_on(12345)


def test_nothing_is_walked_or_shared_while_it_is_answered() -> None:
    fakes = Fakes(until(Event(), "so far"))
    with Engine(connect=fakes.connect) as engine:
        board = Board(engine, [A])
        board.send("go")
        key, turn = board.columns()[0].key, 1
        board.edit(key, turn, "else")
        board.walk(key, turn)
        board.resume(key)
        assert board.columns()[0].asked == "go" and len(fakes["a"].asked) == 1
        with pytest.raises(BadRequest):
            board.continue_all(key, turn)


# going on


def stopped(fakes: Fakes, engine: Engine, model: ModelId) -> Board:
    board = Board(engine, [model])
    board.send("say it all")
    eventually(lambda: bool((live := board.columns()[0].live) and live.text))
    board.stop()
    settle(board)
    return board


def test_a_service_is_asked_to_go_on_and_says_so() -> None:
    fakes = Fakes(until(Event(), "so far "), a=until(Event(), "so far "))
    with Engine(connect=fakes.connect) as engine:
        board = stopped(fakes, engine, A)
        fakes["a"]._reply = says("and the rest")
        board.resume(board.columns()[0].key)
        settle(board)
        (turn,) = board.columns()[0].turns
        assert turn.answer.text == "so far and the rest" and ASKED_TO_GO_ON in turn.answer.notes
        assert [m.content for m in fakes["a"].asked[-1]] == ["say it all", "so far ", GO_ON]
        assert len(turn.place.answers) == 2, "what there was stays"


def test_echo_goes_on_where_it_was() -> None:
    with Engine() as engine:
        board = Board(engine, [ModelId("echo", "slow")])
        board.send(" ".join(str(number) for number in range(12)))
        eventually(lambda: bool((live := board.columns()[0].live) and live.text.count(" ") >= 2))
        board.stop()
        settle(board)
        board.resume(board.columns()[0].key)
        settle(board)
        answer = board.columns()[0].turns[0].answer
        assert answer.text == " ".join(str(number) for number in range(12))
        assert (answer.finish_reason, answer.notes) == ("stop", ())


def test_what_ended_by_itself_is_not_gone_on_with(board: Board, fakes: Fakes) -> None:
    board.resume(board.columns()[0].key)
    assert len(fakes["a"].asked) == 3


@needs("llama_cpp", "torch", "transformers")
@pytest.mark.parametrize("backend", ["gguf", "transformers"])
def test_a_local_model_goes_on_with_its_own_text(backend: str) -> None:
    """Greedy: the rest after any beginning of its answer is the rest of the answer."""
    question = Message("user", "What is the KV cache?")
    with Engine() as engine:
        model, params = ModelId(backend, "guide"), SamplingParams(temperature=0.0, max_tokens=60)
        *_, whole = engine.ask(model, [question], params)
        assert whole.error is None
        beginning = whole.text[: whole.text.index(" ", len(whole.text) // 3)]
        *_, rest = engine.ask(model, [question, Message("assistant", beginning)], params)
    assert beginning + rest.text == whole.text


# the tree


def test_only_what_leads_to_the_heads_is_cut_out(board: Board) -> None:
    turns = board.kept().turns
    assert [turn.id for turn in cut(turns, [turns[2].id])] == [1, 3]
    assert cut(turns, [None]) == ()


def test_a_conversation_of_thousands_of_turns_is_walked() -> None:
    from multimodel.conversation import Turn
    from multimodel.types import Snapshot, Timing

    said = Snapshot(A, "fine", Timing(0.0))
    tree = Tree(Turn("p", said, id, id - 1 or None, "k") for id in range(1, 5001))
    assert len(tree.path(5000)) == 5000 and tree.leaf(1, "k") == 5000 and tree.next == 5001


def test_what_is_kept_is_asked_with_what_was_sent() -> None:
    chat = ChatSettings(columns=("echo:any",), temperature=0.5, data_dir=Path("data"))
    with Engine(Settings(chat=chat)) as engine:
        board = Boards(engine).get(None)
        board.send("Hello?")
        settle(board)
        turn = board.columns()[0].turns[0]
        assert turn.asked.params.temperature == 0.5
        assert turn.answer.params == SamplingParams(max_tokens=1024), "echo takes no temperature"
