"""Who wins: ratings from votes by the model of Bradley and Terry, with how far they can be trusted.

A model of strength a beats one of strength b with probability s(a - b), where s(x) = 1 / (1 + exp(-x)); a tie counts
half for each, a ranking is a game of each pair in it. Strengths are those of maximum likelihood. Every model also has
one drawn game against one of strength 0, or a model that never lost would have no rating.

Controlled for style, the probability is s(a - b + z·g): z are the differences of the two answers in length, headers,
list items and bold passages, each as (x - y) / (x + y + 1) and divided by its standard deviation; g are weights found
together with the strengths, held small by a penalty of g²/4. This is the method of Chatbot Arena (Li, Angelopoulos
and Chiang, "Does style matter?", LMSYS 2024; FastChat, monitor/rating_systems.py), but that the differences are not
centred: which answer is called the first one means nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from math import ceil, exp, log

import numpy as np
from numpy.typing import NDArray

from .votes import Ballot, Style

CENTRE, SCALE = 1000.0, 400.0  # as chess does: 400 points are odds of ten to one
SAMPLES = 200  # of the bootstrap
NORMAL = 1.96  # standard deviations that hold 95 % of a normal distribution
FEWEST = 6  # games: who wins all six is the better one with 95 % confidence, who wins all five is not
MOST = 999  # votes: beyond, two models are as good as equal
PENALTY = 0.5  # FastChat's
STYLES = tuple(field.name for field in fields(Style))

Array = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class Score:
    """What one model won against another: a tie is half a game."""

    won: float
    games: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What votes say: all models that were voted on, the best first, and each against the next one below it."""

    ratings: tuple[Rating, ...] = ()
    gaps: tuple[Gap, ...] = ()
    style: tuple[tuple[str, float], ...] = ()  # of each part of style: times the odds, for one standard deviation more


@dataclass(frozen=True, slots=True)
class _Games:
    """Votes as games. A row is +1 and -1 at two models, then the style; its `unit` is the vote that it belongs to.

    After the games come a tie of each pair that met, which the bootstrap may draw, and the drawn game of each model,
    which always counts.
    """

    models: tuple[str, ...]
    rows: Array  # (games, models + style)
    won: Array  # (games,)
    unit: NDArray[np.int64]  # (games,); -1: always counts
    votes: int
    units: int

    def fit(self, drawn: Array, start: Array | None = None) -> Array:
        """Strengths and weights of style, where each unit counts as often as it was drawn; `start`: a guess."""
        weights = np.append(drawn, 1.0)[self.unit]
        guess = np.zeros(self.rows.shape[1]) if start is None else start
        return _fit(self.rows, self.won, weights, guess, len(self.models))


def standing(ballots: Sequence[Ballot], *, controlled: bool = False, seed: int = 0) -> Standing:
    """What votes say, `controlled` for length and style or not.

    >>> won = [Ballot(("a", "b"), "best")] * 3 + [Ballot(("b", "a"), "best")]
    >>> [(r.model, round(r.rating), r.votes) for r in standing(won).ratings]
    [('a', 1082, 4), ('b', 918, 4)]
    """
    cast = [ballot for ballot in ballots if ballot.verdict != "none"]
    if not cast:
        return Standing()
    games = _games(cast, controlled)
    once = np.repeat((1.0, 0.0), (games.votes, games.units - games.votes))
    fitted = games.fit(once)
    samples = _samples(games, fitted, seed)
    points = CENTRE + SCALE / log(10) * fitted[: len(games.models)]
    found = _ratings(cast, games.models, points, samples)
    scores = score(cast)
    gaps = tuple(_gap(scores, samples, games.models, better, worse) for better, worse in pairwise(found))
    weights = fitted[len(games.models) :]
    return Standing(found, gaps, tuple((name, exp(w)) for name, w in zip(STYLES, weights, strict=False)))


def score(ballots: Iterable[Ballot]) -> dict[tuple[str, str], Score]:
    """What each model won against each other one that it met.

    >>> score([Ballot(("a", "b"), "best"), Ballot(("a", "b"), "tie")])["a", "b"]
    Score(won=1.5, games=2)
    """
    found: dict[tuple[str, str], Score] = {}
    for ballot in ballots:
        for i, j, won in ballot.games():
            for pair, mine in (((i, j), won), ((j, i), 1 - won)):
                names = ballot.models[pair[0]], ballot.models[pair[1]]
                before = found.get(names, Score(0.0, 0))
                found[names] = Score(before.won + mine, before.games + 1)
    return found


def _ratings(cast: Sequence[Ballot], models: tuple[str, ...], points: Array, samples: Array) -> tuple[Rating, ...]:
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    votes = {model: sum(model in ballot.models for ballot in cast) for model in models}
    found = [
        Rating(model, float(at), min(float(below), float(at)), max(float(above), float(at)), votes[model])
        for model, at, below, above in zip(models, points, low, high, strict=True)
    ]
    return tuple(sorted(found, key=lambda rating: -rating.rating))


def _games(cast: Sequence[Ballot], controlled: bool) -> _Games:
    models = tuple(sorted({model for ballot in cast for model in ballot.models}))
    at = {model: i for i, model in enumerate(models)}
    pairs, won, unit, style = [], [], [], []
    for number, ballot in enumerate(cast):
        for i, j, share in ballot.games():
            pairs.append((at[ballot.models[i]], at[ballot.models[j]]))
            won.append(share)
            unit.append(number)
            style.append(_difference(ballot, i, j))
    ties = sorted({(min(pair), max(pair)) for pair in pairs})
    rows = np.zeros((len(pairs) + len(ties) + len(models), len(models) + len(STYLES) * controlled))
    for row, (one, other) in enumerate([*pairs, *ties]):
        rows[row, one], rows[row, other] = 1.0, -1.0
    rows[len(pairs) + len(ties) :, : len(models)] = np.eye(len(models))
    if controlled and style:
        rows[: len(style), len(models) :] = _standardised(np.array(style))
    units = len(cast) + len(ties)
    always = [-1] * len(models)
    outcomes = np.array([*won, *[0.5] * (len(ties) + len(models))])
    return _Games(models, rows, outcomes, np.array([*unit, *range(len(cast), units), *always]), len(cast), units)


def _difference(ballot: Ballot, i: int, j: int) -> tuple[float, ...]:
    """How two answers differ in style, each part from -1 to 1; 0 where it is not known."""
    if not ballot.styles:
        return (0.0,) * len(STYLES)
    both = zip(astuple(ballot.styles[i]), astuple(ballot.styles[j]), strict=True)
    return tuple((one - other) / (one + other + 1) for one, other in both)


def _standardised(differences: Array) -> Array:
    spread = np.sqrt((differences**2).mean(axis=0))
    return differences / np.where(spread > 0, spread, 1.0)


def _fit(rows: Array, won: Array, weights: Array, found: Array, models: int) -> Array:
    """Logistic regression by Newton's method, from a guess on."""
    penalty = np.where(np.arange(rows.shape[1]) < models, 0.0, PENALTY)
    for _ in range(50):
        likely = 1 / (1 + np.exp(-rows @ found))
        slope = rows.T @ (weights * (won - likely)) - penalty * found
        bend = (rows * (weights * likely * (1 - likely))[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        found = found + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))  # a long step may lead astray
        if np.abs(step).max() < 1e-4:  # far below a point
            break
    return found


def _samples(games: _Games, fitted: Array, seed: int) -> Array:
    """Ratings (samples, models) from as many votes drawn with replacement, again and again.

    Among them is a tie for each pair that met: the same vote drawn every time would look like certainty.
    """
    chance = np.random.default_rng(seed)
    drawn = chance.multinomial(games.units, np.full(games.units, 1 / games.units), size=SAMPLES)
    strengths = np.array([games.fit(counts.astype(float), fitted)[: len(games.models)] for counts in drawn])
    return CENTRE + SCALE / log(10) * strengths


def _gap(
    scores: dict[tuple[str, str], Score], samples: Array, models: tuple[str, ...], better: Rating, worse: Rating
) -> Gap:
    one, other = models.index(better.model), models.index(worse.model)
    ahead = float((samples[:, one] > samples[:, other]).mean())
    odds = 10 ** ((better.rating - worse.rating) / SCALE)
    share = odds / (1 + odds)  # of their games that the better one wins
    # so many games that 1.96 standard errors of the share are its distance from one half
    needed = ceil(NORMAL**2 * share * (1 - share) / (share - 0.5) ** 2) if share > 0.5 else MOST
    needed = max(FEWEST, needed)
    played = [sum(s.games for (model, _), s in scores.items() if model == r.model) for r in (better, worse)]
    met = scores.get((better.model, worse.model), Score(0.0, 0)).games
    apart = ahead >= 0.975 and min(played) >= needed
    return Gap(better.model, worse.model, apart, MOST if needed >= MOST else max(1, needed - met))
