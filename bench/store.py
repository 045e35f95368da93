"""What keeping conversations costs: to write them as they stream, to open one of many, to search them all.

Two hundred conversations of fifty turns in two columns are written; then one is opened that is not in memory, as the
page is sent it and as Chromium shows it, and words are searched. Writing is measured beside a running app's answers.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from shutil import which
from statistics import median, quantiles
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import sync_playwright

from multimodel.boards import Boards
from multimodel.conversation import Conversation, Lane, State, Turn
from multimodel.engine import Engine
from multimodel.runs import Run
from multimodel.settings import ChatSettings, Settings
from multimodel.store import Store
from multimodel.store.database import NAME
from multimodel.types import ModelId, Snapshot, Timing, Usage
from tabs.view import board_view

from . import report
from .bare import cpu, environment
from .report import Report, Table
from .startup import free_port, running

MODEL = ModelId("echo", "any")
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "ei", "o", "u") for c in ("n", "rt", "sk", "lm", "")]
SECRET = "s" * 43  # of the visitor whose conversations they are


def text(words: int, chance: random.Random) -> str:
    """Sentences with a list now and then."""
    said = [chance.choice(WORDS) for _ in range(words)]
    for at in range(12, words, 25):
        said[at] += ".\n\n" if at % 3 else ":\n\n- one\n- **two**\n\n"
    return " ".join(said)


def conversation(turns: int, chance: random.Random) -> Conversation:
    """Two columns of as many turns, with answers of 120 words."""
    made: list[Turn] = []
    heads: dict[str, int | None] = {"a": None, "b": None}
    for step in range(turns):
        prompt = text(15, chance)
        for key in heads:
            said = Snapshot(MODEL, text(120, chance), Timing(0.0, 0.3, 4.0), Usage(900, 180), "stop")
            made.append(Turn(prompt, said, len(made) + 1, heads[key], key, 1.7e9 + step))
            heads[key] = len(made)
    lanes = tuple(Lane(key, MODEL, None, head) for key, head in heads.items())
    return Conversation(made[0].prompt[:50], 1.7e9, (State(1, lanes),), tuple(made))


class Took(NamedTuple):
    """What something took, in milliseconds."""

    wall: float
    processor: float


def timed(what: Callable[[], object]) -> Took:
    """What a call took."""
    began, used = time.perf_counter(), time.process_time()
    what()
    return Took(1000 * (time.perf_counter() - began), 1000 * (time.process_time() - used))


def names(count: int) -> list[str]:
    """Of the conversations."""
    return [f"{number:016x}" for number in range(count)]


def fill(folder: Path, count: int, turns: int) -> None:
    """Write the conversations of one visitor."""
    chance = random.Random(0)
    with closing(Store(folder)) as store, Engine(_settings(folder)) as engine:
        owner = Boards(engine).owner(f"{SECRET}.")
        for name in names(count):
            store.save(owner, name, conversation(turns, chance), {})


def _settings(folder: Path) -> Settings:
    return Settings(chat=ChatSettings(columns=("echo:any", "echo:any"), data_dir=folder))


def server(folder: Path, count: int, rounds: int) -> dict[str, list[Took]]:
    """Times of the server for what a person asks of it, each time with nothing in memory."""
    chance = random.Random(1)
    found: dict[str, list[Took]] = {"open": [], "list": [], "search": [], "search, two words": []}
    with Engine(_settings(folder)) as engine:
        boards = Boards(engine)
        for name in chance.sample(names(count), min(rounds, count)):
            address, (one, two) = f"{SECRET}.{name}", chance.sample(WORDS, 2)
            tries: dict[str, Callable[[str], object]] = {
                "open": lambda at: board_view(boards.get(at), opening=True),
                "list": boards.entries,
                "search": partial(boards.entries, words=one),
                "search, two words": partial(boards.entries, words=f"{one} {two}"),
            }
            for what, attempt in tries.items():
                found[what].append(timed(partial(attempt, address)))
    return found


def page(folder: Path, count: int, rounds: int) -> dict[str, list[Took]]:
    """Times in Chromium, from the click to the conversation or the rows on the screen."""
    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    port = free_port()
    variables = environment() | {"MULTIMODEL_DATA_DIR": str(folder), "MULTIMODEL_COLUMNS": '["echo:any", "echo:any"]'}
    with (
        running(["app.py", "--no-browser", "--port", str(port)], port, env=variables) as process,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1440, "height": 900})
        shown.goto(f"http://127.0.0.1:{port}/")
        shown.wait_for_selector(".mm-column")
        shown.wait_for_timeout(1500)
        _become(shown, folder / NAME)
        clock = _clock(shown, psutil.Process(process.pid))
        found = {"open": [_watched(shown, clock, OPENED, at) for at in range(1, rounds + 1)]}
        chance = random.Random(2)
        found["search"] = [_watched(shown, clock, SEARCHED, chance.choice(WORDS)) for _ in range(rounds)]
        browser.close()
    return found


def _become(shown: Any, file: Path) -> None:
    """Make the conversations those of this page's visitor, whom its board has written down once it changed."""
    shown.click("#mm-add")
    shown.wait_for_selector(".mm-column >> nth=2")
    shown.wait_for_timeout(1000)
    with closing(sqlite3.connect(file, timeout=10.0)) as other, other:
        (mine,) = other.execute("SELECT owner FROM conversations ORDER BY updated DESC LIMIT 1").fetchone()
        other.execute("UPDATE conversations SET owner = ?", (mine,))
    shown.reload()
    shown.wait_for_selector(".mm-list-row", state="attached")
    shown.evaluate("mmToggleList(true)")
    shown.wait_for_timeout(1000)


OPENED = """(at) => new Promise((done) => {
  const row = document.querySelectorAll('.mm-list-open')[at];
  const first = document.querySelector('.mm-turn .mm-prompt')?.textContent;
  const began = performance.now();
  const look = () => {
    const now = document.querySelector('.mm-turn .mm-prompt')?.textContent;
    if (now && now !== first) requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    else requestAnimationFrame(look);
  };
  row.click();
  look();
})"""
SEARCHED = """(word) => new Promise((done) => {
  const field = document.querySelector('.mm-list-head input');
  const before = document.querySelector('.mm-list-row');
  const began = performance.now();
  const look = () => {
    if (document.querySelector('.mm-list-row') !== before)
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    else requestAnimationFrame(look);
  };
  field.value = word;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  look();
})"""


def _clock(shown: Any, process: psutil.Process) -> Callable[[], float]:
    """Tells the processor milliseconds of the page's main thread and of the server together."""
    devtools = shown.context.new_cdp_session(shown)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def now() -> float:
        metrics = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}
        return 1000 * (float(metrics["ThreadTime"]) + cpu(process))

    return now


def _watched(shown: Any, clock: Callable[[], float], script: str, argument: object) -> Took:
    before = clock()
    wall = float(shown.evaluate(script, argument))
    took = Took(wall, clock() - before)
    shown.wait_for_timeout(700)
    return took


def streaming(folder: Path, answers: int, seconds: float) -> tuple[float, float]:
    """Processor milliseconds a second that the writer's thread takes, and commits a second, beside running answers."""
    beats: list[float] = []
    with Engine(_settings(folder)) as engine:
        store = engine.store
        writer, flush = store._writer, store._writer.flush

        def counted() -> None:
            began = time.thread_time()
            flush()
            beats.append(1000 * (time.thread_time() - began))

        writer.flush = counted  # type: ignore[method-assign]
        record = store.record("owner", "streaming")
        runs = [Run(_talk(seconds), Snapshot(MODEL, "", Timing(0.0))) for _ in range(answers)]
        for number, run in enumerate(runs, 1):
            record.asked(Turn("prompt", run.newest.snapshot, number, None, str(number)), run, "title")
        for run in runs:
            run.join()
    return sum(beats) / seconds, len(beats) / seconds


def _talk(seconds: float) -> Generator[Snapshot]:
    """Forty words a second."""
    said = ""
    for number in range(round(40 * seconds)):
        time.sleep(1 / 40)
        said += f"word{number} "
        yield Snapshot(MODEL, said, Timing(0.0, 0.0, float(number)))
    yield Snapshot(MODEL, said, Timing(0.0, 0.0, seconds), finish_reason="stop")


TARGETS = {"open": "300", "search": "100", "search, two words": "100"}


def measure(count: int, turns: int, rounds: int, seconds: float) -> Report:
    """The tables."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        fill(kept, count, turns)
        size = sum(path.stat().st_size for path in kept.iterdir()) / 1e6
        lines = [("server", *row) for row in server(kept, count, rounds).items()]
        lines += [("page", *row) for row in page(kept, count, min(rounds, count - 1)).items()]
        costs = [(answers, *streaming(Path(folder) / f"s{answers}", answers, seconds)) for answers in (1, 8, 100)]
    return Report(
        name="store",
        title="Keeping conversations",
        tables=(
            Table(("where", "what", "median, ms", "p95, ms", "processor, ms", "target, ms"), tuple(map(_row, lines))),
            Table(
                ("answers at once", "writer, ms of a core a second", "commits a second", "ms a commit"),
                tuple((str(a), f"{ms:.1f}", f"{n:.1f}", f"{ms / n:.2f}") for a, ms, n in costs),
                "Writing answers of 40 words a second as they stream:",
            ),
        ),
        notes=(
            f"{count} conversations of {turns} turns in two columns, answers of 120 words: {size:.0f} MB.",
            "Server: the view or the rows as the page is sent them, the conversation read from the file. Page: from "
            "the click to the first frame that shows its newest turns, or from the key to the one that shows the rows.",
            "Processor: of the server's process, and for the page of its main thread too, up to then; median.",
        ),
        packages=("gradio", "playwright"),
    )


def _row(line: tuple[str, str, list[Took]]) -> tuple[str, ...]:
    where, what, found = line
    walls, used = [took.wall for took in found], median(took.processor for took in found)
    high = quantiles(walls, n=20)[-1] if len(walls) > 1 else walls[0]
    return where, what, f"{median(walls):.0f}", f"{high:.0f}", f"{used:.0f}", TARGETS.get(what, "")


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    options = report.parser(__doc__).parse_args(argv)
    before = report.load()
    tiny = (3, 4, 2, 1.0)
    measured = measure(*(tiny if options.tiny else (200, 50, 12, 10.0)))
    return report.finish(measured, options, before, "one server process, one writer thread")


if __name__ == "__main__":
    sys.exit(main())
