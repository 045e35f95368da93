"""Does a column keep its rate next to others? 80 tokens a second alone, then beside 10, 20, 40 and 60.

Four columns are on one board, the fifth on a second visitor's; both are followed as a page follows them. The rate is
taken where the tokens arrive, and again from the views that the page would get.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from multimodel.board import Board
from multimodel.engine import Engine
from multimodel.settings import ApiSettings, Endpoint, Settings
from multimodel.types import ModelId
from tabs.live import follow

from . import report
from .peer import WORD, Entry, Peer, peer
from .report import Report, Table
from .screen import Screen

FAST = 80
TARGET = 0.95
ALONE = ((FAST,),)
CROWD = ((FAST, 10, 20, 40), (60,))


@dataclass(frozen=True)
class Seen:
    """What one view showed of the fast column."""

    at: float  # by time.perf_counter()
    tokens: int  # how many were visible


@dataclass(frozen=True)
class Outcome:
    """The fast column of one run."""

    arrival: float  # tokens a second where they arrive
    page: float  # tokens a second in the views
    lags: tuple[float, ...]  # of each token: seconds from the server to the first view that shows it


def settings_for(server: Peer) -> Settings:
    """Settings with the loopback server as the endpoint `paced`."""
    return Settings(api=ApiSettings(endpoints=(Endpoint(name="paced", base_url=f"{server.url}/v1"),)))


def paced(rate: float) -> ModelId:
    """The model that speaks at this rate."""
    return ModelId("paced", f"{rate:g}")


def visible(html: str) -> int:
    """How many tokens a text or its HTML shows.

    >>> visible("<p>w0_ x <b>w1_</b>")
    2
    """
    numbers = WORD.findall(html)
    return int(numbers[-1]) + 1 if numbers else 0


async def watched(lines: AsyncGenerator[dict[str, Any]], index: int) -> list[Seen]:
    """What the lines of a page showed of one column."""
    screen = Screen(index)
    return [Seen(time.perf_counter(), visible(screen.take(line))) async for line in lines]


async def _run(boards: Sequence[Board], seconds: float) -> list[Seen]:
    for board in boards:
        board.send(f"go wait=0.3 seconds={seconds}")
    first, *others = (watched(follow(board, per_second=15), 0) for board in boards)
    seen, *_ = await asyncio.gather(first, *others)
    return seen


def outcome(engine: Engine, server: Peer, crowd: Sequence[Sequence[float]], seconds: float) -> Outcome:
    """Run the boards of a crowd at once; the first column of the first board is the one that is watched."""
    boards = [Board(engine, [paced(rate) for rate in rates]) for rates in crowd]
    seen = asyncio.run(_run(boards, seconds))
    answer = boards[0].columns()[0].turns[-1].answer
    if answer.error or not answer.usage:
        raise answer.error or RuntimeError("no answer")
    arrival = answer.rate or 0.0
    entry = next(entry for entry in server.log() if entry.model == f"{FAST}")
    return Outcome(arrival, page_rate(seen), lags(seen, entry))


def page_rate(seen: Sequence[Seen]) -> float:
    """Tokens a second between the first and the last view that showed something new."""
    news = [b for a, b in pairwise(seen) if b.tokens > a.tokens]
    return (news[-1].tokens - news[0].tokens) / (news[-1].at - news[0].at)


def lags(seen: Sequence[Seen], entry: Entry) -> tuple[float, ...]:
    """For each token, the seconds from the server to the first view that shows it.

    >>> lags([Seen(10.0, 1), Seen(11.0, 3)], Entry("80", 9.0, [9.5, 10.25, 10.5]))
    (0.5, 0.75, 0.5)
    """
    news = pairwise([Seen(0.0, 0), *seen])
    return tuple(view.at - entry.sent[i] for old, view in news for i in range(old.tokens, view.tokens))


def measure(rounds: int, seconds: float) -> Report:
    """The table."""
    with peer() as server, Engine(settings_for(server)) as engine:
        outcome(engine, server, CROWD, 0.3)  # imports and connects
        contestants = {
            "alone": lambda _: outcome(engine, server, ALONE, seconds),
            "beside 10, 20, 40 and 60 tok/s": lambda _: outcome(engine, server, CROWD, seconds),
        }
        found = report.in_turn(contestants, rounds, warm_up=0)
    alone = found["alone"]
    rows = tuple(_row(name, outcomes, alone) for name, outcomes in found.items())
    columns = (
        *("the 80 tok/s column", "at arrival", "over alone", "in the page's views", "over alone"),
        *("lag, median ms", "lag, p95 ms"),
    )
    return Report(
        name="isolation",
        title=f"A column next to others (target {TARGET} of its rate alone, or more)",
        tables=(Table(columns, rows),),
        notes=(
            f"Medians of {rounds} rounds in turn, {seconds:g} s each; the server keeps its pace by the clock.",
            "Lag: from a token leaving the server to the first view of the page that shows it. Views come at "
            "most 15 times a second, so half of 67 ms is the least it can be.",
        ),
        packages=("gradio", "openai"),
    )


def _row(name: str, mine: Sequence[Outcome], alone: Sequence[Outcome]) -> tuple[str, ...]:
    late = [1000 * lag for one in mine for lag in one.lags]
    return (
        name,
        f"{median(one.arrival for one in mine):.1f}",
        f"**{report.paired([o.arrival for o in mine], [o.arrival for o in alone]):.3f}**",
        f"{median(one.page for one in mine):.1f}",
        f"**{report.paired([o.page for o in mine], [o.page for o in alone]):.3f}**",
        f"{median(late):.0f}",
        f"{quantiles(late, n=20)[-1]:.0f}",
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each answer takes")
    options = parser.parse_args(argv)
    before = report.load()
    rounds, seconds = (1, 0.6) if options.tiny else (options.rounds, options.seconds)
    return report.finish(measure(rounds, seconds), options, before, "one process, a thread a column")


if __name__ == "__main__":
    sys.exit(main())
