"""The Explorer's speed: results with verdicts, sliders, exact plans, a thousand rows, downloads beside curl.

The Hub is a process on loopback (`bench.hub`), so what is measured is our own work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from multimodel import explorer, hub
from multimodel.engine import Engine
from multimodel.jobs import Job
from multimodel.locate import download
from multimodel.machines import KNOWN
from multimodel.settings import ModelSettings, Settings
from multimodel.types import ModelId, ModelSpec
from tabs.explorer import Explorer
from tabs.explorer_list import rows_html

from . import report
from .bare import environment
from .report import Report, Table, in_turn, paired
from .shapes import Q4_K, Q8_0, dense
from .startup import free_port, running

MODELS = 1000
FILE = 1 << 30  # bytes of the download
CARD = "GeForce RTX 4090"
REPO = "made-up/eight-8B-GGUF"
ROWS = "document.querySelectorAll('.mx-row').length"
LISTED = f"count => {ROWS} > count && document.querySelector('[data-do=\"more\"], .mx-foot:empty')"
SLIDE = """async () => {
  const slider = document.querySelector('[data-knob="context"]');
  const place = document.querySelector('[data-answer]');
  const times = [];
  for (let at = 2; at < 18; at++) {
    const began = performance.now();
    const changed = new Promise((done) => {
      const seen = new MutationObserver(() => (seen.disconnect(), done()));
      seen.observe(place, { childList: true, subtree: true });
    });
    slider.value = at;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await changed;
    times.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 600));
  }
  return times;
}"""
"""Milliseconds from moving the slider to the next answer on the page, of every step."""


@dataclass(frozen=True)
class Place:
    """Where everything is: the Hub's folder and address, and settings that ask it."""

    folder: Path
    url: str
    settings: Settings


@contextmanager
def place(models: int, size: int) -> Iterator[Place]:
    """A running Hub with made-up models, a shape of eight billion parameters, and a file of `size` random bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes, random = folder / "hub" / REPO, folder / "hub" / "made-up" / "large"
        shapes.mkdir(parents=True)
        random.mkdir(parents=True)
        for label, format in (("Q4_K_M", Q4_K), ("Q8_0", Q8_0)):
            shape = dense("llama", 32, 4096, 14336, 32, 8, 128256, 131072, format=format)
            shape.write(shapes / f"eight-{label}.gguf")
        _random(random / "large-Q8_0.gguf", size)
        port = free_port()
        with running(["-m", "bench.hub", str(folder / "hub"), str(port), str(models)], port):
            url = f"http://127.0.0.1:{port}"
            own = ModelSettings(cache_dir=folder / "cache", hub_url=url, offline=False)
            yield Place(folder, url, Settings(models=own))


def _random(path: Path, size: int) -> None:
    block, digest = os.urandom(min(size, 8 << 20)), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(max(1, size // len(block))):
            file.write(block)
            digest.update(block)
    path.with_name(f"{path.name}.sha256").write_text(digest.hexdigest())


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def own_work(where: Place, rounds: int) -> tuple[tuple[str, ...], ...]:
    """A row for each thing that is done on the server."""
    with Engine(where.settings) as engine:
        asked = Explorer(engine)
        target, today = KNOWN[CARD].target, datetime.now(UTC).date()
        page = hub.search(hub.Query(), where.settings)

        def shown() -> None:
            rows_html(explorer.judged(page.rows, target, where.settings), today)

        first, again = timed(shown), [timed(shown) for _ in range(rounds)]
        knobs: dict[str, Any] = {"name": REPO, "label": "Q4_K_M", "machine": CARD}
        asked.model({"name": REPO, "machine": CARD})
        exact = [timed(lambda: asked.plan({**knobs, "context": 4096, "exact": True}))]
        contexts = [2048 + 512 * i for i in range(2 * rounds)]
        slid = [timed(lambda c=c: asked.plan({**knobs, "context": c})) for c in contexts]
        exact += [timed(lambda c=c: asked.plan({**knobs, "context": c, "exact": True})) for c in contexts]
        other = timed(lambda: asked.plan({**knobs, "label": "Q8_0", "context": 4096, "exact": True}))
    return (
        ("verdicts and rows of 30 results, the first time", _ms(first), "50"),
        ("the same again", _ms(median(again)), "50"),
        ("a plan under a slider, by formula", _ms(median(slid)), "100"),
        ("an exact plan: header fetched, llama.cpp started and asked", _ms(exact[0]), ""),
        ("an exact plan of another file: header fetched, llama.cpp asked", _ms(other), "2,000"),
        ("an exact plan of the same file under a slider", _ms(median(exact[1:])), "2,000"),
    )


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def in_browser(where: Place, models: int) -> tuple[tuple[str, ...], ...]:
    """Rows of what a person waits for, with the app and Chromium on this machine."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    port = free_port()
    own = {"HF_ENDPOINT": where.url, "HF_HUB_OFFLINE": "0", "MODEL_CACHE_DIR": str(where.folder / "cache")}
    variables = environment() | own | {"MULTIMODEL_COLUMNS": '["echo:any"]'}
    command = ["app.py", "--no-browser", "--port", str(port)]
    with running(command, port, env=variables), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_role("tab", name="Explorer").click()
        page.locator(".mx-row").first.wait_for()
        early, late = _pages(page, models)
        slid = _slides(page)
        browser.close()
    return (
        (f"thirty more rows below the first {30 * len(early):,}, work of the page", _ms(median(early)), ""),
        (f"thirty more rows below {models - 30 * len(late):,} and more, work of the page", _ms(median(late)), ""),
        (f"from the slider to its answer, with {models:,} rows beside it", _ms(median(slid)), "100"),
    )


def _pages(page: Page, models: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the page's main thread for the first and the last pages of results, until all are listed."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    times = []
    while (count := int(page.evaluate(ROWS))) < models:
        began = _busy(session)
        page.evaluate("() => document.querySelector('[data-do=\"more\"]').click()")
        page.wait_for_function(LISTED, arg=count, polling=50)
        times.append(_busy(session) - began)
    part = max(1, len(times) // 5)
    return times[:part], times[-part:]


def _busy(session: CDPSession) -> float:
    """Milliseconds that the main thread has worked."""
    found = session.send("Performance.getMetrics")["metrics"]
    return 1000 * float(next(metric["value"] for metric in found if metric["name"] == "TaskDuration"))


def _slides(page: Page) -> list[float]:
    page.locator('[data-field="text"]').fill(REPO)
    page.locator('[data-field="text"]').press("Enter")
    page.locator(".mx-terms").wait_for()
    page.wait_for_function("() => !document.querySelector('.mx-asking')")
    return list(page.evaluate(SLIDE))


def rates(where: Place, size: int, rounds: int) -> tuple[tuple[str, ...], ...]:
    """Rows of megabytes a second: ours with its checksum, and one stream of curl without."""
    file = f"{where.url}/made-up/large/resolve/main/large-Q8_0.gguf"
    spec = ModelSpec(ModelId("gguf", "made-up/large:Q8_0"))

    def curl(_: int) -> float:
        out = where.folder / "curl.out"
        took = timed(lambda: subprocess.run(["curl", "--silent", "--output", str(out), file], check=True))
        out.unlink()
        return size / 1000 / took

    def ours(_: int) -> float:
        took = timed(lambda: download(spec, where.settings, Job()))
        shutil.rmtree(where.settings.models.cache_dir)
        return size / 1000 / took

    def checksum(_: int) -> float:
        path = where.folder / "hub" / "made-up" / "large" / "large-Q8_0.gguf"
        with path.open("rb") as content:
            return size / 1000 / timed(lambda: hashlib.file_digest(content, "sha256"))

    found = in_turn({"ours": ours, "curl": curl, "sha256": checksum}, rounds)
    return (
        ("curl, one stream, no checksum", f"{median(found['curl']):,.0f}", ""),
        ("SHA-256 of the file alone", f"{median(found['sha256']):,.0f}", ""),
        ("ours, 4 connections, with checksum", f"{median(found['ours']):,.0f}", ""),
        ("ours over curl", f"**{paired(found['ours'], found['curl']):.2f}**", "0.9"),
    )


def measure(*, tiny: bool, rounds: int) -> Report:
    """Everything."""
    models, size = (60, 4 << 20) if tiny else (MODELS, FILE)
    with place(models, size) as where:
        tables = (
            Table(("on the server", "ms", "target"), own_work(where, rounds)),
            Table(("in the page", "ms", "target"), in_browser(where, models)),
            Table((f"a download of {size >> 20:,} MiB", "MB/s", "target"), rates(where, size, rounds)),
        )
    return Report(
        "explorer",
        "The Explorer: results, sliders, exact plans, a thousand rows, downloads",
        tables,
        ("A page of results is one request to the Hub; a model's page is one, or two where its shape is not known.",),
        ("gradio", "llama-cpp-python", "httpx2"),
    )


def main() -> int:
    """Measure and report."""
    chosen = report.parser(__doc__).parse_args()
    before = report.load()
    found = measure(tiny=chosen.tiny, rounds=1 if chosen.tiny else max(3, chosen.rounds))
    return report.finish(found, chosen, before, "4 connections")


if __name__ == "__main__":
    sys.exit(main())
