"""Time to first token as the app shows it, over the same where the token is made.

A paced server on loopback knows when a request came and when its first token left. The guide is asked through the
engine and by llama-cpp-python's own loop. Either way a third figure counts from the board's `send` to the first view
of the page's stream with text in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from multimodel.board import Board, Options
from multimodel.engine import Engine
from multimodel.settings import ApiSettings, Endpoint, PerformanceSettings, Settings
from multimodel.types import ModelId, SamplingParams
from tabs.live import follow

from . import report
from .bare import Bare
from .engine import DATA, PROMPTS, Weights, attention, weights
from .isolation import paced
from .peer import Peer, peer
from .report import ROOT, Report, Table
from .screen import Screen

WAITS = (0.0, 0.2)  # seconds before the loopback server's first token


@dataclass(frozen=True)
class First:
    """The first token of one answer, in seconds from where each clock starts."""

    shown: float  # the app's TTFT
    source: float  # the same where the token is made
    view: float  # from the board's `send` to the first view with text


async def _first_view(board: Board) -> float:
    screen, found = Screen(), 0.0
    async for line in follow(board, per_second=15):
        found = found or (time.perf_counter() if screen.take(line) else 0.0)
    return found


def ask(engine: Engine, model: ModelId, prompt: str, source: Callable[[], float]) -> First:
    """One answer on a new board. `source` tells afterwards what the maker of the token measured."""
    board = Board(engine, [model], Options(SamplingParams(temperature=0.0, max_tokens=16)))
    began = time.perf_counter()
    board.send(prompt)
    view = asyncio.run(_first_view(board))
    answer = board.columns()[0].turns[-1].answer
    if answer.error or answer.timing.ttft is None:
        raise answer.error or RuntimeError(f"{model} said nothing")
    return First(answer.timing.ttft, source(), view - began)


def from_server(engine: Engine, server: Peer, wait: float, rounds: int) -> list[First]:
    """The loopback server, which waits before it begins."""

    def source() -> float:
        (entry,) = server.log()
        return entry.sent[0] - entry.received

    server.log()
    prompt = f"tokens=8 wait={wait:g}"
    return [ask(engine, paced(80), prompt, source) for _ in range(rounds + 1)][1:]


def from_file(engine: Engine, item: Weights, rounds: int) -> list[First]:
    """A GGUF model, through the engine and bare, in turn; each prompt is new to both."""
    found = []
    ask(engine, item.model, PROMPTS[0], lambda: 0.0)  # loads the model, which tells how it attends
    with Bare("bare_llama", str(item.path), attention(engine, item.model)) as bare:
        for number in range(rounds + 1):
            prompt = f"{number}. {PROMPTS[number % len(PROMPTS)]}"
            source = bare.ask(prompt, 16).first
            found.append(ask(engine, item.model, prompt, lambda source=source: source))
    return found[1:]


def measure(folders: dict[str, Path], rounds: int) -> Report:
    """The table."""
    with peer() as server:
        api = ApiSettings(endpoints=(Endpoint(name="paced", base_url=f"{server.url}/v1"),))
        with Engine(Settings(api=api, performance=PerformanceSettings(threads=1))) as engine:
            found = {
                f"loopback server, first token after {1000 * wait:.0f} ms": from_server(engine, server, wait, rounds)
                for wait in WAITS
            }
            files = (item for item in weights(folders) if item.model.backend == "gguf")
            found |= {item.label: from_file(engine, item, rounds) for item in files}
    columns = ("source", "TTFT shown, ms", "at the source, ms", "overhead, ms", "worst", "send to first view, ms")
    return Report(
        name="ttft",
        title="Time to first token, as shown and at its source",
        tables=(Table(columns, tuple(_row(name, firsts) for name, firsts in found.items())),),
        notes=(
            f"Medians of {rounds} answers after one that connects or loads; overhead is shown less source, per answer.",
            "At the source: for the server, from the request's arrival to the first token's leaving; for GGUF, from "
            "the call of `create_completion` to its first chunk in a process of its own, same prompt, one thread.",
        ),
        packages=("gradio", "openai", "llama-cpp-python"),
    )


def _row(name: str, firsts: list[First]) -> tuple[str, ...]:
    over = [first.shown - first.source for first in firsts]
    figures = (
        median(first.shown for first in firsts),
        median(first.source for first in firsts),
        median(over),
        max(over),
        median(first.view for first in firsts),
    )
    return (name, *(f"{1000 * figure:.1f}" for figure in figures))


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=15)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with models/stories260k-chat")
    options = parser.parse_args(argv)
    before = report.load()
    folders = {"guide": ROOT / "assets" / "guide", "stories260k-chat": options.data / "models" / "stories260k-chat"}
    return report.finish(measure(folders, 2 if options.tiny else options.rounds), options, before, "1 a model")


if __name__ == "__main__":
    sys.exit(main())
