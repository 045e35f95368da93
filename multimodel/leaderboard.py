"""Who wins: ratings from votes by the model of Bradley and Terry, with how far they can be trusted.

A model of strength p beats one of strength q with probability p / (p + q). Strengths are those of maximum likelihood,
found by the iteration of Hunter (2004, "MM algorithms for generalized Bradley-Terry models"); a tie counts half for
each. Every model also has one drawn game against one of strength 1, or a model that never lost would have no rating.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import ceil, log10
from random import Random
from typing import Literal

Verdict = Literal["best", "tie", "bad"]
CENTRE, SCALE = 1000.0, 400.0  # as chess does: 400 points are odds of ten to one
SAMPLES = 200  # of the bootstrap
NORMAL = 1.96  # standard deviations that hold 95 % of a normal distribution
FEWEST = 6  # games: who wins all six is the better one with 95 % confidence, who wins all five is not
MOST = 999  # votes: beyond, two models are as good as equal


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote on answers to the same prompt: `models[0]` gave the best, or they tie, or all are bad."""

    models: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's place. `low` and `high` hold 95 % of the ratings of bootstrap samples of the votes."""

    model: str
    rating: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbours: whether the votes tell them apart, and else about how many more would."""

    better: str
    worse: str
    apart: bool
    more: int  # at most MOST


def ratings(ballots: Sequence[Ballot], *, seed: int = 0) -> tuple[Rating, ...]:
    """All models that were voted on, the best first.

    >>> won = [Ballot(("a", "b"), "best")] * 3 + [Ballot(("b", "a"), "best")]
    >>> [(r.model, round(r.rating), r.votes) for r in ratings(won)]
    [('a', 1082, 4), ('b', 918, 4)]
    """
    strengths = strength(Counter(ballots))
    samples = _samples(ballots, seed)
    votes = Counter(model for ballot in ballots for model in set(ballot.models))
    found = []
    for model, points in strengths.items():
        drawn = sorted(sample.get(model, CENTRE) for sample in samples)
        low, high = drawn[round(0.025 * (len(drawn) - 1))], drawn[round(0.975 * (len(drawn) - 1))]
        found.append(Rating(model, points, min(low, points), max(high, points), votes[model]))
    return tuple(sorted(found, key=lambda rating: -rating.rating))


def gaps(ballots: Sequence[Ballot], *, seed: int = 0) -> tuple[Gap, ...]:
    """How well each model is told apart from the next one below it."""
    order, samples = [rating.model for rating in ratings(ballots, seed=seed)], _samples(ballots, seed)
    return tuple(_gap(ballots, samples, better, worse) for better, worse in pairwise(order))


def strength(ballots: Counter[Ballot]) -> dict[str, float]:
    """The rating of each model, by maximum likelihood; a ballot counts as often as it was cast."""
    wins, games = _games(ballots)
    strong = dict.fromkeys(sorted(wins), 1.0)
    for _ in range(200):
        before, strong = strong, {}
        for model, met in games.items():
            mine = before[model]
            expected = 1 / (mine + 1) + sum(n / (mine + before[other]) for other, n in met.items())
            strong[model] = (wins[model] + 0.5) / expected
        if all(abs(strong[model] - before[model]) < 1e-5 * before[model] for model in strong):
            break
    return {model: CENTRE + SCALE * log10(points) for model, points in strong.items()}


def _games(ballots: Counter[Ballot]) -> tuple[dict[str, float], dict[str, Counter[str]]]:
    """Of each model: what it won, and how often it met each other one. A model does not play against itself."""
    wins: dict[str, float] = {}
    games: dict[str, Counter[str]] = {}
    for ballot, count in ballots.items():
        for model in ballot.models:
            wins.setdefault(model, 0.0)
            games.setdefault(model, Counter())
        best = ballot.verdict == "best"
        pairs = [(ballot.models[0], rival) for rival in ballot.models[1:]] if best else combinations(ballot.models, 2)
        for first, second in pairs:
            if first != second:
                wins[first] += count * (1.0 if best else 0.5)
                wins[second] += count * (0.0 if best else 0.5)
                games[first][second] += count
                games[second][first] += count
    return wins, games


def _samples(ballots: Sequence[Ballot], seed: int) -> list[dict[str, float]]:
    """Ratings from as many votes drawn with replacement, again and again.

    Among them is a tie for each pair of models: the same vote drawn every time would look like certainty.
    """
    if not ballots:
        return []
    models = sorted({model for ballot in ballots for model in ballot.models})
    pool, chance = [*ballots, *(Ballot(pair, "tie") for pair in combinations(models, 2))], Random(seed)
    return [strength(Counter(chance.choices(pool, k=len(pool)))) for _ in range(SAMPLES)]


def _gap(ballots: Sequence[Ballot], samples: Sequence[dict[str, float]], better: str, worse: str) -> Gap:
    ahead = sum(sample.get(better, CENTRE) > sample.get(worse, CENTRE) for sample in samples) / len(samples)
    counted = Counter(ballots)
    points = strength(counted)
    odds = 10 ** ((points[better] - points[worse]) / SCALE)
    share = odds / (1 + odds)  # of their games that the better one wins
    games = _games(counted)[1]
    # so many games that 1.96 standard errors of the share are its distance from one half
    needed = ceil(NORMAL**2 * share * (1 - share) / (share - 0.5) ** 2) if share > 0.5 else MOST
    needed = max(FEWEST, needed)
    apart = ahead >= 0.975 and min(games[better].total(), games[worse].total()) >= needed
    return Gap(better, worse, apart, max(1, min(MOST, needed - games[better][worse])))
