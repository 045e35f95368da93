"""What of a vocabulary a grammar allows next: pure, so that every runtime obeys in the same way.

A grammar is walked over the bytes of tokens. Where it stands is a set of stacks, each what is left to match: a place in
the grammar's code, and below it where to go on when the alternative of that place has ended. Stacks share what lies
below, and they and the sets have numbers, so that a step that was made once is a look into a table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRequest
from ..schema import schema_grammar
from ..types import SamplingParams
from .gbnf import Grammar, grammar_from

Mask = NDArray[np.bool_]
"""True for every allowed token, shape (vocabulary,)."""
Draw = Callable[[Mask | None], int]
"""Takes a token from those of a mask, or from all."""

DONE = 0  # the stack with nothing left to match
NOWHERE = 0  # the state without stacks
MOST_STACKS = 10_000  # of one state: a grammar that can be read in too many ways
LOOKED_AT = 4  # times top_k: so many of the likeliest tokens are asked about one by one, before all of a vocabulary
MOST_WORK = 2_000_000  # stacks of all states of an answer: some seconds, some hundred megabytes

DEAD_END = "This model has no token for what the grammar wants next, so the answer ends here."


class Vocabulary:
    """The bytes of every token, in an order in which tokens that begin alike lie together."""

    def __init__(self, pieces: Sequence[bytes], ends: Iterable[int]) -> None:
        """`pieces`: by token id; empty for what is no text. `ends`: the tokens that end an answer."""
        self.pieces = pieces
        self.ends = frozenset(token for token in ends if token < len(pieces))
        ids = [token for token, piece in enumerate(pieces) if piece and token not in self.ends]
        self.ids = np.array(sorted(ids, key=pieces.__getitem__), dtype=np.int64)
        self.sorted = [pieces[token] for token in self.ids]
        self.shared = [0, *(_shared(one, other) for one, other in pairwise(self.sorted))]  # bytes as in the one before


def _shared(one: bytes, other: bytes) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _past(pieces: Sequence[bytes], beginning: bytes, start: int) -> int:
    """Where from `start` on the first piece is that does not begin so.

    >>> _past([b"a", b"ab", b"abc", b"b"], b"ab", 1)
    3
    """
    return bisect_right(pieces, beginning, lo=start, key=lambda piece: piece[: len(beginning)])


class Walk:
    """A grammar's states and the steps between them, as far as they have been seen."""

    def __init__(self, grammar: Grammar) -> None:
        self._code = grammar.code
        self._stacks: list[tuple[int, int]] = [(-1, DONE)]  # (place, stack below)
        self._numbers: dict[tuple[int, int], int] = {}
        self._states: list[frozenset[int]] = [frozenset()]
        self._known: dict[frozenset[int], int] = {frozenset(): NOWHERE}
        self._next: list[dict[int, int]] = [{}]
        self._work = 0
        self.start = self._state(self._stack(place, DONE) for place in grammar.starts)

    def after(self, state: int, data: bytes) -> int:
        """The state after some bytes; NOWHERE where the grammar does not allow them. Raises BadRequest."""
        for byte in data:
            state = self.step(state, byte)
        return state

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte."""
        found = self._next[state].get(byte)
        if found is None:
            found = self._next[state][byte] = self._state(
                self._stack(place + 1, below)
                for place, below in (self._stacks[number] for number in self._states[state] if number != DONE)
                if self._mask(place) >> byte & 1
            )
        return found

    def complete(self, state: int) -> bool:
        """Whether the answer may end here."""
        return DONE in self._states[state]

    def over(self, state: int) -> bool:
        """Whether it can only end here."""
        return self._states[state] == {DONE}

    def _mask(self, place: int) -> int:
        symbol = self._code[place]
        return symbol if isinstance(symbol, int) else 0

    def _stack(self, place: int, below: int) -> int:
        number = self._numbers.setdefault((place, below), len(self._stacks))
        if number == len(self._stacks):
            self._stacks.append((place, below))
        return number

    def _state(self, stacks: Iterable[int]) -> int:
        """The number of a state: its stacks followed into the rules that lie before them, until each wants a byte."""
        found, seen, unsure = set[int](), set[int](), list(stacks)
        while unsure:
            number = unsure.pop()
            if number in seen:
                continue
            seen.add(number)
            place, below = self._stacks[number]
            symbol = self._code[place]
            if number == DONE or isinstance(symbol, int):
                found.add(number)
            elif symbol is None:
                unsure.append(below)
            else:  # a rule; what is last in its alternative needs no place to come back to
                back = below if self._code[place + 1] is None else self._stack(place + 1, below)
                unsure += [self._stack(start, back) for start in symbol]
        self._count(len(seen))
        known = self._known.setdefault(frozenset(found), len(self._states))
        if known == len(self._states):
            self._states.append(frozenset(found))
            self._next.append({})
        return known

    def _count(self, stacks: int) -> None:
        self._work += 1 + stacks
        if stacks > MOST_STACKS or self._work > MOST_WORK:
            raise BadRequest(
                "The grammar can be read in too many ways to be followed.",
                hint="Write it so that the next character decides which alternative is meant.",
            )


class Constraint:
    """The grammar of one answer, and how far the answer is in it."""

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, params: SamplingParams = SamplingParams()) -> None:
        """`params`: how the draw narrows the tokens down."""
        self._vocabulary = vocabulary
        self._walk = Walk(grammar)
        self._at = self._walk.start
        self._masks: dict[int, Mask] = {}
        some = params.top_k or params.min_p or (params.top_p is not None and params.top_p < 1)
        self._narrowed = bool(params.temperature and some)
        self._top_k = params.top_k or 0

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._walk.complete(self._at)

    @property
    def over(self) -> bool:
        """Whether the answer can only end here."""
        return self._walk.over(self._at)

    def choose(self, draw: Draw, likeliest: Callable[[int], Sequence[int]]) -> int | None:
        """The token that `draw` takes from those that are allowed; None without any.

        A mask of a whole vocabulary takes long where most of it is allowed. So a draw from all tokens stands where it
        is allowed, else there is another: together as likely as one draw from the allowed ones. That is not so where
        top_k, top_p or min_p leave only some, for which ones hangs on what is allowed: there the mask comes first. For
        top_k it may be of those alone that are left, found among the `likeliest(count)` tokens as `draw` sees them,
        likeliest first. Raises BadRequest where the grammar cannot be followed.
        """
        token = None if self._narrowed else draw(None)
        if token is None or not self._allows(token):
            mask = self._mask(likeliest)
            if not mask.any():
                return None
            token = draw(mask)
        if token not in self._vocabulary.ends:
            self._at = self._after(token)
        return token

    def _allows(self, token: int) -> bool:
        return self.complete if token in self._vocabulary.ends else self._after(token) != NOWHERE

    def _after(self, token: int) -> int:
        piece = self._vocabulary.pieces[token] if token < len(self._vocabulary.pieces) else b""
        return self._walk.after(self._at, piece) if piece else NOWHERE

    def _mask(self, likeliest: Callable[[int], Sequence[int]]) -> Mask:
        """What is allowed next, or as much of it as a draw can come to."""
        if self._at in self._masks:
            return self._masks[self._at]
        if self._narrowed and self._top_k:
            found = list(islice(filter(self._allows, likeliest(LOOKED_AT * self._top_k)), self._top_k))
            if len(found) == self._top_k:
                return self._of(found)
        mask = self._masks[self._at] = self._of(self._vocabulary.ids[self._matching()])
        mask[list(self._vocabulary.ends)] = self.complete
        return mask

    def _of(self, tokens: Sequence[int] | NDArray[np.int64]) -> Mask:
        mask = np.zeros(len(self._vocabulary.pieces), dtype=np.bool_)
        mask[tokens] = True
        return mask

    def _matching(self) -> list[int]:
        """Where in the sorted vocabulary the tokens are that the grammar allows next."""
        pieces, shared, step = self._vocabulary.sorted, self._vocabulary.shared, self._walk.step
        states = [self._at]  # after each byte of the token before
        found, at = list[int](), 0
        while at < len(pieces):
            piece = pieces[at]
            del states[shared[at] + 1 :]
            for byte in piece[len(states) - 1 :]:
                state = step(states[-1], byte)
                if state == NOWHERE:
                    at = _past(pieces, piece[: len(states)], at)
                    break
                states.append(state)
            else:
                found.append(at)
                at += 1
        return found


def constraint_from(params: SamplingParams, vocabulary: Callable[[], Vocabulary]) -> Constraint | None:
    """What the grammar or the JSON schema of a request asks for, None without one. Raises BadRequest."""
    if params.grammar is None and params.json_schema is None:
        return None
    return Constraint(_grammar(params), vocabulary(), params)


def _grammar(params: SamplingParams) -> Grammar:
    if params.json_schema is None:
        return grammar_from(params.grammar or "")
    try:
        return grammar_from(schema_grammar(params.json_schema))
    except BadRequest as error:
        whose = str(error).replace("The grammar", "The grammar of the JSON schema", 1)
        raise BadRequest(whose, hint="Simplify the schema, or leave it out.") from error
