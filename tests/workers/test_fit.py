"""Leaving out the oldest turns of a conversation that is longer than the context."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from multimodel.errors import ContextLengthExceeded
from multimodel.types import Message
from multimodel.workers.fit import fit, left_out, measured


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def talk(turns: int, system: str = "") -> list[Message]:
    """A conversation of `turns` exchanges of two words each side, and a last question of two words."""
    head = [Message("system", system)] if system else []
    pairs = [m for i in range(turns) for m in (Message("user", f"q {i}"), Message("assistant", f"a {i}"))]
    return [*head, *pairs, Message("user", "and now")]


def test_what_fits_stays_whole() -> None:
    assert fit(talk(2), words, context_length=10, reserve=0) == (tuple(talk(2)), 0)


@pytest.mark.parametrize("room", range(6, 46))
def test_it_keeps_as_many_turns_as_fit_and_begins_with_a_user(room: int) -> None:
    kept, dropped = fit(talk(10), words, context_length=room + 2, reserve=2)
    assert kept == tuple(talk(10)[dropped:])
    assert kept[0].role == "user"
    assert words(kept) <= room < words(kept) + 4 or dropped == 0


def test_the_system_message_is_never_left_out() -> None:
    kept, dropped = fit(talk(5, system="be kind"), words, context_length=9, reserve=1)
    assert (kept[0].content, kept[-1].content, dropped) == ("be kind", "and now", 8)


def test_the_last_message_may_use_the_room_of_the_answer() -> None:
    kept, dropped = fit(talk(3), words, context_length=3, reserve=2)
    assert ([m.content for m in kept], dropped) == (["and now"], 6)


def test_a_message_too_long_alone_is_refused_with_its_figures() -> None:
    with pytest.raises(ContextLengthExceeded, match=r"5 tokens.*holds 5") as caught:
        fit([Message("user", "one two three four five")], words, context_length=5, reserve=1)
    assert "Shorten" in caught.value.hint


def test_measuring_counts_the_whole_and_says_what_would_be_left_out() -> None:
    size = measured(talk(10), words, context_length=20)  # a quarter of it is kept for the answer
    assert (size.tokens, size.context_length, size.dropped) == (42, 20, 14)


def test_measuring_does_not_raise_where_nothing_helps() -> None:
    size = measured([Message("user", "a b c")], words, context_length=2)
    assert (size.tokens, size.dropped) == (3, 0)


def test_the_note_counts() -> None:
    assert "4 messages were" in left_out(4)
