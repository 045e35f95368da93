"""Leaving out the oldest turns of a conversation that is longer than the context."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from multimodel.errors import ContextLengthExceeded
from multimodel.types import Message
from multimodel.workers.fit import FIRST_LOOK, Reading, fit, left_out, measured, reading

WORDS = {word: i for i, word in enumerate(["and", "now", "q", "a", "be", "kind", *map(str, range(10))])}


def words(messages: Sequence[Message]) -> Reading:
    found = [WORDS.get(word, -1) for message in messages for word in message.content.split()]
    return Reading(len(found), found)


def talk(turns: int, system: str = "") -> list[Message]:
    """A conversation of `turns` exchanges of two words each side, and a last question of two words."""
    head = [Message("system", system)] if system else []
    pairs = [m for i in range(turns) for m in (Message("user", f"q {i}"), Message("assistant", f"a {i}"))]
    return [*head, *pairs, Message("user", "and now")]


def test_what_fits_stays_whole() -> None:
    assert fit(talk(2), words, context_length=10, reserve=0) == (tuple(talk(2)), 0, words(talk(2)).tokens)


@pytest.mark.parametrize("room", range(6, 46))
def test_it_keeps_as_many_turns_as_fit_and_begins_with_a_user(room: int) -> None:
    kept, dropped, tokens = fit(talk(10), words, context_length=room + 2, reserve=2)
    assert kept == tuple(talk(10)[dropped:])
    assert kept[0].role == "user"
    assert len(tokens) <= room < len(tokens) + 4 or dropped == 0
    assert tokens == words(kept).tokens


def test_the_system_message_is_never_left_out() -> None:
    kept, dropped, _ = fit(talk(5, system="be kind"), words, context_length=9, reserve=1)
    assert (kept[0].content, kept[-1].content, dropped) == ("be kind", "and now", 8)


def test_the_last_message_may_use_the_room_of_the_answer() -> None:
    kept, dropped, _ = fit(talk(3), words, context_length=3, reserve=2)
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


def test_nothing_is_read_twice() -> None:
    read: list[int] = []

    def counted(messages: Sequence[Message]) -> Reading:
        read.append(len(messages))
        return words(messages)

    with pytest.raises(ContextLengthExceeded):
        fit([Message("user", "q " * 9)], counted, context_length=5, reserve=1)
    measured([Message("user", "q " * 9)], counted, context_length=5)
    assert read == [1, 1]
    read.clear()
    fit(talk(10), counted, context_length=9, reserve=1)
    assert len(read) == len(set(read))


def test_of_a_text_that_is_far_too_long_only_the_beginning_is_cut() -> None:
    cut: list[int] = []

    def letters(text: str) -> list[int]:
        cut.append(len(text))
        return list(text.encode())

    def read(messages: Sequence[Message]) -> Reading:
        return reading(messages[-1].content, letters, 100)

    long = [Message("user", "x" * 1_000_000)]
    with pytest.raises(
        ContextLengthExceeded, match=r"^The message takes about 1000000 tokens, .* context holds 100\.$"
    ):
        fit(long, read, context_length=100, reserve=1)
    assert cut == [FIRST_LOOK * 100]
    size = measured(long, read, context_length=100)
    assert (size.tokens, size.dropped, size.estimated) == (1_000_000, 0, True)


def test_a_long_text_of_few_tokens_is_cut_whole() -> None:
    def of_thousands(text: str) -> list[int]:
        return [0] * -(-len(text) // 1000)

    assert reading("x" * 90_000, of_thousands, 100) == Reading(90, [0] * 90)
