"""A grammar over a vocabulary: what is allowed is what the grammar allows, token by token and byte by byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multimodel.errors import BadRequest
from multimodel.types import SamplingParams
from multimodel.workers.constraint import Constraint, Mask, Vocabulary, constraint_from
from multimodel.workers.gbnf import grammar_from

from ..support import needs

END = 0
BYTES = [bytes([byte]) for byte in range(256)]
WORDS = [b"a", b"ab", b"abc", b"b", b"ba", b"\xc3\xa9", b"\xc3", b"\xa9!", b'{"', b'"}', b'":', b" {", b"", b"ab"]
VOCABULARY = Vocabulary([b"</s>", b"", *BYTES, *WORDS], [END, 9999])
GRAMMARS = ['root ::= "ab"* "c"', "root ::= [a-b]{1,5}", 'root ::= "é" ("!" | "é")+', 'root ::= "{" ["] [^"]* ["] "}"']


def unasked(count: int) -> Sequence[int]:
    raise AssertionError("only top_k asks for the likeliest tokens")


def constraint(
    grammar: str, vocabulary: Vocabulary = VOCABULARY, params: SamplingParams = SamplingParams()
) -> Constraint:
    return Constraint(grammar_from(grammar), vocabulary, params)


def drawing(*tokens: int) -> Callable[[Mask | None], int]:
    """Draws these, one after the other, whatever is allowed."""
    left = list(tokens)
    return lambda mask: left.pop(0)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_mask_allows_what_each_token_alone_is_allowed(grammar: str) -> None:
    chance = random.Random(7)
    held = constraint(grammar)
    for _ in range(30):
        mask = held._mask(unasked)
        alone = [held._allows(token) for token in range(len(VOCABULARY.pieces))]
        assert mask.tolist() == alone and any(alone)
        choices = np.flatnonzero(mask).tolist()
        if (token := chance.choice(choices)) == END:
            break
        held.choose(drawing(token), unasked)


def test_what_is_drawn_is_kept_where_it_is_allowed_and_drawn_again_where_not() -> None:
    held = constraint('root ::= "ab" "c"')
    masks: list[Mask | None] = []

    def draw(mask: Mask | None) -> int:
        masks.append(mask)
        return VOCABULARY.pieces.index(b"b") if mask is None else int(np.flatnonzero(mask)[0])

    first = held.choose(draw, unasked)
    assert first == VOCABULARY.pieces.index(b"a") and masks[0] is None
    assert masks[1] is not None and {VOCABULARY.pieces[token] for token in np.flatnonzero(masks[1])} == {
        b"a",
        b"ab",
        b"abc",
    }
    assert held.choose(draw, unasked) == VOCABULARY.pieces.index(b"b") and len(masks) == 3
    assert not held.complete and held.choose(draw, unasked) == VOCABULARY.pieces.index(b"c")
    assert held.complete and held.over


def test_for_top_k_it_is_enough_to_look_at_the_likeliest() -> None:
    held = constraint("root ::= [a-y]+", params=SamplingParams(temperature=1.0, top_k=2))
    a, b, z = (VOCABULARY.pieces.index(letter) for letter in (b"a", b"b", b"z"))
    masks: list[list[int]] = []

    def draw(mask: Mask | None) -> int:
        assert mask is not None
        masks.append(np.flatnonzero(mask).tolist())
        return b

    assert held.choose(draw, lambda count: [END, z, b, 1, a][:count]) == b
    assert held.choose(draw, lambda count: [z] * count) == b
    assert masks[0] == [a, b] and len(masks[1]) > 20


def test_an_end_is_allowed_where_the_grammar_is_complete() -> None:
    held = constraint('root ::= "a" "b"?')
    a, b = VOCABULARY.pieces.index(b"a"), VOCABULARY.pieces.index(b"b")
    assert held.choose(drawing(END, a), unasked) == a
    assert held.complete and not held.over
    assert held.choose(drawing(END), unasked) == END
    assert held.choose(drawing(b), unasked) == b and held.over


def test_half_a_character_is_completed() -> None:
    held = constraint("root ::= [é-ü]")
    half = VOCABULARY.pieces.index(b"\xc3")
    held.choose(drawing(half), unasked)
    assert not held.complete
    allowed = {VOCABULARY.pieces[token] for token in np.flatnonzero(held._mask(unasked))}
    assert allowed == {bytes([byte]) for byte in range("é".encode()[1], "ü".encode()[1] + 1)}


def test_without_a_token_for_it_there_is_none() -> None:
    held = constraint('root ::= "a" "z"', Vocabulary([b"</s>", b"a", b"b"], [END]))
    assert held.choose(drawing(1), unasked) == 1
    assert held.choose(drawing(2), unasked) is None and not held.complete


def test_a_model_without_an_end_token_is_over_all_the_same() -> None:
    held = constraint('root ::= "a"?', Vocabulary([b"a", b"b"], []))
    assert held.choose(drawing(0), unasked) == 0 and held.over
    assert held.choose(drawing(0), unasked) is None and held.complete


AMBIGUOUS = 'root ::= "a" root x | "a" root y | "b"\nx ::= "c"\ny ::= "c"'
"""After n letters there are 2 ** n ways to go on."""


def test_a_grammar_that_explodes_is_given_up() -> None:
    held = constraint(AMBIGUOUS)
    a = VOCABULARY.pieces.index(b"a")
    with pytest.raises(BadRequest, match="too many ways") as caught:
        for _ in range(200):
            held.choose(drawing(a), unasked)
    assert caught.value.hint


def test_a_schema_becomes_a_grammar_and_its_fault_is_told_as_the_schemas() -> None:
    def of(**params: str) -> Constraint | None:
        return constraint_from(SamplingParams(**params), lambda: VOCABULARY)  # type: ignore[arg-type]

    assert of() is None and of(grammar='root ::= "a"') and of(json_schema='{"const": "a"}')
    with pytest.raises(BadRequest, match=r"^The grammar of the JSON schema cannot be used\.") as caught:
        of(json_schema='{"type": "string", "maxLength": 100000}')
    assert "schema" in caught.value.hint


A, B, C, D = (VOCABULARY.pieces.index(letter) for letter in (b"a", b"b", b"c", b"d"))
LOGITS = {VOCABULARY.pieces.index(b"z"): 3.0, A: 2.0, B: 2.0, C: 1.0, D: 0.9}
"""z is the likeliest, and forbidden; the other tokens are at -9."""
DRAWS = 800
NARROWED: list[tuple[dict[str, float], dict[int, float]]] = [  # what is left, and how likely each is
    ({"top_k": 2}, {A: 0.5, B: 0.5}),
    ({"top_p": 0.6}, {A: 0.5, B: 0.5}),
    ({"top_k": 3, "top_p": 0.8}, {A: 0.5, B: 0.5}),
    ({"min_p": 0.3}, {A: 0.366, B: 0.366, C: 0.134, D: 0.122}),
    ({"min_p": 0.35, "top_k": 3}, {A: 0.422, B: 0.422, C: 0.155}),
    ({}, {A: 0.366, B: 0.366, C: 0.134, D: 0.122}),
    ({"top_k": 2, "logit_bias": ((A, -5.0),)}, {B: 0.731, C: 0.269}),  # type: ignore[dict-item]
]


def logits(size: int) -> NDArray[np.float32]:
    found = np.full(size, -9.0, dtype=np.float32)
    found[list(LOGITS)] = list(LOGITS.values())
    return found


def check(drawn: list[int | None], expected: dict[int, float]) -> None:
    shares = {token: drawn.count(token) / DRAWS for token in (A, B, C, D)}
    assert all(abs(share - expected.get(token, 0)) < 0.05 for token, share in shares.items()), shares


@needs("torch")
@pytest.mark.parametrize(("narrowed", "expected"), NARROWED, ids=str)
def test_what_the_grammar_forbids_leaves_before_the_choice_is_narrowed(
    narrowed: dict[str, Any], expected: dict[int, float]
) -> None:
    import torch

    from multimodel.workers.torch_sampling import Sampler

    params = SamplingParams(temperature=1.0, seed=1, **narrowed)
    sampler = Sampler(params, "cpu", 0, constraint("root ::= [a-y]+", params=params))
    some = torch.from_numpy(logits(len(VOCABULARY.pieces)))
    check([sampler.pick(some, []) for _ in range(DRAWS)], expected)


@needs("llama_cpp", "gguf", "torch")
@pytest.mark.parametrize(("narrowed", "expected"), NARROWED, ids=str)
def test_and_so_it_is_in_llama_cpp(narrowed: dict[str, Any], expected: dict[int, float], tiny_gguf_file: Path) -> None:
    from multimodel.workers.llama_native import Model, Sampler

    params = SamplingParams(temperature=1.0, seed=1, **narrowed)
    held = constraint("root ::= [a-y]+", params=params)
    model = Model(tiny_gguf_file, 0, lambda done: None)
    sampler = Sampler(params, model, [], 512)
    some = logits(len(VOCABULARY.pieces))

    def draw(mask: Mask | None) -> int:
        return sampler.draw(some, mask)

    check([held.choose(draw, lambda count: sampler.likeliest(some, count)) for _ in range(DRAWS)], expected)
    sampler.close()
    model.close()
