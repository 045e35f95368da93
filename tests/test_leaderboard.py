"""What votes say: ratings that find the truth again, intervals that hold it, and no more than was voted."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest

from multimodel.leaderboard import CENTRE, MOST, Standing, score, standing
from multimodel.topics import topic_of
from multimodel.votes import Ballot, Style

TRUE = {"a": 1200.0, "b": 1000.0, "c": 960.0, "d": 800.0}
MIDDLE = sum(TRUE.values()) / len(TRUE)


def wins(chance: Random, first: float, second: float) -> bool:
    """Whether the first of two ratings wins a game."""
    return chance.random() < 1 / (1 + 10 ** ((second - first) / 400))


def drawn(count: int, seed: int = 1) -> list[Ballot]:
    """Votes on random pairs, as models of these strengths would win them."""
    chance, found = Random(seed), []
    for _ in range(count):
        first, second = chance.sample(sorted(TRUE), 2)
        pair = (first, second) if wins(chance, TRUE[first], TRUE[second]) else (second, first)
        found.append(Ballot(pair, "best"))
    return found


def levelled(found: Standing) -> dict[str, tuple[float, float, float]]:
    """Rating, low and high of each model, on the level of the truth: only differences have a meaning."""
    by = sum(rating.rating for rating in found.ratings) / len(found.ratings) - MIDDLE
    return {r.model: (r.rating - by, r.low - by, r.high - by) for r in found.ratings}


def test_ratings_find_the_strengths_again() -> None:
    for model, (rating, low, high) in levelled(standing(drawn(2000))).items():
        assert rating == pytest.approx(TRUE[model], abs=30)
        assert low < rating < high


def ranked(count: int, seed: int = 1) -> list[Ballot]:
    """Rankings of all four, drawn by the model of Plackett and Luce: the next place goes by strength among the rest."""
    chance, found = Random(seed), []
    for _ in range(count):
        left, order = dict(TRUE), []
        while left:
            weights = [10 ** (points / 400) for points in left.values()]
            order.append(chance.choices(list(left), weights)[0])
            del left[order[-1]]
        models = tuple(chance.sample(sorted(TRUE), 4))
        found.append(Ballot(models, "ranked", tuple(order.index(model) + 1 for model in models)))
    return found


def test_rankings_find_the_strengths_again_with_fewer_votes() -> None:
    found = levelled(standing(ranked(500)))
    assert all(found[model][0] == pytest.approx(points, abs=30) for model, points in TRUE.items())
    width = [sum(high - low for _, low, high in levelled(standing(b)).values()) for b in (ranked(100), drawn(100))]
    assert width[0] < width[1]


@pytest.mark.parametrize(("draw", "count"), [(drawn, 120), (ranked, 40)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(draw: Callable[..., list[Ballot]], count: int) -> None:
    held = [
        low <= TRUE[model] <= high
        for seed in range(25)
        for model, (_, low, high) in levelled(standing(draw(count, seed))).items()
    ]
    assert 0.87 <= sum(held) / len(held) <= 0.99  # of 100; they say 0.95


def test_more_votes_make_narrower_intervals() -> None:
    few, many = standing(drawn(60)).ratings, standing(drawn(1500)).ratings
    assert max(r.high - r.low for r in many) < min(r.high - r.low for r in few)


@pytest.mark.parametrize("verdict", ["tie", "bad"])
def test_a_tie_counts_half(verdict: str) -> None:
    one, two = standing([Ballot(("a", "b"), verdict)] * 5).ratings  # type: ignore[arg-type]
    assert one.rating == two.rating == pytest.approx(CENTRE)


def test_a_model_that_never_lost_has_a_rating() -> None:
    first, second = standing([Ballot(("a", "b"), "best")] * 10).ratings
    assert first.model == "a" and CENTRE < first.rating < 2000 and second.rating < CENTRE


def test_the_best_of_four_beats_each_of_the_others() -> None:
    first, *others = standing([Ballot(("a", "b", "c", "d"), "best")]).ratings
    assert first.model == "a" and len({round(other.rating) for other in others}) == 1


def test_a_ranking_counts_as_a_game_of_each_pair() -> None:
    scores = score([Ballot(("a", "b", "c", "d"), "ranked", (2, 1, 2, 0))])
    assert {pair: s.won for pair, s in scores.items() if s.won >= 0.5} == {
        **dict.fromkeys([("b", "a"), ("b", "c"), ("b", "d"), ("a", "d"), ("c", "d")], 1.0),
        **dict.fromkeys([("a", "c"), ("c", "a")], 0.5),
    }


def test_places_say_the_same_in_any_order() -> None:
    places = {"a": 1, "b": 2, "c": 2, "d": 0}
    found = [
        standing([Ballot(order, "ranked", tuple(places[model] for model in order))] * 3)
        for order in list(permutations(places))[::7]
    ]
    assert all(
        [round(r.rating, 3) for r in each.ratings] == [round(r.rating, 3) for r in found[0].ratings] for each in found
    )


def test_a_model_does_not_play_against_itself() -> None:
    (only,) = standing([Ballot(("a", "a"), "best")] * 3).ratings
    assert only.rating == pytest.approx(CENTRE)


def test_a_vote_that_was_taken_back_says_nothing() -> None:
    assert standing([Ballot(("a", "b"), "none")]) == Standing()


def test_neighbours_are_told_apart_or_need_more_votes() -> None:
    by_pair = {(gap.better, gap.worse): gap for gap in standing(drawn(600)).gaps}
    assert by_pair["a", "b"].apart
    close = next(gap for pair, gap in by_pair.items() if set(pair) == {"b", "c"})
    assert not close.apart and 1 < close.more <= MOST


@pytest.mark.parametrize(("won", "apart"), [(1, False), (5, False), (12, True)])
def test_a_few_votes_prove_nothing(won: int, apart: bool) -> None:
    found = standing([Ballot(("a", "b"), "best")] * won)
    (gap,) = found.gaps
    assert (gap.better, gap.apart) == ("a", apart) and gap.more >= 1
    assert all(rating.low < rating.high for rating in found.ratings)


# style


def styled(count: int, taste: float, skill: float = 0.0, seed: int = 5) -> list[Ballot]:
    """Votes of somebody whose log-odds for an answer are `taste` times how much longer it is, and `skill` for "good".

    "wordy" writes longer than "good" three times in four; how much else they write is the same.
    """
    chance, found = Random(seed), []
    for _ in range(count):
        lengths = sorted(chance.sample(range(100, 2000), 2))
        wordy, good = lengths[::-1] if chance.random() < 0.75 else lengths
        odds = taste * (wordy - good) / (wordy + good + 1) - skill
        styles = (Style(wordy), Style(good))
        places = (1, 0) if chance.random() < 1 / (1 + math.exp(-odds)) else (0, 1)
        found.append(Ballot(("wordy", "good"), "best", places, styles))
    return found


def lead(found: Standing, model: str) -> float:
    """By how much it is ahead of the other one."""
    points = {rating.model: rating.rating for rating in found.ratings}
    return 2 * points[model] - sum(points.values())


def test_a_taste_for_length_is_taken_out_where_it_alone_decides() -> None:
    votes = styled(1500, taste=4.0)
    raw, controlled = standing(votes), standing(votes, controlled=True)
    assert lead(raw, "wordy") > 60 and raw.gaps[0].apart
    assert abs(lead(controlled, "wordy")) < 40
    assert dict(controlled.style)["length"] > 1.5
    assert dict(controlled.style)["bold"] == pytest.approx(1.0)


def test_what_is_not_style_stays() -> None:
    votes = styled(1500, taste=4.0, skill=1.2)
    expected = 1.2 * 400 / math.log(10)
    assert lead(standing(votes), "good") < expected - 60
    assert lead(standing(votes, controlled=True), "good") == pytest.approx(expected, abs=45)


def test_without_a_taste_control_changes_little() -> None:
    votes = styled(1500, taste=0.0, skill=1.0)
    assert lead(standing(votes), "good") == pytest.approx(lead(standing(votes, controlled=True), "good"), abs=30)


def test_markdown_is_counted_outside_of_code() -> None:
    text = "# Title\n\n1. one\n2. **two** and __three__\n\n~~~\n# no\n- no **no**\n~~~\n* four\n"
    assert Style.of(text) == Style(len(text), headers=1, lists=3, bold=2)
    assert Style.of("```\n# never closed\n- x") == Style(22)


@pytest.mark.parametrize(
    ("prompt", "topic"),
    [
        ("Fix this:\n```\nx = 1\n```", "code"),
        ("Why does my C++ program crash?", "code"),
        ("What is 12 * 7?", "maths"),
        ("Prove that the square root of 2 is irrational.", "maths"),
        ("Tell me of the French Revolution", "other"),
        ("I walked 20-30 minutes in 2019 and liked it", "maths"),  # a plain rule errs: 20-30 looks like a calculation
    ],
)
def test_topics_follow_plain_rules(prompt: str, topic: str) -> None:
    assert topic_of(prompt) == topic
