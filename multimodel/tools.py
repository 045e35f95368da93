"""Functions that a model may ask to have called: read as a person typed them, and put in words where none are taken.

The app calls nothing. It shows what a model wants called, and a person may type the result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .errors import BadRequest
from .types import Message, ToolCall

Tools = list[dict[str, Any]] | None
"""As `tools_from` reads them; None where there are none."""

MOST = 128
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
CHOICES = ("auto", "none", "required")
EXAMPLE = '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'


def tools_from(text: str) -> list[dict[str, Any]]:
    """The tools of a text, each as {"type": "function", "function": {...}}. Raises BadRequest with what is wrong.

    It holds a list or one tool; a function by itself is put in its place.

    >>> tools_from('{"name": "now"}')
    [{'type': 'function', 'function': {'name': 'now'}}]
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _wrong(f"The tools are not JSON: {error}.") from None
    except RecursionError:
        raise _wrong("The tools are nested too deeply.") from None
    rows = value if isinstance(value, list) else [value]
    if not 1 <= len(rows) <= MOST:
        raise _wrong(f"There are {len(rows)} tools; it takes 1 to {MOST}.")
    functions = [_function(row, at) for at, row in enumerate(rows, 1)]
    names = [function["name"] for function in functions]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise _wrong(f"Two tools are called {twice!r}.")
    return [{"type": "function", "function": function} for function in functions]


def choice_from(choice: str, tools: Sequence[dict[str, Any]]) -> str | dict[str, Any]:
    """The wire form of a choice: a word of CHOICES, or the tool of that name. Raises BadRequest."""
    if choice in CHOICES:
        return choice
    if choice not in [tool["function"]["name"] for tool in tools]:
        hint = f"Use {', '.join(CHOICES)}, or the name of one of them."
        raise BadRequest(f"No tool is called {choice!r}.", hint=hint)
    return {"type": "function", "function": {"name": choice}}


def _function(row: object, at: int) -> dict[str, Any]:
    if isinstance(row, dict) and row.get("type") == "function" and isinstance(row.get("function"), dict):
        row = row["function"]
    if not isinstance(row, dict):
        raise _wrong(f"Tool {at} is no object.")
    name, parameters = row.get("name"), row.get("parameters", {})
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _wrong(f"Tool {at} has no name, or one with other letters than a-z, A-Z, 0-9, _, - and dots.")
    if not isinstance(row.get("description", ""), str):
        raise _wrong(f"The description of {name} is no text.")
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise _wrong(f'The parameters of {name} are no JSON schema of type "object".')
    if unknown := sorted(set(row) - {"name", "description", "parameters", "strict"}):
        raise _wrong(f"{name} has a field {unknown[0]!r}, which means nothing here.")
    return row


def _wrong(message: str) -> BadRequest:
    return BadRequest(message, hint=f"Write them as {EXAMPLE}")


def in_words(messages: Sequence[Message]) -> list[Message]:
    """The messages for a model that knows of no tools: calls and results told as text, the results by the person.

    >>> call = Message("assistant", "", calls=(ToolCall("now", "{}"),))
    >>> [message.content for message in in_words([call, Message("tool", "noon", name="now")])]
    ['I call now with {}.', 'The result of now: noon']
    """
    told: list[Message] = []
    for message in messages:
        if message.role == "tool":
            text = f"The result of {message.name or 'the call'}: {message.content}"
            if told and told[-1].role == "user":  # several results are one turn
                told[-1] = replace(told[-1], content=f"{told[-1].content}\n{text}")
            else:
                told.append(Message("user", text))
        elif message.calls:
            calls = "\n".join(f"I call {call.name} with {call.arguments}." for call in message.calls)
            told.append(Message("assistant", f"{message.content}\n\n{calls}".strip()))
        else:
            told.append(message)
    return told


def template_form(message: Message) -> dict[str, Any]:
    """A message as chat templates of local models take it: arguments are objects where they are JSON."""
    form: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        form["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": _object(call.arguments)}}
            for call in message.calls
        ]
    if message.role == "tool":
        form |= {"name": message.name, "tool_call_id": message.call}
    return form


def _object(arguments: str) -> Any:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def written_calls(texts: Iterable[str]) -> tuple[ToolCall, ...]:
    """The calls that a local model has written as JSON {"name", "arguments"}; what is none is shown as it is.

    >>> written_calls(['{"name": "f", "arguments": {"a": 1}}'])
    (ToolCall(name='f', arguments='{"a": 1}', id='call_1'),)
    """
    return tuple(_written(text.strip(), f"call_{at}") for at, text in enumerate(texts, 1))


def _written(text: str, id: str) -> ToolCall:
    value = _object(text)
    if not isinstance(value, dict):
        return ToolCall("", text, id)
    arguments = value.get("arguments", value.get("parameters", {}))
    return ToolCall(
        str(value.get("name", "")),
        arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
        id,
    )
