"""What of a conversation fits into a model's context. Pure, so that every runtime leaves out the same messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import ContextLengthExceeded
from ..types import Message, PromptSize

Count = Callable[[Sequence[Message]], int]
"""The number of tokens a conversation takes once it is rendered."""
Read = Callable[[Sequence[Message]], list[int]]
"""The tokens of a conversation."""


class Fitted(NamedTuple):
    """The messages that are sent, and how many older ones are not."""

    kept: tuple[Message, ...]
    dropped: int


def reserve(max_tokens: int | None, context_length: int) -> int:
    """Tokens to keep free for the answer: what was asked for, at most a quarter of the context.

    >>> reserve(None, 4096), reserve(64, 4096), reserve(1024, 512)
    (1024, 64, 128)
    """
    quarter = context_length // 4
    return quarter if max_tokens is None else min(max_tokens, quarter)


def fit_and_read(
    messages: Sequence[Message], read: Read, context_length: int, reserve: int
) -> tuple[Fitted, list[int]]:
    """What fits, and its tokens: rendering and reading a long history takes a while, so it is done once."""
    tokens: list[int] = []

    def count(some: Sequence[Message]) -> int:
        tokens[:] = read(some)
        return len(tokens)

    return fit(messages, count, context_length, reserve), tokens  # what is kept is counted last


def fit(messages: Sequence[Message], count: Count, context_length: int, reserve: int) -> Fitted:
    """Leave out the oldest turns, never a system message, until prompt and `reserve` tokens of answer fit.

    What is kept of the history begins with a user message, as most chat templates demand. The last one may eat into
    the reserve. Raises ContextLengthExceeded where it does not fit even alone.

    >>> turns = [Message("user", "a b"), Message("assistant", "c"), Message("user", "d e")]
    >>> words = lambda some: sum(len(m.content.split()) for m in some)
    >>> fit(turns, words, context_length=6, reserve=2).dropped
    2
    """
    if count(messages) + reserve <= context_length:
        return Fitted(tuple(messages), 0)
    starts = [i for i, m in enumerate(messages) if m.role == "user"] or [len(messages) - 1]
    low, high = 0, len(starts) - 1
    while low < high:  # the later the start, the shorter the prompt
        middle = (low + high) // 2
        fits = count(_since(messages, starts[middle])) + reserve <= context_length
        low, high = (low, middle) if fits else (middle + 1, high)
    kept = _since(messages, starts[low])
    needed = count(kept)
    if needed >= context_length:
        raise ContextLengthExceeded(
            f"The message takes {needed} tokens, the model's context holds {context_length}.",
            hint="Shorten it, or load the model with a larger context length.",
        )
    return Fitted(kept, len(messages) - len(kept))


def measured(messages: Sequence[Message], count: Count, context_length: int) -> PromptSize:
    """The size of the whole conversation, and how many messages `fit` would leave out."""
    tokens = count(messages)
    try:
        dropped = fit(messages, count, context_length, reserve(None, context_length)).dropped
    except ContextLengthExceeded:
        dropped = 0  # leaving out does not help: `tokens` above `context_length` says so
    return PromptSize(tokens, context_length, dropped)


def left_out(dropped: int) -> str:
    """The note of an answer whose history was cut.

    >>> left_out(1)
    'The oldest message was left out: the conversation is longer than the context.'
    """
    which = "message was" if dropped == 1 else f"{dropped} messages were"
    return f"The oldest {which} left out: the conversation is longer than the context."


def _since(messages: Sequence[Message], start: int) -> tuple[Message, ...]:
    return tuple(m for i, m in enumerate(messages) if i >= start or m.role == "system")
