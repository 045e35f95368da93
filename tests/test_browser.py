"""The app as a person uses it: Chromium on a running app, from the first question to hostile answers."""

from __future__ import annotations

import json
import re
import select
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from .faults import DONE, FIN, FaultServer, event, reply, streamed
from .page import COUNTING, ENDLESS, FIGURES, PATIENCE, Chat, visit
from .serving import ENDING, Server, app, ended, free_port
from .support import GUIDE_FOLDER, GUIDE_GGUF, needs, needs_browser, tiny_gguf, tiny_llama

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]

TWO_UPDATES = 2 / 15  # seconds
ICONS = re.compile(r"favicon|manifest\.json")


@pytest.fixture(scope="module")
def faults() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, faults: FaultServer) -> Iterator[Server]:
    """The app with two echoes, one of them slow, and endpoints that are not all well."""
    endpoints = [
        {"name": "fake", "base_url": faults.url("good")},
        {"name": "shaky", "base_url": faults.url("parts")},
        {"name": "down", "base_url": f"http://127.0.0.1:{free_port()}/v1"},
        {"name": "locked", "base_url": faults.url("cr"), "key_var": "LOCKED_KEY"},
    ]
    columns = ["echo:any", "echo:slow"]
    folder = tmp_path_factory.mktemp("app")
    with app(folder, ENDPOINTS=endpoints, MULTIMODEL_COLUMNS=columns, MULTIMODEL_RETRIES="0") as server:
        yield server
        assert server.printed() == f"Running on {server.url}/\n"


# the main job


def test_a_prompt_sent_before_the_page_is_open_waits_for_it(browser: Any, served: Server) -> None:
    with browser.new_context() as context:
        chat, held = Chat(context.new_page(), served.url), list[Any]()
        chat.page.route(
            "**/gradio_api/run/**", lambda route: held.append(route) if chat.columns.count() == 0 else route.continue_()
        )
        chat.page.goto(served.url)
        chat.ask("one two three")
        chat.page.wait_for_timeout(300)
        assert held and chat.prompt.input_value() == "one two three"
        held.pop().continue_()
        chat.page.wait_for_timeout(500)
        for route in held:  # what opens the page is answered after the prompt
            route.continue_()
        chat.page.wait_for_timeout(500)
        chat.finished()
        assert chat.prompt.input_value() == "" and chat.errors == []


def ask_both(chat: Chat) -> None:
    """A question to the built-in model in both forms, until both have answered."""
    chat.ask("What is the KV cache?")
    chat.finished(patience=3 * PATIENCE)  # importing the engines may take long


def test_a_fresh_page_answers_a_question_in_two_columns_and_ctrl_c_ends_it_all(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert GUIDE_FOLDER.is_dir(), "the repository ships the built-in model"
    assert GUIDE_GGUF.is_file(), "the repository ships the built-in model"
    with app(tmp_path_factory.mktemp("fresh")) as server:
        for chat in visit(browser, server):
            assert chat.names() == ["guide", "guide"]
            ask_both(chat)
            for column in chat.columns.all():
                assert FIGURES.search(column.locator(".mm-figures").inner_text())
                assert len(column.locator(".mm-md").inner_text()) > 20
            both_grow(chat)
            chat.prompt.fill("long " * 3000)
            chat.expect(chat.page.locator("#mm-size")).to_contain_text(re.compile(r"guide \(GGUF\).* of 1,024 tokens"))
        workers = [child for child in server.children() if "multimodel.workers" in " ".join(child.cmdline())]
        assert len(workers) == 2
        server.interrupt()
        assert server.process.wait(ENDING) == 0
        assert all(ended(worker) for worker in workers)
        assert "Traceback" not in server.printed()


@needs("llama_cpp", "gguf", "torch", "transformers")
def test_eight_columns_of_two_visitors_stream_from_one_model_at_once(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("eight")
    model = tiny_gguf(tiny_llama(folder / "hf", context=4096), folder / "tiny.gguf")
    with app(folder, MULTIMODEL_COLUMNS=[f"gguf:{model}"] * 4, MULTIMODEL_MAX_TOKENS="2048") as server:
        for first, second in zip(visit(browser, server), visit(browser, server), strict=True):
            first.ask("Count to ten.")
            second.ask("And back again.")
            for chat in (first, second):  # an answer that is over before it is looked at was quick, not missing
                chat.until(
                    "() => [...document.querySelectorAll('.mm-column')]"
                    ".every(c => c.querySelector('.mm-live .mm-md, .mm-turn .mm-md'))"
                )
            for chat in (first, second):
                chat.finished(patience=3 * PATIENCE)
                for column in chat.columns.all():
                    assert "2048 tokens" in column.locator(".mm-figures").inner_text()
        workers = [child for child in server.children() if "multimodel.workers" in " ".join(child.cmdline())]
        assert len(workers) == 1


WATCH = """() => {
  window.seen = [...document.querySelectorAll('.mm-column')].map(() => []);
  new MutationObserver(() => document.querySelectorAll('.mm-column').forEach((column, i) => {
    const text = column.querySelector('.mm-live .mm-md');
    if (text) window.seen[i].push(text.textContent.length);
  })).observe(document.querySelector('.mm-columns'), { childList: true, subtree: true });
}"""
GREW = """() => [...document.querySelectorAll('.mm-column')].map((column, i) => {
  const whole = [...column.querySelectorAll('.mm-turn .mm-md')].at(-1).textContent.length;
  return window.seen[i].some((length) => length < whole);
})"""


def both_grow(chat: Chat) -> None:
    """Now that both models are loaded, their texts come piece by piece. An answer of the small model may be over
    between two updates of the page: then its own figures must say that it was that quick."""
    chat.page.evaluate(WATCH)
    grew = [False, False]
    for turn, question in enumerate(("How do I stop it?", "What is a token?", "What is fine-tuning?", "Hello!"), 2):
        chat.page.evaluate("seen.forEach((lengths) => lengths.length = 0)")
        chat.ask(question)
        chat.finished(turn)
        grew = [one or other for one, other in zip(grew, chat.page.evaluate(GREW), strict=True)]
        if all(grew):
            return
    assert any(grew)
    assert all(seen or decoding(chat, index) < TWO_UPDATES for index, seen in enumerate(grew))


def decoding(chat: Chat, index: int) -> float:
    """Seconds that the newest answer of a column took after its first token, by its own figures."""
    figures = chat.columns.nth(index).locator(".mm-figures").last.inner_text()
    return int(re.search(r"(\d+) tokens", figures)[1]) / float(re.search(r"([\d.]+) tok/s", figures)[1])  # type: ignore[index]


def test_text_grows_while_it_comes(chat: Chat) -> None:
    chat.ask(COUNTING)
    chat.growing(1)
    chat.expect(chat.columns.nth(0).locator(".mm-figures")).to_contain_text("finished")
    chat.finished()
    assert chat.answer(0) == chat.answer(1) == COUNTING
    for index in (0, 1):
        assert "60 tokens" in chat.columns.nth(index).locator(".mm-figures").inner_text()


def test_examples_ask(chat: Chat) -> None:
    chat.page.get_by_role("button", name="What is the KV cache?").click()
    chat.finished()
    assert chat.answer(0) == "What is the KV cache?"
    chat.expect(chat.page.locator("#mm-examples")).to_be_hidden()


# the prompt box


def test_shift_enter_breaks_the_line(chat: Chat) -> None:
    chat.prompt.fill("one")
    chat.prompt.press("Shift+Enter")
    chat.prompt.press_sequentially("two")
    assert chat.prompt.input_value() == "one\ntwo"
    chat.prompt.press("Enter")
    chat.finished()
    assert chat.answer(0) == "one\ntwo"
    assert chat.prompt.input_value() == ""


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_an_empty_prompt_sends_nothing(chat: Chat, text: str) -> None:
    chat.ask(text)
    chat.page.get_by_role("button", name="Send").click()
    chat.page.wait_for_timeout(300)
    assert chat.page.locator(".mm-turn, .mm-live > *").count() == 0
    assert chat.warning.inner_text().strip() == ""


ENDS = "() => [...document.querySelectorAll('.mm-body')].every(b => b.scrollHeight - b.scrollTop - b.clientHeight < 2)"


@pytest.mark.parametrize("model", ["echo:any", "echo:slow"])
def test_the_end_of_an_answer_stays_in_view(chat: Chat, model: str) -> None:
    """While it grows, when it ends and when the next prompt is sent; but not for somebody who reads further up."""
    chat.pick(1, model)
    lines = "  \n".join(str(number) for number in range(1, 60))
    for turn in (1, 2):
        chat.ask(lines)
        chat.finished(turn)
        chat.until(ENDS)
        assert chat.page.evaluate("document.querySelector('.mm-body').scrollTop") > 400
    chat.columns.nth(1).locator(".mm-body").evaluate("body => body.scrollTop = 100")
    chat.act(0, "regenerate")
    chat.finished(2)
    assert chat.columns.nth(1).locator(".mm-body").evaluate("body => body.scrollTop") == 100


def test_four_columns_are_shown_from_their_ends_after_a_reload(chat: Chat) -> None:
    chat.pick(1, "echo:any")
    for count in (3, 4):
        chat.page.get_by_role("button", name="Add column").click()
        chat.expect(chat.columns).to_have_count(count)
    for turn in (1, 2):
        chat.ask("a word of many " * 150)  # the narrower, the higher
        chat.finished(turn)
    chat.open()
    chat.finished(2)
    chat.until(ENDS)


# stopping


def test_stop_in_one_column_leaves_the_other(chat: Chat) -> None:
    chat.pick(0, "echo:slow")
    chat.ask(ENDLESS)
    chat.growing(0)
    chat.act(0, "stop")
    stopped = chat.columns.nth(0)
    chat.expect(stopped.locator(".mm-figures")).to_contain_text("stopped")
    text = chat.answer(0)
    assert text
    assert ENDLESS.startswith(text)
    chat.growing(1)
    chat.act(1, "stop")
    chat.finished()
    assert chat.answer(0) == text
    assert len(chat.answer(1)) > len(text)
    assert stopped.locator(".mm-note").inner_text() == "Stopped. Continue"


def test_stop_all(chat: Chat) -> None:
    chat.pick(0, "echo:slow")
    chat.ask(ENDLESS)
    chat.growing(1)
    chat.page.get_by_role("button", name="Stop all").click()
    chat.finished()
    for index in (0, 1):
        assert ENDLESS.startswith(chat.answer(index))
        chat.expect(chat.columns.nth(index).locator(".mm-figures")).to_contain_text("stopped")
    chat.expect(chat.page.get_by_role("button", name="Send")).to_be_visible()


# columns


def test_columns_come_and_go_while_others_stream(chat: Chat) -> None:
    chat.ask(ENDLESS)
    chat.growing(1)
    add = chat.page.get_by_role("button", name="Add column")
    for count in (3, 4):
        add.click()
        chat.expect(chat.columns).to_have_count(count)
        chat.growing(1)
    chat.expect(add).to_be_disabled()
    chat.expect(add).to_have_attribute("title", "4 columns are the most")
    assert add.evaluate("button => getComputedStyle(button).pointerEvents") != "none", "nobody would see the title"
    slow = chat.keys()[1]
    chat.act(1, "left")
    chat.until("key => document.querySelector('.mm-column').dataset.key === key", slow)
    chat.growing(0)
    chat.act(0, "right")
    chat.until("key => document.querySelector('.mm-column').dataset.key !== key", slow)
    for count in (3, 2):
        chat.act(count, "remove")
        chat.expect(chat.columns).to_have_count(count)
        chat.expect(add).to_be_enabled()
        chat.growing(1)
    chat.act(0, "remove")
    chat.expect(chat.columns).to_have_count(1)
    assert chat.keys() == [slow]
    chat.expect(chat.columns.locator('[data-act="remove"]')).to_be_disabled()
    chat.growing(0)
    chat.act(0, "stop")
    chat.finished()


def test_a_column_that_was_removed_answers_nothing_more(chat: Chat) -> None:
    chat.ask(ENDLESS)
    chat.growing(1)
    chat.act(1, "remove")
    chat.finished()
    assert chat.answer(0) == ENDLESS


# what survives, what is repeated, what is emptied


def test_a_reload_in_the_middle_finds_the_answer_again(chat: Chat) -> None:
    chat.ask("before")
    chat.finished()
    chat.ask(ENDLESS)
    chat.growing(1)
    chat.open()
    chat.expect(chat.columns.nth(0).locator(".mm-turn")).to_have_count(2)
    chat.growing(1)
    chat.page.get_by_role("button", name="Stop all").click()
    chat.finished(2)
    chat.errors.clear()  # Gradio complains of the stream that the reload has cut
    assert ENDLESS.startswith(chat.answer(1))


def test_an_answer_that_nobody_watches_goes_on_to_its_end(chat: Chat) -> None:
    chat.ask(COUNTING)
    chat.until("() => document.documentElement.dataset.mmRunning !== '0'")
    chat.page.goto("about:blank")
    chat.open()
    chat.finished()
    chat.errors.clear()
    assert chat.answer(1) == COUNTING


def test_another_visitor_sees_nothing_of_it(chat: Chat, browser: Any, served: Server) -> None:
    chat.ask("my secret")
    chat.finished()
    for other in visit(browser, served):
        other.finished(0)
        assert "my secret" not in other.page.content()


def test_regenerate_asks_one_column_again(chat: Chat) -> None:
    words = "one two three four five six seven eight nine ten"  # a second of echo:slow, which the page may not miss
    chat.ask(words)
    chat.finished()
    chat.act(1, "regenerate")
    chat.until("() => document.documentElement.dataset.mmRunning === '1'")
    chat.finished()
    assert chat.answer(0) == chat.answer(1) == words


def test_clear_empties_one_column_and_new_chat_all(chat: Chat) -> None:
    chat.ask("hello")
    chat.finished()
    chat.act(0, "clear")
    chat.expect(chat.columns.nth(0).locator(".mm-turn")).to_have_count(0)
    chat.expect(chat.columns.nth(1).locator(".mm-turn")).to_have_count(1)
    chat.page.get_by_role("button", name="New chat").click()
    chat.finished(0)
    assert chat.names() == ["any", "slow"]


def test_copy_takes_the_text_as_it_was_written(browser: Any, served: Server) -> None:
    text = "**bold** <b>&amp;</b>\n\n```python\nx  = '<1>'\n```"
    for chat in visit(browser, served, permissions=["clipboard-read", "clipboard-write"]):
        chat.ask(text)
        chat.finished()
        chat.columns.nth(0).locator('[data-copy="answer"]').click()
        chat.expect(chat.columns.nth(0).locator('[data-copy="answer"]')).to_have_text("Copied")
        assert chat.page.evaluate("navigator.clipboard.readText()") == text
        chat.columns.nth(0).locator('[data-copy="code"]').click()
        chat.until("async () => await navigator.clipboard.readText() === \"x  = '<1>'\\n\"")


def test_light_or_dark_is_kept(chat: Chat) -> None:
    dark = "document.body.classList.contains('dark')"
    before = chat.page.evaluate(dark)
    chat.page.get_by_role("button", name="Light or dark").click()
    assert chat.page.evaluate(dark) is not before
    colour = chat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    chat.open()
    assert chat.page.evaluate(dark) is not before
    assert chat.page.evaluate("getComputedStyle(document.body).backgroundColor") == colour


# the model picker


def test_the_picker_searches_and_is_worked_by_keys(chat: Chat) -> None:
    chat.columns.nth(0).locator(".mm-model").click()
    chat.expect(chat.search).to_be_focused()
    chat.expect(chat.options.first).to_be_visible()
    groups = chat.page.locator(".mm-picker .mm-group").all_inner_texts()
    assert len(groups) == len(set(groups)) >= 4
    everything = chat.options.count()
    chat.search.fill("guide")
    chat.expect(chat.options).to_have_count(2)
    assert everything > 10
    ids = chat.options.evaluate_all("nodes => nodes.map(node => node.dataset.model)")
    assert ids == ["transformers:guide", "gguf:guide"]
    chat.expect(chat.options.nth(0)).to_have_attribute("aria-selected", "true")
    chat.search.press("ArrowDown")
    chat.expect(chat.options.nth(1)).to_have_attribute("aria-selected", "true")
    chat.search.press("ArrowDown")
    chat.search.press("ArrowUp")
    chat.expect(chat.options.nth(0)).to_have_attribute("aria-selected", "true")
    assert chat.search.get_attribute("aria-activedescendant") == chat.options.nth(0).get_attribute("id")
    chat.search.press("Enter")
    chat.expect(chat.columns.nth(0).locator(".mm-model")).to_have_attribute(
        "title", "transformers:guide: choose a model"
    )
    chat.expect(chat.columns.nth(0).locator(".mm-model")).to_be_focused()
    chat.expect(chat.search).to_be_hidden()


def test_escape_leaves_the_picker_and_changes_nothing(chat: Chat) -> None:
    chat.columns.nth(1).locator(".mm-model").click()
    chat.search.fill("guide")
    chat.search.press("Escape")
    chat.expect(chat.search).to_be_hidden()
    chat.expect(chat.columns.nth(1).locator(".mm-model")).to_be_focused()
    assert chat.names() == ["any", "slow"]
    chat.columns.nth(1).locator(".mm-model").click()
    chat.expect(chat.search).to_have_value("")
    chat.page.locator("#mm-prompt").click()
    chat.expect(chat.search).to_be_hidden()


def test_models_of_services_are_listed_or_greyed_with_the_reason(chat: Chat) -> None:
    chat.columns.nth(0).locator(".mm-model").click()
    chat.expect(chat.page.locator('.mm-option[data-model="fake:good-model"]')).to_be_visible()
    greyed = {
        str(option.get_attribute("data-model")): option.inner_text().replace("\n", " ")
        for option in chat.page.locator('.mm-option[aria-disabled="true"]').all()
    }
    assert "LOCKED_KEY" in greyed["locked:"]
    assert "does not answer" in greyed["down:"]
    assert any("OPENAI_API_KEY" in text for id, text in greyed.items() if id.startswith("openai:"))
    assert any("HF_TOKEN" in text for id, text in greyed.items() if id.startswith("hf-inference:"))


def test_any_id_can_be_typed(chat: Chat) -> None:
    chat.pick(0, "fake:a-model/of-mine:latest")
    assert chat.names() == ["of-mine:latest", "slow"]
    chat.pick(0, "echo:any")
    chat.ask("still here")
    chat.finished()
    assert chat.answer(0) == "still here"


@pytest.mark.parametrize("text", ["nonsense", "no model", "nowhere:", ":x"])
def test_what_is_no_model_is_refused_with_a_sentence(chat: Chat, text: str) -> None:
    chat.columns.nth(0).locator(".mm-model").click()
    chat.search.fill(text)
    chat.search.press("Enter")
    chat.expect(chat.warning).to_contain_text("is not a model id. Write backend:name")
    assert chat.names() == ["any", "slow"]


def test_a_misspelt_backend_is_refused_with_what_was_meant(chat: Chat) -> None:
    chat.columns.nth(0).locator(".mm-model").click()
    chat.search.fill("ggfu:guide")
    chat.search.press("Enter")
    chat.expect(chat.warning).to_contain_text("There is no backend called 'ggfu'. Did you mean gguf:guide")
    assert chat.names() == ["any", "slow"]


# settings


def open_settings(chat: Chat, index: int | None = None) -> Any:
    if index is None:
        chat.page.locator("#mm-settings-button").click()
    else:
        chat.act(index, "settings")
    panel = chat.page.locator("#mm-settings")
    chat.expect(panel).to_be_visible()
    return panel


def write(chat: Chat, field: Any, text: str) -> None:
    """Put a text in a field of the settings at once, as pasting does, and leave it."""
    with chat.page.expect_response(lambda response: "/gradio_api/" in response.url):
        field.fill(text)
        field.press("Tab")


def test_settings_are_shared_until_a_column_has_its_own(chat: Chat, faults: FaultServer) -> None:
    chat.pick(0, "fake:one")
    chat.pick(1, "fake:two")
    panel = open_settings(chat)
    write(chat, panel.get_by_label("System prompt"), "Be brief.")
    assert systems(chat, faults, 1) == {"one": "Be brief.", "two": "Be brief."}
    open_settings(chat, 1)
    chat.expect(panel.get_by_label("System prompt")).to_be_disabled()
    panel.get_by_label("Own settings").check()
    chat.expect(panel.get_by_label("System prompt")).to_be_enabled()
    chat.expect(panel.get_by_label("System prompt")).to_have_value("Be brief.")
    write(chat, panel.get_by_label("System prompt"), "Be long.")
    assert systems(chat, faults, 2) == {"one": "Be brief.", "two": "Be long."}
    panel.get_by_label("Own settings").uncheck()
    chat.expect(panel.get_by_label("System prompt")).to_have_value("Be brief.")
    assert systems(chat, faults, 3) == {"one": "Be brief.", "two": "Be brief."}
    panel.get_by_role("button", name="Close settings").click()
    chat.expect(panel).to_be_hidden()


def systems(chat: Chat, faults: FaultServer, turn: int) -> dict[str, str]:
    """The system prompt that each model was sent with the next question."""
    before = len(faults.asked("good"))
    chat.ask(f"question {turn}")
    chat.finished(turn)
    bodies = [request.body for request in faults.asked("good")[before:]]
    assert all(body["messages"][-1] == {"role": "user", "content": f"question {turn}"} for body in bodies)
    return {body["model"]: body["messages"][0]["content"] for body in bodies}


def test_sampling_settings_reach_the_wire(chat: Chat, faults: FaultServer) -> None:
    chat.pick(0, "fake:one")
    chat.act(1, "remove")
    panel = open_settings(chat)
    numbers = (("Temperature", "0.7"), ("Max tokens", "50"), ("Presence penalty", "0.5"), ("Seed", "7"))
    for label, value in (*numbers, ("Stop sequences", "END\nHALT")):
        write(chat, panel.get_by_label(label).locator("visible=true").first, value)
    chat.ask("hello")
    chat.finished()
    body = faults.asked("good")[-1].body
    assert body["temperature"] == 0.7
    assert body["max_tokens" if "max_tokens" in body else "max_completion_tokens"] == 50
    assert (body["seed"], body["presence_penalty"]) == (7, 0.5)
    assert body["stop"] == ["END", "HALT"]
    assert "top_p" not in body


def test_parameters_that_a_model_does_not_take_are_greyed(chat: Chat) -> None:
    panel = open_settings(chat, 0)
    panel.get_by_label("Own settings").check()
    chat.expect(panel.get_by_label("System prompt")).to_be_enabled()
    sliders = panel.locator("input[type=range]:enabled")
    chat.expect(sliders).to_have_count(1)
    assert "Max tokens" in str(sliders.get_attribute("aria-label"))
    chat.expect(panel.get_by_text("Not taken by any (Echo), so not sent there")).to_have_count(13)


# what goes wrong


def test_an_endpoint_that_is_down_fails_alone(chat: Chat) -> None:
    chat.pick(1, "down:any-model")
    chat.ask("hello")
    chat.finished()
    assert chat.answer(0) == "hello"
    assert chat.columns.nth(0).get_by_role("alert").count() == 0
    error = chat.columns.nth(1).get_by_role("alert")
    assert len(error.locator("strong").inner_text()) > 10
    assert len(error.locator("p").inner_text()) > 5
    error.get_by_role("button", name="Ask again").click()
    chat.finished()
    chat.expect(chat.columns.nth(1).get_by_role("alert")).to_be_visible()


def test_ask_again_works_once_the_endpoint_is_well(chat: Chat, faults: FaultServer) -> None:
    faults.once("parts", reply(500))
    chat.pick(1, "shaky:any-model")
    chat.ask("hello")
    chat.finished()
    chat.columns.nth(1).get_by_role("button", name="Ask again").click()
    chat.expect(chat.columns.nth(1).locator(".mm-figures")).to_contain_text("finished")
    assert chat.answer(1) == "Hello"
    assert chat.columns.nth(1).get_by_role("alert").count() == 0


# hostile text

TRAPS = [
    "<script>window.hacked = 1; fetch('URL')</script>",
    "<img src=x onerror=\"window.hacked=1;fetch('URL')\">",
    "<img src=URL>",
    "<svg/onload=window.hacked=1>",
    "<svg><image href=URL /></svg>",
    "<iframe src=URL></iframe>",
    "<iframe srcdoc=\"<script>parent.hacked=1</script>\"></iframe>",
    "<object data=URL></object><embed src=URL>",
    "<video src=URL autoplay></video><audio src=URL autoplay></audio>",
    "<link rel=stylesheet href=URL><link rel=prefetch href=URL>",
    "<style>@import 'URL'; * { background: url(URL) !important }</style>",
    "<div style=\"background:url(URL)\">x</div>",
    "<meta http-equiv=refresh content='0;url=URL'>",
    "<base href=URL>",
    "<form action=URL><button autofocus onfocus=window.hacked=1>x</button></form>",
    "<details open ontoggle=window.hacked=1>x</details>",
    "<body onload=window.hacked=1>",
    "<math><mtext><img src=x onerror=window.hacked=1></mtext></math>",
    "![pixel](URL?d=secret)",
    "![x](URL \"t\" onerror=window.hacked=1)",
    "[click](javascript:window.hacked=1)",
    "[click](data:text/html,<script>window.hacked=1</script>)",
    "<a href=\"javascript:window.hacked=1\">click</a>",
    "`</code><img src=x onerror=window.hacked=1>`",
    "```\"><img src=x onerror=window.hacked=1>\n</pre><script>window.hacked=1</script>\n```",
    "</template></article></section><script>window.hacked=1</script>",
    "<!--><img src=x onerror=window.hacked=1>-->",
    "${window.hacked=1} {{constructor.constructor('window.hacked=1')()}}",
]  # fmt: skip


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A server that nobody may reach."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def fell_in(trap: socket.socket) -> bool:
    """Whether anybody has connected within a moment."""
    ready, _, _ = select.select([trap], [], [], 0.5)
    return bool(ready)


def trapped(trap: socket.socket) -> list[str]:
    return [text.replace("URL", f"http://127.0.0.1:{trap.getsockname()[1]}/x") for text in TRAPS]


def test_the_trap_works(browser: Any, trap: socket.socket) -> None:
    """On a page that takes HTML from anybody, the same texts do what they are made for."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content(trapped(trap)[1] + trapped(trap)[2], wait_until="commit")
        page.wait_for_function("window.hacked === 1", timeout=PATIENCE)
    assert fell_in(trap)


def test_hostile_answers_do_nothing(browser: Any, served: Server, faults: FaultServer, trap: socket.socket) -> None:
    texts = trapped(trap)
    for chat in visit(browser, served):
        chat.pick(1, "fake:hostile")
        for turn, text in enumerate([*texts[::4], "\n\n".join(texts)], 1):
            faults.once("good", streamed(*(event(text[i : i + 9]) for i in range(0, len(text), 9)), FIN, DONE))
            chat.ask(text)
            chat.finished(turn)
        assert chat.page.evaluate("window.hacked") is None
        assert urlsplit(chat.page.url).netloc == urlsplit(served.url).netloc
        assert (
            chat.page.locator(".mm-column :is(img, script, iframe, svg, style, form, object, video, link)").count() == 0
        )
        assert "window.hacked = 1; fetch(" in chat.columns.nth(1).inner_text()
    assert not fell_in(trap)


def test_hostile_errors_and_names_do_nothing(chat: Chat, faults: FaultServer, trap: socket.socket) -> None:
    texts = trapped(trap)
    chat.pick(0, f"fake:{texts[1]}")
    for turn, text in enumerate(texts[:8], 1):
        faults.once("good", reply(400, {"error": {"message": text, "code": text, "type": text}}))
        chat.ask(text)
        chat.finished(turn)
        chat.expect(chat.columns.nth(0).get_by_role("alert")).to_have_count(turn)
    assert chat.page.evaluate("window.hacked") is None
    assert chat.page.locator(".mm-column :is(img, script, iframe, svg)").count() == 0
    assert not fell_in(trap)
    chat.errors = [error for error in chat.errors if "400" not in error]


def test_a_link_in_an_answer_opens_elsewhere_and_tells_nothing(chat: Chat) -> None:
    chat.ask("[here](https://example.org/x)")
    chat.finished()
    link = chat.columns.nth(0).locator(".mm-answer a")
    assert link.get_attribute("href") == "https://example.org/x"
    assert link.get_attribute("target") == "_blank"
    assert set(str(link.get_attribute("rel")).split()) >= {"noopener", "noreferrer"}


# narrow screens, keys, names


def test_on_a_telephone_one_column_is_seen_and_the_next_is_swiped_in(browser: Any, served: Server) -> None:
    for chat in visit(browser, served):
        chat.page.set_viewport_size({"width": 390, "height": 844})
        chat.ask("`" + "x" * 300 + "`\n\n" + "| " + " | ".join("wide" * 3 for _ in range(20)) + " |\n|" + "-|" * 20)
        chat.finished()
        assert chat.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert chat.page.evaluate("document.body.scrollWidth") <= 390
        assert in_view(chat, chat.prompt)
        assert in_view(chat, chat.page.get_by_role("button", name="Send"))
        tabs = chat.page.get_by_role("tab", name=re.compile("any|slow"))
        chat.expect(tabs.nth(0)).to_have_attribute("aria-selected", "true")
        assert in_view(chat, chat.columns.nth(0).locator(".mm-model"))
        assert not in_view(chat, chat.columns.nth(1).locator(".mm-model"))
        tabs.nth(1).click()
        chat.expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
        assert in_view(chat, chat.columns.nth(1).locator(".mm-model"))


def in_view(chat: Chat, what: Any) -> bool:
    """Whether a part lies wholly within the window."""
    box, window = what.bounding_box(), chat.page.viewport_size
    return bool(
        box
        and box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= window["width"]
        and box["y"] + box["height"] <= window["height"]
    )


REACHABLE = """() => [...document.querySelectorAll('button, input, textarea, summary, [tabindex="0"]')]
  .filter(node => node.checkVisibility({ checkVisibilityCSS: true }) && !node.disabled && node.tabIndex >= 0)
  .map((node, i) => (node.dataset.stop = i, node.outerHTML.slice(0, 120)))"""


def test_every_control_is_reached_by_tab_and_has_a_name(chat: Chat) -> None:
    chat.ask("```text\nhello\n```")
    chat.finished()
    open_settings(chat)
    controls = chat.page.evaluate(REACHABLE)
    chat.page.locator("body").evaluate("body => { body.tabIndex = -1; body.focus(); }")
    reached: set[str] = set()
    for _ in range(2 * len(controls)):
        chat.page.keyboard.press("Tab")
        reached.add(chat.page.evaluate("document.activeElement.dataset.stop"))
    missed = [text for number, text in enumerate(controls) if str(number) not in reached]
    assert not missed
    assert len(controls) >= 25
    assert not nameless(chat)


def nameless(chat: Chat) -> list[str]:
    """The roles of controls that a screen reader could not name."""
    tree = chat.page.context.new_cdp_session(chat.page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "slider", "checkbox", "spinbutton", "tab", "link", "option", "listbox"}
    return [
        json.dumps(node)
        for node in tree
        if not node["ignored"] and node["role"]["value"] in roles and not node.get("name", {}).get("value", "").strip()
    ]
