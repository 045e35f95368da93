"""Votes: what a person said of the answers to one prompt, and how those answers were written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Verdict = Literal["best", "tie", "bad", "ranked", "none"]
"""One is the best, or they tie, or all are bad, or they have places; "none" takes an earlier vote back."""

_CODE = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_HEADERS = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_LISTS = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^\s*][^*\n]*\*\*|__[^\s_][^_\n]*__")


@dataclass(frozen=True, slots=True)
class Style:
    """How an answer is written: its length in characters, and how much markdown it has outside of code."""

    length: int = 0
    headers: int = 0
    lists: int = 0  # items of lists
    bold: int = 0  # passages

    @classmethod
    def of(cls, text: str) -> Style:
        """The style of an answer.

        >>> Style.of("# Two\\n- **one**\\n- two\\n```\\n# no header\\n```")
        Style(length=41, headers=1, lists=2, bold=1)
        """
        prose = _CODE.sub("", text)
        found = (len(pattern.findall(prose)) for pattern in (_HEADERS, _LISTS, _BOLD))
        return cls(len(text), *found)


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote on answers to the same prompt. Without `ranks`, models[0] gave the "best"."""

    models: tuple[str, ...]
    verdict: Verdict
    ranks: tuple[int, ...] = ()  # the place of each, from 1; equal places tie; 0 is behind all that have a place
    styles: tuple[Style, ...] = ()  # of each answer, as it was when it was voted on; () where that is not known
    blind: bool = False  # the names were hidden

    def places(self) -> tuple[int, ...]:
        """The place of each model.

        >>> Ballot(("a", "b"), "best").places(), Ballot(("a", "b"), "tie").places()
        ((1, 0), (1, 1))
        """
        if self.verdict in ("tie", "bad"):
            return (1,) * len(self.models)
        return self.ranks or (1, *(0,) * (len(self.models) - 1))

    def games(self) -> Iterator[tuple[int, int, float]]:
        """The pairs of models, by their indices, that the vote compares, and what the first one won: 1, 0 or a half.

        >>> list(Ballot(("a", "b", "c"), "ranked", (2, 1, 2)).games())
        [(0, 1, 0.0), (0, 2, 0.5), (1, 2, 1.0)]
        >>> list(Ballot(("a", "b", "c"), "best").games())
        [(0, 1, 1.0), (0, 2, 1.0)]
        """
        if self.verdict == "none":
            return
        last = len(self.models) + 1
        for (i, one), (j, other) in combinations(enumerate(self.places()), 2):
            if (one or other) and self.models[i] != self.models[j]:
                ahead = (other or last) - (one or last)
                yield i, j, 0.5 if ahead == 0 else float(ahead > 0)


@dataclass(frozen=True, slots=True)
class Vote:
    """A ballot and what it was cast on."""

    turns: tuple[int, ...]  # the answers, in the order of the ballot's models
    ballot: Ballot
    conversation: str = ""
    at: float = 0.0  # seconds since 1970
    topic: str = ""
    prompt: str = ""  # empty where the conversation is gone

    def marks(self) -> dict[int, str]:
        """What the vote says below each answer: "best", "tie", "bad", or a place.

        >>> Vote((5, 6, 7), Ballot(("a", "b", "c"), "ranked", (2, 1, 0))).marks()
        {5: '2', 6: 'best'}
        """
        places, verdict = self.ballot.places(), self.ballot.verdict
        if verdict in ("tie", "bad"):
            return dict.fromkeys(self.turns, verdict)
        alone = places.count(1) == 1
        named = zip(self.turns, places, strict=True) if verdict != "none" else ()
        return {turn: "best" if place == 1 and alone else str(place) for turn, place in named if place}


@dataclass(frozen=True, slots=True)
class Standpoint:
    """Where one column stands in the row of answers that a vote would be on."""

    key: str  # of the column
    turn: int
    state: Literal["ready", "running", "silent", "failed"]  # only the first two can be voted on
    place: int = 0  # by the vote that was cast
