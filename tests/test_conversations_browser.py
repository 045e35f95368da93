"""Conversations as a person meets them: nothing is lost, everything is found again, every version stays."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from .page import COUNTING, ENDLESS, Chat, visit
from .serving import Server, environment, free_port, serving
from .support import ROOT, needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]

READY = r"Running on (http://\S+)"


def open_list(chat: Chat) -> Any:
    """The rows of the list, which is then to be seen."""
    if not chat.page.locator("#mm-list").is_visible():
        chat.page.get_by_role("button", name="Conversations", exact=True).click()
    chat.expect(chat.page.locator("#mm-list")).to_be_visible()
    return chat.page.locator(".mm-list-row")


def reopen(chat: Chat, turns: int = 1) -> None:
    """Load the page again; Gradio complains of what it was listening to."""
    chat.open()
    chat.finished(turns)
    chat.errors.clear()


def new_chat(chat: Chat) -> None:
    chat.page.get_by_role("button", name="New chat").click()
    chat.finished(0)


def menu(chat: Chat, row: Any, item: str) -> None:
    """Choose from the menu of a conversation."""
    row.hover()
    row.locator('[data-list="menu"]').click()
    row.get_by_role("menuitem", name=item, exact=True).click()


def texts(chat: Chat, index: int) -> list[str]:
    """The answers that a column shows."""
    return [text.strip() for text in chat.columns.nth(index).locator(".mm-turn .mm-md").all_inner_texts()]


def titles(chat: Chat) -> list[str]:
    return [text.strip() for text in chat.page.locator(".mm-list-title").all_inner_texts()]


# nothing is lost


def test_kill_9_in_the_middle_then_a_restart_then_continue(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    variables = environment(folder, MULTIMODEL_COLUMNS=["echo:any", "echo:slow"])
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(free_port())]
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        with serving(command, folder, variables, READY) as server:
            chat = Chat(context.new_page(), server.url)
            chat.open()
            chat.ask(ENDLESS)
            chat.expect(chat.columns.nth(0).locator(".mm-figures")).to_contain_text("finished")
            chat.growing(1)
            shown = chat.page.locator(".mm-live .mm-md").last.inner_text().strip()
            chat.page.wait_for_timeout(250)  # the writer beats ten times a second
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        with serving(command, folder, variables, READY):
            chat.open()
            chat.finished()
            assert chat.answer(0) == ENDLESS
            kept = chat.answer(1)
            assert kept.startswith(shown) and ENDLESS.startswith(kept)
            slow = chat.columns.nth(1)
            chat.expect(slow.locator(".mm-note")).to_contain_text("Interrupted")
            slow.get_by_role("button", name="Continue", exact=True).click()
            chat.until(
                "was => (document.querySelector('.mm-live .mm-md')?.textContent.trim().length || 0) > was", len(kept)
            )
            chat.act(1, "stop")
            chat.finished()
            went_on = chat.answer(1)
            assert went_on.startswith(kept) and ENDLESS.startswith(went_on) and len(went_on) > len(kept)
            chat.expect(slow.locator(".mm-versions")).to_contain_text("2/2")


def test_a_second_tab_finds_the_running_answer(chat: Chat) -> None:
    chat.ask(COUNTING)
    chat.growing(1)
    other = Chat(chat.page.context.new_page(), chat.url)
    other.open()
    other.growing(1)
    for tab in (chat, other):
        tab.finished()
        assert tab.answer(1) == COUNTING


def test_two_tabs_that_go_on_from_the_same_turn_make_two_versions(chat: Chat) -> None:
    chat.ask("begin")
    chat.finished()
    other = Chat(chat.page.context.new_page(), chat.url)
    other.open()
    other.finished()
    other.ask("from the second tab")
    other.finished(2)
    chat.ask("from the first tab")
    chat.expect(chat.warning).to_contain_text("another tab")
    chat.finished(2)
    assert texts(chat, 0) == ["begin", "from the first tab"]
    versions = chat.columns.nth(0).locator(".mm-prompt-tools .mm-versions")
    chat.expect(versions).to_contain_text("2/2")
    versions.get_by_role("button", name="Earlier version of this prompt").click()
    chat.until("document.querySelector('.mm-column').innerText.includes('from the second tab')")
    assert texts(chat, 0) == ["begin", "from the second tab"]
    assert texts(chat, 1) == ["begin", "from the first tab"]


def test_each_tab_keeps_to_its_conversation(chat: Chat) -> None:
    chat.ask("in the first tab")
    chat.finished()
    other = Chat(chat.page.context.new_page(), chat.url)
    other.open()
    new_chat(other)
    other.ask("in the second tab")
    other.finished()
    reopen(chat)
    assert texts(chat, 0) == ["in the first tab"]
    reopen(other)
    assert texts(other, 0) == ["in the second tab"]


# versions


def test_editing_a_prompt_in_one_column_and_walking_back(chat: Chat) -> None:
    chat.ask("one")
    chat.finished()
    chat.ask("two")
    chat.finished(2)
    first = chat.columns.nth(0)
    first.get_by_role("button", name="Edit this prompt").first.click()
    chat.page.get_by_role("textbox", name="Edit the prompt").fill("uno")
    chat.page.get_by_role("button", name="Ask this column").click()
    chat.expect(first.locator(".mm-turn")).to_have_count(1)
    assert texts(chat, 0) == ["uno"]
    assert texts(chat, 1) == ["one", "two"]
    chat.expect(first.locator(".mm-versions")).to_have_text(
        "Earlier version of this prompt2/2Later version of this prompt"
    )
    first.get_by_role("button", name="Earlier version of this prompt").click()
    chat.expect(first.locator(".mm-turn")).to_have_count(2)
    assert texts(chat, 0) == ["one", "two"]
    first.get_by_role("button", name="Later version of this prompt").click()
    chat.expect(first.locator(".mm-turn")).to_have_count(1)
    chat.page.get_by_role("button", name="Undo the last step").click()
    chat.expect(first.locator(".mm-turn")).to_have_count(2)


def test_escape_leaves_a_prompt_as_it_was(chat: Chat) -> None:
    chat.ask("one")
    chat.finished()
    chat.columns.nth(0).get_by_role("button", name="Edit this prompt").click()
    field = chat.page.get_by_role("textbox", name="Edit the prompt")
    chat.expect(field).to_be_focused()
    field.fill("other")
    field.press("Escape")
    chat.expect(field).to_have_count(0)
    assert chat.columns.nth(0).locator(".mm-prompt").inner_text() == "one"


def test_editing_in_all_columns(chat: Chat) -> None:
    chat.ask("one")
    chat.finished()
    chat.columns.nth(1).get_by_role("button", name="Edit this prompt").click()
    chat.page.get_by_role("textbox", name="Edit the prompt").fill("eins zwei")
    chat.page.get_by_role("button", name="Ask all columns").click()
    chat.until("[...document.querySelectorAll('.mm-column')].every(c => c.innerText.includes('eins zwei'))")
    chat.finished()
    assert texts(chat, 0) == texts(chat, 1) == ["eins zwei"]
    chat.expect(chat.page.locator(".mm-versions")).to_have_count(2)


def test_asking_again_makes_versions_of_an_answer(chat: Chat) -> None:
    chat.ask("one")
    chat.finished()
    chat.act(0, "regenerate")
    chat.expect(chat.columns.nth(0).locator(".mm-figures .mm-versions")).to_contain_text("2/2")
    assert chat.columns.nth(1).locator(".mm-versions").count() == 0
    chat.columns.nth(0).locator("summary.mm-i-more").click()
    chat.columns.nth(0).get_by_role("button", name="Ask again in all columns").click()
    chat.expect(chat.columns.nth(0).locator(".mm-figures .mm-versions")).to_contain_text("3/3")
    chat.expect(chat.columns.nth(1).locator(".mm-figures .mm-versions")).to_contain_text("2/2")
    chat.finished()


def test_continuing_all_columns_from_one_answer(chat: Chat) -> None:
    chat.ask("one")
    chat.finished()
    first = chat.columns.nth(0)
    first.get_by_role("button", name="Edit this prompt").click()
    chat.page.get_by_role("textbox", name="Edit the prompt").fill("only here")
    chat.page.get_by_role("button", name="Ask this column").click()
    chat.until("document.querySelector('.mm-column .mm-md').innerText.trim() === 'only here'")
    chat.finished()
    first.locator("summary.mm-i-more").click()
    first.get_by_role("button", name="Continue all columns from this answer").click()
    chat.until("[...document.querySelectorAll('.mm-turn .mm-md')].every(m => m.innerText.trim() === 'only here')")
    chat.ask("and on")
    chat.finished(2)
    assert texts(chat, 1) == ["only here", "and on"]
    assert "any" in chat.columns.nth(1).locator(".mm-by").inner_text()


def test_a_branch_is_a_conversation_of_its_own(chat: Chat) -> None:
    for turn, prompt in enumerate(("one", "two", "three"), 1):
        chat.ask(prompt)
        chat.finished(turn)
    chat.columns.nth(0).locator("summary.mm-i-more").nth(1).click()
    chat.columns.nth(0).get_by_role("button", name="Branch into a new conversation").locator("visible=true").click()
    chat.finished(2)
    chat.ask("otherwise")
    chat.finished(3)
    assert texts(chat, 0) == texts(chat, 1) == ["one", "two", "otherwise"]
    rows = open_list(chat)
    chat.expect(rows).to_have_count(2)
    rows.nth(1).locator(".mm-list-open").click()
    chat.until("document.querySelector('.mm-column').innerText.includes('three')")
    assert texts(chat, 1) == ["one", "two", "three"]


def test_all_turns_of_a_long_conversation_are_shown(chat: Chat) -> None:
    for turn in range(1, 11):
        chat.ask(f"prompt {turn}")
        chat.finished(turn)
    new_chat(chat)
    open_list(chat).nth(0).locator(".mm-list-open").click()
    chat.until("document.querySelectorAll('.mm-column')[1].querySelectorAll('.mm-prompt').length === 10")
    for index in (0, 1):
        assert texts(chat, index) == [f"prompt {turn}" for turn in range(1, 11)]
    end = "[...document.querySelectorAll('.mm-body')].every(b => b.scrollHeight - b.scrollTop - b.clientHeight < 2)"
    chat.until(end)


# the list


def test_the_list_finds_pins_renames_deletes_and_brings_back(chat: Chat) -> None:
    for prompt in ("about apples", "about pears", "about plums"):
        new_chat(chat)
        chat.ask(prompt)
        chat.finished()
    rows = open_list(chat)
    chat.expect(rows).to_have_count(3)
    assert titles(chat) == ["about plums", "about pears", "about apples"]
    menu(chat, rows.nth(2), "Pin")
    chat.expect(rows.nth(0)).to_contain_text("about apples")
    menu(chat, rows.nth(1), "Rename")
    field = chat.page.get_by_role("textbox", name="New title")
    field.fill("stone fruit")
    field.press("Enter")
    chat.expect(rows.nth(1)).to_contain_text("stone fruit")
    menu(chat, rows.nth(2), "Delete")
    chat.expect(rows).to_have_count(2)
    chat.page.locator(".mm-list-undo").get_by_role("button", name="Undo").click()
    chat.expect(rows).to_have_count(3)
    chat.page.get_by_role("searchbox", name="Search conversations").fill("pears")
    chat.expect(rows).to_have_count(1)
    chat.expect(rows.locator("mark").first).to_have_text("pears")
    rows.locator(".mm-list-open").click()
    chat.until("document.querySelector('.mm-column').innerText.includes('about pears')")
    chat.expect(rows).to_have_attribute("aria-current", "true")
    reopen(chat)
    assert texts(chat, 0) == ["about pears"]


def test_a_running_answer_goes_on_while_another_conversation_is_open(chat: Chat) -> None:
    chat.ask(COUNTING)
    chat.growing(1)
    new_chat(chat)
    chat.ask("quick")
    chat.finished()
    rows = open_list(chat)
    rows.nth(1).locator(".mm-list-open").click()
    chat.until("document.querySelector('.mm-column').innerText.includes('58 59 60')")
    chat.finished()
    assert texts(chat, 1) == [COUNTING]


def test_hostile_titles_stay_text(chat: Chat) -> None:
    evil = "<img src=x onerror=window.hacked=1>"
    chat.ask(f"{evil} cache")
    chat.finished()
    rows = open_list(chat)
    chat.expect(rows).to_contain_text(evil)
    chat.page.get_by_role("searchbox").fill("cache")
    chat.expect(rows.locator("mark").first).to_have_text("cache")
    assert chat.page.evaluate("window.hacked") is None
    assert chat.page.locator("#mm-list img").count() == 0


# files


def test_a_conversation_leaves_and_comes_back(chat: Chat, tmp_path: Path) -> None:
    chat.ask("keep **this**")
    chat.finished()
    chat.act(0, "regenerate")
    chat.expect(chat.columns.nth(0).locator(".mm-versions")).to_contain_text("2/2")
    rows = open_list(chat)
    saved = {}
    for kind, words in (("json", "Export as JSON"), ("md", "Export as Markdown"), ("html", "Export as a page")):
        with chat.page.expect_download() as download:
            menu(chat, rows.nth(0), words)
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
        assert saved[kind].suffix == f".{kind}"
    assert "> keep **this**" in saved["md"].read_text("utf-8")
    chat.page.locator('#mm-list input[type="file"]').set_input_files(saved["json"])
    chat.expect(rows).to_have_count(2)
    chat.finished()
    chat.expect(chat.columns.nth(0).locator(".mm-versions")).to_contain_text("2/2")
    with chat.page.expect_download() as download:
        menu(chat, rows.nth(0), "Export as JSON")
    download.value.save_as(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text("utf-8")) == json.loads(saved["json"].read_text("utf-8"))

    page = chat.page.context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(saved["html"].as_uri())
    assert page.locator("strong").all_inner_texts() == ["this", "this"]
    assert asked == [saved["html"].as_uri()]
    page.close()


@pytest.mark.parametrize("content", [b"hello", b"{}", b"\xff\xfe\x00", b'{"format": "other"}'])
def test_a_foreign_file_is_refused_with_a_sentence(chat: Chat, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    open_list(chat)
    chat.page.locator('#mm-list input[type="file"]').set_input_files(tmp_path / "file.json")
    chat.expect(chat.page.locator("#mm-list .mm-warn")).to_contain_text("no conversation of this app")


# narrow screens


def test_on_a_telephone_the_list_is_a_drawer(browser: Any, served: Server) -> None:
    for chat in visit(browser, served):
        chat.page.set_viewport_size({"width": 390, "height": 844})
        chat.finished(0)
        reopen(chat, 0)
        chat.ask("one")
        chat.finished()
        new_chat(chat)
        rows = open_list(chat)
        box = chat.page.locator("#mm-list").bounding_box()
        assert box["width"] < 340
        rows.nth(0).locator(".mm-list-open").click()
        chat.finished()
        chat.expect(chat.page.locator("#mm-list")).to_be_hidden()
        assert texts(chat, 0) == ["one"]
        assert chat.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_telephone_the_strip_brings_each_column_and_a_draft_outlives_a_reload(
    browser: Any, served: Server
) -> None:
    for chat in visit(browser, served, is_mobile=True, has_touch=True):
        page = chat.page
        page.set_viewport_size({"width": 390, "height": 844})
        chat.finished(0)
        page.get_by_role("button", name="Add column").click()
        chat.expect(chat.columns).to_have_count(3)
        chat.ask("one")
        chat.finished()
        strip = page.get_by_role("tablist", name="Columns").get_by_role("tab")
        chat.expect(strip).to_have_count(3)
        for index in (2, 0, 1):  # a real press, on whatever lies there
            strip.nth(index).click()
            chat.expect(strip.nth(index)).to_have_attribute("aria-selected", "true")
            chat.expect(chat.columns.nth(index)).to_be_in_viewport(ratio=0.9)
        for name in ("System", "Chat"):  # no tab of the app is folded away
            page.get_by_role("tab", name=name, exact=True).click()
            chat.expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")
        chat.prompt.fill("half a thought")
        page.reload()
        chat.expect(chat.prompt).to_have_value("half a thought")
        chat.finished()
        chat.prompt.press("Enter")
        chat.finished(2)
        page.reload()
        chat.finished(2)
        assert chat.prompt.input_value() == ""
        chat.errors.clear()  # Gradio complains of what it was listening to


def test_another_device_joins_by_a_link_once(chat: Chat, browser: Any, served: Server) -> None:
    chat.ask("from the desk")
    chat.finished()
    open_list(chat)
    chat.page.get_by_role("button", name="Open elsewhere").click()
    link = chat.page.get_by_role("textbox", name="Link for another device").input_value()
    for other in visit(browser, served, is_mobile=True, has_touch=True):
        other.ask("from the sofa, before")
        other.finished()
        other.page.goto(link)
        other.until("document.querySelector('.mm-column')?.innerText.includes('from the desk')")
        other.finished()
        assert "join" not in other.page.url
        rows = open_list(other)
        chat.expect(rows).to_have_count(2)
        reopen(other)
        assert texts(other, 0) == ["from the desk"]
    for stranger in visit(browser, served):
        stranger.page.goto(link)
        stranger.expect(stranger.warning).to_contain_text("used already")
        assert "from the desk" not in stranger.page.content()
        stranger.errors.clear()
