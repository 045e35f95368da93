"""What a model saw, as a person looks at it: with the mouse, with the keyboard, and on a telephone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .page import PATIENCE, Chat, visit
from .serving import Server, app
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright", "llama_cpp")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with app(tmp_path_factory.mktemp("app"), MULTIMODEL_COLUMNS=["gguf:guide", "echo:any"]) as server:
        yield server


def look(chat: Chat, index: int, view: str) -> Any:
    """Open a view of the newest answer of a column; the panel."""
    column = chat.columns.nth(index)
    column.locator(".mm-i-more").last.click()
    column.locator(f'[data-saw="{view}"]').last.click()
    panel = chat.page.get_by_role("dialog")
    chat.expect(panel).to_be_visible()
    return panel


def test_the_details_of_an_answer(chat: Chat) -> None:
    page = chat.page
    page.locator("#mm-settings-button").click()
    number = page.get_by_label("number input for Token probabilities")
    number.fill("3")
    with page.expect_response(re.compile("gradio_api")):
        number.press("Tab")
    page.get_by_role("button", name="Close settings").click()
    chat.ask("What is the KV cache?")
    chat.finished(patience=3 * PATIENCE)

    # all figures, in a list of their own
    column = chat.columns.nth(0)
    column.locator(".mm-i-figures").click()
    figures = column.locator(".mm-all-figures")
    for name in ("Time per output token", "Peak memory", "Prompt", "End"):
        chat.expect(figures).to_contain_text(name)
    page.keyboard.press("Escape")
    chat.expect(figures).to_be_hidden()

    # what it saw: messages, files, the prompt token by token
    panel = look(chat, 0, "prompt")
    chat.expect(panel).to_contain_text("Exactly these were sent")
    chat.expect(panel).to_contain_text("Token for token what was read")
    chat.expect(panel).to_contain_text(re.compile(r"SHA-256\s*[0-9a-f]{64}"))
    panel.get_by_text("Tokens and their ids").click()
    chat.expect(panel.locator(".mm-saw-ids li").first).to_contain_text("<s>")

    # its tokens, by the keyboard alone
    panel.get_by_role("tab", name="What the model saw").focus()
    page.keyboard.press("ArrowRight")
    tokens = panel.locator(".mm-saw-text span")
    chat.expect(tokens.first).to_be_visible()
    assert "".join(tokens.all_text_contents()).strip() == chat.answer(0)
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.at") == "1"
    chat.expect(panel.locator(".mm-saw-token li")).to_have_count(3)
    chat.expect(panel.locator(".mm-saw-body")).to_contain_text("perplexity")
    panel.locator(".mm-saw-least button").first.click()
    chat.expect(panel.locator(".mm-saw-token")).to_contain_text("log-probability")

    # where it parts from the other column
    panel.get_by_role("tab", name="Compare").click()
    chat.expect(panel).to_contain_text("They part at the first word")
    chat.expect(panel.locator("ins").first).to_contain_text("+What is the")
    page.keyboard.press("Escape")
    chat.expect(panel).to_be_hidden()
    assert page.evaluate("document.activeElement.textContent") == "More"

    # a column without probabilities says how to get them
    panel = look(chat, 1, "tokens")
    panel.get_by_role("button", name="Open the settings").click()
    chat.expect(panel).to_be_hidden()
    chat.expect(page.locator("#mm-settings")).to_contain_text("Not taken by any (Echo)")


def test_the_meter_and_the_panel_on_a_telephone(browser: Any, served: Server) -> None:
    for chat in visit(browser, served, **{"color_scheme": "dark"}):
        chat.page.set_viewport_size({"width": 390, "height": 844})
        chat.ask("Hello")
        chat.finished(patience=3 * PATIENCE)
        meter = chat.columns.nth(0).get_by_role("meter")
        chat.prompt.fill("word " * 700)
        chat.expect(meter).to_have_attribute("aria-valuetext", re.compile(r"^7\d\d of 1,024 tokens \(7\d%\)$"))
        chat.prompt.fill("word " * 2000)
        chat.expect(meter).to_have_attribute("data-level", "full")
        chat.prompt.fill("")
        chat.expect(meter).to_have_count(0)
        panel = look(chat, 0, "prompt")
        box = panel.bounding_box()
        assert (box["x"], box["width"]) == (0, 390) and box["y"] + box["height"] == 844
        assert panel.evaluate("node => node.scrollWidth <= node.clientWidth")
        panel.get_by_role("button", name="Close").click()
        chat.expect(panel).to_be_hidden()


WITHIN = """menu => {
  const list = menu.querySelector("div"), shown = list.getBoundingClientRect();
  const column = menu.closest(".mm-column").getBoundingClientRect();
  return shown.width > 0 && shown.left >= column.left && shown.right <= column.right
    && list.scrollWidth <= list.clientWidth;
}"""


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_all_figures_of_an_answer_are_within_its_column(chat: Chat, width: int) -> None:
    for count in (3, 4):
        chat.page.get_by_role("button", name="Add column").click()
        chat.expect(chat.columns).to_have_count(count)
    chat.ask("What is the KV cache?")
    chat.finished(patience=3 * PATIENCE)
    chat.page.set_viewport_size({"width": width, "height": 844})
    for index in (0, 3):
        menu = chat.columns.nth(index).locator(".mm-figures-menu")
        menu.locator("summary").click()
        assert menu.evaluate(WITHIN)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tokens_can_be_read_however_unlikely(browser: Any, served: Server, scheme: str) -> None:
    """Text on the colour of every step of the legend keeps a contrast of 4.5 to 1 (WCAG AA)."""
    for chat in visit(browser, served, color_scheme=scheme):
        ratios = chat.page.evaluate(CONTRAST)
        assert len(ratios) == 5 and min(ratios) >= 4.5


CONTRAST = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colours) => {
    for (const colour of colours) {
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const panel = document.querySelector("#mm-saw dialog");
  panel.showModal();
  const body = panel.querySelector(".mm-saw-body");
  return [0, 1, 2, 3, 4].map((step) => {
    body.innerHTML = `<span data-p="${step}">ab</span>`;
    const card = getComputedStyle(panel).backgroundColor;
    const token = getComputedStyle(body.firstChild);
    const [a, b] = [light([card, token.backgroundColor]), light([card, token.color])];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""
