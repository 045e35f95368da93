"""JSON schemas: read for a service, or turned into a grammar whose every sentence follows the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

from .errors import BadRequest

Schema = Mapping[str, Any]

DIGITS = 16  # of a number before and after its point: more would be rounded by whoever reads it
FIXED = {
    "ws": r'("\n" [ \t]{0,40} | " ")?',
    "letter": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CeEfF] hex hex hex | [dD] [0-7] hex hex))',
    "hex": "[0-9a-fA-F]",
    "string": r'"\"" letter* "\""',
    "fraction": f'"." [0-9]{{1,{DIGITS}}}',
    "integer": f'"-"? ("0" | [1-9] [0-9]{{0,{DIGITS - 1}}})',
    "number": "integer fraction? ([eE] [+-]? [0-9] [0-9]?)?",
    "boolean": '"true" | "false"',
    "null": '"null"',
    "array": '"[" ws (value ("," ws value)* ws)? "]"',
    "object": '"{" ws (member ("," ws member)* ws)? "}"',
    "member": 'string ":" ws value',
    "value": "object | array | string | number | boolean | null",
}
"""The grammar of JSON, with white space that cannot go on for ever."""

BY_TYPE: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""What is obeyed of each type."""
CHOICES = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
NOT_OBEYED = frozenset(
    {"pattern", "multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "patternProperties", "if", "not"}
    | {"propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies"}
    | {"unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
DEMANDS = frozenset[str]().union(*BY_TYPE.values(), CHOICES, NOT_OBEYED, {"type"})
"""The keywords that demand something; others, such as `title` and `format`, describe."""
MAY_BE_FALSE = frozenset({"additionalProperties", "items", "const"})
"""The keywords that demand something even where they are false."""


def schema_from(text: str) -> Schema:
    """The schema a text holds. Raises BadRequest.

    >>> schema_from('{"type": "integer"}')
    {'type': 'integer'}
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong(f"It is not JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise wrong("It is no JSON object.")
    return schema


@lru_cache(maxsize=16)
def schema_grammar(text: str) -> str:
    """A grammar in GBNF of JSON that follows the schema. Raises BadRequest for what it cannot make sure of.

    Properties come in the order of the schema; those it does not name come only where it names none. Where `oneOf`
    allows several, one is followed. White space is a blank, or a line end and up to 40 blanks.

    >>> print(schema_grammar('{"enum": ["yes", 3]}'))
    root ::= r1
    r1 ::= r2
    r2 ::= "\\"yes\\"" | "3"
    """
    schema = schema_from(text)
    try:
        return _Writer(schema).text()
    except RecursionError:
        raise wrong("It is nested too deeply.") from None


def wrong(what: str, hint: str = "Correct it, or leave the JSON schema out.") -> BadRequest:
    """The error of a schema that cannot be used."""
    return BadRequest(f"The JSON schema cannot be used. {what}", hint=hint)


class _Writer:
    """Writes the rules of one schema. A method that takes a schema returns what stands for it in another rule."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._rules = {"root": ""}
        self._references: dict[str, str] = {}
        self._rules["root"] = self._refer("#")

    def text(self) -> str:
        """The grammar: the rules made for the schema, and those of JSON that they use."""
        lines = [f"{name} ::= {body}" for name, body in self._rules.items()]
        needed = dict.fromkeys(self._fixed(" ".join(self._rules.values())))
        return "\n".join(lines + [f"{name} ::= {FIXED[name]}" for name in needed])

    def _fixed(self, text: str) -> Iterator[str]:
        unsure, seen = [text], set[str]()
        while unsure:
            words = set(_words(unsure.pop())) & FIXED.keys() - seen
            seen |= words
            yield from sorted(words)
            unsure += [FIXED[word] for word in words]

    def _visit(self, schema: Any) -> str:
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise wrong("It allows nothing somewhere." if schema is False else f"{schema!r:.60} is no schema.")
        demands = DEMANDS & {key for key, value in schema.items() if value is not False or key in MAY_BE_FALSE}
        if refused := sorted(demands & NOT_OBEYED):
            raise wrong(f"It demands {refused[0]}, which no model here can be held to.", "Leave it out.")
        keyword = next((keyword for keyword in CHOICES if keyword in schema), None)
        if keyword is None:
            return self._typed(schema, demands)
        if more := sorted(demands - {keyword} - ({"type"} if keyword in ("const", "enum") else set())):
            raise wrong(f"It has {keyword} and {more[0]} in one place.", "Keep one of them there.")
        return self._chosen(keyword, schema[keyword])

    def _chosen(self, keyword: str, value: Any) -> str:
        if keyword == "$ref":
            return self._refer(value)
        if keyword == "const":
            return self._rule(literal(json.dumps(value, ensure_ascii=False)))
        if not isinstance(value, list) or not value or (keyword == "allOf" and len(value) > 1):
            raise wrong(f"{keyword} needs a list of one." if keyword == "allOf" else f"{keyword} needs a list.")
        if keyword == "enum":
            return self._rule(" | ".join(literal(json.dumps(each, ensure_ascii=False)) for each in value))
        return self._rule(" | ".join(map(self._visit, value)))

    def _typed(self, schema: Schema, demands: frozenset[str]) -> str:
        kinds = schema.get("type") or next((kind for kind, own in BY_TYPE.items() if demands & own), "value")
        if isinstance(kinds, list):
            return self._rule(" | ".join(self._of_kind(kind, schema, demands) for kind in kinds))
        return self._of_kind(kinds, schema, demands)

    def _of_kind(self, kind: Any, schema: Schema, demands: frozenset[str]) -> str:
        if kind not in (*BY_TYPE, "value"):
            raise wrong(f"There is no type {kind!r:.60}.")
        if not demands & BY_TYPE.get(kind, frozenset()):
            return str(kind)
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
        return self._number(schema, whole=kind == "integer")

    def _object(self, schema: Schema) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", True)
        if not isinstance(properties, dict) or not isinstance(required, list) or not all(map(_is_text, required)):
            raise wrong("properties must be an object, and required a list of texts.")
        unknown = [name for name in required if name not in properties]
        if unknown and more is False:
            raise wrong(f"{unknown[0]!r:.60} is required and not allowed.")
        properties = properties | dict.fromkeys(unknown, more)
        if not properties:
            if more is False:
                return self._rule('"{" ws "}"')
            member = self._rule(f'string ":" ws {self._visit(more)}')
            return self._rule(f'"{{" ws ({member} ("," ws {member})* ws)? "}}"')
        return self._rule(f'"{{" ws {self._members(properties, frozenset(required))} "}}"')

    def _members(self, properties: Schema, required: frozenset[str]) -> str:
        """The properties in their order: for each what may follow once one has been said, and before."""
        after, first = "ws", '""'
        for name, schema in reversed([*properties.items()]):
            member = self._rule(f'{literal(json.dumps(name, ensure_ascii=False))} ":" ws {self._visit(schema)}')
            skipped_after, skipped_first = ("", "") if name in required else (f" | {after}", f" | {first}")
            first = self._rule(f"{member} {after}{skipped_first}")
            after = self._rule(f'"," ws {member} {after}{skipped_after}')
        return first

    def _array(self, schema: Schema) -> str:
        fixed, more = schema.get("prefixItems", []), schema.get("items", True)
        if not isinstance(fixed, list):
            raise wrong("prefixItems must be a list.")
        least, most = _bounds(schema, "minItems", "maxItems")
        items = [self._visit(each) for each in fixed]
        if more is False:
            most = min(len(items), len(items) if most is None else most)
        other = self._visit(more) if most is None or most > len(items) else "value"
        if (most is not None and most < least) or (len(items) < least and more is False):
            raise wrong("It has an array that needs more items than it may have.")
        return self._rule(f'"[" ws {self._items(items, other, least, most)} "]"')

    def _items(self, items: Sequence[str], other: str, least: int, most: int | None) -> str:
        """A list of items: the first ones as given, then `other`; at least `least` and at most `most`."""
        items = items[:most]
        count = max(least - len(items), 0)
        rest = "" if most is None else str(most - len(items) - count)
        comma = f'("," ws {other})'
        follow = f"{comma}{{{count}}} {comma}{{0,{rest}}} ws"
        for number, item in reversed([*enumerate(items)]):
            separator = '"," ws ' if number else ""
            end = "" if number < least else " | ws" if number else ' | ""'
            follow = self._rule(f"{separator}{item} {follow}{end}")
        if items:
            return follow
        if most == 0:
            return ""
        left = "" if most is None else most - max(least, 1)
        some = f"{other} {comma}{{{max(least, 1) - 1}}} {comma}{{0,{left}}} ws"
        return some if least else f"({some})?"

    def _string(self, schema: Schema) -> str:
        least, most = _bounds(schema, "minLength", "maxLength")
        if most is not None and most < least:
            raise wrong("It has a string that must be longer than it may be.")
        return self._rule(f'"\\"" letter{{{least},{"" if most is None else most}}} "\\""')

    def _number(self, schema: Schema, *, whole: bool) -> str:
        if not whole and (open_end := sorted(schema.keys() & {"exclusiveMinimum", "exclusiveMaximum"})):
            raise wrong(f"It demands {open_end[0]} of a number that need not be whole.", "Use minimum or maximum.")
        low, high = _limit(schema, "minimum", "exclusiveMinimum", 1), _limit(schema, "maximum", "exclusiveMaximum", -1)
        furthest = 10**DIGITS - 1
        low, high = -furthest if low is None else low, furthest if high is None else high
        if not -furthest <= low <= high <= furthest:
            raise wrong(f"No number lies between {low} and {high}, or it has more than {DIGITS} digits.")
        parts = [f'"-" ({each})' for each in _magnitudes(max(-high, 0), -low, whole=whole)] if low < 0 else []
        parts += _magnitudes(max(low, 0), high, whole=whole) if high >= 0 else []
        return self._rule(" | ".join(parts))

    def _refer(self, reference: Any) -> str:
        """The rule of another place of the schema, which may be under way: that makes a grammar recursive."""
        if not isinstance(reference, str):
            raise wrong("$ref must be a text.")
        if reference not in self._references:
            target = self._find(reference)
            name = self._references[reference] = self._rule("")
            self._rules[name] = self._visit(target)
        return self._references[reference]

    def _find(self, reference: str) -> Any:
        root, *parts = unquote(reference).split("/")
        found: Any = self._schema if root == "#" else None
        for part in parts:
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, dict) else None
        if found is None:
            raise wrong(f"{reference!r:.60} is nowhere in it.")
        return found

    def _rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name


def literal(text: str) -> str:
    """A text in a grammar.

    >>> print(literal('"a\\n'))
    "\\"a\\x0A"
    """
    letters = (f"\\{c}" if c in '"\\' else c if c >= " " else f"\\x{ord(c):02X}" for c in text)
    return f'"{"".join(letters)}"'


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _words(grammar: str) -> Iterator[str]:
    """The names in a grammar; a word in one of its texts may be among them."""
    return iter("".join(c if c.isalnum() else " " for c in grammar).split())


def _bounds(schema: Schema, low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for name, value in ((low, least), (high, most)):
        if value is not None and (type(value) is not int or not 0 <= value <= 100_000):
            raise wrong(f"{name} is {value!r:.60}.", "Choose a whole number up to 100000.")
    return cast("tuple[int, int | None]", (least, most))


def _limit(schema: Schema, inclusive: str, exclusive: str, step: int) -> int | None:
    """The last number that is allowed; None without a limit."""
    values = [(inclusive, schema.get(inclusive), 0), (exclusive, schema.get(exclusive), step)]
    for name, value, _ in values:
        if value is not None and not (type(value) is int or (isinstance(value, float) and value.is_integer())):
            raise wrong(f"{name} is {value!r:.60}.", "Choose a whole number.")
    found = [int(value) + by for _, value, by in values if value is not None]
    return max(found, key=lambda limit: limit * step) if found else None


def _magnitudes(low: int, high: int, *, whole: bool) -> list[str]:
    """The numbers from `low` to `high`, both 0 or more: with digits behind a point where they need not be whole.

    >>> _magnitudes(5, 12, whole=True), _magnitudes(0, 1, whole=False)
    (['[5-9]', '"1" [0-2]'], ['("0") fraction?', '"1" ("." "0")?'])
    """
    if whole:
        return list(_digits(low, high))
    below = " | ".join(_digits(low, high - 1)) if low < high else ""
    return [f"({below}) fraction?"] * bool(below) + [f'{literal(str(high))} ("." "0")?']


def _digits(low: int, high: int) -> Iterator[str]:
    """The whole numbers from `low` to `high`, for each count of digits and each first digit.

    >>> list(_digits(8, 230))
    ['[8-9]', '[1-9] [0-9]', '"1" [0-9]{2}', '"2" [0-2] [0-9]', '"2" "30"']
    """
    for size in range(len(str(low)), len(str(high)) + 1):
        first = str(max(low, 10 ** (size - 1) if size > 1 else 0))
        yield from _between(first, str(min(high, 10**size - 1)))


def _between(low: str, high: str) -> Iterator[str]:
    """The same for bounds with equally many digits."""
    size = len(low)
    if low == high:
        yield literal(low)
    elif size == 1:
        yield f"[{low}-{high}]"
    elif low[1:] == "0" * (size - 1) and high[1:] == "9" * (size - 1):
        first = literal(low[0]) if low[0] == high[0] else f"[{low[0]}-{high[0]}]"
        yield f"{first} [0-9]" + (f"{{{size - 1}}}" if size > 2 else "")
    elif low[0] == high[0]:
        yield from (f"{literal(low[0])} {rest}" for rest in _between(low[1:], high[1:]))
    else:  # the first digit of `low`, those between, that of `high`
        low_full, high_full = low[1:] == "0" * (size - 1), high[1:] == "9" * (size - 1)
        start, end = int(low[0]) + (not low_full), int(high[0]) - (not high_full)
        if not low_full:
            yield from _between(low, low[0] + "9" * (size - 1))
        if start <= end:
            yield from _between(f"{start}" + "0" * (size - 1), f"{end}" + "9" * (size - 1))
        if not high_full:
            yield from _between(high[0] + "0" * (size - 1), high)
