"""Vary the wording of questions the way people do.

A model this small learns from the words it has seen with a topic, so each written question is shown in
many forms: other words for the same thing, other word order, slips of the finger, no punctuation.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

FILLERS = frozenset(
    """
    a an and any are be can could did do does for from get give have how i if in is it its just me my of on
    one or please so some that the them then there these they this those to was we what when where which who
    why will with would you your i'm it's what's don't can't should not no am at by about need want know
    tell mean like has had may must up out way here use using but all as into really also only too very
    again now much many more than still even ever been being
    """.split()  # noqa: SIM905 - easier to read than a list
)


@dataclass(frozen=True)
class Rates:
    """How often each kind of variation happens."""

    synonym: float = 0.22
    order: float = 0.03
    before: float = 0.16
    after: float = 0.1
    drop: float = 0.18
    typo: float = 0.15
    lower: float = 0.5
    upper: float = 0.015
    bare: float = 0.4


CLEAN = Rates(0, 0, 0, 0, 0, 0, 0, 0, 0)


def content_words(tokens: list[str]) -> list[str]:
    """Keep the words that say what a question is about."""
    return [word for word in tokens if word not in FILLERS and len(word) > 1]


def misspell(rng: random.Random, text: str) -> str:
    """Make one slip inside a text: two letters swapped, one lost, doubled or replaced."""
    if len(text) < 5:
        return text
    at = rng.randrange(1, len(text) - 1)
    before, here, after = text[:at], text[at], text[at + 1 :]
    swapped = before + after[0] + here + after[1:]
    wrong = before + rng.choice("abcdefghijklmnopqrstuvwxyz") + after
    return rng.choice((swapped, before + after, before + here + here + after, wrong))


def drop_words(rng: random.Random, text: str) -> str:
    """Leave out one or two words, mostly ones without content, as in hasty typing."""
    parts = text.split(" ")
    for _ in range(rng.choice((1, 1, 2))):
        if len(parts) < 4:
            break
        light = [at for at, word in enumerate(parts) if word.lower() in FILLERS]
        parts.pop(rng.choice(light) if light and rng.random() < 0.75 else rng.randrange(len(parts)))
    return " ".join(parts)


def reorder(rng: random.Random, text: str) -> str:
    """Say the later part first: "answers too long, what to do" for "what to do, answers too long"."""
    parts = text.rstrip("?.! ").split(" ")
    if len(parts) < 4:
        return text
    at = rng.randrange(1, len(parts))
    return " ".join(parts[at:] + parts[:at])


class Rewriter:
    """Applies all variations with the phrases and synonyms of the corpus."""

    def __init__(
        self,
        rng: random.Random,
        synonyms: dict[str, tuple[str, ...]],
        before: tuple[str, ...],
        after: tuple[str, ...],
        rates: Rates = Rates(),
    ) -> None:
        self.rng, self.synonyms, self.rates = rng, synonyms, rates
        self.before, self.after = before, after
        longest_first = sorted(synonyms, key=len, reverse=True)
        self.pattern = re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b") if synonyms else None

    def chance(self, rate: float) -> bool:
        """Decide whether something of this rate happens now."""
        return self.rng.random() < rate

    def swap_synonyms(self, text: str) -> str:
        """Replace some words by others of the same synonym line."""
        if not self.pattern:
            return text
        text = text[:1].lower() + text[1:]
        return self.pattern.sub(self._other, text)

    def _other(self, match: re.Match[str]) -> str:
        return self.rng.choice(self.synonyms[match[0]]) if self.chance(0.35) else match[0]

    def surround(self, text: str) -> str:
        """Add politeness or asides before and after."""
        if self.before and self.chance(self.rates.before):
            text = f"{self.rng.choice(self.before)} {text}"
        if self.after and self.chance(self.rates.after):
            end = text[-1] if text[-1:] in "?.!" else ""
            text = f"{text.rstrip('?.! ')} {self.rng.choice(self.after)}{end}"
        return text

    def recase(self, text: str) -> str:
        """Vary capitals and the final punctuation mark."""
        roll = self.rng.random()
        if roll < self.rates.lower:
            text = text.lower()
        elif roll < self.rates.lower + self.rates.upper:
            text = text.upper()
        elif roll < 0.9:
            text = text[:1].upper() + text[1:]
        if self.chance(self.rates.bare):
            return text.rstrip("?.! ") or text
        return text.rstrip("?.") + self.rng.choice(("!", "??", "...", "?", ".")) if self.chance(0.08) else text

    def __call__(self, text: str) -> str:
        """Return one variation of a question; it is never empty."""
        rates = self.rates
        for rate, change in (
            (rates.synonym, self.swap_synonyms),
            (rates.order, lambda text: reorder(self.rng, text)),
            (1.0, self.surround),
            (rates.drop, lambda text: drop_words(self.rng, text)),
            (rates.typo, lambda text: misspell(self.rng, text)),
            (1.0, self.recase),
        ):
            if self.chance(rate):
                text = change(text) or text
        return text
