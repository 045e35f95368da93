"""The Explorer as a person uses it: Chromium, a Hub on loopback, an app that is killed in the middle of a download."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .hub import FakeHub, Repo, running
from .serving import Server, app, chromium
from .support import eventually, needs, needs_browser, tiny_gguf, tiny_llama

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_browser, needs("playwright", "llama_cpp", "gguf", "torch")]

PATIENCE = 60_000  # milliseconds; the machine may be busy
LARGE = {"m-Q2_K.gguf": 290_000_000_000, "m-Q4_K_M.gguf": 500_000_000_000}
TINY, GIANT = "owner/tiny-135M-GGUF", "owner/giant-900B-GGUF"
ENCODERS = ("owner/encoder-one", "owner/encoder-two")
ENCODER = {"library_name": "transformers", "safetensors": {"parameters": {"F32": 60_000}, "total": 60_000}}
MEGABYTE = 1 << 20
SMALL_PC = "1.5 GB RAM"  # of which half a GB is for models


@pytest.fixture
def no_leaks() -> None:
    """App and browser are ended by `serving` and playwright, which also look after their processes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny model whose context can be long, and behind its tensors enough to take several requests."""
    folder = tmp_path_factory.mktemp("model")
    path = tiny_gguf(tiny_llama(folder / "hf", context=32_768), folder / "tiny.gguf")
    return path.read_bytes() + os.urandom(12 * MEGABYTE)


@pytest.fixture
def hub(model: bytes) -> Iterator[FakeHub]:
    facts: dict[str, Any] = {"pipeline_tag": "text-generation", "downloads": 12_000, "likes": 5}
    facts["tags"] = ["gguf", "license:mit"]
    about = {"architecture": "llama", "context_length": 32_768}
    card = b"# A tiny model\n<script>window.evil = 1</script>"
    with running() as served:
        tiny = {**facts, "gguf": {**about, "total": 135_000_000}}
        giant = {**facts, "gguf": {**about, "total": 900_000_000_000}}
        served.repos[TINY] = Repo({"tiny-F32.gguf": model, "README.md": card}, facts=tiny)
        served.repos[GIANT] = Repo(dict.fromkeys(LARGE, b"x"), facts=giant, sizes=LARGE)
        for name in ENCODERS:
            config = b'{"model_type": "distilbert", "dim": 64, "n_layers": 1, "n_heads": 2, "hidden_dim": 128}'
            served.repos[name] = Repo({"model.safetensors": b"x", "config.json": config}, facts=ENCODER)
        yield served


class Explorer:
    """The tab, by the names of its parts."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page = page
        self.server = server
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(server.url)
        page.get_by_role("tab", name="Explorer").click()
        self.rows = page.locator(".mx-row")
        self.rows.first.wait_for()

    def see(self, selector: str, text: str) -> Any:
        """Wait until this part shows this text."""
        found = self.page.locator(selector, has_text=re.compile(text)).first
        found.wait_for()
        return found

    def until(self, condition: str) -> None:
        self.page.wait_for_function(condition)

    def knob(self, name: str) -> Any:
        return self.page.locator(f'[data-knob="{name}"]')

    def context(self, position: int) -> None:
        """Move the slider of the context, as a drag does."""
        self.knob("context").evaluate(
            "(node, at) => { node.value = at; node.dispatchEvent(new Event('input', { bubbles: true })) }", position
        )

    def width(self, letter: str) -> float:
        """The share of the chart that a term takes, in percent."""
        return float(self.page.evaluate(f"parseFloat(document.querySelector('.mx-bars .mx-t-{letter}').style.width)"))

    def close(self) -> None:
        """Nobody else was asked, and nothing was complained of."""
        own = urlsplit(self.server.url).netloc
        outside = [url for url in self.requests if urlsplit(url).netloc not in (own, "")]
        assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
        assert not self.errors, "\n".join(self.errors)
        self.page.close()


def served(folder: Path, hub: FakeHub) -> Any:
    columns = ["echo:any"]
    return app(
        folder, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", MULTIMODEL_COLUMNS=columns, MULTIMODEL_MAX_TOKENS="24"
    )  # fmt: skip


@contextmanager
def opened(browser: Any, server: Server, width: int = 1440) -> Iterator[Explorer]:
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        explorer = Explorer(context.new_page(), server)
        yield explorer
        explorer.close()


def test_find_what_fits_move_the_sliders_download_through_a_kill_and_chat(hub: FakeHub, tmp_path: Path) -> None:
    with chromium() as browser:
        hub.stall, hub.stall_after = threading.Event(), MEGABYTE
        with served(tmp_path, hub) as server:
            page = Explorer(browser.new_page(), server)  # it loses its server: what it complains of is no fault
            find_what_fits(page)
            move_the_sliders(page)
            download_a_part(page, tmp_path)
            server.process.kill()
            server.process.wait()
            page.page.close()
        assert not any(tmp_path.glob("model_cache/*/snapshots/*/*.gguf")), "nothing partial looks whole"
        held = next(tmp_path.rglob("*.incomplete")).stat().st_size
        hub.stall.set()
        hub.stall = None
        hub.requests.clear()
        with served(tmp_path, hub) as server, opened(browser, server) as explorer:
            resume(explorer, hub, held)
            chat_with_it(explorer, hub)


def find_what_fits(explorer: Explorer) -> None:
    explorer.see(".mx-row", "giant.*Too large")
    explorer.page.locator('[data-field="fits"]').check()
    explorer.until("() => !document.querySelector('.mx-list').textContent.includes('giant')")
    explorer.page.locator('[data-field="text"]').fill("tiny")
    explorer.see(".mx-row", "tiny.*Fits")
    explorer.rows.first.click()
    explorer.see(".mx-answer", "Fits")
    explorer.see("[data-card]", "A tiny model")
    assert explorer.page.evaluate("window.evil") is None
    explorer.see(".mx-terms tr", "KV cache.*exact")  # llama.cpp has been asked, with nothing but the header


def move_the_sliders(explorer: Explorer) -> None:
    page = explorer.page
    page.locator('[data-field="machine"]').select_option("?")
    page.locator('[data-field="typed"]').fill(SMALL_PC)
    explorer.see(".mx-answer", "of 537 MB usable on PC")
    explorer.context(0)
    explorer.see('[data-out="context"]', "^512 tokens")
    explorer.see(".mx-answer", "^Fits")
    explorer.until("() => !document.querySelector('.mx-asking')")
    before = explorer.width("k")
    explorer.knob("sequences").select_option("32")
    explorer.context(int(explorer.knob("context").get_attribute("max")))
    explorer.see('[data-out="context"]', "^32,768 tokens")
    explorer.see(".mx-answer", "^Does not fit")
    assert explorer.width("k") > 5 * before
    explorer.see(".mx-helps li", "one conversation at a time").get_by_role("button", name="Do it").click()
    explorer.see(".mx-answer", "^Fits")
    assert explorer.knob("sequences").input_value() == "1"
    page.locator('[data-field="machine"]').select_option("")
    explorer.see(".mx-answer", "^Fits.*usable")


def download_a_part(explorer: Explorer, folder: Path) -> None:
    """Until some of it has come, and the record of it says so."""
    explorer.page.locator('[data-do="download"]').click()
    explorer.see('[data-state="running"]', "tiny.*of 12.* MB")
    eventually(lambda: any(recorded(folder, name) for name in folder.rglob("downloads/*.json")), 60)


def recorded(folder: Path, path: Path) -> bool:
    row = json.loads(path.read_text("utf-8"))
    return row["done"] >= MEGABYTE and all((folder / "model_cache" / part).stat().st_size for part in row["parts"])


def resume(explorer: Explorer, hub: FakeHub, held: int) -> None:
    """After the restart only the rest is asked for."""
    explorer.see('[data-state="interrupted"]', r"Interrupted at \d+ %")
    explorer.page.locator('[data-download-act="resume"]').click()
    explorer.see('[data-state="done"]', "Done")
    starts = [int(asked[6:].partition("-")[0]) for _, path, asked in hub.requests if "/cdn/" in path and asked]
    assert held >= MEGABYTE and min(starts) == held


def chat_with_it(explorer: Explorer, hub: FakeHub) -> None:
    page = explorer.page
    hub.requests.clear()
    page.locator('[data-download-act="chat"]').click()
    explorer.see(".mm-model-name", "tiny")
    page.locator("#mm-prompt textarea").fill("hello")
    page.locator("#mm-prompt textarea").press("Enter")
    column = page.locator(".mm-column", has_text="tiny")
    column.locator(".mm-figures", has_text=re.compile("finished|cut at")).first.wait_for()
    assert not column.locator(".mm-error").count()
    assert re.search(r"\b\d+ tokens", column.locator(".mm-figures").first.inner_text())
    assert not hub.downloads(), "it is read from the cache"


def test_the_other_views_and_a_narrow_screen(hub: FakeHub, tmp_path: Path) -> None:
    with chromium() as browser, served(tmp_path, hub) as server:
        with opened(browser, server) as explorer:
            download_and_delete(explorer)
            compare_ratings(explorer)
            walk_the_list_by_keyboard(explorer)
            fine_tune_an_encoder(explorer)
        with opened(browser, server, width=390) as explorer:
            page_over_the_list(explorer)


def download_and_delete(explorer: Explorer) -> None:
    page = explorer.page
    explorer.see(".mx-row", "tiny").click()
    page.locator('[data-do="download"]').click()
    explorer.see('[data-state="done"]', "Done")
    explorer.see('[data-do="download"]', "^Downloaded$")
    page.locator(".mx-views").get_by_role("tab", name="My models").click()
    delete = explorer.see(".mx-mine li", "tiny.*F32").get_by_role("button", name="Delete")
    delete.click()
    explorer.see("button[data-sure]", r"Delete, free 1\d\.\d MB").click()
    explorer.see(".mx-done", r"1\d\.\d MB freed")
    explorer.see("[data-mine]", "No model has been downloaded")
    page.locator('[data-state="done"]').wait_for(state="detached")


def compare_ratings(explorer: Explorer) -> None:
    page = explorer.page
    page.locator(".mx-views").get_by_role("tab", name="Ratings").click()
    names = [page.locator(".mx-ratings tbody th").nth(at).inner_text() for at in (0, 5)]
    page.locator('[data-versus="one"]').fill(names[0])
    page.locator('[data-versus="other"]').fill(names[1])
    explorer.see("[data-versus-out]", r"is preferred to .* in \d\d of 100 votes")
    explorer.see("[data-own]", "Compare answers in Chat and vote below them")
    page.locator(".mx-views").get_by_role("tab", name="Search").click()


def walk_the_list_by_keyboard(explorer: Explorer) -> None:
    page = explorer.page
    page.locator('[data-field="text"]').press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = explorer.rows.nth(1)
    assert page.evaluate("document.activeElement.dataset.open") == second.get_attribute("data-open")
    page.keyboard.press("Enter")
    explorer.see(".mx-page h2", "giant")
    explorer.see(".mx-answer", "Does not fit")


def train_with_more(explorer: Explorer) -> None:
    """The sliders of a training are followed by its memory."""
    page = explorer.page
    page.locator("[data-training] summary").click()
    gradients = explorer.see("[data-train-plan] tr", "Gradients").inner_text()
    activations = explorer.see("[data-train-plan] tr", "Compute buffers").inner_text()
    page.locator('[data-train="batch_size"]').press("End")
    explorer.see('[data-train-out="batch_size"]', "^128 texts")
    page.wait_for_function(
        "was => ![...document.querySelectorAll('[data-train-plan] tr')].some(row => row.innerText === was)",
        arg=activations,
    )
    assert explorer.see("[data-train-plan] tr", "Gradients").inner_text() == gradients


def fine_tune_an_encoder(explorer: Explorer) -> None:
    """Its tab opens with the base model filled in, whether or not it was open before."""
    page = explorer.page
    for name in ENCODERS:
        page.get_by_role("tab", name="Explorer").click()
        explorer.see(".mx-row", name.partition("/")[2]).click()
        train_with_more(explorer)
        page.get_by_role("button", name="Fine-tune it").click()
        explorer.until(f"() => document.querySelector('#mm-finetune [data-set=\"other\"]')?.value === '{name}'")
        page.locator('#mm-finetune [data-set="other"]').wait_for()


def page_over_the_list(explorer: Explorer) -> None:
    page = explorer.page
    explorer.see(".mx-row", "tiny").click()
    explorer.see(".mx-answer", "Fits")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Results").click()
    page.locator(".mx-detail").wait_for(state="hidden")
    assert explorer.rows.first.is_visible()
