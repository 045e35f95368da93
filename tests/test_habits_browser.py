"""The person's habits, in Chromium: keys, prompts that wait, presets, links and the library of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .page import COUNTING, ENDLESS, Chat, visit
from .serving import Server
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]


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
    chat.ask(ENDLESS)
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


def test_prompts_that_wait_survive_a_reload_and_are_asked_in_order(chat: Chat, tmp_path: Path) -> None:
    page = chat.page
    (tmp_path / "note.txt").write_text("alpha")
    chat.ask(ENDLESS)
    chat.growing(1)
    page.locator('#mm-attach input[type="file"]').set_input_files(tmp_path / "note.txt")
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
    chat.expect(rows.locator("small")).to_have_text("note.txt")
    chat.expect(page.locator(".mm-chip-file")).to_have_count(0)
    chat.open()
    chat.errors.clear()  # Gradio complains of what it was listening to
    chat.expect(rows).to_have_count(2)
    page.get_by_role("button", name="Stop all").click()
    chat.finished(1)
    chat.expect(page.locator(".mm-waiting")).to_contain_text("2 prompts wait.")
    page.get_by_role("button", name="Send them now").click()
    chat.finished(3)
    assert chat.columns.nth(1).locator(".mm-prompt").all_inner_texts() == [ENDLESS, "2nd", "fourth"]
    chat.expect(chat.columns.nth(1).locator(".mm-turn").nth(1).locator(".mm-file")).to_contain_text("note.txt")
    chat.expect(rows).to_have_count(0)


def test_presets_are_saved_applied_chosen_and_taken_elsewhere(chat: Chat, tmp_path: Path) -> None:
    page = chat.page

    def open_menu() -> Any:
        page.get_by_role("button", name="Presets", exact=True).click()
        return page.locator(".mm-presets")

    menu = open_menu()
    menu.get_by_role("textbox", name="Name of a new preset").fill("<b>Two</b> echoes")
    page.keyboard.press("Enter")
    mine = menu.locator(".mm-preset-apply").filter(has_text="<b>Two</b> echoes")
    chat.expect(mine).to_be_visible()
    menu.get_by_role("button", name="More to do with").click()
    menu.get_by_role("button", name="Use for new chats").click()
    chat.expect(menu.locator("small")).to_have_text("new chats")
    with page.expect_download() as download:
        menu.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "presets.json")
    page.keyboard.press("Escape")
    chat.expect(menu).to_be_hidden()
    chat.act(1, "remove")
    chat.expect(chat.columns).to_have_count(1)
    chat.ask("hello")
    chat.finished()
    page.get_by_role("button", name="New chat").click()
    chat.finished(0)
    chat.expect(chat.columns).to_have_count(2)
    chat.act(0, "remove")
    chat.expect(chat.columns).to_have_count(1)
    open_menu()
    mine.click()
    chat.expect(chat.columns).to_have_count(2)
    chat.expect(menu).to_be_hidden()
    open_menu()
    menu.get_by_role("button", name="More to do with").click()
    menu.get_by_role("button", name="Delete").click()
    chat.expect(mine).to_have_count(0)
    menu.get_by_role("button", name="Undo").click()
    chat.expect(mine).to_be_visible()
    menu.locator('input[type="file"]').set_input_files(tmp_path / "presets.json")
    chat.expect(menu).to_contain_text("Nothing in this file is new.")


def test_a_link_fills_in_and_asks_only_after_a_press(chat: Chat, served: Server) -> None:
    page, url = chat.page, served.url
    chat.ask("before")
    chat.finished()
    chat.url = f"{url}/?models=echo:slow,nobody:x,openai:gpt-5.4-mini&temperature=0,1&q=What+is+%3Cb%3E%3F&send=1"
    chat.open()
    chat.expect(chat.prompt).to_have_value("What is <b>?")
    chat.expect(chat.warning).to_contain_text("There is no backend called 'nobody'.")
    chat.expect(chat.warning).to_contain_text("This question came with a link. Press Enter to ask it.")
    assert chat.names() == ["slow", "gpt-5.4-mini"]
    chat.finished(0)
    assert page.url.rstrip("/") == url  # a reload does not open it again
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Copy link to these columns").click()
    link = page.get_by_role("textbox", name="Link").input_value()
    assert "?models=echo:slow,openai:gpt-5.4-mini&" in link and link.endswith("&q=What+is+%3Cb%3E%3F")
    page.keyboard.press("Escape")
    chat.url = f"{url}/?models=echo:any&q=asked+at+once&send=1"
    chat.open()
    chat.finished()
    chat.errors.clear()  # Gradio complains of what it was listening to
    assert chat.answer(0) == "asked at once" and chat.prompt.input_value() == ""
    page.get_by_role("button", name="Conversations", exact=True).click()
    chat.expect(page.locator(".mm-list-row").filter(has_text="before")).to_be_visible()


def test_prompts_are_kept_found_by_a_slash_and_filled_in(chat: Chat, tmp_path: Path) -> None:
    page, keys = chat.page, chat.page.keyboard
    library = page.get_by_role("dialog", name="Prompt library")
    chat.prompt.fill("Explain <i>{{topic}}</i> to {{whom}}")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Save this prompt").click()
    library.get_by_role("textbox", name="Name").fill("Explain")
    keys.press("Enter")
    rows = library.get_by_role("listitem")
    chat.expect(rows).to_have_count(1)
    library.get_by_role("button", name="New prompt").click()
    library.get_by_role("textbox", name="Name").fill("Explain")
    library.get_by_role("textbox", name="Prompt").fill("Sum it up")
    library.get_by_role("button", name="Save").click()
    chat.expect(library.get_by_role("alert")).to_contain_text("There is a prompt called 'Explain' already.")
    library.get_by_role("textbox", name="Name").fill("Sum up")
    library.get_by_role("button", name="Save").click()
    chat.expect(rows).to_have_count(2)
    with page.expect_download() as download:
        library.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "prompts.json")
    library.get_by_role("button", name="Delete Sum up").click()
    chat.expect(rows).to_have_count(1)
    library.locator('input[type="file"]').set_input_files(tmp_path / "prompts.json")
    chat.expect(rows).to_have_count(2)
    chat.expect(library).to_contain_text("1 prompt was brought in.")
    keys.press("Escape")
    chat.expect(library).to_be_hidden()
    chat.prompt.fill("")
    chat.prompt.press("/")
    found = page.get_by_role("listbox", name="Prompts").get_by_role("option")
    chat.expect(found).to_have_count(3)
    keys.press("ArrowDown")
    chat.expect(found.nth(1)).to_have_attribute("aria-selected", "true")
    keys.press("Escape")
    chat.expect(found).to_have_count(0)
    chat.prompt.fill("")
    chat.prompt.press_sequentially("/exp")
    chat.expect(found).to_have_count(2)
    keys.press("Enter")
    chat.expect(page.get_by_role("textbox", name="topic")).to_be_focused()
    keys.type("bits & {{bytes}}")
    keys.press("Enter")
    keys.type("$1")
    keys.press("Enter")
    chat.expect(chat.prompt).to_have_value("Explain <i>bits & {{bytes}}</i> to $1")
    keys.press("Enter")
    chat.finished()
    chat.prompt.press_sequentially("/etc/passwd is what?")  # an ordinary text: nothing of that name is kept
    keys.press("Enter")
    chat.finished(2)
    assert chat.answer(0) == "/etc/passwd is what?"


NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, textarea, select, [tabindex="0"]')]
  .filter((node) => node.checkVisibility() && !node.closest('[aria-hidden=true]'))
  .filter((node) => !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.title
    || node.textContent.trim() || node.labels?.length || node.placeholder))
  .map((node) => node.outerHTML.slice(0, 200))"""

PALE = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const node = text.parentElement, style = getComputedStyle(node), size = parseFloat(style.fontSize);
    if (!text.data.trim() || size < 4) continue;
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (node.closest(':disabled, [aria-disabled=true], script, style, template, .mm-skip, #mm-announcer')) continue;
    const back = ground(node), front = over(rgba(style.color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.set(`${node.className} ${text.data.trim().slice(0, 30)}`, ratio.toFixed(2));
  }
  for (const field of document.querySelectorAll('input[placeholder], textarea[placeholder]')) {
    if (!field.checkVisibility() || !field.placeholder) continue;
    const [front, back] = [rgba(getComputedStyle(field, '::placeholder').color), ground(field)];
    const [high, low] = [light(over(front, back)), light(back)].sort((a, b) => b - a);
    if ((high + 0.05) / (low + 0.05) < 4.5) found.set(field.placeholder, 'placeholder');
  }
  return [...found];
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_screen_reader_hears_each_answer_once_and_everything_can_be_seen(
    browser: Any, served: Server, theme: str
) -> None:
    for chat in visit(browser, served, color_scheme=theme, reduced_motion="reduce"):
        page = chat.page
        heard = page.locator("#mm-announcer p")
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        page.get_by_role("link", name="Skip to the prompt").press("Enter")
        chat.expect(chat.prompt).to_be_focused()
        chat.ask(f"```python\nx = 1  # one\n```\nthe `second` line [link](http://127.0.0.1/) {COUNTING}")
        chat.growing(1)
        moving = "document.getAnimations().filter((a) => a.playState === 'running').length"
        assert page.evaluate(moving) == 0
        assert page.locator(".mm-column [role=log], .mm-live [role=status]").count() == 0
        chat.finished()
        chat.expect(heard.last).to_contain_text("slow (Echo) answered, ")
        spoken = " ".join(heard.all_inner_texts())
        assert spoken.count("any (Echo) answered") == spoken.count("slow (Echo) answered") == 1
        chat.act(0, "settings")
        page.get_by_role("button", name="Presets", exact=True).click()
        chat.expect(page.locator(".mm-preset").first).to_be_visible()
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(PALE) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Close settings").click()
        page.set_viewport_size({"width": 720, "height": 450})  # 1440 x 900 at 200 %
        chat.expect(chat.prompt).to_be_in_viewport(ratio=1)
        chat.expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.querySelector('.mm-body').clientHeight") >= 100
