"""Asking a batch: one model at a time, warm, one answer after another, so that figures are those of a model alone."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine import Engine
from ..errors import BatchError, MultimodelError
from ..store import forms
from ..store.forms import Ending, Form
from ..types import Message, Snapshot
from .plan import Batch, Item

ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that has ended, and the most memory that its model was seen to take."""

    item: Item
    answer: Snapshot
    memory: int = 0  # bytes, resident; 0: not on this machine


@dataclass(frozen=True, slots=True)
class BatchUpdate:
    """A batch as it stands. Each one replaces the one before."""

    done: int
    total: int
    errors: int = 0
    item: Item | None = None  # what is being answered
    answer: Snapshot | None = None  # its answer so far
    seconds_left: float | None = None  # None until an answer of this session has ended

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.done == self.total


def run(batch: Batch, folder: Path, engine: Engine, *, retry: bool = False) -> Generator[BatchUpdate]:
    """Ask what the folder does not hold yet; with `retry` also what ended in an error.

    Every answer is written down as it ends: closing this, or any end of the process, loses the one under way at most.
    Errors of answers are kept as answers. Raises BatchError where the folder cannot be written.
    """
    batch.save(folder)
    done = {one.item: one for one in answers(folder, batch)}
    if retry:
        done = {item: one for item, one in done.items() if not one.answer.error}
    left = [item for item in batch.items() if item not in done]
    update = BatchUpdate(len(done), len(batch), sum(one.answer.error is not None for one in done.values()))
    yield update
    took = list[float]()
    for number, item in enumerate(left):
        began = time.perf_counter()
        one = yield from _answered(batch, item, engine, update)
        _append(folder, one)
        took.append(time.perf_counter() - began)
        failed = update.errors + (one.answer.error is not None)
        mean = sum(took[-50:]) / len(took[-50:])
        update = replace(update, done=update.done + 1, errors=failed, seconds_left=mean * (len(left) - number - 1))
        yield update
        if number + 1 == len(left) or left[number + 1].model != item.model:
            engine.unload(batch.models[item.model])


def _answered(batch: Batch, item: Item, engine: Engine, update: BatchUpdate) -> Generator[BatchUpdate, None, Answered]:
    """Ask one; what comes meanwhile is told."""
    model, setting = batch.models[item.model], batch.settings[item.setting]
    messages = [Message("system", setting.system)] if setting.system.strip() else []
    messages.append(Message("user", batch.prompts[item.prompt]))
    answer, memory = None, 0
    with closing(engine.ask(model, messages, setting.params)) as snapshots:
        for answer in snapshots:
            yield replace(update, item=item, answer=answer)
    with suppress(MultimodelError):
        memory = getattr(engine.backend(model), "memory", int)()
    if not answer or not answer.done:
        raise BatchError(f"{model} ended without an end.", hint="Go on with the batch.")
    return Answered(item, answer, memory)


def _append(folder: Path, one: Answered) -> None:
    """Write an answer down so that it stays."""
    try:
        with (folder / ANSWERS).open("ab") as file:
            if file.tell() and not _ends_with_newline(folder / ANSWERS):
                file.write(b"\n")  # an earlier end of the process cut the line before
            file.write(_line(one) + b"\n")
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
                one = _of_line(line, batch)
                found[one.item] = one
    yield from (found[item] for item in batch.items() if item in found)


class Line(Form):
    """An answer in the file."""

    item: tuple[int, int, int, int]
    text: str
    reasoning: str = ""
    memory: int = 0
    end: Ending


def _line(one: Answered) -> bytes:
    answer = one.answer
    form = Line(
        item=one.item, text=answer.text, reasoning=answer.reasoning, memory=one.memory, end=forms.ending(answer)
    )
    return form.model_dump_json(exclude_defaults=True).encode()


def _of_line(text: str, batch: Batch) -> Answered:
    """The inverse of `_line`. Raises ValueError or IndexError for what is none of the batch."""
    form = Line.model_validate_json(text)
    item = Item(*form.item)
    sizes = (len(batch.models), len(batch.settings), len(batch.prompts), batch.repeats)
    if not all(0 <= place < size for place, size in zip(item, sizes, strict=True)):
        raise IndexError(item)
    return Answered(item, forms.answer(batch.models[item.model], form.text, form.reasoning, form.end), form.memory)
