"""Grammars in GBNF, the notation of llama.cpp: read, checked, and taken down to bytes.

Nothing native reads a grammar of a person here: an invalid one ends the process there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from ..errors import BadRequest

Symbol = int | str
"""A set of bytes as the bits of a number, or the name of a rule."""
Alternative = tuple[Symbol, ...]
Code = tuple[int | tuple[int, ...] | None, ...]
"""All alternatives one after the other: a set of bytes, the places where the alternatives of a rule begin, or None at
the end of an alternative."""

ROOT = "root"
MOST_SYMBOLS = 100_000  # of a grammar whose repetitions are written out
LAST = 0x10FFFF  # code point
HALVES = (0xD800, 0xDFFF)  # of characters, which no UTF-8 holds

_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    | (?P<define>::=)
    | (?P<name>[\w-]+)
    | "(?P<text>(?:[^"\\]|\\.)*)"
    | \[(?P<set>(?:[^\]\\]|\\.)*)\]
    | (?P<repeat>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})
    | (?P<mark>[()|.])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_LETTER = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|([^\\])", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"} | {itself: itself for itself in '\\"[]-^/'}


class Token(NamedTuple):
    kind: str  # the name of a group above; a mark is a kind of its own
    text: str
    line: int


class Grammar(NamedTuple):
    """A grammar over bytes."""

    code: Code
    starts: tuple[int, ...]  # where the alternatives of the root begin in it


@lru_cache(maxsize=16)
def grammar_from(text: str) -> Grammar:
    """The grammar a text describes. Raises BadRequest with the line, or the rule, that is wrong.

    >>> len(grammar_from('root ::= "yes" | "no"').starts)
    2
    """
    try:
        rules = _Reader(text).rules()
    except RecursionError:
        raise _wrong("Its groups lie too deep in each other.") from None
    _check(rules)
    return _flattened(rules)


def _wrong(what: str, hint: str = "Correct it, or leave the grammar out.") -> BadRequest:
    return BadRequest(f"The grammar cannot be used. {what}", hint=hint)


class _Reader:
    """Reads rules. Groups and repetitions become rules of their own, whose names no grammar can use."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._lines = text.count("\n") + 1
        self._at = 0
        self._rules: dict[str, list[Alternative]] = {}
        self._sets: dict[str, Alternative] = {}
        self._symbols = 0

    def rules(self) -> dict[str, list[Alternative]]:
        """All of them, by name."""
        while self._kind() != "end":
            name, sign = self._next(), self._next()
            if name.kind != "name" or sign.kind != "define":
                raise _wrong(f"Line {name.line} should begin with a name and ::=.")
            if name.text in self._rules:
                raise _wrong(f"The rule {name.text} is there twice, again in line {name.line}.")
            self._rules[name.text] = []
            self._rules[name.text] += self._alternatives()
        return self._rules

    def _alternatives(self) -> list[Alternative]:
        found = [self._sequence()]
        while self._kind() == "|":
            self._next()
            found.append(self._sequence())
        return found

    def _sequence(self) -> Alternative:
        symbols: list[Symbol] = []
        while self._kind() not in ("|", ")", "end") and self._kind(1) != "define":
            item = self._item(self._next())
            while self._kind() == "repeat":
                item = self._repeated(item, *_bounds(self._next()))
            symbols += item
        return tuple(symbols)

    def _item(self, token: Token) -> Alternative:
        match token.kind, token.text:
            case "name", name:
                return self._counted((name,))
            case "text", text:
                return self._counted(tuple(1 << byte for byte in _characters(text, token.line).encode()))
            case "set", text:
                return self._set(f"[{text}]", text, token.line)
            case ".", _:
                return self._set(".", "^", token.line)
            case "(", _:
                group = self._named(self._alternatives())
                if self._next().kind != ")":
                    raise _wrong(f"The group that begins in line {token.line} is not closed.")
                return group
        raise _wrong(f"Line {token.line}: {token.text} is not expected here.")

    def _set(self, key: str, text: str, line: int) -> Alternative:
        if key not in self._sets:
            sequences = [sequence for low, high in _ranges(text, line) for sequence in byte_ranges(low, high)]
            single = sum({1 << byte for s in sequences if len(s) == 1 for byte in range(s[0][0], s[0][1] + 1)})
            longer: list[Alternative] = [tuple(map(_bits, s)) for s in sequences if len(s) > 1]
            self._sets[key] = self._named([(single,)] * bool(single) + longer) if longer else (single,)
        return self._counted(self._sets[key])

    def _repeated(self, item: Alternative, least: int, most: int | None) -> Alternative:
        if len(item) > 1:
            item = self._named([item])
        if most is None:
            again = self._named([])
            self._rules[str(again[0])] += [self._counted((*item, *again)), ()]
            return self._counted(item * least) + again
        rest: Alternative = ()
        for _ in range(most - least):
            rest = self._named([self._counted((*item, *rest)), ()])
        return self._counted(item * least) + rest

    def _named(self, alternatives: list[Alternative]) -> Alternative:
        name = f"({len(self._rules)})"
        self._rules[name] = alternatives
        return (name,)

    def _counted(self, symbols: Alternative) -> Alternative:
        self._symbols += len(symbols)
        if self._symbols > MOST_SYMBOLS:
            raise _wrong(f"Written out, it has more than {MOST_SYMBOLS} characters and rules.", "Repeat less in it.")
        return symbols

    def _kind(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].kind if at < len(self._tokens) else "end"

    def _next(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else Token("end", "its end", self._lines)


def _tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise _wrong(f"Line {line}: {text[at : at + 10].splitlines()[0]!r} is not understood.")
        kind = str(found.lastgroup)
        if kind != "blank":
            yield Token(found[kind] if kind == "mark" else kind, found[kind], line)
        at, line = found.end(), line + found[0].count("\n")


def _bounds(token: Token) -> tuple[int, int | None]:
    """How often at least, and at most.

    >>> _bounds(Token("repeat", "+", 1)), _bounds(Token("repeat", "{2}", 1)), _bounds(Token("repeat", "{2, 5}", 1))
    ((1, None), (2, 2), (2, 5))
    """
    if token.text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token.text]
    low, comma, high = (part.strip() for part in token.text[1:-1].partition(","))
    if any(len(digits) > 6 for digits in (low, high)):
        raise _wrong(f"Line {token.line} repeats something too often.", "Repeat less in it.")
    least, most = int(low), int(high) if high else None if comma else int(low)
    if most is not None and most < least:
        raise _wrong(f"Line {token.line}: {token.text} ends before it begins.")
    return least, most


def _letters(text: str, line: int) -> list[tuple[str, bool]]:
    """The characters a text stands for, and whether each was written with a backslash."""
    found: list[tuple[str, bool]] = []
    for *codes, escape, plain in _LETTER.findall(text):
        letter = plain or _ESCAPES.get(escape, "") or _coded("".join(codes))
        if not letter or HALVES[0] <= ord(letter) <= HALVES[1]:
            raise _wrong(f"Line {line}: \\{escape or 'u' + ''.join(codes)} is no character.")
        found.append((letter, not plain))
    return found


def _coded(number: str) -> str:
    return chr(int(number, 16)) if number and int(number, 16) <= LAST else ""


def _characters(text: str, line: int) -> str:
    return "".join(letter for letter, _ in _letters(text, line))


def _ranges(text: str, line: int) -> list[tuple[int, int]]:
    """The ranges of code points in a set, without its brackets.

    >>> _ranges("a-cx", 1), _ranges("^b-y", 1)
    ([(97, 99), (120, 120)], [(0, 97), (122, 1114111)])
    """
    negated = text.startswith("^")
    letters = _letters(text[negated:], line)
    found: list[tuple[int, int]] = []
    while letters:
        (low, _), *letters = letters
        if len(letters) > 1 and letters[0] == ("-", False):
            (high, _), *letters = letters[1:]
        else:
            high = low
        if high < low:
            raise _wrong(f"Line {line}: {low}-{high} ends before it begins.")
        found.append((ord(low), ord(high)))
    return _rest(sorted(found)) if negated else found


def _rest(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """All code points but these."""
    found, start = [], 0
    for low, high in ranges:
        if start < low:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return [*found, (start, LAST)] if start <= LAST else found


def byte_ranges(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The UTF-8 forms of a range of code points: sequences of ranges of bytes that together match exactly these.

    >>> list(byte_ranges(0x7F, 0x801))
    [((127, 127),), ((194, 223), (128, 191)), ((224, 224), (160, 160), (128, 129))]
    """
    for last in (0x7F, 0x7FF, HALVES[0] - 1, 0xFFFF):
        if low <= last < high:
            yield from byte_ranges(low, last)
            yield from byte_ranges(last + 1, high)
            return
    if low <= HALVES[1] and high >= HALVES[0]:
        if high > HALVES[1]:
            yield from byte_ranges(HALVES[1] + 1, high)
        return
    first, last_form = chr(low).encode(), chr(high).encode()
    for end in range(1, len(first)):  # the last `end` bytes: all of what they can be, or split until it is
        rest = (1 << 6 * end) - 1
        if low | rest == high | rest:
            continue
        for split in ((low | rest) + 1 if low & rest else 0, high & ~rest if high & rest != rest else 0):
            if low < split <= high:
                yield from byte_ranges(low, split - 1)
                yield from byte_ranges(split, high)
                return
    yield tuple(zip(first, last_form, strict=True))


def _bits(bounds: tuple[int, int]) -> int:
    return (1 << bounds[1] + 1) - (1 << bounds[0])


# What makes a grammar unfit


def _check(rules: dict[str, list[Alternative]]) -> None:
    names = {s for alternatives in rules.values() for a in alternatives for s in a if isinstance(s, str)}
    if missing := sorted({*names, ROOT} - rules.keys()):
        raise _wrong(f"It has no rule called {missing[0]}.")
    endless = rules.keys() - _closed(rules, characters=True)
    if endless:
        named = sorted(endless, key=lambda name: name.startswith("("))[0]
        raise _wrong(f"{_called(named)} never comes to an end.", "Give it an alternative without itself.")
    empty = _closed(rules, characters=False)
    leads = {name: set(_leftmost(alternatives, empty)) for name, alternatives in rules.items()}
    try:
        TopologicalSorter(leads).prepare()
    except CycleError as error:
        named = sorted(error.args[1], key=lambda name: name.startswith("("))[0]
        raise _wrong(
            f"{_called(named)} can begin with itself, before any character.",
            "Put the repeated part last: list ::= item list | item. Do not repeat what may be empty.",
        ) from None


def _called(name: str) -> str:
    return "A repetition" if name.startswith("(") else f"The rule {name}"


def _closed(rules: dict[str, list[Alternative]], *, characters: bool) -> set[str]:
    """The rules with an alternative of nothing but such rules, and of characters where they count."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, alternatives in rules.items():
        for symbol in (symbol for alternative in alternatives for symbol in alternative if isinstance(symbol, str)):
            users[symbol].add(name)
    found: set[str] = set()
    unsure = list(rules)
    while unsure:
        name = unsure.pop()
        if name not in found and any(all(_counts(s, found, characters) for s in a) for a in rules[name]):
            found.add(name)
            unsure += users[name]
    return found


def _counts(symbol: Symbol, found: set[str], characters: bool) -> bool:
    return symbol in found if isinstance(symbol, str) else characters and bool(symbol)


def _leftmost(alternatives: Iterable[Alternative], empty: set[str]) -> Iterator[str]:
    """The rules an alternative can begin with."""
    for alternative in alternatives:
        for symbol in alternative:
            if isinstance(symbol, str):
                yield symbol
            if symbol not in empty:
                break


def _flattened(rules: dict[str, list[Alternative]]) -> Grammar:
    starts: dict[str, tuple[int, ...]] = {}
    end = 0
    for name, alternatives in rules.items():
        begins = []
        for alternative in alternatives:
            begins.append(end)
            end += len(alternative) + 1
        starts[name] = tuple(begins)
    code = [
        starts[symbol] if isinstance(symbol, str) else symbol
        for alternatives in rules.values()
        for alternative in alternatives
        for symbol in (*alternative, None)
    ]
    return Grammar(tuple(code), starts[ROOT])
