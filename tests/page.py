"""The Chat page in Chromium, by the names of its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .serving import Server

PATIENCE = 90_000  # milliseconds; the machine may be busy
COUNTING = " ".join(str(number) for number in range(1, 61))  # six seconds of echo:slow
ENDLESS = " ".join(str(number) for number in range(1, 1001))  # a hundred seconds of it
FIGURES = re.compile(r"TTFT \d+(\.\d)? m?s\s+~?\d+(\.\d)? tok/s\s+\d+ tokens\s+finished")


class Chat:
    """The page, by the names of its parts."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.prompt = page.locator("#mm-prompt textarea")
        self.columns = page.locator(".mm-column")
        self.warning = page.locator("#mm-warning")
        self.options = page.locator(".mm-picker .mm-option")
        self.search = page.get_by_role("combobox", name="Model")

    def open(self) -> None:
        """The page as it is when it can be used."""
        self.page.goto(self.url)
        self.expect(self.columns.first).to_be_visible()

    def expect(self, what: Any) -> Any:
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE)
        return expect(what)

    def ask(self, text: str) -> None:
        self.prompt.fill(text)
        self.prompt.press("Enter")

    def finished(self, count: int = 1, patience: int = PATIENCE) -> None:
        """Wait until nothing is being answered and every column has this many turns."""
        self.until(
            "count => document.documentElement.dataset.mmRunning === '0' && "
            "[...document.querySelectorAll('.mm-column')].every(c => c.querySelectorAll('.mm-turn').length === count)",
            count,
            patience,
        )

    def until(self, condition: str, argument: Any = None, patience: int = PATIENCE) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=patience)

    def growing(self, index: int) -> None:
        """Wait until the text of a running answer has grown twice."""
        live = f"document.querySelectorAll('.mm-column')[{index}].querySelector('.mm-live .mm-md')?.textContent.length"
        for _ in range(2):
            length = self.page.evaluate(live) or 0
            self.until(f"was => ({live} || 0) > was", length)

    def answer(self, index: int) -> str:
        """The newest answer of a column."""
        return str(self.columns.nth(index).locator(".mm-md").last.inner_text()).strip()

    def act(self, index: int, op: str) -> None:
        self.columns.nth(index).locator(f'[data-act="{op}"]').first.click()

    def pick(self, index: int, model: str) -> None:
        """Choose a model by typing its id."""
        self.columns.nth(index).locator(".mm-model").click()
        self.search.fill(model)
        self.search.press("Enter")
        self.expect(self.columns.nth(index).locator(".mm-model")).to_have_attribute("title", f"{model}: choose a model")

    def names(self) -> list[str]:
        return list(self.page.locator(".mm-model-name").all_inner_texts())

    def keys(self) -> list[str]:
        return list(self.columns.evaluate_all("nodes => nodes.map(node => node.dataset.key)"))


def visit(browser: Any, served: Server, **options: Any) -> Iterator[Chat]:
    """A page of a visitor of its own; in the end it has asked nobody else and complained of nothing."""
    with browser.new_context(viewport={"width": 1440, "height": 900}, **options) as context:
        chat = Chat(context.new_page(), served.url)
        chat.open()
        yield chat
        outside = [url for url in chat.requests if urlsplit(url).netloc != urlsplit(served.url).netloc]
        assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
        assert not chat.errors, chat.errors
