"""Columns are conversations of their own: no column ever sees, or is sent, what belongs to another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from threading import Event

import pytest

from multimodel import Engine, Message, ModelId, SamplingParams
from multimodel.board import MAX_COLUMNS, Board, Column, Options
from multimodel.boards import BOARDS, Boards
from multimodel.errors import BadRequest, InvalidParameter, ServerFailure
from multimodel.types import Chunk, LoadOptions

from .support import Fakes, Reply, eventually, fails, says, until

MODELS = [ModelId("fake", name) for name in "abcd"]
NUMBERS = ("4711", "8236", "1905", "6650")


@pytest.fixture
def fakes() -> Fakes:
    return Fakes(says("fine"))


@pytest.fixture
def engine(fakes: Fakes) -> Iterator[Engine]:
    with Engine(connect=fakes.connect) as made:
        yield made


def ask(board: Board, prompt: str) -> None:
    """Send, and wait for all answers."""
    assert board.send(prompt)
    settle(board)


def settle(board: Board) -> None:
    eventually(lambda: not board.active())


def answers(column: Column) -> list[str]:
    return [turn.answer.text for turn in column.turns]


class Witness:
    """A model that knows what it is sent and nothing else: it says each number it finds there, and a fresh word.

    The word makes every answer of all columns unique, so that a stray turn is seen even where it holds no number.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Message, ...]]] = []  # (the new prompt, all that was sent)
        self._fresh = itertools.count()

    def __call__(self, messages: Sequence[Message]) -> Iterable[Chunk]:
        self.sent.append((messages[-1].content, tuple(messages)))
        known = sorted(set(re.findall(r"\b\d{4}\b", " ".join(m.content for m in messages))))
        yield Chunk(f"I know {' and '.join(known) or 'nothing'} (word{next(self._fresh)}).")
        yield Chunk(finish_reason="stop")


class TestIsolation:
    """Four columns are each told a different secret number; each knows only its own, whatever happens to the board."""

    @pytest.fixture
    def witness(self) -> Witness:
        return Witness()

    @pytest.fixture
    def engine(self, witness: Witness) -> Iterator[Engine]:
        with Engine(connect=Fakes(witness).connect) as made:
            yield made

    @pytest.fixture
    def board(self, engine: Engine) -> Board:
        """All four columns ask the same model, so that nothing but the board keeps them apart."""
        made = Board(engine, [MODELS[0]] * 4)
        for column, number in zip(made.columns(), NUMBERS, strict=True):
            made.set_options(Options(system=f"The secret number is {number}."), column.key)
        self.secrets = {column.key: number for column, number in zip(made.columns(), NUMBERS, strict=True)}
        ask(made, "What is the secret number?")
        return made

    def check(self, board: Board, witness: Witness, prompt: str) -> None:
        """Ask everyone once more; every column is sent its own conversation, whole, and nothing else."""
        before = {column.key: column for column in board.columns()}
        witness.sent.clear()
        ask(board, prompt)
        expected = {key: self.conversation(column, prompt) for key, column in before.items()}
        assert sorted(map(repr, expected.values())) == sorted(repr(sent) for _, sent in witness.sent)
        for column in board.columns():
            known = set(re.findall(r"\b\d{4}\b", " ".join(answers(column))))
            assert known == {self.secrets[column.key]}, "a column repeats a number that is not its own"
        words = [
            word for column in board.columns() for text in answers(column) for word in re.findall(r"word\d+", text)
        ]
        assert len(words) == len(set(words)), "an answer stands in two columns"

    def conversation(self, column: Column, prompt: str) -> tuple[Message, ...]:
        """What this column should be sent, from its turns alone, written down independently of the board."""
        said = [pair for t in column.turns for pair in (("user", t.prompt), ("assistant", t.answer.text))]
        system = column.own.system if column.own else ""
        turns = [*([("system", system)] if system else []), *said, ("user", prompt)]
        return tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]

    def test_at_once(self, board: Board, witness: Witness) -> None:
        self.check(board, witness, "And again?")

    def test_after_regenerate(self, board: Board, witness: Witness) -> None:
        second = board.columns()[1]
        others = [column for column in board.columns() if column.key != second.key]
        witness.sent.clear()
        board.regenerate(second.key)
        settle(board)
        ((_, sent),) = witness.sent
        assert sent == (
            Message("system", f"The secret number is {NUMBERS[1]}."),
            Message("user", second.turns[0].prompt),
        )
        assert [column for column in board.columns() if column.key != second.key] == others
        assert len(board.columns()[1].turns) == 1 and answers(board.columns()[1]) != answers(second)
        self.check(board, witness, "And after regenerating?")

    def test_after_removal(self, board: Board, witness: Witness) -> None:
        gone = board.columns()[0]
        board.remove(gone.key)
        self.check(board, witness, "And with one column less?")
        assert not any(NUMBERS[0] in m.content for _, sent in witness.sent for m in sent)

    def test_after_a_column_was_added(self, board: Board, witness: Witness) -> None:
        board.remove(board.columns()[3].key)
        board.add(MODELS[0])
        fresh = board.columns()[3]
        self.secrets[fresh.key] = "9999"
        board.set_options(Options(system="The secret number is 9999."), fresh.key)
        self.check(board, witness, "Who is new?")

    def test_after_every_reordering(self, board: Board, witness: Witness) -> None:
        keys = [column.key for column in board.columns()]
        for by in (3, -1, 1, -3):
            board.move(board.columns()[0].key if by > 0 else board.columns()[-1].key, by)
            assert sorted(column.key for column in board.columns()) == sorted(keys)
            self.check(board, witness, f"And after moving by {by}?")

    def test_after_a_change_of_model(self, board: Board, witness: Witness) -> None:
        third = board.columns()[2]
        board.choose(third.key, MODELS[3])
        assert board.columns()[2].turns == third.turns
        self.check(board, witness, "And as another model?")

    def test_after_following_the_shared_options_again(self, board: Board, witness: Witness) -> None:
        board.share(board.columns()[0].key)
        self.check(board, witness, "And without a system prompt of your own?")  # its own answer still tells it

    def test_after_clearing_one(self, board: Board, witness: Witness) -> None:
        board.clear(board.columns()[1].key)
        assert [len(column.turns) for column in board.columns()] == [1, 0, 1, 1]
        self.check(board, witness, "And after clearing?")

    def test_after_all_of_it_in_a_row(self, board: Board, witness: Witness) -> None:
        first, second, third, fourth = (column.key for column in board.columns())
        board.regenerate(fourth)
        settle(board)
        board.remove(second)
        board.move(first, 2)
        board.choose(third, MODELS[1])
        board.move(fourth, -2)
        self.check(board, witness, "And now?")
        assert {column.key for column in board.columns()} == {first, third, fourth}

    def test_of_two_visitors_with_the_same_models(self, engine: Engine, board: Board, witness: Witness) -> None:
        other = Board(engine, [MODELS[0]] * 4)
        ask(other, "What is the secret number?")
        assert all("I know nothing" in text for column in other.columns() for text in answers(column))
        self.check(board, witness, "And with a visitor beside you?")


def test_an_empty_prompt_asks_nobody(engine: Engine, fakes: Fakes) -> None:
    board = Board(engine, MODELS)
    assert not board.send("") and not board.send(" \n\t")
    assert fakes.made == [] and not board.active()


def test_a_prompt_is_sent_as_it_was_typed(engine: Engine, fakes: Fakes) -> None:
    ask(Board(engine, MODELS[:1]), "  two\n\n lines <|end|> ")
    assert fakes["a"].asked[0][-1].content == "  two\n\n lines <|end|> "


def test_shared_options_go_to_all_and_own_options_to_one(engine: Engine, fakes: Fakes) -> None:
    board = Board(engine, MODELS[:2], Options(SamplingParams(temperature=0.5), "Be brief."))
    board.set_options(Options(SamplingParams(seed=1)), board.columns()[1].key)
    ask(board, "hi")
    assert fakes["a"].asked == [(Message("system", "Be brief."), Message("user", "hi"))]
    assert fakes["a"].params == [SamplingParams(temperature=0.5)]
    assert fakes["b"].asked == [(Message("user", "hi"),)]
    assert fakes["b"].params == [SamplingParams(seed=1)]


def test_each_column_says_how_its_model_is_loaded_as_far_as_its_backend_honours_it(engine: Engine) -> None:
    load = LoadOptions(dtype="int4", kv_type="q8_0", context_length=99)
    models = [ModelId("transformers", "m"), ModelId("gguf", "m"), ModelId("openai", "m"), ModelId("nobody", "m")]
    board = Board(engine, models, Options(load=load))
    board.set_options(Options(), board.columns()[0].key)
    assert [board.spec(column).load for column in board.columns()] == [
        LoadOptions(),
        LoadOptions(kv_type="q8_0", context_length=99),
        LoadOptions(),
        load,  # asking it says that there is no such backend
    ]
    board.share(board.columns()[0].key)
    assert board.spec(board.columns()[0]).load == LoadOptions(dtype="int4", context_length=99)


@pytest.mark.parametrize("load", [LoadOptions(adapter="/etc/passwd"), LoadOptions(anyway=True)])
def test_a_column_cannot_name_files_of_this_machine_nor_overrule_the_memory_plan(load: LoadOptions) -> None:
    with pytest.raises(InvalidParameter, match="no option"):
        Options(load=load)


def running(reply: Reply, **replies: Reply) -> tuple[Engine, Fakes, Board]:
    """A board whose columns a and b are answering."""
    fakes = Fakes(reply, **replies)
    engine = Engine(connect=fakes.connect)
    board = Board(engine, MODELS[:2])
    board.send("go")
    eventually(lambda: all(column.live and column.live.text for column in board.columns()))
    return engine, fakes, board


def test_nothing_goes_on_from_an_answer_while_others_are_made() -> None:
    engine, fakes, board = running(until(Event(), "still"))
    with engine, pytest.raises(BadRequest, match="2 columns") as caught:
        board.continue_all(board.columns()[0].key, 1)
    assert "Stop" in caught.value.hint
    assert len(fakes["a"].asked) == 1


def test_stopping_one_leaves_the_other_running() -> None:
    go = Event()
    engine, fakes, board = running(until(go, "so far"))
    with engine:
        board.stop(board.columns()[0].key)
        stopped, going = board.columns()
        assert stopped.turns[0].answer.finish_reason == "stopped" and answers(stopped) == ["so far"]
        assert going.live is not None
        eventually(lambda: fakes["a"].ended == 1)
        go.set()
        settle(board)
        assert board.columns()[1].turns[0].answer.finish_reason == "stop"


def test_columns_come_and_go_while_others_stream() -> None:
    go = Event()
    engine, fakes, board = running(until(go, "so far"), c=says("new"))
    with engine:
        first, second = board.columns()
        board.remove(first.key)
        eventually(lambda: fakes["a"].ended == 1)
        board.add(MODELS[2])
        remaining, added = board.columns()
        assert remaining.key == second.key and remaining.live is not None
        assert added.turns == () and added.live is None
        go.set()
        settle(board)
        assert answers(board.columns()[0]) == ["so far"]


def test_regenerating_a_column_that_answers_changes_nothing() -> None:
    engine, fakes, board = running(until(Event(), "so far"))
    with engine:
        board.regenerate(board.columns()[0].key)
        assert len(fakes["a"].asked) == 1


def test_clearing_while_answering_ends_the_work_and_empties_the_column() -> None:
    engine, fakes, board = running(until(Event(), "so far"))
    with engine:
        board.clear()
        assert [(column.turns, column.live) for column in board.columns()] == [((), None)] * 2
        eventually(lambda: fakes["a"].ended == fakes["b"].ended == 1)


def test_a_listener_is_called_until_it_is_ended() -> None:
    go, calls = Event(), []
    engine, _, board = running(until(go, "so far"))
    with engine:
        end = board.watch(lambda: calls.append(1))
        board.stop(board.columns()[0].key)
        assert calls
        end()
        calls.clear()
        go.set()
        settle(board)
        assert not calls


def test_a_failed_turn_is_shown_but_not_sent_again() -> None:
    fakes = Fakes(says("fine"), a=fails(ServerFailure("broken", retry_after=3600.0)))
    with Engine(connect=fakes.connect) as engine:
        board = Board(engine, MODELS[:2])
        ask(board, "one")
        failed = board.columns()[0]
        assert failed.turns[0].answer.error is not None and failed.turns[0].prompt == "one"
        ask(board, "two")
    assert fakes["a"].asked[1] == (Message("user", "two"),)
    assert fakes["b"].asked[1] == (Message("user", "one"), Message("assistant", "fine"), Message("user", "two"))


def test_there_are_one_to_four_columns(engine: Engine) -> None:
    board = Board(engine, [*MODELS, MODELS[0]])
    assert len(board.columns()) == MAX_COLUMNS
    board.add(MODELS[0])
    assert len(board.columns()) == MAX_COLUMNS
    for _ in range(MAX_COLUMNS):
        board.remove(board.columns()[0].key)
    assert [str(column.model) for column in board.columns()] == ["fake:d"]


@pytest.mark.parametrize(("by", "order"), [(1, "bacd"), (9, "bcda"), (-1, "abcd"), (0, "abcd")])
def test_a_column_moves_as_far_as_there_are_places(engine: Engine, by: int, order: str) -> None:
    board = Board(engine, MODELS)
    board.move(board.columns()[0].key, by)
    assert "".join(column.model.name for column in board.columns()) == order


def test_the_size_of_the_next_prompt_counts_each_columns_own_turns(engine: Engine) -> None:
    board = Board(engine, MODELS[:2])
    ask(board, "one")
    board.clear(board.columns()[1].key)
    assert [(column.model.name, size.tokens) for column, size in board.measure("two")] == [("a", 3), ("b", 1)]


class TestBoards:
    """A page finds its board again; a server does not keep boards for ever."""

    def test_an_unknown_visitor_gets_a_new_board(self, engine: Engine) -> None:
        boards = Boards(engine)
        new = boards.get(None)
        assert [str(column.model) for column in new.columns()] == ["transformers:guide", "gguf:guide"]
        assert boards.get(new.id) is new
        assert boards.get("guessed") is not new
        assert boards.get("guessed").id != "guessed"

    def test_two_visitors_have_two_boards(self, engine: Engine) -> None:
        boards = Boards(engine)
        assert boards.get(None).id != boards.get(None).id

    def test_the_one_unused_for_longest_leaves_first(self, engine: Engine) -> None:
        boards = Boards(engine)
        first, second = boards.get(None), boards.get(None)
        for _ in range(BOARDS - 2):
            boards.get(None)
        boards.get(first.id)
        boards.get(None)
        assert boards.get(first.id) is first
        assert boards.get(second.id) is not second
