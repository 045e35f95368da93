"""A run as a person meets it: typed, cut off by the end of the app, gone on with, read, and replayed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .page import COUNTING, PATIENCE, Chat
from .serving import chromium, environment, free_port, serving
from .support import ROOT, needs, needs_browser
from .test_conversations_browser import READY

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]


@pytest.fixture
def no_leaks() -> None:
    """The app and the browser end with the test; `serving` and playwright see to that."""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    with chromium() as running, running.new_context(viewport={"width": 1440, "height": 900}) as context:
        made = context.new_page()
        made.set_default_timeout(PATIENCE)
        yield made


def open_runs(page: Any, url: str) -> Chat:
    """The tab, as it is when it can be used."""
    chat = Chat(page, url)
    chat.open()
    page.get_by_role("tab", name="Runs").click()
    chat.expect(page.locator(".mr-side .mf-runs > li").first).to_be_visible()
    return chat


def test_a_run_survives_kill_9_and_is_replayed(page: Any, tmp_path: Path) -> None:
    variables = environment(tmp_path, MULTIMODEL_COLUMNS=["echo:any"])
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(free_port())]
    with serving(command, tmp_path, variables, READY) as server:
        chat = open_runs(page, server.url)
        given = tmp_path / "p.csv"
        given.write_text("id,prompt\n1,first\n2,second\n")
        page.locator("[data-prompts-file]").set_input_files(given)
        chat.expect(page.locator("[data-prompts-said]")).to_contain_text("2 prompts of p.csv")
        chat.expect(page.locator('[data-set="prompts"]')).to_have_value("first\nsecond")
        page.locator('[data-set="prompts"]').fill(f"<b>hello</b> world\n{COUNTING}")
        for model in ("echo:any", "echo:slow"):
            page.locator("[data-model]").fill(model)
            page.locator("[data-model]").press("Enter")
        chat.expect(page.locator("[data-plan]")).to_contain_text("4 answers")
        page.reload()  # what was typed is still there
        page.get_by_role("tab", name="Runs").click()
        chat.expect(page.locator("[data-plan]")).to_contain_text("4 answers")
        page.get_by_role("button", name="Start", exact=True).click()
        chat.expect(page.locator(".mr-live")).to_contain_text("5 6 7")
        chat.expect(page.locator(".mr-whole")).to_contain_text("3 of 4 answers")
        other = page.context.new_page()  # a second tab sees the same
        open_runs(other, server.url)
        other.locator(".mf-run button").click()
        chat.expect(other.locator(".mr-live")).to_contain_text("8 9 10")
        other.close()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        page.goto("about:blank")  # Gradio loads its page again by itself once there is a server
    kept = next(tmp_path.rglob("answers.jsonl"))
    before = kept.read_text()
    assert before.count("\n") == 3
    with serving(command, tmp_path, variables, READY) as server:
        chat = open_runs(page, server.url)
        chat.errors.clear()  # Gradio complains of the server that was killed
        run = page.locator(".mr-main")
        chat.expect(run.locator(".mr-title")).to_contain_text("interrupted")
        chat.expect(run.locator(".mb-lanes tbody tr")).to_have_count(2)  # the report so far
        run.get_by_role("button", name="Go on").click()
        chat.expect(run.locator(".mr-title")).to_contain_text("done")
        assert kept.read_text().startswith(before) and kept.read_text().count("\n") == 4
        chat.expect(run.locator(".mb-row")).to_have_count(2)
        chat.expect(run.locator(".mb-row").first).to_contain_text("all the same")
        chat.expect(run.locator(".mb-cell .mb-text").first).to_have_text("<b>hello</b> world")
        assert run.locator(".mb-chart svg").count() >= 3 and run.locator(".mb-heat td").count() == 5
        with page.expect_download() as started:
            run.get_by_role("button", name="JSON").click()
        saved = tmp_path / "taken.json"
        started.value.save_as(saved)
        assert [row["error"] for row in json.loads(saved.read_text())["answers"]] == [None] * 4
        run.get_by_role("button", name="Replay", exact=True).click()
        chat.expect(run.locator(".mb-verdicts")).to_have_text("4 identical")
        broken = tmp_path / "broken.json"
        broken.write_text('{"format": "multimodel-batch", "version": 7}')
        page.locator("[data-report-file]").set_input_files(broken)
        chat.expect(page.locator("[data-bring-said]")).to_contain_text("version '7'")
        changed = json.loads(saved.read_text())
        changed["answers"][0]["text"] = "<b>hello</b> moon"
        saved.write_text(json.dumps(changed))
        page.locator("[data-report-file]").set_input_files(saved)
        chat.expect(run.locator(".mb-verdicts")).to_contain_text("1 not comparable")
        chat.expect(run.locator(".mb-part")).to_contain_text("moon")
        run.get_by_role("button", name="Rename").click()
        page.get_by_label("New name").fill("my <i>name</i>")
        page.get_by_label("New name").press("Enter")
        chat.expect(page.locator(".mf-run").first).to_contain_text("my <i>name</i>")
        run.get_by_role("button", name="Delete").click()
        run.get_by_role("button", name="Delete it and its answers?").click()
        chat.expect(page.locator(".mf-run")).to_have_count(2)
        assert not chat.errors
