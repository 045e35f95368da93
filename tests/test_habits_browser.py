"""The person's habits, in Chromium: keys, prompts that wait, presets, links and the library of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .serving import Server, app, chromium
from .support import needs, needs_browser
from .test_browser import COUNTING, ENDLESS, Chat, visit

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]


@pytest.fixture
def no_leaks() -> None:
    """App and browser live as long as this module; `serving` and playwright see to their ends."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with app(tmp_path_factory.mktemp("app"), MULTIMODEL_COLUMNS=["echo:any", "echo:slow"]) as server:
        yield server


@pytest.fixture
def chat(browser: Any, served: Server) -> Iterator[Chat]:
    yield from visit(browser, served)


def focused(chat: Chat, selector: str) -> bool:
    return bool(chat.page.evaluate("selector => document.activeElement.closest(selector) !== null", selector))


def test_everything_by_keys(chat: Chat) -> None:
    keys, page = chat.page.keyboard, chat.page
    chat.ask("not an a, n or ? of this is a command")
    chat.finished()
    keys.press("Escape")  # leaves the prompt
    assert not focused(chat, "#mm-prompt")
    keys.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    chat.expect(sheet).to_be_visible()
    keys.press("n")  # a dialog is open: nothing but its own keys
    keys.press("Escape")
    chat.expect(sheet).to_be_hidden()
    chat.finished()
    keys.press("j")
    assert focused(chat, '.mm-column[data-index="0"]')
    keys.press("j")
    assert focused(chat, '.mm-column[data-index="1"]')
    keys.press("k")
    keys.press("r")
    versions = chat.columns.nth(0).locator(".mm-figures .mm-versions")
    chat.expect(versions).to_contain_text("2/2")
    keys.press("ArrowLeft")
    chat.expect(versions).to_contain_text("1/2")
    keys.press("m")
    chat.expect(chat.search).to_be_focused()
    keys.press("Escape")
    keys.press("e")
    assert focused(chat, ".mm-edit")
    keys.press("Escape")
    keys.press("a")
    chat.expect(chat.columns).to_have_count(3)
    keys.press("u")
    chat.expect(chat.columns).to_have_count(2)
    keys.press("f")
    assert focused(chat, "#mm-list input")
    keys.press("Escape")
    keys.press("l")
    keys.press("/")
    chat.expect(chat.prompt).to_be_focused()
    assert chat.prompt.input_value() == ""
    chat.ask(COUNTING)
    chat.growing(1)
    keys.press("Escape")
    chat.finished(2)
    chat.expect(chat.columns.nth(1).locator(".mm-figures").last).to_contain_text("stopped")
    keys.press("Escape")
    keys.press("n")
    chat.finished(0)
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    sheet.get_by_role("checkbox").uncheck()
    sheet.get_by_role("button", name="Close").click()
    chat.columns.nth(0).locator(".mm-body").focus()
    keys.press("a")
    keys.press("?")
    page.wait_for_timeout(300)
    assert chat.columns.count() == 2 and not sheet.is_visible()


def test_prompts_that_wait_survive_a_reload_and_are_asked_in_order(chat: Chat) -> None:
    page = chat.page
    chat.ask(ENDLESS)
    chat.growing(1)
    for prompt in ("second", "third", "fourth"):
        chat.prompt.fill(prompt)
        page.get_by_role("button", name="Queue").click()
        chat.expect(chat.prompt).to_have_value("")
    rows = page.get_by_role("list", name="Prompts that wait").get_by_role("listitem")
    chat.expect(rows).to_have_count(3)
    rows.nth(2).get_by_role("button", name="Send it earlier").click()
    chat.expect(rows.nth(1)).to_contain_text("fourth")
    rows.nth(2).get_by_role("button", name="Remove this prompt").click()
    chat.expect(rows).to_have_count(2)
    rows.nth(0).get_by_role("button", name="Edit this prompt").click()
    page.get_by_role("textbox", name="Edit the prompt that waits").fill("2nd")
    page.keyboard.press("Enter")
    chat.expect(rows.nth(0)).to_contain_text("2nd")
    chat.open()
    chat.errors.clear()  # Gradio complains of what it was listening to
    chat.expect(rows).to_have_count(2)
    page.get_by_role("button", name="Stop all").click()
    chat.finished(1)
    chat.expect(page.locator(".mm-waiting")).to_contain_text("2 prompts wait.")
    page.get_by_role("button", name="Send them now").click()
    chat.finished(3)
    assert chat.columns.nth(1).locator(".mm-prompt").all_inner_texts() == [ENDLESS, "2nd", "fourth"]
    chat.expect(rows).to_have_count(0)
