"""A model without weights, key or network: it says again, word by word, what it is told."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Sequence

from ..pool import Pool
from ..settings import Settings
from ..types import Capabilities, Chunk, Message, ModelId, ModelSpec, PromptSize, SamplingParams, Stage, Usage

SLOW = 0.1  # seconds a word of `echo:slow`


class EchoBackend:
    """`echo:any` answers at once, `echo:slow` with about ten words a second."""

    capabilities = Capabilities(params=frozenset({"max_tokens"}), local=True, prefill=True)

    def __init__(self, model: ModelId) -> None:
        self.model = model
        self._delay = SLOW if model.name == "slow" else 0.0

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """The words of the last user message, less what an answer begun already says; a word counts as a token."""
        text = next((m.content for m in reversed(messages) if m.role == "user"), "")
        begun = messages[-1].content if messages and messages[-1].role == "assistant" else ""
        words = pieces(text.removeprefix(begun))
        said = words[: params.max_tokens]
        yield Chunk(stage=Stage("reading"), at=time.perf_counter())
        for word in said:
            time.sleep(self._delay)
            yield Chunk(word, at=time.perf_counter())
        usage = Usage(_count(messages), len(said))
        yield Chunk(finish_reason="length" if len(said) < len(words) else "stop", usage=usage, at=time.perf_counter())

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        """Words; there is no end to its context."""
        return PromptSize(_count(messages), context_length=1_000_000)

    def close(self) -> None:
        """Nothing to give back."""


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> EchoBackend:
    """The echo of any name."""
    return EchoBackend(spec.id)


def pieces(text: str) -> list[str]:
    """The words of a text, each with the space after it, so that joined they are the text again.

    >>> pieces("Hello  big\\nworld")
    ['Hello  ', 'big\\n', 'world']
    """
    return re.findall(r"\s*\S+\s*|\s+", text)


def _count(messages: Sequence[Message]) -> int:
    return sum(len(pieces(m.content)) for m in messages)
