"""A grammar over a vocabulary: what is allowed is what the grammar allows, token by token and byte by byte."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from multimodel.errors import BadRequest
from multimodel.types import SamplingParams
from multimodel.workers.constraint import Constraint, Mask, Vocabulary, constraint_from
from multimodel.workers.gbnf import grammar_from

END = 0
BYTES = [bytes([byte]) for byte in range(256)]
WORDS = [b"a", b"ab", b"abc", b"b", b"ba", b"\xc3\xa9", b"\xc3", b"\xa9!", b'{"', b'"}', b'":', b" {", b"", b"ab"]
VOCABULARY = Vocabulary([b"</s>", b"", *BYTES, *WORDS], [END, 9999])
GRAMMARS = ['root ::= "ab"* "c"', "root ::= [a-b]{1,5}", 'root ::= "é" ("!" | "é")+', 'root ::= "{" ["] [^"]* ["] "}"']


def constraint(grammar: str, vocabulary: Vocabulary = VOCABULARY) -> Constraint:
    return Constraint(grammar_from(grammar), vocabulary)


def drawing(*tokens: int) -> Callable[[Mask | None], int]:
    """Draws these, one after the other, whatever is allowed."""
    left = list(tokens)
    return lambda mask: left.pop(0)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_mask_allows_what_each_token_alone_is_allowed(grammar: str) -> None:
    chance = random.Random(7)
    held = constraint(grammar)
    for _ in range(30):
        mask = held._mask()
        alone = [held._allows(token) for token in range(len(VOCABULARY.pieces))]
        assert mask.tolist() == alone and any(alone)
        choices = np.flatnonzero(mask).tolist()
        if (token := chance.choice(choices)) == END:
            break
        held.choose(drawing(token))


def test_what_is_drawn_is_kept_where_it_is_allowed_and_drawn_again_where_not() -> None:
    held = constraint('root ::= "ab" "c"')
    masks: list[Mask | None] = []

    def draw(mask: Mask | None) -> int:
        masks.append(mask)
        return VOCABULARY.pieces.index(b"b") if mask is None else int(np.flatnonzero(mask)[0])

    first = held.choose(draw)
    assert first == VOCABULARY.pieces.index(b"a") and masks[0] is None
    assert masks[1] is not None and {VOCABULARY.pieces[token] for token in np.flatnonzero(masks[1])} == {
        b"a",
        b"ab",
        b"abc",
    }
    assert held.choose(draw) == VOCABULARY.pieces.index(b"b") and len(masks) == 3
    assert not held.complete and held.choose(draw) == VOCABULARY.pieces.index(b"c")
    assert held.complete and held.over


def test_an_end_is_allowed_where_the_grammar_is_complete() -> None:
    held = constraint('root ::= "a" "b"?')
    a, b = VOCABULARY.pieces.index(b"a"), VOCABULARY.pieces.index(b"b")
    assert held.choose(drawing(END, a)) == a
    assert held.complete and not held.over
    assert held.choose(drawing(END)) == END
    assert held.choose(drawing(b)) == b and held.over


def test_half_a_character_is_completed() -> None:
    held = constraint("root ::= [é-ü]")
    half = VOCABULARY.pieces.index(b"\xc3")
    held.choose(drawing(half))
    assert not held.complete
    allowed = {VOCABULARY.pieces[token] for token in np.flatnonzero(held._mask())}
    assert allowed == {bytes([byte]) for byte in range("é".encode()[1], "ü".encode()[1] + 1)}


def test_without_a_token_for_it_there_is_none() -> None:
    held = constraint('root ::= "a" "z"', Vocabulary([b"</s>", b"a", b"b"], [END]))
    assert held.choose(drawing(1)) == 1
    assert held.choose(drawing(2)) is None and not held.complete


def test_a_model_without_an_end_token_is_over_all_the_same() -> None:
    held = constraint('root ::= "a"?', Vocabulary([b"a", b"b"], []))
    assert held.choose(drawing(0)) == 0 and held.over
    assert held.choose(drawing(0)) is None and held.complete


AMBIGUOUS = 'root ::= "a" root x | "a" root y | "b"\nx ::= "c"\ny ::= "c"'
"""After n letters there are 2 ** n ways to go on."""


def test_a_grammar_that_explodes_is_given_up() -> None:
    held = constraint(AMBIGUOUS)
    a = VOCABULARY.pieces.index(b"a")
    with pytest.raises(BadRequest, match="too many ways") as caught:
        for _ in range(200):
            held.choose(drawing(a))
    assert caught.value.hint


def test_a_schema_becomes_a_grammar_and_its_fault_is_told_as_the_schemas() -> None:
    def of(**params: str) -> Constraint | None:
        return constraint_from(SamplingParams(**params), lambda: VOCABULARY)  # type: ignore[arg-type]

    assert of() is None and of(grammar='root ::= "a"') and of(json_schema='{"const": "a"}')
    with pytest.raises(BadRequest, match=r"^The grammar of the JSON schema cannot be used\.") as caught:
        of(json_schema='{"type": "string", "maxLength": 100000}')
    assert "schema" in caught.value.hint
