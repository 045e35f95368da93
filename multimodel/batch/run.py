"""Asking a batch: one model at a time, warm, one answer after another, so that figures are those of a model alone."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import filelock
from pydantic import Field

from ..conversation import now
from ..engine import Engine
from ..errors import BatchError, MultimodelError
from ..provenance import Provenance, provenance
from ..store import forms
from ..store.forms import LATEST, Ending, Form
from ..types import Message, ModelSpec, Snapshot
from . import machine
from .plan import Batch, Item

ANSWERS = "answers.jsonl"
LOCK = ".lock"
BEAT = 0.25  # seconds between two looks at whether a chat has ended
POLITE = "A chat is being answered; the batch goes on after it."


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that has ended, and what was seen of its model."""

    item: Item
    answer: Snapshot
    memory: int = 0  # bytes, resident, the most seen; 0: not on this machine
    source: Provenance = field(default_factory=Provenance)
    at: float = 0.0  # seconds since 1970 when it ended
    shared: bool = False  # another answer ran on this machine meanwhile: its times are not those of a model alone
    prefix: int | None = None  # tokens of the text that `run` was asked to measure


@dataclass(frozen=True, slots=True)
class Count:
    """How far one model is."""

    done: int
    total: int
    errors: int = 0
    seconds: float | None = None  # that an answer takes, the mean of the last ones


@dataclass(frozen=True, slots=True)
class BatchUpdate:
    """A batch as it stands. Each one replaces the one before."""

    done: int
    total: int
    errors: int = 0
    item: Item | None = None  # what is being answered
    answer: Snapshot | None = None  # its answer so far
    seconds_left: float | None = None  # None until an answer has ended
    counts: tuple[Count, ...] = ()  # of each model
    waiting: str = ""  # why nothing is asked just now

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.done == self.total

    @property
    def guessed(self) -> bool:
        """Whether the time left is a guess for a model that was not asked yet."""
        return any(not count.done for count in self.counts)


Prefix = Callable[[Item, Snapshot], str]
"""The part of an answer whose tokens are to be counted while its model is loaded; "" for none."""


def run(
    batch: Batch, folder: Path, engine: Engine, *, retry: bool = False, prefix: Prefix | None = None
) -> Generator[BatchUpdate]:
    """Ask what the folder does not hold yet; with `retry` also what ended in an error.

    Every answer is written down as it ends: closing this, or any end of the process, loses the one under way at most.
    Errors of answers are kept as answers. Local models wait their turn behind chats. Raises BatchError where the folder
    cannot be written, or where another process is asking the same batch.
    """
    batch.save(folder)
    with _alone(folder):
        machine.record(folder, engine)
        found = {one.item: one for one in answers(folder, batch)}
        done = {item: one for item, one in found.items() if not (retry and one.answer.error)}
        left = [item for item in batch.items() if item not in done]
        pace = Pace(batch, done.values())
        yield pace.update()
        warm: ModelSpec | None = None  # a model that was loaded before we came, which stays
        for number, item in enumerate(left):
            spec = batch.spec(item)
            if not number or batch.spec(left[number - 1]) != spec:
                warm = spec if _loaded(spec, engine) else None
            yield from _wait(spec, engine, pace.update(item))
            began = time.perf_counter()
            one = yield from _answered(batch, item, engine, pace.update(item), prefix)
            _append(folder, one)
            pace.ended(one, time.perf_counter() - began)
            yield pace.update()
            if (number + 1 == len(left) or batch.spec(left[number + 1]) != spec) and spec != warm:
                engine.release(spec)


class Pace:
    """How far a batch is, and how long it will still take."""

    def __init__(self, batch: Batch, done: Iterable[Answered]) -> None:
        self._batch = batch
        each = len(batch) // len(batch.models)
        self._counts = [Count(0, each) for _ in batch.models]
        self._took: list[deque[float]] = [deque(maxlen=50) for _ in batch.models]
        for one in done:
            timing = one.answer.timing
            self.ended(one, timing.loading + (timing.total or 0.0))

    def ended(self, one: Answered, seconds: float) -> None:
        """An answer has ended after so long."""
        count = self._counts[one.item.model]
        errors = count.errors + (one.answer.error is not None)
        took = self._took[one.item.model]
        took.append(seconds)
        self._counts[one.item.model] = replace(count, done=count.done + 1, errors=errors, seconds=fmean(took))

    def update(self, item: Item | None = None) -> BatchUpdate:
        """The batch as it stands."""
        done, errors = sum(count.done for count in self._counts), sum(count.errors for count in self._counts)
        return BatchUpdate(done, len(self._batch), errors, item, None, self._left(), tuple(self._counts))

    def _left(self) -> float | None:
        """Seconds, by the mean of each model; a model that was not asked yet is taken for as fast as the others."""
        known = [seconds for took in self._took for seconds in took]
        if not known:
            return None
        means = (fmean(took or known) for took in self._took)
        return sum(mean * (count.total - count.done) for mean, count in zip(means, self._counts, strict=True))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        hint = "Wait for it, or stop it where it was started."
        raise BatchError(f"The batch in {folder} is being asked by another process.", hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def _loaded(spec: ModelSpec, engine: Engine) -> bool:
    with suppress(MultimodelError):
        return getattr(engine.backend(spec), "facts", None) is not None
    return False


def _wait(spec: ModelSpec, engine: Engine, update: BatchUpdate) -> Generator[BatchUpdate]:
    """Let the chats of this machine go first."""
    capabilities = engine.capabilities(spec)
    while capabilities and capabilities.local and engine.answering():
        yield replace(update, waiting=POLITE)
        time.sleep(BEAT)


def _answered(
    batch: Batch, item: Item, engine: Engine, update: BatchUpdate, prefix: Prefix | None
) -> Generator[BatchUpdate, None, Answered]:
    """Ask one; what comes meanwhile is told."""
    spec, setting = batch.spec(item), batch.settings[item.setting]
    messages = [Message("system", setting.system)] if setting.system.strip() else []
    messages.append(Message("user", batch.prompts[item.prompt]))
    answer, shared = None, False
    with closing(engine.ask(spec, messages, setting.params)) as snapshots:
        for answer in snapshots:
            shared = shared or engine.answering()
            yield replace(update, answer=answer)
    if not answer or not answer.done:
        raise BatchError(f"{spec.id} ended without an end.", hint="Go on with the batch.")
    counted = _tokens(spec, engine, prefix(item, answer) if prefix else "")
    return Answered(item, answer, answer.memory or 0, provenance(spec, engine.settings), now(), shared, counted)


def _tokens(spec: ModelSpec, engine: Engine, text: str) -> int | None:
    """The tokens of a text, by the model itself; None where it does not say."""
    if not text:
        return None
    sizes = [engine.measure(spec, [Message("user", each)]) for each in (text, "")]
    return sizes[0].tokens - sizes[1].tokens if sizes[0] and sizes[1] else None


def _append(folder: Path, one: Answered) -> None:
    """Write an answer down so that it stays."""
    try:
        with (folder / ANSWERS).open("ab") as file:
            if file.tell() and not _ends_with_newline(folder / ANSWERS):
                file.write(b"\n")  # an earlier end of the process cut the line before
            file.write(Line.of(one).model_dump_json(exclude_defaults=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        hint = "Make room and go on with the batch: what was answered before is kept."
        raise BatchError(f"The answer could not be written to {folder}: {error}", hint=hint) from error


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def answers(folder: Path, batch: Batch) -> Iterator[Answered]:
    """What the folder holds of a batch, the newest of each; lines that are cut are left out."""
    found: dict[Item, Answered] = {}
    with suppress(FileNotFoundError), (folder / ANSWERS).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, IndexError):
                one = Line.model_validate_json(line).answered(batch)
                found[one.item] = one
    yield from (found[item] for item in batch.items() if item in found)


class Line(Form):
    """An answer in the file."""

    item: tuple[int, int, int, int]
    text: str
    reasoning: str = ""
    memory: int = Field(0, ge=0)
    end: Ending
    source: Provenance = Provenance()
    at: float = Field(0.0, ge=0, le=LATEST)
    shared: bool = False
    prefix: int | None = None

    @classmethod
    def of(cls, one: Answered) -> Line:
        """The line of an answer."""
        answer = one.answer
        return cls(
            item=one.item,
            text=answer.text,
            reasoning=answer.reasoning,
            memory=one.memory,
            end=forms.ending(answer),
            source=one.source,
            at=one.at,
            shared=one.shared,
            prefix=one.prefix,
        )

    def answered(self, batch: Batch) -> Answered:
        """The inverse of `of`. Raises IndexError for what is none of the batch."""
        item = Item(*self.item)
        if item not in batch:
            raise IndexError(item)
        answer = forms.answer(batch.models[item.model], self.text, self.reasoning, self.end)
        return Answered(item, answer, self.memory, self.source, self.at, self.shared, self.prefix)
