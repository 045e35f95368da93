"""Does unloading give every byte back? Load, ask and unload a model fifty times: memory of the app before and after.

The model's memory is that of its process, which ends; what could grow is the app: threads, pipes, queues, caches.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from multimodel.engine import Engine
from multimodel.types import Message, ModelId, SamplingParams

from . import report
from .report import Report, Table

TARGET = 20  # MiB
ROUNDS = 50
ASK = [Message("user", "What is a token?")]
MODELS = (ModelId("gguf", "guide"), ModelId("transformers", "guide"))


@dataclass(frozen=True)
class Footprint:
    """What the app holds. Memory in bytes."""

    memory: int
    files: int
    threads: int
    children: int


def footprint() -> Footprint:
    """As it is now."""
    gc.collect()
    here = psutil.Process()
    files = here.num_fds() if hasattr(here, "num_fds") else here.num_handles()
    return Footprint(here.memory_info().rss, files, here.num_threads(), len(here.children(recursive=True)))


@dataclass(frozen=True)
class Rounds:
    """One model, loaded and unloaded."""

    model: ModelId
    before: Footprint  # after one round, which brings in what is needed once
    after: Footprint
    seconds: float  # of a round
    child: int  # bytes of the model's process, the largest of the rounds


def rounds(engine: Engine, model: ModelId, count: int) -> Rounds:
    """Load, ask and unload so many times after a first."""
    largest = once(engine, model)
    before, began = footprint(), time.perf_counter()
    for _ in range(count):
        largest = max(largest, once(engine, model))
    return Rounds(model, before, footprint(), (time.perf_counter() - began) / count, largest)


def once(engine: Engine, model: ModelId) -> int:
    """The bytes of the model's process after an answer; it has ended then."""
    *_, last = engine.ask(model, ASK, SamplingParams(max_tokens=8))
    if last.error:
        raise last.error
    (resident,) = engine.pool.residents()
    engine.pool.unload(resident.key)
    return resident.measured


def measure(count: int) -> Report:
    """The table."""
    with Engine() as engine:
        found = [rounds(engine, model, count) for model in MODELS]
    columns = (
        *("model", "rounds", "its process, MiB", "app before, MiB", "app after, MiB", "growth, MiB"),
        *("open files", "threads", "processes left", "s a round"),
    )
    return Report(
        name="unload",
        title=f"Memory after {count} load and unload rounds (target +{TARGET} MiB or less)",
        tables=(Table(columns, tuple(_row(one, count) for one in found)),),
        notes=(
            "Resident memory of the app, after one round that brings in what is needed once.",
            "The process left is not a model's: it keeps llama.cpp ready to be asked what a model takes.",
        ),
        packages=("llama-cpp-python", "torch", "transformers"),
    )


def _row(one: Rounds, count: int) -> tuple[str, ...]:
    def change(of: Callable[[Footprint], int]) -> str:
        return f"{of(one.after) - of(one.before):+d}"

    growth = (one.after.memory - one.before.memory) / 2**20
    return (
        str(one.model),
        str(count),
        f"{one.child / 2**20:.0f}",
        f"{one.before.memory / 2**20:.1f}",
        f"{one.after.memory / 2**20:.1f}",
        f"**{growth:+.1f}**",
        change(lambda f: f.files),
        change(lambda f: f.threads),
        str(one.after.children),
        f"{one.seconds:.1f}",
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    options = parser.parse_args(argv)
    before = report.load()
    return report.finish(measure(1 if options.tiny else ROUNDS), options, before, "1 a model")


if __name__ == "__main__":
    sys.exit(main())
