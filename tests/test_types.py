"""The values that travel between floors keep their promises; most of them are shown by doctests."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from math import inf, nan
from typing import Any

import pytest

from multimodel import types
from multimodel.errors import InvalidModelId, InvalidParameter, MultimodelError, by_name
from multimodel.types import RANGES, Chunk, ModelId, SamplingParams, Timing, TokenLogprob, Usage, collect


@pytest.mark.parametrize("text", ["gguf:a/b:Q4_K_M", "gguf:./model.gguf", "x:a:b:c", " openai : gpt-5-mini "])
def test_an_id_survives_being_written(text: str) -> None:
    parsed = ModelId.parse(text)
    assert ModelId.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", "guide", ":guide", "gguf:", " : ", "gguf: "])
def test_what_is_no_id_says_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidModelId) as caught:
        ModelId.parse(text)
    assert "backend:name" in caught.value.hint


@pytest.mark.parametrize("name", RANGES)
def test_parameters_stay_in_their_range(name: str) -> None:
    low, high = RANGES[name]
    for inside in (low, high, None):
        assert getattr(SamplingParams(**{name: inside}), name) == inside
    for outside in (low - 1, high + 1, inf, -inf, nan):
        with pytest.raises(InvalidParameter, match=name):
            SamplingParams(**{name: outside})


def test_every_number_among_the_parameters_has_a_range() -> None:
    others = {"stop", "logit_bias", "grammar", "json_schema", "tools", "tool_choice"}
    assert set(RANGES) == {field.name for field in fields(SamplingParams)} - others


@pytest.mark.parametrize("bias", [(-1, 0.0), (5, 100.5), (5, nan), (2**31, 1.0)])
def test_a_bias_is_of_a_token_and_within_its_range(bias: tuple[int, float]) -> None:
    assert SamplingParams(logit_bias=((0, -100.0), (5, 100.0))).logit_bias == ((0, -100.0), (5, 100.0))
    with pytest.raises(InvalidParameter, match="logit_bias"):
        SamplingParams(logit_bias=((1, 1.0), bias))


def test_an_answer_follows_one_grammar() -> None:
    grammar = SamplingParams(grammar='root ::= "a"')
    with pytest.raises(InvalidParameter, match="both set"):
        grammar.merge(SamplingParams(json_schema="{}"))


@pytest.mark.parametrize("data", [b"", b"a", "é😀".encode(), b"\xc3", b"a\xff\xfe", "\ufffd".encode()])
def test_a_token_keeps_its_bytes(data: bytes) -> None:
    token = TokenLogprob.of(data, -1.0)
    assert token.data == data and token.text == data.decode("utf-8", "replace")


def test_zero_is_a_value_and_none_is_not() -> None:
    params = SamplingParams(temperature=0.0, top_k=0)
    assert params.asdict() == {"temperature": 0.0, "top_k": 0}
    assert SamplingParams(temperature=1.0, seed=5).merge(params) == SamplingParams(temperature=0.0, top_k=0, seed=5)
    assert params.only(frozenset({"top_k", "seed"})) == SamplingParams(top_k=0)


def test_counts_add_up_and_stay_estimates() -> None:
    total = Usage(1, 2, reused_tokens=1) + Usage(3, 4, estimated=True)
    assert total == Usage(4, 6, estimated=True, reused_tokens=1) and total.total_tokens == 10


@pytest.mark.parametrize(
    ("timing", "tokens"),
    [(Timing(1.0), 5), (Timing(1.0, 2.0, 3.0), 1), (Timing(1.0, 2.0, 2.0), 5), (Timing(1.0, 2.0, 3.0), 0)],
)
def test_no_speed_is_made_up(timing: Timing, tokens: int) -> None:
    assert timing.tokens_per_second(tokens) is None


def test_times_before_the_first_token_are_unknown() -> None:
    assert Timing(1.0).ttft is None and Timing(1.0).total is None


def test_an_empty_stream_collects_to_nothing() -> None:
    assert collect([]) == ("", Chunk())


VALUES = [value for value in vars(types).values() if is_dataclass(value) and value.__module__ == types.__name__]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_value_is_frozen(value: Any) -> None:
    blank = object.__new__(value)
    with pytest.raises(FrozenInstanceError):
        setattr(blank, fields(value)[0].name, 1)


def _tree(cls: type[MultimodelError]) -> list[type[MultimodelError]]:
    """The errors of the tree; a backend may have finer ones of its own, which another test may have imported."""
    own = (child for child in cls.__subclasses__() if child.__module__ == cls.__module__)
    return [cls, *(found for child in own for found in _tree(child))]


@pytest.mark.parametrize("error", _tree(MultimodelError), ids=lambda error: error.__name__)
def test_every_error_has_a_hint_and_a_line_in_the_tree(error: type[MultimodelError]) -> None:
    import multimodel.errors as errors

    assert error("what", hint="do this").hint == "do this"
    assert by_name(error.__name__) is error
    assert errors.__doc__ is not None and f" {error.__name__} " in errors.__doc__
