"""The fair lane: the prompt of a comparison asked again of each model alone, beside the figures of the comparison.

Side by side, models share the machine, the first answer may wait for its model to be loaded, and a prompt that was read
before is not read again. Here each of these is a figure of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, Self

from .errors import InvalidParameter
from .types import Cost, ModelId, Snapshot, Usage

MOST_REPEATS = 10
ROUGH_TOKENS, ROUGH_SECONDS = 40, 0.2
"""Of an answer: below either, its rate is marked rough, for one late token would change it more than one expects."""

FairState = Literal["running", "done", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of one answer; times in seconds."""

    ttft: float | None = None
    rate: float | None = None  # decoding, in tokens per second
    usage: Usage | None = None
    loading: float = 0.0  # until the model could be asked
    alone: bool = True  # nothing else was at work on this machine meanwhile
    error: str = ""
    cost: Cost | None = None

    @classmethod
    def of(cls, answer: Snapshot, *, alone: bool) -> Self:
        """The sample of an answer that has ended."""
        timing = answer.timing
        error = str(answer.error) if answer.error else ""
        return cls(timing.ttft, answer.rate, answer.usage, timing.loading, alone, error, answer.cost)

    @property
    def reused(self) -> float | None:
        """The share of the prompt, 0..1, that a cache held."""
        usage = self.usage
        return usage.reused_tokens / usage.input_tokens if usage and usage.input_tokens else None


@dataclass(frozen=True, slots=True)
class FairModel:
    """The samples of one model."""

    key: str  # of its column
    turn: int  # whose prompt is repeated
    model: ModelId
    beside: Sample  # as it answered side by side
    cold: Sample | None = None  # the first one after it was unloaded: its loading is the cold start
    warm: tuple[Sample, ...] = ()
    note: str = ""

    @property
    def fair(self) -> tuple[Sample, ...]:
        """The samples that count: those that were alone, or where there is none, all that came to an end."""
        good = tuple(sample for sample in self.warm if not sample.error)
        return tuple(sample for sample in good if sample.alone) or good

    @property
    def shared(self) -> int:
        """How many samples were not alone."""
        return sum(not sample.alone for sample in self.warm)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All but the one of the comparison."""
        return (*((self.cold,) if self.cold else ()), *self.warm)


@dataclass(frozen=True, slots=True)
class FairLane:
    """One measurement of all models. Raises InvalidParameter for one that cannot be."""

    number: int  # among those of the conversation
    at: float  # seconds since 1970
    prompt: str
    repeats: int
    cached: bool  # whether a cached prefix was used as usual
    models: tuple[FairModel, ...]
    state: FairState = "running"

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise InvalidParameter(f"repeats is {self.repeats}.", hint=f"Choose 1 to {MOST_REPEATS}.")

    def ended(self, state: FairState) -> FairLane:
        """The same when nothing more will come."""
        return replace(self, state=state)

    @property
    def turns(self) -> frozenset[int]:
        """The turns whose prompt was repeated."""
        return frozenset(model.turn for model in self.models)

    def costs(self, key: str | None = None) -> tuple[Cost | None, ...]:
        """What its answers cost, of a column or of all."""
        return tuple(s.cost for model in self.models if key in (None, model.key) for s in model.samples)


@dataclass(frozen=True, slots=True)
class FairUpdate:
    """Where a measurement stands. Each one replaces the one before."""

    lane: FairLane
    done: int = 0  # answers
    total: int = 0
    doing: str = ""
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured several times."""

    middle: float  # the median
    low: float
    high: float


def spread(samples: Iterable[Sample], figure: Callable[[Sample], float | None]) -> Spread | None:
    """The median and the ends of a figure; None where nothing is known.

    >>> spread([Sample(ttft=0.2), Sample(ttft=0.5), Sample(ttft=0.3), Sample()], lambda sample: sample.ttft)
    Spread(middle=0.3, low=0.2, high=0.5)
    """
    known = [value for sample in samples if (value := figure(sample)) is not None]
    return Spread(median(known), min(known), max(known)) if known else None


def rough(samples: Iterable[Sample]) -> bool:
    """Whether a rate stands on answers so short that one late token changes it, or on tokens that nobody counted.

    >>> rough([Sample(rate=10.0, usage=Usage(1, 40))]), rough([Sample(rate=1000.0, usage=Usage(1, 40))])
    (False, True)
    """
    counted = [(sample.usage, sample.rate) for sample in samples if sample.usage and sample.rate]
    return any(usage.estimated or few(usage.output_tokens, rate) for usage, rate in counted)


def few(tokens: float, rate: float) -> bool:
    """Whether so many tokens are few to tell a rate by, or came in a moment.

    >>> few(40, 10.0), few(39, 10.0), few(40, 1000.0)
    (False, True, True)
    """
    return tokens < max(ROUGH_TOKENS, ROUGH_SECONDS * rate)
