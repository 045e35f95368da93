"""What the Explorer shows: results with their verdicts and ratings, from the Hub or, without it, from the catalogue.

One page of results is one request to the Hub, or none. Nothing here knows of widgets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from threading import Thread

from .hub import Listing, Query, search
from .hub.listing import PER_PAGE
from .memory import Target
from .ratings import Rating, ratings
from .settings import Settings
from .shipped import catalogue
from .verdict import Fit, fit

ARENA = "arena"  # a sort of ours: the Hub knows nothing of ratings
ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """A repository in a list, with what is said of it."""

    listing: Listing
    fit: Fit
    rating: Rating | None


@dataclass(frozen=True, slots=True)
class Results:
    """A page of them. `as_of`: they are from the shipped catalogue of that day, not from the Hub."""

    rows: tuple[Result, ...]
    cursor: str = ""  # where the next page begins; "" after the last
    as_of: date | None = None


def browse(query: Query, sort: str, target: Target, settings: Settings, cursor: str = "") -> Results:
    """A page of what the Hub has, each judged for a machine. Raises LoadError.

    `sort`: one of the Hub's, or ARENA for the best rated first; that list is made here, without any request.
    """
    if sort == ARENA:
        return _by_rating(query, target, settings, cursor)
    Thread(target=judged, args=((), target, settings), daemon=True).start()  # reads its tables while the Hub thinks
    page = search(query, settings, cursor)
    return Results(judged(page.rows, target, settings), page.cursor)


def offline(query: Query, target: Target, settings: Settings) -> Results:
    """What the shipped catalogue knows, for when the Hub cannot be asked."""
    shelf = catalogue(settings)
    found = [known.listing for known in shelf.models if matches(known.listing, query)]
    if query.sort in ("created", "updated"):
        found.sort(key=lambda row: row.created or date.min, reverse=True)
    return Results(judged(found, target, settings), as_of=shelf.as_of)


def judged(rows: Iterable[Listing], target: Target, settings: Settings) -> tuple[Result, ...]:
    """Repositories with what is said of them, for a machine; without any request."""
    rated, _ = ratings(settings), catalogue(settings)
    return tuple(Result(row, fit(row, target, settings), rated.of(row.name, row.base)) for row in rows)


def wanted(text: str) -> str:
    """What was typed, without the address of the Hub around a name.

    >>> wanted(" https://huggingface.co/Qwen/Qwen3-8B/tree/main "), wanted("llama 8b")
    ('Qwen/Qwen3-8B', 'llama 8b')
    """
    text = text.strip()
    if not (found := ADDRESS.match(text)):
        return text
    return "/".join(text[found.end() :].split("?")[0].split("/")[:2])


def matches(row: Listing, query: Query) -> bool:
    """Whether the facts of a repository answer to a query, as the Hub would say."""
    billions = (row.parameters or 0) / 1e9
    library = not query.library or row.library == query.library or (query.library == "gguf" and bool(row.quants))
    return (
        all(word in row.name.lower() for word in query.text.lower().split())
        and library
        and query.task in ("", row.task)
        and query.author.lower() in ("", row.author.lower())
        and query.licence in ("", row.licence)
        and (query.smallest is None or billions >= query.smallest)
        and (query.largest is None or 0 < billions <= query.largest)
        and (query.gated is None or query.gated == bool(row.gate))
    )


def _by_rating(query: Query, target: Target, settings: Settings, cursor: str) -> Results:
    start = int(cursor) if cursor.isdigit() else 0
    rows = [row for row in _rated(settings) if matches(row.listing, query)]
    shown = rows[start : start + PER_PAGE]
    end = start + len(shown)
    judged = tuple(replace(row, fit=fit(row.listing, target, settings)) for row in shown)
    return Results(judged, str(end) if end < len(rows) else "", catalogue(settings).as_of)


def _rated(settings: Settings) -> list[Result]:
    """Every repository with a rating, the best first; facts of those that the catalogue knows."""
    shelf, rated = catalogue(settings), ratings(settings)
    found = []
    for name in rated.repositories:
        rating, known = rated.of(name), shelf.find(name)
        if rating:
            row = known.listing if known else Listing(name=name, task="text-generation", library="transformers")
            found.append(Result(row, Fit("unknown"), rating))
    return sorted(found, key=lambda result: -result.rating.score if result.rating else 0)
