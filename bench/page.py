"""What an update of the page costs in Chromium, by columns, history and length of the answers on their way.

One to four columns stream 40 tokens a second each, over 2, 20 and 100 messages of history a column; then four columns
say 4,000 tokens at 100 a second over 100 messages. The cost is the processor time of the page's main thread.
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

from . import report
from .bare import cpu, environment
from .peer import Entry, Peer, peer
from .report import Report, Table
from .startup import free_port, running

RATE = 40  # tokens a second of each column
HISTORY = (2, 20, 100)  # messages a column, questions and answers
COLUMNS = (1, 2, 3, 4)
LONG = 4000  # tokens of each column, at LONG_RATE a second, over the longest history
LONG_RATE = 100
EARLY, LATE = 400, 4000  # tokens: an update at the second may cost as much as DEARER of one at the first
DEARER, BUSY, END = 1.5, 0.4, 200
OBSERVER = """() => {
  const board = document.querySelector("#mm-board");
  const newest = (column) => {
    const turns = column.querySelectorAll(".mm-turn");
    const text = column.querySelector(".mm-live .mm-md") || (turns.length > window.known && [...turns].at(-1));
    let end = "";
    for (let node = text && text.lastChild; node && end.length < 500; node = node.previousSibling)
      end = node.textContent + end;
    return Number((end.match(/w\\d+_/g) || []).pop()?.slice(1, -1) ?? -1);
  };
  window.seen = [];
  new MutationObserver(() => {
    const words = [...board.querySelectorAll(".mm-column")].map(newest);
    window.seen.push([performance.timeOrigin + performance.now(), words]);
  }).observe(board, { childList: true, subtree: true, characterData: true });
}"""
"""Notes every update: when, and the newest token that each column shows."""


@dataclass(frozen=True)
class Stretch:
    """Half a second of streaming."""

    tokens: float  # that a column shows
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
    last: float  # seconds from the last token leaving the server to the update that shows it
    end: float  # to the last update, of answers that are over

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
        self.page.evaluate("(turns) => { window.known = turns; }", self.turns())
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


def stream(probe: Probe, server: Peer, messages: int, prompt: str) -> Scene:
    """One answer in every column, watched to its end."""
    server.log()
    probe.send(prompt)
    stretches, updates = [], []
    first = before = probe.clocks()
    while probe.running() or not updates:
        probe.page.wait_for_timeout(500)
        now, seen = probe.clocks(), probe.updates()
        browser = (now - before)[1] - probe.idle[0] * (now - before)[0]
        shown = [median(words) for _, words in seen if min(words) >= 0]
        stretches.append(Stretch(median(shown) if shown else 0.0, len(seen), browser))
        updates += seen
        before = now
    used = before - first
    lags, last, end = late(updates, server.log()[-probe.columns :])
    server_cpu = used[2] - probe.idle[1] * used[0]
    return Scene(probe.columns, messages, used[0], tuple(stretches), server_cpu, lags, last, end)


def late(updates: Sequence[Sequence[Any]], log: Sequence[Entry]) -> tuple[tuple[float, ...], float, float]:
    """Seconds that tokens took from the server to the page, the last one of all, and the end of the answers."""
    offset = time.time() - time.perf_counter()  # the page's clock is the time of day
    entries = sorted(log, key=lambda entry: float(entry.model))
    lags, shown, done = [], [0] * len(entries), 0.0
    sent = max(entry.sent[-1] for entry in entries)
    for at, words in updates:
        for i, entry in enumerate(entries):
            lags += [at / 1000 - offset - sent for sent in entry.sent[shown[i] : words[i] + 1]]
            shown[i] = max(shown[i], words[i] + 1)
        if not done and all(count == len(entry.sent) for count, entry in zip(shown, entries, strict=True)):
            done = at / 1000 - offset
    return tuple(lags), done - sent, updates[-1][0] / 1000 - offset - sent


@contextmanager
def app(server: Peer, columns: int) -> Generator[tuple[str, psutil.Process]]:
    """The app in a process of its own: its address, and the process."""
    port = free_port()
    models = [f"paced:{RATE + i / 10:g}" for i in range(columns)]
    endpoint = {"name": "paced", "base_url": f"{server.url}/v1"}
    variables = {"MULTIMODEL_COLUMNS": json.dumps(models), "ENDPOINTS": json.dumps([endpoint])}
    with running(["app.py", "--no-browser", "--port", str(port)], port, env=environment() | variables) as process:
        yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid)


@contextmanager
def probing(columns: int) -> Generator[tuple[Probe, Peer]]:
    """A page of the app with so many columns, and the server that they ask."""
    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    with peer() as server, app(server, columns) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector(f".mm-column >> nth={columns - 1}")
        yield Probe(page, process, columns), server
        browser.close()


def scenes(columns: int, history: Sequence[int], seconds: float) -> list[Scene]:
    """All scenes with one number of columns, the history growing from one to the next."""
    found = []
    with probing(columns) as (probe, server):
        for messages in history:
            probe.fill(messages)
            found.append(stream(probe, server, messages, f"seconds={seconds:g} chars=33"))
    return found


def long_scene(columns: int, messages: int, tokens: int) -> Scene:
    """Answers that grow long, over a long history."""
    with probing(columns) as (probe, server):
        probe.fill(messages)
        return stream(probe, server, messages, f"rate={LONG_RATE} tokens={tokens} chars=6")


def cost_at(scene: Scene, share: float) -> float:
    """Milliseconds of the main thread an update around this share of the answer's tokens, 15 % of them wide.

    Not of the last stretches: there the answers end, and all of each is put in its place.
    """
    most = max(stretch.tokens for stretch in scene.stretches)
    going = [s for s in scene.stretches if s.tokens < 0.99 * most]
    near = [s for s in going if s.updates and abs(s.tokens - share * most) <= 0.075 * most]
    return 1000 * sum(s.browser for s in near) / max(1, sum(s.updates for s in near))


def measure(columns: Sequence[int], history: Sequence[int], seconds: float, tokens: int, rounds: int) -> Report:
    """The tables."""
    found = [scene for count in columns for scene in scenes(count, history, seconds)]
    long = [long_scene(max(columns), max(history), tokens) for _ in range(rounds)]
    head = ("columns x messages", "updates/s", "page ms an update", "main thread", "server ms an update")
    late = ("lag median, ms", "p95", "last token", "at the end")
    caption = (
        f"{max(columns)} columns over {max(history)} messages each, {tokens:,} tokens at {LONG_RATE} a second "
        f"(targets: main thread under {BUSY:.0%}, the last token shown within {END} ms, and an update at token "
        f"{LATE:,} costs at most {DEARER} times one at token {EARLY}):"
    )
    dear = (*head[1:], *late, f"ms at {EARLY}", f"at {LATE:,}", "ratio")
    return Report(
        name="page",
        title="What an update costs the page",
        tables=(
            Table((*head, *late), tuple(map(_row, found))),
            Table(dear, tuple(map(_long_row, long)), caption),
        ),
        notes=(
            f"{RATE} tokens a second in each column, {seconds:g} s, 33 characters a token; 1440 x 900.",
            "Page: processor time of Chromium's main thread (ThreadTime), less what the idle page uses; median of "
            "half-second stretches. Server: of the app's process, the tokens' arrival included, less its idle use.",
            "Lag: from a token leaving the server to the update that shows it; the last token likewise, and the end to "
            "the update that shows the answers finished.",
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
        f"{1000 * scene.last:.0f}",
        f"{1000 * scene.end:.0f}",
    )


def _long_row(scene: Scene) -> tuple[str, ...]:
    early, late = cost_at(scene, EARLY / LATE), cost_at(scene, 0.95)
    return (*_row(scene)[1:], f"{early:.1f}", f"{late:.1f}", f"**{late / max(early, 1e-9):.2f}**")


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = report.parser(__doc__)
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS, help="how many columns")
    parser.add_argument("--history", type=int, nargs="+", default=HISTORY, help="messages a column, growing")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each answer streams")
    parser.add_argument("--tokens", type=int, default=LONG, help="tokens of the long answers")
    parser.set_defaults(rounds=2)
    options = parser.parse_args(argv)
    before = report.load()
    tiny = ((1,), (2,), 1.0, 100, 1)
    full = (options.columns, options.history, options.seconds, options.tokens, options.rounds)
    measured = measure(*(tiny if options.tiny else full))
    return report.finish(measured, options, before, "one server process, one main thread of the page")


if __name__ == "__main__":
    sys.exit(main())
