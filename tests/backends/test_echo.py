"""The model without weights."""

from __future__ import annotations

import pytest

from multimodel.backends.echo import EchoBackend
from multimodel.types import Message, ModelId, SamplingParams, collect

TEXT = "x  y\nz "
ASK = [
    Message("system", "Be kind."),
    Message("user", "a  b\nc "),
    Message("assistant", "no"),
    Message("user", TEXT),
]


@pytest.mark.parametrize(
    ("limit", "text", "reason"), [(None, TEXT, "stop"), (3, TEXT, "stop"), (2, "x  y\n", "length")]
)
def test_it_says_the_last_user_message_again(limit: int | None, text: str, reason: str) -> None:
    said, last = collect(EchoBackend(ModelId("echo", "any")).stream(ASK, SamplingParams(max_tokens=limit)))
    assert (said, last.finish_reason) == (text, reason)
    assert last.usage and last.usage.output_tokens == min(limit or 3, 3)


def test_nothing_to_say_is_an_answer_too() -> None:
    said, last = collect(EchoBackend(ModelId("echo", "any")).stream([], SamplingParams()))
    assert (said, last.finish_reason) == ("", "stop")
