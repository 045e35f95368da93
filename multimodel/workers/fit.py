"""What of a conversation fits into a model's context. Pure, so that every runtime leaves out the same messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import ContextLengthExceeded
from ..types import Message, PromptSize

FIRST_LOOK = 16  # characters of a text for each token of the context: most have four a token
FAR = 2  # times the context: whoever is as far beyond it in a part of a text need not see the rest


class Reading(NamedTuple):
    """The tokens of a rendered conversation; of one that is far too long only about how many."""

    size: int
    tokens: list[int]
    estimated: bool = False  # then there are no tokens


Read = Callable[[Sequence[Message]], Reading]
"""Renders a conversation and reads it."""


class Fitted(NamedTuple):
    """The messages that are sent, how many older ones are not, and the tokens of those that are."""

    kept: tuple[Message, ...]
    dropped: int
    tokens: list[int]


def reading(text: str, tokens: Callable[[str], list[int]], context_length: int) -> Reading:
    """A text as `tokens` cuts it, or an estimate from its beginning where that alone is twice the context.

    Cutting takes a second for each megabyte, and all answers of a model wait for it.

    >>> reading("a b", str.split, 4), reading("abc " * 1000, str.split, 4)
    (Reading(size=2, tokens=['a', 'b'], estimated=False), Reading(size=1000, tokens=[], estimated=True))
    """
    size = FIRST_LOOK * context_length
    while size < len(text):
        found = len(tokens(text[:size]))
        if found > FAR * context_length:
            return Reading(found * len(text) // size, [], estimated=True)
        size *= 4
    whole = tokens(text)
    return Reading(len(whole), whole)


def reserve(max_tokens: int | None, context_length: int) -> int:
    """Tokens to keep free for the answer: what was asked for, at most a quarter of the context.

    >>> reserve(None, 4096), reserve(64, 4096), reserve(1024, 512)
    (1024, 64, 128)
    """
    quarter = context_length // 4
    return quarter if max_tokens is None else min(max_tokens, quarter)


def fit(messages: Sequence[Message], read: Read, context_length: int, reserve: int) -> Fitted:
    """Leave out the oldest turns, never a system message, until prompt and `reserve` tokens of answer fit.

    What is kept of the history begins with a user message, as most chat templates demand. The last one may eat into
    the reserve. Raises ContextLengthExceeded where it does not fit even alone.

    >>> turns = [Message("user", "a b"), Message("assistant", "c"), Message("user", "d e")]
    >>> words = lambda some: reading(" ".join(m.content for m in some), str.split, 6)
    >>> fit(turns, words, context_length=6, reserve=2).dropped
    2
    """
    read = _once(read)
    if read(messages).size + reserve <= context_length:
        return Fitted(tuple(messages), 0, read(messages).tokens)
    starts = [i for i, m in enumerate(messages) if m.role == "user"] or [len(messages) - 1]
    low, high = 0, len(starts) - 1
    while low < high:  # the later the start, the shorter the prompt
        middle = (low + high) // 2
        fits = read(_since(messages, starts[middle])).size + reserve <= context_length
        low, high = (low, middle) if fits else (middle + 1, high)
    kept = _since(messages, starts[low])
    needed, tokens, estimated = read(kept)
    if needed >= context_length:
        about = "about " if estimated else ""
        raise ContextLengthExceeded(
            f"The message takes {about}{needed} tokens, the model's context holds {context_length}.",
            hint="Shorten it, or load the model with a larger context length.",
        )
    return Fitted(kept, len(messages) - len(kept), tokens)


def _once(read: Read) -> Read:
    """The same for parts of one conversation that are told apart by their lengths, each read once."""
    known: dict[int, Reading] = {}

    def known_or_read(some: Sequence[Message]) -> Reading:
        if len(some) not in known:
            known[len(some)] = read(some)
        return known[len(some)]

    return known_or_read


def measured(messages: Sequence[Message], read: Read, context_length: int) -> PromptSize:
    """The size of the whole conversation, and how many messages `fit` would leave out."""
    read = _once(read)
    whole = read(messages)
    try:
        dropped = fit(messages, read, context_length, reserve(None, context_length)).dropped
    except ContextLengthExceeded:
        dropped = 0  # leaving out does not help: `tokens` above `context_length` says so
    return PromptSize(whole.size, context_length, dropped, whole.estimated)


def left_out(dropped: int) -> str:
    """The note of an answer whose history was cut.

    >>> left_out(1)
    'The oldest message was left out: the conversation is longer than the context.'
    """
    which = "message was" if dropped == 1 else f"{dropped} messages were"
    return f"The oldest {which} left out: the conversation is longer than the context."


def _since(messages: Sequence[Message], start: int) -> tuple[Message, ...]:
    return tuple(m for i, m in enumerate(messages) if i >= start or m.role == "system")
