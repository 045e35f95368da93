"""Costs and the fair lane as a person meets them: a price before sending, a measurement that outlives its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .faults import FaultServer
from .page import PATIENCE, Chat
from .serving import Server, app, chromium
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright", "openai")]

PROMPT = "one two three four five six seven eight nine ten"


@pytest.fixture
def no_leaks() -> None:
    """App and browser live as long as this module; `serving` and playwright see to their ends."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with a slow echo, and a service that is paid."""
    with FaultServer() as faults:
        endpoints = [{"name": "paid", "base_url": faults.url("good")}]
        prices = {"paid:*": [1000, 2000]}
        folder = tmp_path_factory.mktemp("app")
        columns = ["echo:slow", "paid:m"]
        with app(folder, ENDPOINTS=endpoints, PRICES=prices, MULTIMODEL_COLUMNS=columns) as server:
            yield server


def test_a_price_before_and_after_and_the_models_one_after_another(served: Server) -> None:
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        chat = Chat(context.new_page(), served.url)
        chat.open()
        pay_and_measure(chat)
        assert chat.errors == []
        chat.page.close()
        again = Chat(context.new_page(), served.url)
        again.open()
        find_stop_and_measure_again(again)
        assert again.errors == []


def pay_and_measure(chat: Chat) -> None:
    page, result = chat.page, chat.page.locator(".mm-fair-result")
    chat.expect(page.locator("#mm-fair-button")).to_be_disabled()
    chat.prompt.fill(PROMPT)
    chat.expect(page.locator("#mm-expected")).to_contain_text(
        "Sending costs about $0.012, with the answers at most $2.06"
    )
    chat.prompt.press("Enter")
    chat.finished()
    chat.expect(chat.columns.nth(1).locator(".mm-figures")).to_contain_text("$0.011")
    chat.expect(chat.columns.nth(1).locator(".mm-spent")).to_have_text("$0.011")
    chat.expect(chat.columns.nth(0).locator(".mm-spent")).to_be_empty()
    chat.expect(page.locator("#mm-spent")).to_contain_text("$0.011")

    page.locator("#mm-fair-button").click()
    chat.expect(page.locator(".mm-fair-form")).to_contain_text("Each round costs about $0.011.")
    page.get_by_label("Times").fill("5")
    page.get_by_role("button", name="Measure").click()
    chat.expect(result).to_contain_text("asking echo:slow")


def find_stop_and_measure_again(chat: Chat) -> None:
    page, result = chat.page, chat.page.locator(".mm-fair-result")
    chat.expect(result.get_by_role("button", name="Stop measuring")).to_be_visible()
    chat.expect(result.locator(".mm-fair-model")).to_have_count(2)
    result.get_by_role("button", name="Stop measuring").click()
    chat.expect(result).to_contain_text("Stopped. Meant to be 5 times each")

    page.locator("#mm-fair-button").click()
    page.get_by_label("Times").fill("1")
    page.get_by_role("button", name="Measure").click()
    chat.expect(result).to_contain_text("1 time each, alone and warm")
    chat.expect(result.locator(".mm-fair-alone").nth(1)).to_contain_text("tok/s")
    chat.expect(page.locator("#mm-spent")).to_contain_text("$0.022")
    assert bars_begin_and_end_alike(page)
    chat.finished(1, PATIENCE)
    result.get_by_role("button", name="Close").click()
    chat.expect(result).to_be_hidden()


def bars_begin_and_end_alike(page: Any) -> bool:
    """Whether the bars of each figure have the same place and length for all models."""
    edges = (
        "(nodes) => nodes.map((node) => [...node.querySelectorAll('.mm-fair-bar > div')].map((bar) => "
        "[bar.getBoundingClientRect().left, bar.getBoundingClientRect().width].map(Math.round).join()).join())"
    )
    found = page.locator(".mm-fair-model").evaluate_all(edges)
    return len(found) == 2 and found[0] == found[1]
