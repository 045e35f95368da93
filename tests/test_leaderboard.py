"""Votes and what they say: ratings that find the truth again, intervals that hold it, and no more than was voted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from threading import Event

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, ServerFailure
from multimodel.leaderboard import CENTRE, MOST, Ballot, gaps, ratings
from multimodel.settings import ChatSettings, Settings
from tabs.conversations import ranking

from .support import Fakes, eventually, fails, says, until

TRUE = {"a": 1200.0, "b": 1000.0, "c": 960.0, "d": 800.0}


def drawn(count: int, seed: int = 1) -> list[Ballot]:
    """Votes on random pairs, as models of these strengths would win them."""
    chance, found = Random(seed), []
    for _ in range(count):
        first, second = chance.sample(sorted(TRUE), 2)
        wins = chance.random() < 1 / (1 + 10 ** ((TRUE[second] - TRUE[first]) / 400))
        found.append(Ballot((first, second) if wins else (second, first), "best"))
    return found


def test_ratings_find_the_strengths_again() -> None:
    found = {rating.model: rating for rating in ratings(drawn(2000))}
    middle = sum(rating.rating for rating in found.values()) / 4 - sum(TRUE.values()) / 4
    for model, points in TRUE.items():
        assert found[model].rating - middle == pytest.approx(points, abs=30)
        assert found[model].low < found[model].rating < found[model].high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(20):
        best = ratings(drawn(120, seed))[0]
        held += best.low - 20 <= 1200 <= best.high + 20  # the drawn games pull a little to the middle
    assert held >= 15


def test_more_votes_make_narrower_intervals() -> None:
    few, many = ratings(drawn(60)), ratings(drawn(1500))
    assert max(r.high - r.low for r in many) < min(r.high - r.low for r in few)


@pytest.mark.parametrize("verdict", ["tie", "bad"])
def test_a_tie_counts_half(verdict: str) -> None:
    one, two = ratings([Ballot(("a", "b"), verdict)] * 5)  # type: ignore[arg-type]
    assert one.rating == two.rating == pytest.approx(CENTRE)


def test_a_model_that_never_lost_has_a_rating() -> None:
    first, second = ratings([Ballot(("a", "b"), "best")] * 10)
    assert first.model == "a" and CENTRE < first.rating < 2000 and second.rating < CENTRE


def test_the_best_of_four_beats_each_of_the_others() -> None:
    first, *others = ratings([Ballot(("a", "b", "c", "d"), "best")])
    assert first.model == "a" and len({round(other.rating) for other in others}) == 1


def test_a_model_does_not_play_against_itself() -> None:
    (only,) = ratings([Ballot(("a", "a"), "best")] * 3)
    assert only.rating == pytest.approx(CENTRE)


def test_neighbours_are_told_apart_or_need_more_votes() -> None:
    by_pair = {(gap.better, gap.worse): gap for gap in gaps(drawn(600))}
    assert by_pair["a", "b"].apart
    close = next(gap for pair, gap in by_pair.items() if set(pair) == {"b", "c"})
    assert not close.apart and 1 < close.more <= MOST


@pytest.mark.parametrize(("won", "apart"), [(1, False), (5, False), (12, True)])
def test_a_few_votes_prove_nothing(won: int, apart: bool) -> None:
    ballots = [Ballot(("a", "b"), "best")] * won
    (gap,) = gaps(ballots)
    assert (gap.better, gap.apart) == ("a", apart) and gap.more >= 1
    assert all(rating.low < rating.high for rating in ratings(ballots))


def test_no_votes_no_table() -> None:
    assert ratings([]) == gaps([]) == ()
    assert ranking([]) == {"rows": [], "said": [], "votes": 0}


# voting on a board


@pytest.fixture
def start() -> Iterator[Callable[..., Boards]]:
    engines: list[Engine] = []

    def begin(fakes: Fakes) -> Boards:
        for engine in engines:
            engine.close()
        chat = ChatSettings(columns=("fake:a", "fake:b", "fake:c"), data_dir=Path("data"))
        engines.append(Engine(Settings(chat=chat), connect=fakes.connect))
        return Boards(engines[-1])

    yield begin
    for engine in engines:
        engine.close()


def asked(boards: Boards, prompt: str = "Hello?") -> Board:
    board = boards.get(None)
    board.send(prompt)
    eventually(lambda: not board.active())
    return board


def test_a_vote_is_kept_and_shown(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = asked(boards)
    second = board.columns()[1]
    board.vote(second.key, second.turns[0].id, "best")
    assert board.votes == {second.turns[0].id: "best"}
    assert boards.store.ballots(boards.owner(board.id)) == [Ballot(("fake:b", "fake:a", "fake:c"), "best")]
    boards = start(Fakes(says("fine")))
    assert boards.get(board.id).votes == board.votes
    assert ranking(boards.store.ballots(boards.owner(board.id)))["rows"][0][0] == "b (fake)"


def test_the_newest_vote_on_the_same_answers_counts(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = asked(boards)
    first, second, third = board.columns()
    board.vote(first.key, first.turns[0].id, "best")
    board.vote(second.key, second.turns[0].id, "tie")
    assert set(board.votes.values()) == {"tie"} and len(board.votes) == 3
    board.vote(third.key, third.turns[0].id, "best")
    assert board.votes == {third.turns[0].id: "best"}
    assert boards.store.ballots(boards.owner(board.id)) == [Ballot(("fake:c", "fake:a", "fake:b"), "best")]


def test_an_answer_that_failed_cannot_be_voted_on(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine"), a=fails(ServerFailure("broken", retry_after=3600.0), "half")))
    board = asked(boards)
    failed, second, third = board.columns()
    with pytest.raises(BadRequest, match="failed"):
        board.vote(failed.key, failed.turns[0].id, "best")
    board.vote(second.key, second.turns[0].id, "best")
    assert boards.store.ballots(boards.owner(board.id)) == [Ballot(("fake:b", "fake:c"), "best")]
    board.remove(third.key)
    with pytest.raises(BadRequest, match="No other column"):
        board.vote(second.key, second.turns[0].id, "best")


def test_an_answer_on_its_way_is_no_rival(start: Callable[..., Boards]) -> None:
    go = Event()
    boards = start(Fakes(says("fine"), c=until(go, "so far")))
    board = boards.get(None)
    board.send("Hello?")
    eventually(lambda: [bool(column.live) for column in board.columns()] == [False, False, True])
    first, _, slow = board.columns()
    board.vote(first.key, first.turns[0].id, "best")
    board.vote(slow.key, 3, "best")
    assert boards.store.ballots(boards.owner(board.id)) == [Ballot(("fake:a", "fake:b"), "best")]
    go.set()


def test_votes_are_a_visitors_own(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    mine, theirs = asked(boards), boards.get(None)
    column = mine.columns()[0]
    mine.vote(column.key, column.turns[0].id, "best")
    assert boards.store.ballots(boards.owner(theirs.id)) == []
    boards.join(boards.invite(theirs.id), mine.id)
    assert len(boards.store.ballots(boards.owner(theirs.id))) == 1, "they come along to the other device"
