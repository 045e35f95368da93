"""What an update of the page costs in Chromium, by columns, history and length of the answers on their way.

One to four columns stream 40 tokens a second each, over 2, 20 and 100 messages of history a column, up to 8,000
characters. The cost is the processor time of the page's main thread; a formula is fitted to it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from shutil import which
from statistics import median, quantiles
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, TimeoutError, sync_playwright

from tabs.chat import interval

from . import report
from .bare import cpu, environment
from .peer import Entry, Peer, peer
from .report import Report, Table
from .startup import free_port, running

RATE = 40  # tokens a second of each column
HISTORY = (2, 20, 100)  # messages a column, questions and answers
LONGEST = 8000  # characters
SHARE = 0.35  # of the main thread that updates may take
COLUMNS = (1, 2, 3, 4)
OBSERVER = """() => {
  const board = document.querySelector("#mm-board");
  window.seen = [];
  new MutationObserver(() => {
    const live = [...board.querySelectorAll(".mm-live")].map((node) => node.mmHTML || "");
    const words = live.map((html) => Number((html.slice(-2000).match(/w\\d+_/g) || []).pop()?.slice(1, -1) ?? -1));
    const chars = live.reduce((sum, html) => sum + html.length, 0);
    window.seen.push([performance.timeOrigin + performance.now(), chars, words]);
  }).observe(board, { childList: true, subtree: true });
}"""
"""Notes every update: when, how many characters of live HTML, the newest token of each column."""


@dataclass(frozen=True)
class Stretch:
    """Half a second of streaming."""

    columns: int
    messages: int  # of history, in all columns
    html: float  # thousands of characters of live HTML, in all columns
    updates: int
    browser: float  # seconds of the page's main thread, above what it uses when idle


@dataclass(frozen=True)
class Scene:
    """One streamed answer of every column."""

    columns: int
    history: int  # messages a column
    seconds: float
    stretches: tuple[Stretch, ...]
    server: float  # seconds of the app's process, above what it uses when idle
    lags: tuple[float, ...]  # seconds from a token leaving the server to the update that shows it
    end: float  # seconds from the last token leaving the server to the update that shows the end

    @property
    def updates(self) -> int:
        return sum(stretch.updates for stretch in self.stretches)

    @property
    def browser(self) -> float:
        return sum(stretch.browser for stretch in self.stretches)


class Probe:
    """A page of the app, and the clocks of its main thread and of the app's process."""

    def __init__(self, page: Page, server: psutil.Process, columns: int) -> None:
        self.page = page
        self.server = server
        self.columns = columns
        self._cdp = page.context.new_cdp_session(page)
        self._cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.evaluate(OBSERVER)
        self.idle = self._idle()

    def clocks(self) -> np.ndarray:
        """Now, the main thread's and the process's processor time, in seconds."""
        found = {metric["name"]: metric["value"] for metric in self._cdp.send("Performance.getMetrics")["metrics"]}
        return np.array([time.perf_counter(), found["ThreadTime"], cpu(self.server)])

    def updates(self) -> list[list[Any]]:
        """The updates since the last call."""
        found: list[list[Any]] = self.page.evaluate("() => window.seen.splice(0)")
        return found

    def send(self, prompt: str) -> None:
        """Ask all columns."""
        self.page.fill("#mm-prompt textarea", prompt)
        self.page.click("#mm-send")

    def running(self) -> bool:
        """Whether any column still answers."""
        return bool(self.page.evaluate("() => document.documentElement.dataset.mmRunning === '1'"))

    def turns(self) -> int:
        """The turns of the column that has least."""
        script = "() => Math.min(...[...document.querySelectorAll('.mm-turns')].map((node) => node.children.length))"
        return int(self.page.evaluate(script))

    def fill(self, messages: int, chars: int = 500) -> None:
        """Ask quick questions until every column shows this many messages."""
        while (turns := self.turns()) < messages // 2:
            self.send(f"rate=0 tokens={chars // 10} chars=10")
            script = f"() => [...document.querySelectorAll('.mm-turns')].every((n) => n.children.length > {turns})"
            with suppress(TimeoutError):  # a click is lost where Gradio has not yet ended the event before it
                self.page.wait_for_function(script, polling=20, timeout=5000)
        self.page.wait_for_function("() => document.documentElement.dataset.mmRunning === '0'")
        self.page.wait_for_timeout(300)
        self.updates()

    def _idle(self) -> np.ndarray:
        self.page.wait_for_timeout(500)
        before = self.clocks()
        self.page.wait_for_timeout(1000)
        used = self.clocks() - before
        return used[1:] / used[0]


def stream(probe: Probe, server: Peer, messages: int, seconds: float) -> Scene:
    """One answer in every column, watched to its end."""
    server.log()
    tokens = max(2, round(RATE * seconds))
    probe.send(f"seconds={seconds:g} chars={LONGEST // tokens}")
    stretches, updates = [], []
    first = before = probe.clocks()
    while probe.running() or not updates:
        probe.page.wait_for_timeout(500)
        now, seen = probe.clocks(), probe.updates()
        browser = (now - before)[1] - probe.idle[0] * (now - before)[0]
        html = median(chars for _, chars, _ in seen) / 1000 if seen else 0.0
        stretches.append(Stretch(probe.columns, messages * probe.columns, html, len(seen), browser))
        updates += seen
        before = now
    used = before - first
    lags, end = late(updates, server.log()[-probe.columns :])
    return Scene(probe.columns, messages, used[0], tuple(stretches), used[2] - probe.idle[1] * used[0], lags, end)


def late(updates: Sequence[Sequence[Any]], log: Sequence[Entry]) -> tuple[tuple[float, ...], float]:
    """How long tokens took from the server to the page, and the end of the last answer."""
    offset = time.time() - time.perf_counter()  # the page's clock is the time of day
    entries = sorted(log, key=lambda entry: float(entry.model))
    lags, shown = [], [0] * len(entries)
    for at, _, words in updates:
        for i, entry in enumerate(entries):
            lags += [at / 1000 - offset - sent for sent in entry.sent[shown[i] : words[i] + 1]]
            shown[i] = max(shown[i], words[i] + 1)
    return tuple(lags), updates[-1][0] / 1000 - offset - max(entry.sent[-1] for entry in entries)


@contextmanager
def app(server: Peer, columns: int) -> Generator[tuple[str, psutil.Process]]:
    """The app in a process of its own: its address, and the process."""
    port = free_port()
    models = [f"paced:{RATE + i / 10:g}" for i in range(columns)]
    endpoint = {"name": "paced", "base_url": f"{server.url}/v1"}
    variables = {"MULTIMODEL_COLUMNS": json.dumps(models), "ENDPOINTS": json.dumps([endpoint])}
    with running(["app.py", "--no-browser", "--port", str(port)], port, env=environment() | variables) as process:
        yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid)


def scenes(columns: int, history: Sequence[int], seconds: float) -> list[Scene]:
    """All scenes with one number of columns, the history growing from one to the next."""
    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    with peer() as server, app(server, columns) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector(f".mm-column >> nth={columns - 1}")
        probe = Probe(page, process, columns)
        found = []
        for messages in history:
            probe.fill(messages)
            found.append(stream(probe, server, messages, seconds))
        browser.close()
    return found


TERMS = ("update", "running column", "1,000 characters of live HTML", "message of history")


def fit(stretches: Sequence[Stretch]) -> dict[str, float]:
    """Milliseconds of the main thread by term, least squares without negative costs."""
    rows = np.array([[1, s.columns, s.html, s.messages] for s in stretches if s.updates], float)
    updates = np.array([s.updates for s in stretches if s.updates], float)
    costs = 1000 * np.array([s.browser for s in stretches if s.updates])
    kept = list(range(len(TERMS)))
    while True:
        found, *_ = np.linalg.lstsq(rows[:, kept] * updates[:, None], costs, rcond=None)
        if (found >= 0).all():
            return {name: float(found[kept.index(i)]) if i in kept else 0.0 for i, name in enumerate(TERMS)}
        kept.pop(int(found.argmin()))


def now_in_code() -> dict[str, float]:
    """The same terms as `tabs.chat.interval` counts them now, found by asking it."""

    def cost(columns: int, chars: int, messages: int = 0) -> float:
        column = {"live": "x" * chars, "turns": ["x" * 500] * (messages // 2)}
        return 1000 * SHARE * interval({"columns": [column] * columns}, per_second=1e9)

    thousand = cost(1, 2000) - cost(1, 1000)
    column = cost(2, 1000) - cost(1, 1000) - thousand
    return dict(
        zip(
            TERMS,
            (cost(1, 1000) - thousand - column, column, thousand, (cost(1, 1000, 200) - cost(1, 1000)) / 200),
            strict=True,
        )
    )


def measure(columns: Sequence[int], history: Sequence[int], seconds: float) -> Report:
    """The tables."""
    found = [scene for count in columns for scene in scenes(count, history, seconds)]
    fitted, coded = fit([stretch for scene in found for stretch in scene.stretches]), now_in_code()
    head = ("columns x messages", "updates/s", "page ms an update", "main thread", "server ms an update")
    costs = tuple((f"an {t}" if t == "update" else f"a {t}", f"{fitted[t]:.2f}", f"{coded[t]:.2f}") for t in TERMS)
    return Report(
        name="page",
        title="What an update costs the page",
        tables=(
            Table((*head, "lag median, ms", "p95", "at the end"), tuple(map(_row, found))),
            Table(
                ("ms of the main thread for", "fitted", "`tabs.chat.interval` counts"), costs, "The cost of one update:"
            ),
        ),
        notes=(
            f"{RATE} tokens a second in each column, {seconds:g} s, up to {LONGEST:,} characters; 1440 x 900.",
            "Page: processor time of Chromium's main thread (ThreadTime), less what the idle page uses; median of "
            "half-second stretches. Server: of the app's process, the tokens' arrival included, less its idle use.",
            "Lag: from a token leaving the server to the update that shows it, or to the one that shows the end.",
            f"`interval` lets updates take {SHARE:.0%} of the main thread, and never has more than 15 a second.",
        ),
        packages=("gradio", "playwright"),
    )


def _row(scene: Scene) -> tuple[str, ...]:
    busy = [stretch for stretch in scene.stretches if stretch.updates]
    late_ms = [1000 * lag for lag in scene.lags]
    return (
        f"{scene.columns} x {scene.history}",
        f"{scene.updates / scene.seconds:.1f}",
        f"{1000 * median(s.browser / s.updates for s in busy):.1f}",
        f"{scene.browser / scene.seconds:.0%}",
        f"{1000 * scene.server / scene.updates:.1f}",
        f"{median(late_ms):.0f}",
        f"{quantiles(late_ms, n=20)[-1]:.0f}",
        f"{1000 * scene.end:.0f}",
    )


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = report.parser(__doc__)
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS, help="how many columns")
    parser.add_argument("--history", type=int, nargs="+", default=HISTORY, help="messages a column, growing")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each answer streams")
    options = parser.parse_args(argv)
    before = report.load()
    tiny = ((1,), (2,), 1.0)
    measured = measure(*(tiny if options.tiny else (options.columns, options.history, options.seconds)))
    return report.finish(measured, options, before, "one server process, one main thread of the page")


if __name__ == "__main__":
    sys.exit(main())
