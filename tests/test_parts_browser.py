"""Files and calls of tools as a person meets them: chosen, sent, found again, taken out and brought back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .faults import DONE, FaultServer, event, streamed
from .page import Chat
from .samples import pdf, png
from .serving import Server, app
from .support import needs, needs_browser
from .test_conversations_browser import menu, open_list

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]

SECRET = "The secret number is 4711."
TOOLS = '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'


@pytest.fixture(scope="module")
def service() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, service: FaultServer) -> Iterator[Server]:
    """The app with a model of a service, which takes pictures, and an echo, which takes none."""
    endpoints = [{"name": "sees", "base_url": service.url("good")}]
    folder = tmp_path_factory.mktemp("app")
    with app(folder, ENDPOINTS=endpoints, MULTIMODEL_COLUMNS=["sees:m", "echo:any"]) as server:
        yield server


def attach(chat: Chat, *files: tuple[str, bytes]) -> None:
    """Choose files, and wait until they are read."""
    chosen = [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files]
    before = chat.page.locator(".mm-chip-file:not(.mm-reading)").count()
    chat.page.locator("#mm-attach input[type=file]").set_input_files(chosen)
    chat.expect(chat.page.locator(".mm-chip-file:not(.mm-reading)")).to_have_count(before + len(files))


def export(chat: Chat, path: Path) -> Any:
    """The shown conversation as it leaves."""
    rows = open_list(chat)
    with chat.page.expect_download() as leaving:
        menu(chat, rows.first, "Export as JSON")
    leaving.value.save_as(path)
    return json.loads(path.read_text("utf-8"))


def test_files_are_sent_found_again_and_taken_elsewhere(chat: Chat, service: FaultServer, tmp_path: Path) -> None:
    chat.open()
    attach(chat, ("notes <b>.txt", SECRET.encode()), ("report.pdf", pdf("First", "Second")), ("dot.png", png(40, 30)))
    chips = chat.page.locator(".mm-chips")
    for words in ("notes <b>.txt", "about 7 tokens", "2 pages", "40 x 30"):
        chat.expect(chips).to_contain_text(words)
    said = chat.page.locator(".mm-attach-said")
    chat.expect(said.first).to_contain_text("any (Echo) will refuse the picture")

    chat.page.locator("#mm-attach input[type=file]").set_input_files(
        [{"name": "broken.pdf", "mimeType": "x", "buffer": b"no pdf"}]
    )
    chat.expect(said.last).to_contain_text("broken.pdf is damaged, or no PDF file.")
    attach(chat, ("extra.txt", b"never sent"))
    chips.get_by_role("button", name="Remove extra.txt").click()
    chat.expect(chips.locator(".mm-chip-file")).to_have_count(3)
    chat.page.reload()  # before anything is sent
    chat.expect(chips.locator(".mm-chip-file")).to_have_count(3)

    chat.ask("What is it?")
    chat.finished()
    chat.expect(chips.locator(".mm-chip-file")).to_have_count(0)
    (request,) = service.asked("good")
    picture, words = request.body["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert words["text"].startswith(f'The file "notes <b>.txt":\n```\n{SECRET}\n```\n\nThe file "report.pdf":')
    assert words["text"].endswith("[Page 2]\nSecond\n```\n\nWhat is it?")
    chat.expect(chat.columns.nth(1).locator(".mm-error")).to_contain_text("takes no pictures")

    chat.page.reload()
    chat.finished()
    turn = chat.columns.nth(0).locator(".mm-turn").first
    chat.until("document.querySelector('.mm-turn .mm-file-picture img')?.naturalWidth === 40")
    turn.locator("a.mm-file", has_text="notes <b>.txt").click()
    chat.expect(chat.page.locator("dialog.mm-opened pre")).to_have_text(SECRET)
    chat.page.keyboard.press("Escape")
    chat.expect(chat.page.locator("dialog.mm-opened")).to_have_count(0)

    left = export(chat, tmp_path / "left.json")
    assert len(left["bodies"]) == 3
    chat.page.locator("#mm-list input[type=file]").set_input_files(tmp_path / "left.json")
    chat.expect(chat.page.locator(".mm-list-row")).to_have_count(2)
    chat.finished()
    assert export(chat, tmp_path / "again.json") == left
    chat.until("document.querySelector('.mm-turn .mm-file-picture img')?.naturalWidth === 40")
    chat.errors.clear()  # Gradio complains of what it was listening to when the page was loaded again


def test_a_broken_schema_is_told_where_it_is_typed(chat: Chat) -> None:
    chat.page.locator("#mm-settings-button").click()
    schema = chat.page.locator("#mm-settings label", has_text="The answer is JSON that follows it").locator("textarea")
    schema.fill('{"type": ')
    schema.blur()
    chat.expect(chat.page.locator("#mm-doubt .mm-warn")).to_contain_text("JSON schema")
    schema.fill('{"type": "object"}')
    schema.blur()
    chat.expect(chat.page.locator("#mm-doubt .mm-warn")).to_have_count(0)


def test_a_call_is_shown_answered_and_gone_on_from(chat: Chat, service: FaultServer) -> None:
    chat.open()
    chat.page.locator("#mm-settings-button").click()
    tools = chat.page.locator("#mm-settings label", has_text="Functions that it may").locator("textarea")
    tools.fill('[{"name": "get weather"}]')
    tools.blur()
    chat.expect(chat.page.locator("#mm-doubt")).to_contain_text("Tool 1 has no name")
    tools.fill(TOOLS)
    tools.blur()
    chat.expect(chat.page.locator("#mm-doubt .mm-warn")).to_have_count(0)
    chat.page.locator("#mm-settings-close").click()

    pieces = ["", '{"city"', ': "Paris"}']
    calls: list[dict[str, Any]] = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    calls[0] |= {"id": "c1", "function": {"name": "get_weather", "arguments": ""}}
    service.once("good", streamed(*(event({"tool_calls": [call]}) for call in calls), event({}, "tool_calls"), DONE))
    chat.ask("Is it warm?")
    chat.finished()
    column = chat.columns.nth(0)
    chat.expect(column.locator(".mm-figures")).to_contain_text("wants to call a tool")
    chat.expect(column.locator(".mm-call-head b")).to_have_text("get_weather")
    chat.expect(column.locator(".mm-call pre")).to_have_text('{\n  "city": "Paris"\n}')
    column.get_by_label("Result of get_weather").fill("21 <b>degrees</b>")
    column.get_by_role("button", name="Send the result").click()
    chat.expect(column.locator(".mm-turn")).to_have_count(2)
    chat.expect(column.locator(".mm-turn").nth(1).locator(".mm-results pre")).to_have_text("21 <b>degrees</b>")
    chat.expect(column.locator(".mm-turn").nth(1).locator(".mm-md")).to_have_text("Hello")
    assert chat.columns.nth(1).locator(".mm-turn").count() == 1
    body = service.asked("good")[-1].body
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool"]
    assert body["messages"][2] == {"role": "tool", "content": "21 <b>degrees</b>", "tool_call_id": "c1"}
    assert not column.locator(".mm-call textarea").is_visible()  # it is answered
