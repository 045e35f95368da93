"""Tokens a second through the whole engine of the Chat tab, over the library's own loop on the same weights.

Ours: a board asks a model in its child process while a page follows. Bare: `Llama.create_completion(stream=True)` and
`model.generate` in a process with nothing else. One thread each, greedy, the same prompts, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from multimodel.board import Board, Options
from multimodel.engine import Engine
from multimodel.settings import PerformanceSettings, Settings
from multimodel.types import ModelId, SamplingParams
from tabs.live import follow

from . import report
from .bare import Bare, Sample, cpu, gguf_path
from .report import ROOT, Report, Table

DATA = ROOT.parent / "shared" / "data"
PROMPTS = (
    "How do I compare two models side by side?",
    "What is the KV cache and why does it matter?",
    "Tell me how fine-tuning works in this app.",
    "Which quantisation should I choose for a small machine?",
    "What do temperature and top-p do?",
)
TARGET = 0.95


@dataclass(frozen=True)
class Weights:
    """A model that both sides can load."""

    label: str
    model: ModelId
    path: Path


def weights(folders: dict[str, Path]) -> Iterator[Weights]:
    """The models in folders that hold `hf/` and a GGUF file; what is absent is left out."""
    for label, folder in folders.items():
        if path := gguf_path(folder):
            yield Weights(f"{label}, GGUF {path.stem.rpartition('-')[2].upper()}", ModelId("gguf", str(path)), path)
        if (path := folder / "hf").is_dir():
            yield Weights(f"{label}, transformers", ModelId("transformers", str(path)), path)


@dataclass(frozen=True)
class Used:
    """Seconds of processor so far."""

    app: float
    model: float


class Ours:
    """The engine with one thread for models, and a page that follows each answer."""

    def __init__(self, engine: Engine, model: ModelId) -> None:
        self.engine = engine
        self.model = model

    def ask(self, prompt: str, max_tokens: int) -> Sample:
        """One answer to a new board; `seconds` ends when the last event has reached the run. Raises its error."""
        board = Board(self.engine, [self.model], Options(SamplingParams(temperature=0.0, max_tokens=max_tokens)))
        events: list[float] = []
        before, began = self._cpu(), time.perf_counter()
        unwatch = board.watch(lambda: events.append(time.perf_counter()))
        board.send(prompt)
        asyncio.run(_follow(board))
        unwatch()
        events = events or [time.perf_counter()]  # it was over before it could be watched
        answer = board.columns()[0].turns[-1].answer
        if answer.error or not answer.usage or answer.timing.first_token is None:
            raise answer.error or RuntimeError(f"{self.model} said nothing")
        after = self._cpu()
        return Sample(
            prompt_tokens=answer.usage.input_tokens,
            tokens=answer.usage.output_tokens,
            seconds=events[-1] - began,
            first=answer.timing.first_token - began,
            cpu=after.model - before.model,
            app=after.app - before.app,
        )

    def _cpu(self) -> Used:
        return Used(time.process_time(), cpu(*filter(_is_worker, psutil.Process().children())))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "multimodel.workers.child" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


async def _follow(board: Board) -> None:
    async for _ in follow(board, per_second=15):
        pass


Asker = Callable[[str, int], Sample]


def all_prompts(ask: Asker, number: int, max_tokens: int) -> list[Sample]:
    """One round: every prompt once, each beginning with the round, so that no cache knows more than the template."""
    return [ask(f"{number}. {prompt}", max_tokens) for prompt in PROMPTS]


def compare(item: Weights, engine: Engine, rounds: int, max_tokens: int) -> tuple[str, ...]:
    """One row: both sides in turn."""
    ours = Ours(engine, item.model)
    ours.ask(PROMPTS[0], 2)  # loads the model, which tells its data type
    with _bare(item, engine) as bare:
        contestants: dict[str, Callable[[int], list[Sample]]] = {
            "ours": lambda number: all_prompts(ours.ask, number, max_tokens),
            "bare": lambda number: all_prompts(bare.ask, number, max_tokens),
        }
        found = report.in_turn(contestants, rounds)
    engine.unload(item.model)
    return _row(item.label, found["ours"], found["bare"])


def _bare(item: Weights, engine: Engine) -> Bare:
    if item.model.backend == "gguf":
        return Bare("bare_llama", str(item.path), attention(engine, item.model))
    return Bare("bare_torch", str(item.path), str(engine.backend(item.model).facts.dtype))  # type: ignore[attr-defined]


def attention(engine: Engine, model: ModelId) -> str:
    """What `bench.bare_llama` is told so that it attends as a loaded GGUF model of the engine does."""
    return "flash" if engine.backend(model).facts.flash_attention else "plain"  # type: ignore[attr-defined]


def rate(samples: list[Sample]) -> float:
    """Tokens a second from asking to the end, over the answers of a round."""
    return sum(s.tokens for s in samples) / sum(s.seconds for s in samples)


def decoding(samples: list[Sample]) -> float:
    """Tokens after the first over the time after the first, over the answers of a round."""
    return sum(s.tokens - 1 for s in samples) / sum(s.seconds - s.first for s in samples)


def _row(label: str, ours: list[list[Sample]], bare: list[list[Sample]]) -> tuple[str, ...]:
    counts = [(a.prompt_tokens, a.tokens) for answers in ours for a in answers]
    theirs = [(a.prompt_tokens, a.tokens) for answers in bare for a in answers]
    same = sum(a == b for a, b in zip(counts, theirs, strict=True))
    cells = [label, f"{sum(n for _, n in counts) / len(counts):.0f}", f"{same} of {len(counts)}"]
    for figure in (decoding, rate):
        mine, other = list(map(figure, ours)), list(map(figure, bare))
        cells += [f"{median(mine):,.0f}", f"{median(other):,.0f}", f"**{report.paired(mine, other):.2f}**"]
    return (*cells, f"{_cpu_ms(ours, 'cpu'):.2f} + {_cpu_ms(ours, 'app'):.2f}", f"{_cpu_ms(bare, 'cpu'):.2f}")


def _cpu_ms(rounds: list[list[Sample]], whose: str) -> float:
    """Milliseconds of processor a token: over all rounds, because the system counts in steps of 10 ms."""
    samples = [sample for answers in rounds for sample in answers]
    return 1000 * sum(getattr(s, whose) for s in samples) / sum(s.tokens for s in samples)


def measure(folders: dict[str, Path], rounds: int, max_tokens: int) -> Report:
    """The table over all weights that are there."""
    settings = Settings(performance=PerformanceSettings(threads=1))
    with Engine(settings) as engine:
        rows = tuple(compare(item, engine, rounds, max_tokens) for item in weights(folders))
    columns = (
        *("weights", "tokens an answer", "same counts", "ours, decoding tok/s", "bare", "ratio"),
        *("ours, whole answer tok/s", "bare", "ratio", "CPU ms a token, model + app", "bare"),
    )
    return Report(
        name="engine",
        title=f"Engine over bare library loop (target {TARGET} or more)",
        tables=(Table(columns, rows),),
        notes=(
            f"Medians of {rounds} rounds in turn, {len(PROMPTS)} prompts a round; a ratio is the median over rounds.",
            "Decoding: tokens after the first. Whole answer: from a board's `send` to the run's last event, so prompt, "
            "threads, pipe, snapshots and page are in it; of a short answer they are a large part.",
            "CPU: of the model's process and of the app, the page's updates included; it hardly depends on other load.",
            "`same counts`: answers with as many prompt and answer tokens on both sides.",
            "Bare GGUF runs as ours: with flash attention where ours found it quicker, and without AMX buffers where "
            "the processor has AMX: with them llama-cpp-python 0.3.36 ends with SIGSEGV on quantised weights.",
        ),
        packages=("llama-cpp-python", "torch", "transformers"),
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with models/stories260k-chat")
    parser.add_argument("--shape", type=Path, help="a folder with hf/ and gguf/ of any other weights")
    parser.add_argument("--tokens", type=int, default=128, help="the longest answer")
    options = parser.parse_args(argv)
    before = report.load()
    rounds, tokens = (1, 8) if options.tiny else (options.rounds, options.tokens)
    return report.finish(measure(_folders(options), rounds, tokens), options, before, "1 a model")


def _folders(options: argparse.Namespace) -> dict[str, Path]:
    named = {"guide": ROOT / "assets" / "guide", "stories260k-chat": options.data / "models" / "stories260k-chat"}
    return named | ({options.shape.name: options.shape} if options.shape else {})


if __name__ == "__main__":
    sys.exit(main())
