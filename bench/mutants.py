"""Damaged and hostile model files by the hundred: the app lives, and each answer says what happened.

Mutants of a good GGUF or safetensors file are asked a question through the engine. A mutant is answered (the damage
does not show), refused, or ends its child process; anything else is a defect: an error without a hint, an answer that
does not end, a process left behind.
"""

from __future__ import annotations

import random
import shutil
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gguf import GGUFReader

from multimodel.engine import Engine
from multimodel.errors import WorkerCrashed
from multimodel.settings import PerformanceSettings, Settings
from multimodel.types import Message, ModelId, SamplingParams, Snapshot

from . import report
from .report import ROOT, Report, Table

GUIDE = ROOT / "assets" / "guide"
NUMBERS = (0, 1, 2**16, 2**31 - 1, 2**32 - 1)
LARGE_NUMBERS = (*NUMBERS, 2**40, 2**60, 2**63, 2**64 - 1)
SLOW = 300.0  # seconds after which an answer counts as one that does not end

Change = Callable[[bytearray, int, random.Random], None]


def cut(data: bytearray, header: int, rng: random.Random) -> None:
    """Lose the end."""
    del data[rng.choice((rng.randrange(header), rng.randrange(len(data)))) :]


def flip(data: bytearray, header: int, rng: random.Random) -> None:
    """Flip some bits of the header."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(header)] ^= 1 << rng.randrange(8)


def small(data: bytearray, header: int, rng: random.Random) -> None:
    """Put another 32-bit number into the header."""
    struct.pack_into("<I", data, rng.randrange(header - 4), rng.choice(NUMBERS))


def large(data: bytearray, header: int, rng: random.Random) -> None:
    """Put another 64-bit number into the header, often where the counts are."""
    at = rng.choice((0, 8, 16, rng.randrange(header - 8)))
    struct.pack_into("<Q", data, at, rng.choice(LARGE_NUMBERS))


def blank(data: bytearray, header: int, rng: random.Random) -> None:
    """Lose a stretch of the header, as a bad disk does."""
    at, size = rng.randrange(header - 1), rng.randint(1, 64)
    data[at : min(at + size, header)] = bytes(min(at + size, header) - at)


def move(data: bytearray, header: int, rng: random.Random) -> None:
    """Insert or remove some bytes, so that everything behind them has moved."""
    at, size = rng.randrange(header - 16), rng.randint(1, 16)
    data[at : at + rng.choice((0, size))] = rng.randbytes(rng.choice((0, size)))


CHANGES: tuple[Change, ...] = (cut, flip, small, large, blank, move)


def mutants(good: bytes, header: int, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Changed copies of a file with the name of the change; `header` is how many bytes come before the weights."""
    rng = random.Random(seed)
    for number in range(count):
        change, data = CHANGES[number % len(CHANGES)], bytearray(good)
        change(data, header, rng)
        yield change.__name__, bytes(data)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    change: str
    end: str  # "answered", "refused", "crashed" or "defect"
    seconds: float
    said: str = ""


def judge(change: str, answer: Snapshot, seconds: float) -> Outcome:
    """Name the end of an answer."""
    error = answer.error
    if seconds > SLOW:
        return Outcome(change, "defect", seconds, "took too long")
    if error is None:
        return Outcome(change, "answered" if answer.finish_reason else "defect", seconds)
    end = "crashed" if isinstance(error, WorkerCrashed) else "refused"
    return Outcome(change, end if error.hint and str(error) else "defect", seconds, str(error))


def trial(engine: Engine, model: ModelId, change: str) -> Outcome:
    """Ask one mutant and unload it."""
    began = time.perf_counter()
    params = SamplingParams(temperature=0.0, max_tokens=4)
    *_, last = engine.ask(model, [Message("user", "Hello")], params)
    engine.unload(model)
    return judge(change, last, time.perf_counter() - began)


def gguf_trials(good: Path, seed: int, count: int) -> Iterator[Outcome]:
    """Mutants of a GGUF file."""
    data, header = good.read_bytes(), int(GGUFReader(good).data_offset)
    with TemporaryDirectory() as folder, Engine(_settings()) as engine:
        for number, (change, changed) in enumerate(mutants(data, header, seed, count)):
            path = Path(folder, f"mutant-{number}.gguf")
            path.write_bytes(changed)
            yield trial(engine, ModelId("gguf", str(path)), change)
            path.unlink()


def safetensors_trials(good: Path, seed: int, count: int) -> Iterator[Outcome]:
    """Mutants of the weights in a folder of transformers."""
    data = (good / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    with TemporaryDirectory() as folder, Engine(_settings()) as engine:
        for number, (change, changed) in enumerate(mutants(data, header, seed, count)):
            path = Path(folder, f"mutant-{number}")
            shutil.copytree(good, path, ignore=shutil.ignore_patterns("*.safetensors"))
            (path / "model.safetensors").write_bytes(changed)
            yield trial(engine, ModelId("transformers", str(path)), change)
            shutil.rmtree(path)


def _settings() -> Settings:
    return Settings(performance=PerformanceSettings(threads=1))


def row(label: str, outcomes: list[Outcome]) -> tuple[str, ...]:
    """One row of the table."""
    ends = Counter(outcome.end for outcome in outcomes)
    counts = [str(ends[end]) for end in ("answered", "refused", "crashed")]
    longest = max(outcome.seconds for outcome in outcomes)
    return (label, str(len(outcomes)), *counts, f"**{ends['defect']}**", f"{longest:.1f}")


def measure(seed: int, ggufs: int, folders: int) -> Report:
    """The table, on the guide's files."""
    found = {
        "GGUF": list(gguf_trials(GUIDE / "guide-q8_0.gguf", seed, ggufs)),
        "safetensors": list(safetensors_trials(GUIDE / "hf", seed, folders)),
    }
    for outcome in (outcome for outcomes in found.values() for outcome in outcomes if outcome.end == "defect"):
        print(outcome, file=sys.stderr)
    head = ("mutants of", "files", "answered", "refused", "ended their child", "defects", "longest, s")
    return Report(
        name="mutants",
        title="Damaged and hostile model files (target: no defect)",
        tables=(Table(head, tuple(row(label, outcomes) for label, outcomes in found.items())),),
        notes=(
            f"Seed {seed}: {', '.join(change.__name__ for change in CHANGES)} in turn, mostly in the header.",
            "Answered: the damage does not keep the model from answering. Refused: an error with a hint, and the app "
            "goes on. A child that ends is such an error too, and the next question starts it anew.",
        ),
        packages=("llama-cpp-python", "transformers", "safetensors"),
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ggufs", type=int, default=600, help="how many GGUF files")
    parser.add_argument("--folders", type=int, default=60, help="how many folders of transformers")
    options = parser.parse_args(argv)
    before = report.load()
    counts = (6, 1) if options.tiny else (options.ggufs, options.folders)
    return report.finish(measure(options.seed, *counts), options, before, "1")


if __name__ == "__main__":
    sys.exit(main())
