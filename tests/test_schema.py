"""Every text of the grammar of a schema is JSON that follows the schema, and all that should be there can be said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multimodel.errors import BadRequest
from multimodel.schema import schema_from, schema_grammar
from multimodel.workers.constraint import Walk
from multimodel.workers.gbnf import grammar_from

POINT = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x", "y"]}
PERSON = {
    "title": "Person",
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "of the person", "format": "any"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b\n"]}, "maxItems": 2},
        "home": {"$ref": "#/$defs/point"},
    },
    "required": ["name", "home"],
    "additionalProperties": False,
    "$defs": {"point": POINT},
}
TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}, "required": ["kids"]}


def walk_of(schema: Any) -> Walk:
    return Walk(grammar_from(schema_grammar(json.dumps(schema))))


def says(schema: Any, text: str) -> bool:
    walk = walk_of(schema)
    return walk.complete(walk.after(walk.start, text.encode()))


def texts(schema: Any, count: int = 60) -> Iterator[str]:
    """Texts of its grammar by chance, drawn towards the end."""
    chance = random.Random(5)
    walk = walk_of(schema)
    for _ in range(count):
        state, text = walk.start, bytearray()
        while choices := [byte for byte in range(256) if walk.step(state, byte)]:
            if walk.complete(state) and chance.random() < 0.3:
                break
            near = [byte for byte in choices if byte in b'"}],']
            byte = chance.choice(near if near and (len(text) > 80 or chance.random() < 0.5) else choices)
            state = walk.step(state, byte)
            text.append(byte)
        yield text.decode()


def is_person(value: Any) -> bool:
    assert list(value) == [key for key in PERSON["properties"] if key in value]  # type: ignore[attr-defined]
    tags = value.get("tags", [])
    assert len(tags) <= 2 and set(tags) <= {"a", "b\n"} and 0 <= value.get("age", 0) <= 150
    return bool(value["name"]) and value["home"].keys() == {"x", "y"}


def is_tree(value: Any) -> bool:
    return value.keys() == {"kids"} and all(map(is_tree, value["kids"]))


def is_whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


ALL = {
    "person": (PERSON, is_person),
    "tree": (TREE, is_tree),
    "anything": ({}, lambda value: True),
    "any object": ({"type": "object"}, lambda value: isinstance(value, dict)),
    "numbers by name": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        lambda value: all(type(number) is int for number in value.values()),
    ),
    "nothing in it": ({"properties": {}, "additionalProperties": False}, lambda value: value == {}),
    "required but not described": ({"required": ["a"]}, lambda value: list(value) == ["a"]),
    "only optional": (
        {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
        lambda value: (
            value in [{k: "abc".index(k) + 1 for k in keys} for keys in ("", *"abc", "ab", "ac", "bc", "abc")]
        ),
    ),
    "a or b": ({"enum": ["a", {"b": [1, None]}, False]}, lambda value: value in ["a", {"b": [1, None]}, False]),
    "const": ({"const": False}, lambda value: value is False),
    "either": ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, lambda value: value in (None, True, False)),
    "one of all": ({"allOf": [{"type": "null"}]}, lambda value: value is None),
    "types": ({"type": ["string", "null"], "maxLength": 2}, lambda value: value is None or len(value) <= 2),
    "letters": ({"type": "string", "minLength": 2, "maxLength": 3}, lambda value: 2 <= len(value) <= 3),
    "two or more": ({"type": "array", "minItems": 2}, lambda value: len(value) >= 2),
    "up to three": ({"type": "array", "maxItems": 3}, lambda value: len(value) <= 3),
    "none": ({"type": "array", "items": False}, lambda value: value == []),
    "a pair": (
        {"prefixItems": [{"type": "string"}, {"type": "null"}], "items": False, "minItems": 1},
        lambda value: isinstance(value[0], str) and value[1:] in ([], [None]),
    ),
    "a pair and more": (
        {"prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 3, "maxItems": 4},
        lambda value: value[0] is None and len(value) in (3, 4) and set(value[1:]) <= {True, False},
    ),
    "from 3 to 120": ({"type": "integer", "minimum": 3, "maximum": 120}, is_whole(3, 120)),
    "between": ({"type": "integer", "exclusiveMinimum": -20, "exclusiveMaximum": 7}, is_whole(-19, 6)),
    "below": ({"type": "integer", "maximum": -5}, is_whole(-(10**16), -5)),
    "share": ({"type": "number", "minimum": 0, "maximum": 1}, lambda value: 0 <= value <= 1),
    "degrees": ({"type": "number", "minimum": -273, "maximum": 99}, lambda value: -273 <= value <= 99),
}


@pytest.mark.parametrize("name", ALL)
def test_every_text_of_the_grammar_follows_the_schema(name: str) -> None:
    schema, follows = ALL[name]
    found = [json.loads(text) for text in texts(schema)]
    assert all(map(follows, found))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (PERSON, {"name": 'Ünï "q" \\ \n', "home": {"x": -1.5e3, "y": 0}}),
        (PERSON, {"name": "x", "age": 150, "tags": ["b\n", "a"], "home": {"x": 0.25, "y": 12}}),
        (TREE, {"kids": [{"kids": []}, {"kids": [{"kids": []}]}]}),
        ({}, {"a": [1, -2.5, "x", None, True, {}, []], "é": {"b": {"c": []}}}),
        ({"type": "number", "minimum": -2, "maximum": 2}, -1.75),
        ({"type": "number", "minimum": -2, "maximum": 2}, 2),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"const": "x"}}}, "x"),
    ],
)
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"indent": 1, "ensure_ascii": False}, {"separators": (",", ":")}])
def test_json_as_it_is_usually_written_can_be_said(schema: Any, value: Any, style: dict[str, Any]) -> None:
    assert says(schema, json.dumps(value, **style))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 17), (99, 1001), (120, 7431), (1000, 1999), (-40, 25), (-9, -3)])
def test_exactly_the_numbers_within_the_limits_can_be_said(low: int, high: int) -> None:
    walk = walk_of({"type": "integer", "minimum": low, "maximum": high})
    said = {number for number in range(-200, 8000) if walk.complete(walk.after(walk.start, str(number).encode()))}
    assert said == set(range(max(low, -200), min(high, 7999) + 1))


@pytest.mark.parametrize(
    "text", ['"a', '"\\ud800"', '"\\x41"', '"a\nb"', "01", "1.", "+1", "[1,]", "{'a': 1}", "nul", " 1"]
)
def test_what_is_no_json_cannot_be_said(text: str) -> None:
    assert not says({}, text)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no JSON object"),
        ('"string"', "no JSON object"),
        ('{"type": "text"}', "no type 'text'"),
        ('{"type": ["string", 3]}', "no type 3"),
        ('{"properties": []}', "properties must be an object"),
        ('{"properties": {"a": 3}}', "3 is no schema"),
        ('{"required": [3]}', "required a list of texts"),
        ('{"properties": {"a": false}}', "allows nothing"),
        ('{"required": ["a"], "additionalProperties": false}', "'a' is required and not allowed"),
        ('{"type": "string", "pattern": "a+"}', "demands pattern, which no model here can be held to"),
        ('{"type": "array", "uniqueItems": true}', "demands uniqueItems"),
        ('{"anyOf": [{"type": "null"}], "type": "string"}', "anyOf and type in one place"),
        ('{"anyOf": []}', "anyOf needs a list"),
        ('{"allOf": [{}, {}]}', "allOf needs a list of one"),
        ('{"$ref": "#/$defs/none"}', "is nowhere in it"),
        ('{"$ref": "other.json"}', "is nowhere in it"),
        ('{"$ref": 3}', "must be a text"),
        ('{"type": "string", "minLength": 3, "maxLength": 2}', "longer than it may be"),
        ('{"type": "string", "minLength": -1}', "minLength is -1"),
        ('{"type": "array", "minItems": 2, "maxItems": 1}', "more items than it may have"),
        ('{"prefixItems": [{}], "items": false, "minItems": 2}', "more items than it may have"),
        ('{"prefixItems": {}}', "must be a list"),
        ('{"type": "integer", "minimum": 5, "maximum": 4}', "No number lies between 5 and 4"),
        ('{"type": "integer", "minimum": 0.5}', "minimum is 0.5"),
        ('{"type": "integer", "minimum": 1e99}', "No number lies"),
        ('{"type": "integer", "minimum": NaN}', "minimum is nan"),
        ('{"type": "number", "exclusiveMinimum": 0}', "demands exclusiveMinimum"),
    ],
)
def test_what_cannot_be_made_sure_of_is_refused_with_the_reason(schema: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        schema_grammar(schema)
    assert str(caught.value).startswith("The JSON schema cannot be used. ") and caught.value.hint


def test_schemas_of_services_are_only_read() -> None:
    assert schema_from('{"type": "string", "pattern": "a+"}') == {"type": "string", "pattern": "a+"}
