"""A backend that plays a script against a clock that only it and the waits move: no test waits for real."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from multimodel.types import Capabilities, Chunk, Message, ModelId, PromptSize, SamplingParams

Step = float | Chunk | Exception
"""Seconds that pass, a chunk that comes, an error that is raised."""

END = Chunk(finish_reason="stop")


class Clock:
    """A clock that stands still until someone sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted:
    """Each call of `stream` plays the next script."""

    model = ModelId("scripted", "m")
    capabilities = Capabilities(params=frozenset(), local=True)

    def __init__(self, clock: Clock, *scripts: Sequence[Step]) -> None:
        self.calls = 0
        self.closed = 0  # streams that were ended, one way or the other
        self._clock = clock
        self._scripts = scripts

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        script = self._scripts[self.calls]
        self.calls += 1
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    self._clock.sleep(step)
                else:
                    yield step
        finally:
            self.closed += 1

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        return None

    def close(self) -> None:
        """Nothing is held."""
