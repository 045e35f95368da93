"""The leaderboard of a person's own votes: values to HTML and to files. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Literal

from multimodel.leaderboard import MOST, Gap, Rating, Score, Standing, score, standing
from multimodel.topics import rules
from multimodel.types import ModelId
from multimodel.votes import Ballot, Vote

from .format import called, counted

EMPTY = (
    "Ask two or more columns the same prompt, then say in the line below the answers which is better. "
    "Blind, in the toolbar, hides the names until you do."
)
METHOD = (
    "Dots are ratings by the model of Bradley and Terry, whiskers hold 95 % of what votes drawn again at random would "
    "say; 400 points are odds of ten to one."
)
CONTROL = "What is left of the ratings without your taste for long answers, headings, lists and bold"
TAGS = "A topic that you give to a conversation, in its menu in the list, is that of its votes."
FILES = {
    "votes csv": "Votes, CSV",
    "votes json": "Votes, JSON",
    "ratings csv": "Ratings, CSV",
    "ratings json": "Ratings, JSON",
}
PARTS = {"length": "longer answers", "headers": "more headings", "lists": "more list items", "bold": "more bold"}
File = tuple[str, str, str]
"""The name, type and text of a file."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which votes count, and how."""

    topic: str = ""  # "": all
    blind: bool = False  # only those that were cast without knowing the names
    controlled: bool = False  # for length and style

    def of(self, votes: Sequence[Vote]) -> list[Vote]:
        """The votes that count."""
        return [v for v in votes if self.topic in ("", v.topic) and (v.ballot.blind or not self.blind)]


def name_of(model: str) -> str:
    """A model as a person calls it."""
    return called(ModelId(*model.split(":", 1))) if ":" in model else model


def page_html(votes: Sequence[Vote], choice: Choice) -> str:
    """The whole leaderboard."""
    if not votes:
        return f'<div class="mv-empty"><strong>No votes yet</strong><p>{EMPTY}</p></div>'
    ballots = [vote.ballot for vote in choice.of(votes)]
    head = _choices(votes, choice)
    if not ballots:
        return f'{head}<div class="mv-empty"><p>No vote of this kind yet.</p></div>'
    raw = standing(ballots)
    found = standing(ballots, controlled=True) if choice.controlled else raw
    style = _style(found, ballots) if choice.controlled else ""
    return (
        f'{head}<p class="mv-soft">{counted(len(ballots), "vote")}. {METHOD}</p>'
        f"{table_html(found.ratings, changes(found.ratings, raw.ratings) if choice.controlled else None)}{style}"
        f'<div class="mv-two"><section><h3>Who is apart</h3>{gaps_html(found.gaps)}</section>'
        f"<section><h3>Who wins against whom</h3>{matrix_html(found, score(ballots))}</section></div>"
        f'<p class="mv-soft">Topics. {TAGS} {escape(rules())}</p>'
    )


def _choices(votes: Sequence[Vote], choice: Choice) -> str:
    topics = sorted({vote.topic for vote in votes if vote.topic})
    kinds = _option("", "All votes", "") + _option("1", "Blind votes only", "1" if choice.blind else "")
    modes = _mode("", "Raw", "As you voted", not choice.controlled)
    modes += _mode("1", "Controlled for length and style", CONTROL, choice.controlled)
    files = "".join(f'<button type="button" data-export="{kind}">{words}</button>' for kind, words in FILES.items())
    return (
        f'<div class="mv-choices"><div class="mv-modes" role="group" aria-label="Ratings">{modes}</div>'
        f'<select data-topic aria-label="Topic"><option value="">All topics</option>'
        f"{''.join(_option(topic, topic, choice.topic) for topic in topics)}</select>"
        f'<select data-blind aria-label="Votes">{kinds}</select>'
        f'<details class="mm-menu mv-files"><summary>Export</summary><div>{files}</div></details></div>'
    )


def _option(value: str, words: str, chosen: str) -> str:
    selected = " selected" if value == chosen else ""
    return f'<option value="{escape(value)}"{selected}>{escape(words)}</option>'


def _mode(value: str, words: str, why: str, on: bool) -> str:
    pressed = str(on).lower()
    return f'<button type="button" data-controlled="{value}" aria-pressed="{pressed}" title="{why}">{words}</button>'


@dataclass(frozen=True, slots=True)
class More:
    """One more column of a table of ratings: its head, what that means, and a text for some of the models."""

    head: str
    why: str
    texts: Mapping[str, str]


def changes(ratings: Sequence[Rating], raw: Sequence[Rating]) -> More:
    """How far each rating is from what it was without control."""
    before = {rating.model: rating.rating for rating in raw}
    texts = {rating.model: f"{rating.rating - before[rating.model]:+.0f}".replace("-", "−") for rating in ratings}
    return More("Change", "Against the raw ratings", texts)


def table_html(ratings: Sequence[Rating], more: More | None = None) -> str:
    """Ratings as dots with whiskers on one scale, the best first."""
    low, high = min(r.low for r in ratings), max(r.high for r in ratings)
    rows = "".join(
        _row(at, r, low, high, f"<td>{escape(more.texts.get(r.model, '–'))}</td>" if more else "")
        for at, r in enumerate(ratings, 1)
    )
    change = f'<th scope="col" title="{escape(more.why)}">{escape(more.head)}</th>' if more else ""
    return (
        '<table class="mv-table"><thead><tr><th scope="col">Rank</th><th scope="col">Model</th>'
        f'<th scope="col">Rating</th>{change}<th scope="col" class="mv-axis"><div><span>{low:.0f}</span>'
        f"<span>95 % interval</span><span>{high:.0f}</span></div></th>"
        f'<th scope="col">Votes</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(rank: int, rating: Rating, low: float, high: float, more: str) -> str:
    def at(value: float) -> float:
        return 3 + 94 * (value - low) / max(1.0, high - low)

    name, between = escape(name_of(rating.model)), f"{rating.low:.0f} to {rating.high:.0f}"
    return (
        f'<tr><td>{rank}</td><th scope="row" title="{escape(rating.model)}">{name}</th><td>{rating.rating:.0f}</td>'
        f'{more}<td class="mv-axis" title="{between}"><i style="left:{at(rating.low):.2f}%;'
        f'right:{100 - at(rating.high):.2f}%"></i><b style="left:{at(rating.rating):.2f}%"></b>'
        f'<span class="mv-said">{between}</span></td><td>{rating.votes}</td></tr>'
    )


def gaps_html(gaps: Sequence[Gap]) -> str:
    """What the votes say of each two neighbours."""
    rows = "".join(f"<li>{escape(gap_text(gap))}</li>" for gap in gaps)
    return f'<ul class="mv-gaps">{rows}</ul>' if rows else '<p class="mv-soft">There is only one model.</p>'


def gap_text(gap: Gap) -> str:
    """Whether two models are told apart.

    >>> gap_text(Gap("gguf:a", "gguf:b", False, 12))
    'About 12 more votes to separate a (GGUF) and b (GGUF).'
    """
    better, worse = name_of(gap.better), name_of(gap.worse)
    if gap.apart:
        return f"{better} is better than {worse}."
    votes = f"About {counted(gap.more, 'more vote')}" if gap.more < MOST else f"More than {MOST} votes"
    return f"{votes} to separate {better} and {worse}."


def matrix_html(found: Standing, scores: dict[tuple[str, str], Score]) -> str:
    """What each model (row) won against each other one (column), as a heat map with the counts."""
    models = [rating.model for rating in found.ratings]
    head = "".join(f'<th scope="col" title="{escape(name_of(model))}">{at}</th>' for at, model in enumerate(models, 1))
    rows = "".join(
        f'<tr><th scope="row">{at}. {escape(name_of(one))}</th>'
        f"{''.join(_cell(one, other, scores) for other in models)}</tr>"
        for at, one in enumerate(models, 1)
    )
    table = f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="mv-scroll"><table class="mv-matrix">{table}</table></div>'


def _cell(one: str, other: str, scores: dict[tuple[str, str], Score]) -> str:
    if one == other:
        return '<td class="mv-self"></td>'
    met = scores.get((one, other))
    if not met:
        return '<td title="They did not meet">–</td>'
    share = met.won / met.games
    kind = "mv-won" if share > 0.5 else "mv-lost"
    title = f"{name_of(one)} won {met.won:g} of {met.games} against {name_of(other)}"
    strength = f"{45 * abs(2 * share - 1):.0f}%"
    return (
        f'<td class="{kind}" style="--mm-heat:{strength}" title="{escape(title)}">{share:.0%}'
        f"<small>{met.won:g}/{met.games}</small></td>"
    )


def _style(found: Standing, ballots: Sequence[Ballot]) -> str:
    """What the control has found out of the person's taste."""
    known = sum(bool(ballot.styles) for ballot in ballots)
    tastes = []
    for part, odds in found.style:
        if abs(odds - 1) >= 0.05:
            what = f"favour {PARTS[part]}" if odds > 1 else f"go against {PARTS[part]}"
            tastes.append(f"{what} (odds times {max(odds, 1 / odds):.2f})")
    said = (
        f"Your votes {', '.join(tastes)} per standard deviation of the difference."
        if tastes
        else ("Your votes show no taste for length, headings, lists or bold.")
    )
    missing = f" Of {counted(len(ballots) - known, 'vote')} the texts are gone." if known < len(ballots) else ""
    return f'<p class="mv-taste">{escape(said + missing)}</p>'


# files


def download(
    votes: Sequence[Vote], choice: Choice, what: Literal["votes", "ratings"], kind: Literal["csv", "json"]
) -> File:
    """The votes that count, or their ratings, as a file."""
    rows = _vote_rows(choice.of(votes)) if what == "votes" else _rating_rows(choice.of(votes))
    if kind == "json":
        return f"{what}.json", "application/json", json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"
    return f"{what}.csv", "text/csv", _csv(list(rows))


def _vote_rows(votes: Iterable[Vote]) -> Iterable[dict[str, Any]]:
    for vote in votes:
        ballot = vote.ballot
        yield {
            "when": datetime.fromtimestamp(vote.at, UTC).isoformat(timespec="seconds"),
            "prompt": vote.prompt,
            "topic": vote.topic,
            "models": list(ballot.models),
            "verdict": ballot.verdict,
            "places": list(ballot.places()),
            "blind": ballot.blind,
            "conversation": vote.conversation,
        }


def _rating_rows(votes: Sequence[Vote]) -> Iterable[dict[str, Any]]:
    ballots = [vote.ballot for vote in votes]
    controlled = {rating.model: rating for rating in standing(ballots, controlled=True).ratings}
    for rank, rating in enumerate(standing(ballots).ratings, 1):
        other = controlled[rating.model]
        yield {
            "rank": rank,
            "model": rating.model,
            "rating": round(rating.rating, 1),
            "low": round(rating.low, 1),
            "high": round(rating.high, 1),
            "controlled": round(other.rating, 1),
            "controlled_low": round(other.low, 1),
            "controlled_high": round(other.high, 1),
            "votes": rating.votes,
        }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """A table; lists are joined by " | ", and nothing in it is taken for a formula by a spreadsheet."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(rows[0] if rows else ())
    for row in rows:
        table.writerow([_plain(" | ".join(map(str, v)) if isinstance(v, list) else v) for v in row.values()])
    return out.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
