"""What every remote model does alike: one answer over one wire, folded into chunks; and the list of a service's models.

Bytes become events (`wire`), events become chunks (here), failures become our errors (`failures`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from typing import Any

from ..errors import ConnectionFailure, ModelNotFound, MultimodelError, ProtocolFailure, TimedOut
from ..pump import Arrived, pump
from ..schema import schema_from
from ..settings import ApiSettings
from ..tools import choice_from, tools_from
from ..types import RANGES, Chunk, Cost, FinishReason, Message, SamplingParams, Sent, TokenLogprob, ToolCall, Usage
from .calls import Calls
from .failures import guarded, translated
from .service import PLACEHOLDER, Service
from .wire import Event, Wire, parsed, whole

Send = Callable[[Wire], Generator[Event]]
"""Sends one request over a wire and gives the events of the response; runs in the thread of a pump."""

TEXT_LIMIT = 1 << 20
"""Characters of one answer; more than any model writes."""

AFTER_FINISH = 2.0
"""Seconds after the finish reason: the token counts and the end of the stream come with it or never, and a server that
keeps the line open must not keep the answer open."""

NAMES = {"model": "model", "fingerprint": "system_fingerprint", "response": "id"}
"""What an event says of the answer as a whole, by the fields of Sent."""

NAME_LIMIT = 200  # characters
MOST_ALTERNATIVES = int(RANGES["top_logprobs"][1])
LARGEST_COST = 1e6  # US dollars; more is no cost of an answer
LIST_TIMEOUT = 3.0
LIST_LIMIT = 16 << 20

SAME_NAME = frozenset({"temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"})
"""Parameters that OpenAI's protocol calls as we do."""

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "abort": "incomplete",
    "error": "incomplete",
}
"""The services' words for ours; one that is not here is a plain stop."""


def answer(send: Send, service: Service, name: str, limits: ApiSettings, wire: Wire) -> Generator[Chunk]:
    """One answer of the model `name` over a new wire. Raises MultimodelError; closing it hangs up.

    A stream that breaks off after its first text ends as incomplete: what was said is worth keeping.
    """
    story, known = Story(), False
    events = pump(
        lambda: guarded(lambda: send(wire), lambda error: _named(error, wire, service, name)),
        wire.hang_up,
        first_timeout=limits.first_token_timeout,
        stall_timeout=limits.stall_timeout,
    )
    try:
        with wire.client, closing(events):
            for arrived in events:
                if story.overdue(arrived.at if arrived else time.perf_counter()):
                    break
                chunk = story.told(arrived) if arrived else Chunk()
                if (chunk.text or chunk.reasoning) and not known:  # one that is stopped has a record too
                    known, chunk = True, replace(chunk, sent=story.sent(wire))
                yield chunk
    except MultimodelError as error:
        yield Chunk(sent=story.sent(wire))
        if not (isinstance(error, ConnectionFailure | TimedOut) and story.begun):
            raise
        if not story.finish_reason:
            yield Chunk(note=f"{error} The answer may be cut.")
    yield from story.ending(service, wire)


def _named(error: Exception, wire: Wire, service: Service, name: str) -> MultimodelError:
    """The error in our words; for a wrong name with the nearest right ones."""
    own = translated(error, service, name)
    if isinstance(own, ModelNotFound):
        with suppress(Exception):  # the names are a courtesy
            known = _names(next(_read_rows(wire, service)))
            own.hint = suggestion(service.backend, name, known) or own.hint
    return own


def suggestion(backend: str, name: str, known: tuple[str, ...]) -> str:
    """The nearest of the known names, or the first few.

    >>> suggestion("ollama", "lama3", ("llama3:8b", "qwen3"))
    'Did you mean ollama:llama3:8b?'
    """
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    ids = [f"{backend}:{other}" for other in near or known[:3]]
    if near:
        return f"Did you mean {' or '.join(ids)}?"
    return f"It has {', '.join(ids)}{' and others' if len(known) > 3 else ''}." if ids else ""


def parameters(params: SamplingParams) -> dict[str, Any]:
    """The part of a request that says how to sample, in OpenAI's protocol. Raises BadRequest for a schema that is none.

    >>> parameters(SamplingParams(top_logprobs=2, logit_bias=((5, -1.0),), stop=("x",)))
    {'stop': ['x'], 'logit_bias': {'5': -1.0}, 'logprobs': True, 'top_logprobs': 2}
    """
    given = params.asdict()
    body = {name: value for name, value in given.items() if name in SAME_NAME | {"max_tokens"}}
    if params.stop is not None:
        body["stop"] = list(params.stop)
    if params.logit_bias is not None:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias}
    if params.json_schema is not None:
        schema = {"name": "answer", "schema": schema_from(params.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if params.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": params.top_logprobs}
    if params.tools is not None:
        body["tools"] = tools = tools_from(params.tools)
        if params.tool_choice is not None:
            body["tool_choice"] = choice_from(params.tool_choice, tools)
    return body


def message_form(message: Message) -> dict[str, Any]:
    """A message in OpenAI's protocol; pictures go along as data, so that no service fetches anything.

    >>> message_form(Message("tool", "21", call="call_1"))
    {'role': 'tool', 'content': '21', 'tool_call_id': 'call_1'}
    """
    form: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        parts = [{"type": "image_url", "image_url": {"url": image.url}} for image in message.images]
        form["content"] = [*parts, {"type": "text", "text": message.content}]
    if message.calls:
        form["content"] = message.content or None
        form["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.role == "tool":
        form["tool_call_id"] = message.call
    return form


class Story:
    """The fold of the events of one answer."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._cost: Cost | None = None
        self._provider = ""
        self._pieces = 0  # events with text or thoughts: about as many as tokens
        self._said = 0  # characters of text
        self._thought = 0
        self._tokens = 0  # with log-probabilities
        self._calls = Calls()
        self._at: float | None = None
        self._names: dict[str, str] = {}  # of the answer, by the fields of Sent
        self._spoke = 0.0  # when the last event with text, thoughts or a finish reason came

    @property
    def begun(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._said or self._thought or self._calls or self.finish_reason)

    def overdue(self, now: float) -> bool:
        """Whether the answer finished so long ago that nothing more is waited for."""
        return self.finish_reason is not None and now - self._spoke > AFTER_FINISH

    def told(self, arrived: Arrived[Event]) -> Chunk:
        """What an event says, stamped with its time; an empty chunk where it says nothing. Raises ProtocolFailure."""
        event, self._at = arrived.item, arrived.at
        self._usage = usage_of(event) or self._usage
        self._cost = cost_of(event) or self._cost
        self._provider = _text(event.get("provider")) or self._provider
        self._note_names(event)
        text, reasoning = "", ""
        logprobs: tuple[TokenLogprob, ...] = ()
        calls: tuple[ToolCall, ...] = ()
        for choice in _first_choice(event):
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                text = _text(delta.get("content")) + _text(delta.get("refusal"))
                reasoning = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
                calls = self._calls.told(delta.get("tool_calls"))
            logprobs = logprobs_of(choice)
            if (word := choice.get("finish_reason")) and isinstance(word, str):  # some say "" while they go on
                self.finish_reason, self._spoke = FINISH_REASONS.get(word, "stop"), arrived.at
        if not (text or reasoning or logprobs or calls):
            return Chunk()
        self._spoke = arrived.at
        return self._counted(Chunk(text, reasoning=reasoning, at=arrived.at, logprobs=logprobs, calls=calls))

    def sent(self, wire: Wire) -> Sent:
        """The request, and what the service calls it and its answer."""
        model, fingerprint, response = (self._names.get(field, "") for field in NAMES)
        return replace(wire.sent(), model=model, fingerprint=fingerprint, response=response)

    def _note_names(self, event: Event) -> None:
        for field, name in NAMES.items():
            if field not in self._names and isinstance(said := event.get(name), str) and said:
                self._names[field] = printable(said)[:NAME_LIMIT]

    def ending(self, service: Service, wire: Wire) -> Iterator[Chunk]:
        """The last chunk, perhaps after a note. Raises ProtocolFailure where nothing at all was said."""
        if not self.begun:
            raise ProtocolFailure(
                f"{service.title} ended the answer without a word.",
                hint=f"Try again; if it stays, check that {service.base_url} is the address of a chat server.",
            )
        if self.finish_reason == "length" and self._thought and not self._said:
            yield Chunk(note="All of max_tokens went into thinking; raise it to see an answer.")
        usage = self._usage or Usage(output_tokens=self._pieces, estimated=True)
        reason = self.finish_reason or "incomplete"
        yield Chunk(
            finish_reason=reason,
            usage=usage,
            at=self._at,
            cost=self._cost,
            provider=self._provider,
            sent=self.sent(wire),
        )

    def _counted(self, chunk: Chunk) -> Chunk:
        self._pieces += bool(chunk.text or chunk.reasoning or chunk.calls)
        self._tokens += len(chunk.logprobs)
        self._said += len(chunk.text)
        self._thought += len(chunk.reasoning)
        if self._said + self._thought + len(self._calls) > TEXT_LIMIT or self._tokens > RANGES["max_tokens"][1]:
            raise ProtocolFailure("The answer grew beyond a million characters.", hint="Set a lower max_tokens.")
        return chunk


def _first_choice(event: Event) -> list[dict[str, Any]]:
    choices = event.get("choices")
    found = choices if isinstance(choices, list) else []
    return [c for c in found if isinstance(c, dict) and not c.get("index")][:1]


def logprobs_of(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities that come with a choice; what is none is left out.

    >>> logprobs_of({"logprobs": {"content": [{"token": "?", "bytes": [195], "logprob": -0.5, "top_logprobs": []}]}})
    (TokenLogprob(text='\ufffd', logprob=-0.5, alternatives=(), raw=b'\xc3'),)
    """
    found = choice.get("logprobs")
    rows = _rows(found.get("content")) if isinstance(found, dict) else ()
    return tuple(_logprob(row, _rows(row.get("top_logprobs"))) for row in rows)


def _rows(value: object) -> Iterator[dict[str, Any]]:
    """The tokens of a list that have a log-probability."""
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict) and isinstance(number := row.get("logprob"), int | float) and number == number:
            yield row


def _logprob(row: Mapping[str, Any], others: Iterable[dict[str, Any]] = ()) -> TokenLogprob:
    alternatives = tuple(_logprob(other) for other in islice(others, MOST_ALTERNATIVES))
    token = TokenLogprob.of(_data(row), float(row["logprob"]), alternatives)
    return replace(token, text=printable(token.text))


def _data(row: Mapping[str, Any]) -> bytes:
    """The bytes of a token: not every service gives them, and its text may be half a character."""
    data = row.get("bytes")
    if isinstance(data, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        return bytes(data)
    return _text(row.get("token")).encode()


def _text(value: object) -> str:
    """The text of a field: a string, or a list of parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return printable(value) if isinstance(value, str) else ""


def usage_of(event: Event) -> Usage | None:
    """The token counts of an event that has them.

    >>> usage_of({"usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}})
    Usage(input_tokens=9, output_tokens=2, estimated=False, reused_tokens=8, reasoning_tokens=None)
    """
    usage = event.get("usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("completion_tokens"), int):
        return None
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage["completion_tokens"]),
        reused_tokens=_count(_detail(usage, "prompt_tokens_details", "cached_tokens")),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    """A count that a service may give or not."""
    details = usage.get(group)
    found = details.get(name) if isinstance(details, dict) else None
    return None if found is None else _count(found)


def cost_of(event: Event) -> Cost | None:
    """What the service itself says that it takes, in US dollars, as OpenRouter does.

    >>> cost_of({"usage": {"completion_tokens": 2, "cost": 0.00012}})
    Cost(amount=0.00012, about='', source='told by the service with the answer')
    """
    usage = event.get("usage")
    amount = usage.get("cost") if isinstance(usage, dict) else None
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < LARGEST_COST:
        return None
    return Cost(float(amount), source="told by the service with the answer")


def _count(value: object) -> int:
    return max(0, value) if isinstance(value, int) else 0


_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Text without terminal escapes and control characters; a lone surrogate, which no file can hold, becomes U+FFFD.

    >>> printable("a\\x00b\\x1b[31mred\\n")
    'abred\\n'
    """
    return _SURROGATE.sub("\ufffd", _ESCAPE.sub("", text))


def names(service: Service) -> tuple[str, ...]:
    """The models a service lists, asked with a short time limit. Raises MultimodelError."""
    return _names(rows(service))


def rows(service: Service) -> tuple[Event, ...]:
    """The same as objects, with all that the service says of them. Raises MultimodelError."""
    wire = Wire(service.key)
    replies = pump(
        lambda: guarded(lambda: _read_rows(wire, service), lambda e: translated(e, service, "")),
        wire.hang_up,
        first_timeout=LIST_TIMEOUT,
        stall_timeout=LIST_TIMEOUT,
    )
    with wire.client, closing(replies):
        return next((reply.item for reply in replies if reply), ())


def _read_rows(wire: Wire, service: Service) -> Generator[tuple[Event, ...]]:
    headers = {"Authorization": f"Bearer {service.key or PLACEHOLDER}"}
    with wire.client.stream("GET", f"{service.base_url}/models", headers=headers, timeout=LIST_TIMEOUT) as response:
        if not response.is_success:
            response.read()
            response.raise_for_status()
        found = parsed(whole(response.iter_bytes(), LIST_LIMIT)).get("data")
    yield tuple(row for row in found if isinstance(row, dict)) if isinstance(found, list) else ()


def _names(found: Iterable[Event]) -> tuple[str, ...]:
    """Each once, in their order."""
    ids = [row.get("id") for row in found]
    return tuple(dict.fromkeys(printable(name) for name in ids if isinstance(name, str) and name))
