"""How people rate models: snapshots of the Arena's scores, and which of its names is which repository of the Hub.

Nothing is guessed: a repository that no line of `arena_names.txt` names has no rating. Scores of one snapshot are
comparable with each other; those of two only roughly, so every rating carries its day.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import BrokenFile
from .settings import Settings

TABLE, NAMES = "ratings.json", "arena_names.txt"
IMPORTED = ".multimodel/ratings"  # in the cache folder: tables that were imported
HIGHEST = 5_000.0  # no score is above
LONGEST = 200  # characters of a name
ROWS = 20_000
HINT = "Give the Arena's JSON, or a table (CSV) with the columns model and score."
COLUMNS = {  # what the columns of others are called
    "name": ("model", "name", "model_name", "key"),
    "score": ("score", "rating", "arena_score", "elo", "elo_rating"),
    "interval": ("ci", "95_pct_ci", "interval"),
    "low": ("low", "rating_q025", "lower"),
    "high": ("high", "rating_q975", "upper"),
    "votes": ("votes", "num_battles", "n"),
}


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's score in one snapshot, with the ends of its 95 % interval."""

    name: str  # as the Arena writes it
    score: float
    low: float | None
    high: float | None
    votes: int | None
    day: date


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The scores of one day, the best first."""

    day: date
    source: str
    url: str
    ratings: tuple[Rating, ...]
    keyed: dict[str, Rating] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keyed", {key(rating.name): rating for rating in self.ratings})

    def of(self, keys: Iterable[str]) -> Rating | None:
        """The rating of the first of these keys that is rated here."""
        return next((self.keyed[key] for key in keys if key in self.keyed), None)


@dataclass(frozen=True, slots=True)
class Ratings:
    """All snapshots, the newest first, and the Arena's names of each repository."""

    snapshots: tuple[Snapshot, ...]
    names: Mapping[str, tuple[str, ...]]  # repository in lower case: keys of its names, the usual mode first
    repositories: tuple[str, ...] = ()  # as the Hub writes them

    def of(self, *repositories: str) -> Rating | None:
        """The newest rating of the first of these repositories that has one."""
        for repository in repositories:
            keys = self.names.get(repository.lower(), ())
            for snapshot in self.snapshots:
                if found := snapshot.of(keys):
                    return found
        return None

    def repository(self, name: str) -> str:
        """The repository that the Arena's name stands for; "" where that is not known."""
        wanted = key(name)
        return next((found for found in self.repositories if wanted in self.names[found.lower()]), "")

    def pair(self, one: str, other: str) -> tuple[Rating, Rating] | None:
        """Two of the Arena's names in the newest snapshot that rates both; None where there is none."""
        for snapshot in self.snapshots:
            ours, theirs = snapshot.of([key(one)]), snapshot.of([key(other)])
            if ours and theirs:
                return ours, theirs
        return None


def win_probability(score: float, other: float) -> float:
    """How likely an answer of the first model is preferred to one of the second: the Elo model the Arena fits.

    >>> win_probability(1300, 1300), round(win_probability(1400, 1200), 2)
    (0.5, 0.76)
    """
    return 1 / (1 + 10 ** ((other - score) / 400))


def key(name: str) -> str:
    """What is the same in all spellings of a name.

    >>> key("Claude Opus 4"), key("Gemma-3-27B-it")
    ('claude-opus-4', 'gemma-3-27b-it')
    """
    return "-".join(name.lower().split())


def ratings(settings: Settings) -> Ratings:
    """The shipped snapshots and those that were imported; read again only when a table has changed."""
    paths = [*sorted((settings.models.cache_dir / IMPORTED).glob("*.json")), settings.models.assets_dir / TABLE]
    return _read(tuple((path, _changed(path)) for path in paths), settings.models.assets_dir / NAMES)


def import_table(text: str, label: str, settings: Settings, day: date) -> Snapshot:
    """Keep a newer table: the Arena's JSON in either form, or CSV; `day` is its day where it names none.

    Raises BrokenFile.
    """
    snapshot = parse(text, label, day)
    folder = settings.models.cache_dir / IMPORTED
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{snapshot.day}.json"
    part = path.with_suffix(".part")
    part.write_text(table([snapshot]), encoding="utf-8")
    os.replace(part, path)
    return snapshot


def parse(text: str, source: str, day: date, url: str = "") -> Snapshot:
    """The snapshot in a table. Raises BrokenFile.

    >>> parse("model,score,ci\\nA,1300,+5/-4", "x", date(2026, 1, 2)).ratings[0].low
    1296.0
    """
    try:
        rows, day, url = _rows(text, day, url)
        found = [rating for row in rows if (rating := _rating(row, day))]
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error, RecursionError) as error:
        raise BrokenFile(f"{source} is no table of ratings: {error}.", hint=HINT) from error
    if not found or len(found) > ROWS:
        raise BrokenFile(f"{source} holds {len(found)} ratings.", hint=HINT)
    once = {key(rating.name): rating for rating in reversed(found)}
    return Snapshot(day, source, url, tuple(sorted(once.values(), key=lambda rating: -rating.score)))


def table(snapshots: Iterable[Snapshot]) -> str:
    """Snapshots as the text of a table of ours: one line a rating."""
    parts = []
    for snapshot in snapshots:
        head = {"day": snapshot.day.isoformat(), "source": snapshot.source, "url": snapshot.url}
        values = ([r.name, r.score, r.low, r.high, r.votes] for r in snapshot.ratings)
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in values)
        parts.append(json.dumps(head, ensure_ascii=False)[:-1] + f', "ratings": [\n{rows}\n]}}')
    return '{"snapshots": [\n' + ",\n".join(parts) + "\n]}\n"


def _rows(text: str, day: date, url: str) -> tuple[Iterable[Mapping[str, Any]], date, str]:
    """The rows of a table in any of the known forms, with its own day and address where it has them."""
    if text.lstrip()[:1] not in ("{", "["):
        return csv.DictReader(io.StringIO(text.lstrip("\ufeff"))), day, url
    found = json.loads(text)
    if isinstance(found, list):
        return found, day, url
    if "models" in found:
        about = found.get("meta", {})
        said = str(about.get("last_updated") or about.get("fetched_at") or day)
        return found["models"], date.fromisoformat(said[:10]), str(about.get("source_url", url))
    board = found.get("full") or found.get("overall") or found
    return [{"model": name, **row} for name, row in board.items()], day, url


def _rating(row: Mapping[str, Any], day: date) -> Rating | None:
    """One row; None for one without a score."""
    lower = {str(name).strip().lower(): value for name, value in row.items()}
    of = {
        name: next((lower[c] for c in columns if lower.get(c) not in (None, "")), None)
        for name, columns in COLUMNS.items()
    }
    name, score = str(of["name"] or "").strip(), _number(of["score"])
    if not name or len(name) > LONGEST or score is None or not 0 < score < HIGHEST:
        return None
    below, above = _interval(of["interval"])
    low = _number(of["low"]) if below is None else score - below
    high = _number(of["high"]) if above is None else score + above
    votes = _number(of["votes"])
    return Rating(name, round(score, 1), _rounded(low), _rounded(high), None if votes is None else int(votes), day)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _interval(value: Any) -> tuple[float | None, float | None]:
    """How far the interval reaches below and above: "+5/-4", or one number for both."""
    if isinstance(value, str) and "/" in value:
        above, _, below = value.partition("/")
        return abs(float(below)), abs(float(above))
    both = _number(value)
    return both, both


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    number = float(str(value).replace(",", ""))
    return number if math.isfinite(number) else None


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _read(tables: tuple[tuple[Path, int], ...], names: Path) -> Ratings:
    snapshots = [snapshot for path, changed in tables if changed for snapshot in _snapshots(path)]
    known = _names(names) if names.is_file() else {}
    newest_first = tuple(sorted(snapshots, key=lambda snapshot: snapshot.day, reverse=True))
    return Ratings(newest_first, {name.lower(): keys for name, keys in known.items()}, tuple(known))


def _snapshots(path: Path) -> Iterator[Snapshot]:
    """The snapshots of a table of ours; none of one that is damaged."""
    try:
        for row in json.loads(path.read_text("utf-8"))["snapshots"]:
            day = date.fromisoformat(row["day"])
            rated = (Rating(name, score, low, high, votes, day) for name, score, low, high, votes in row["ratings"])
            yield Snapshot(day, row["source"], row["url"], tuple(rated))
    except (OSError, ValueError, TypeError, KeyError):
        return


def _names(path: Path) -> dict[str, tuple[str, ...]]:
    lines = (line.split() for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
    return {words[0]: tuple(words[1:]) for words in lines if words}
