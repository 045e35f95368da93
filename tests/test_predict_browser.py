"""Using fine-tuned models as a person does: Chromium on a running app, from one text to the judge in Chat."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodel.finetune.api import finetune
from multimodel.finetune.store import MANIFEST
from multimodel.finetune.types import TrainConfig

from .finetune.support import sentences, settings_in, tiny_encoder, write_csv
from .serving import Server, app
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright", "torch", "transformers")]

ASKED = re.compile(r"/component_server")  # the address of what a page asks
PATIENCE = 90_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an app with two trained models, "moods" and its copy "doomed"."""
    folder = tmp_path_factory.mktemp("app")
    tiny_encoder(folder / "encoder")
    config = TrainConfig(
        data=write_csv(folder / "data.csv", sentences(300)),
        base=str(folder / "encoder"),
        name="moods",
        epochs=8,
        learning_rate=1e-2,
        precision="float32",
        early_stopping=0,
    )
    *_, last = finetune(config, settings=settings_in(folder))
    assert last.phase == "done"
    shutil.copytree(folder / "models" / "moods", folder / "models" / "doomed")
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Server]:
    with app(place, FINE_TUNED_DIR=str(place / "models"), MULTIMODEL_COLUMNS=["echo:any", "echo:any"]) as server:
        yield server


@pytest.fixture
def page(browser: Any, served: Server) -> Iterator[Any]:
    """A page of a visitor of its own; in the end it has complained of nothing."""
    errors: list[str] = []
    with browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto(served.url)
        expect(page.locator(".mm-column").first).to_be_visible()
        yield page
    assert not errors


def expect(what: Any) -> Any:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(what)


def view(page: Any, name: str) -> Any:
    """A view of the Fine-tune tab, shown."""
    page.get_by_role("tab", name="Fine-tune").click()
    page.locator(f"#mm-finetune-views [data-view={name}]").click()
    return page.locator(f"#mm-finetune-{name}")


def choose(shown: Any, model: str) -> None:
    expect(shown.locator(f'[data-field="model"] option[value="{model}"]')).to_be_attached()
    shown.locator('[data-field="model"]').select_option(model)


def answered_with(page: Any, body: str) -> None:
    """Let every question of the page have this answer, until the route is taken away."""
    page.route(ASKED, lambda route: route.fulfill(body=body, content_type="application/json"))


def test_one_text_its_words_and_a_correction(page: Any) -> None:
    shown = view(page, "predict")
    choose(shown, "moods")
    shown.locator('[data-text="one"]').fill("a dull film in town")
    expect(shown.locator(".mp-verdict b")).to_have_text("neg")
    expect(shown.locator(".mp-w.mp-for", has_text="dull")).to_be_visible()
    shown.locator('[data-explain="pos"]').click()
    expect(shown.locator(".mp-legend")).to_contain_text("for pos")
    shown.locator('[data-field="other"]').select_option("doomed")
    expect(shown.locator(".mp-agree")).to_have_text("Both say the same")
    shown.locator(".mp-correct summary").first.click()
    shown.locator('[data-do="correct"]').first.click()
    expect(shown.locator(".mp-correct output").first).to_have_text("Kept: pos.")
    shown.locator('button[data-mode="corrections"]').click()
    expect(shown.locator(".mp-rows")).to_contain_text("a dull film in town")
    with page.expect_download() as fetched:
        shown.locator('[data-do="export"]').click()
    with Path(fetched.value.path()).open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.DictReader(file))[-1]["label"] == "pos"
    shown.locator('[data-do="train"]').click()
    expect(page.locator("#mm-finetune-train [data-columns]")).to_contain_text("moods-corrections")
    page.reload()  # what was typed is still there
    shown = view(page, "predict")
    expect(shown.locator('[data-text="one"]')).to_have_value("a dull film in town")
    expect(shown.locator(".mp-verdict b")).to_have_text("neg")


def test_many_texts_and_a_whole_file(page: Any, tmp_path: Path) -> None:
    shown = view(page, "predict")
    choose(shown, "moods")
    shown.locator('button[data-mode="many"]').click()
    shown.locator('[data-text="many"]').fill("a great film\nan awful film\na lovely day")
    shown.locator('[data-do="many"]').click()
    expect(shown.locator('[data-out="many"] tbody tr')).to_have_count(3)
    expect(shown.locator('[data-out="many"] .mp-key')).to_contain_text("pos 2")
    shown.locator('[data-out="many"] [data-order]').select_option("label")
    expect(shown.locator('[data-out="many"] tbody .mp-cell').first).to_have_text("an awful film")
    source = tmp_path / "rows.csv"
    write_csv(source, sentences(400, seed=7))
    with page.expect_download() as fetched:
        shown.get_by_role("button", name="Download the table").click()
    with Path(fetched.value.path()).open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.DictReader(file))["text"] == "an awful film"
    expect(shown.locator('[data-field="other"]')).to_be_visible()
    shown.locator('button[data-mode="file"]').click()
    expect(shown.locator('[data-field="other"]')).to_be_hidden()
    shown.locator("[data-file]").set_input_files(source)
    expect(shown.locator("[data-column]")).to_have_value("text")
    shown.locator('[data-do="whole"]').click()
    link = shown.get_by_role("link", name="Download the table")
    expect(link).to_be_visible()
    with page.expect_download() as fetched:
        link.click()
    with Path(fetched.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400 and sum(row["label"] == row["predicted"] for row in rows) > 360


def test_a_model_is_looked_at_renamed_and_deleted(page: Any, place: Path) -> None:
    shown = view(page, "models")
    shown.locator('[data-open="doomed"]').click()
    expect(shown.locator(".mp-heat")).to_be_visible()
    shown.locator('[data-do="rename"]').click()
    shown.locator('[name="to"]').fill("moods")
    shown.locator('[data-form="rename"] [type="submit"]').click()
    expect(shown.locator("[data-form-out]")).to_contain_text("already")
    shown.locator('[name="to"]').fill("short lived")
    shown.locator('[data-form="rename"] [type="submit"]').click()
    expect(shown.locator("[data-title]")).to_have_text("short lived")
    shown.locator('[data-do="delete"]').click()
    expect(shown.locator('[data-do="delete"]')).to_contain_text("Delete for good, free")
    assert (place / "models" / "short lived").exists()
    shown.locator('[data-do="delete"]').click()
    expect(shown.locator(".mx-done")).to_contain_text("short lived is deleted")
    assert not (place / "models" / "short lived").exists()
    expect(shown.locator("[data-open]")).to_have_count(1)
    expect(shown.locator("[data-detail]")).to_have_text("Choose a model.")


def test_an_answer_that_is_none_changes_nothing(page: Any, place: Path) -> None:
    shutil.copytree(place / "models" / "moods", place / "models" / "older")
    (place / "models" / "moods" / MANIFEST).touch()  # now the newest one
    shown = view(page, "models")
    shown.locator('[data-open="older"]').click()
    for answer in ("{}", "null", '{"detail": "Not found"}'):
        shown.locator('[data-do="rename"]').click()
        expect(shown.locator('[name="to"]')).to_be_visible()
        answered_with(page, answer)
        shown.locator('[data-form="rename"] [type="submit"]').click()
        expect(shown.locator("[data-form-out]")).to_contain_text("does not answer")
        shown.locator('[data-do="delete"]').dblclick()
        expect(shown.locator("[data-act-out]")).to_have_text(re.compile("^The app does not answer"))
        page.unroute(ASKED)
    expect(shown.locator("[data-title]")).to_have_text("older")
    expect(shown.locator('[data-open="older"]')).to_have_attribute("aria-current", "true")


def test_no_other_model_takes_the_place_of_one_that_is_gone(page: Any, place: Path) -> None:
    shutil.copytree(place / "models" / "moods", place / "models" / "vanishing")
    shown = view(page, "models")
    shown.locator('[data-open="vanishing"]').click()
    expect(shown.locator("[data-title]")).to_have_text("vanishing")
    shutil.rmtree(place / "models" / "vanishing")
    shown.locator('[data-do="delete"]').dblclick()
    expect(shown.locator("[data-act-out]")).to_contain_text("no fine-tuned model 'vanishing'")
    view(page, "predict")
    view(page, "models")
    expect(shown.locator("[data-detail]")).to_have_text("Choose a model.")
    assert (place / "models" / "moods").exists()


def test_a_new_model_is_there_at_once(page: Any, place: Path) -> None:
    shown = view(page, "predict")
    choose(shown, "moods")
    shutil.copytree(place / "models" / "moods", place / "models" / "brand new")
    page.evaluate("document.dispatchEvent(new CustomEvent('mm-model-ready', { detail: { name: 'brand new' } }))")
    choose(shown, "brand new")
    shown.locator('[data-text="one"]').fill("awful")
    expect(shown.locator(".mp-verdict b")).to_have_text("neg")
    view(page, "models").locator('[data-open="moods"]').click()
    page.locator('#mm-finetune-models [data-do="predict"]').click()
    expect(shown.locator('[data-field="model"]')).to_have_value("moods")


def test_the_judge_in_chat_follows_every_answer(page: Any, place: Path) -> None:
    prompt, verdicts = page.locator("#mm-prompt textarea"), page.locator("#mm-board .mm-verdict")
    prompt.fill("a great film in town")
    prompt.press("Enter")
    expect(page.locator("#mm-board .mm-turn .mm-raw")).to_have_count(2)
    expect(verdicts).to_have_count(0)
    page.locator("#mm-settings-button").click()
    page.locator("#mm-judge-choice input").click()
    page.get_by_role("option", name="moods").click()
    expect(verdicts).to_have_count(2)
    expect(verdicts.first.locator("b")).to_have_text("pos")
    verdicts.first.hover()
    expect(page.locator(".mm-verdict-shown")).to_contain_text("neg")
    prompt.fill("awful, dull and boring")
    prompt.press("Enter")
    expect(verdicts).to_have_count(4)
    expect(page.locator("#mm-board .mm-column").first.locator(".mm-verdict b").last).to_have_text("neg")
    page.locator('#mm-board [data-act="regenerate"]').first.click()
    expect(verdicts).to_have_count(4)
    page.reload()
    expect(verdicts).to_have_count(4)
    (place / "models" / "moods").rename(place / "models" / "renamed")
    prompt.fill("a superb day")
    prompt.press("Enter")
    expect(page.locator(".mm-verdict-failed")).to_have_text(["The judge moods is gone."] * 2)
    expect(verdicts.locator("b")).to_have_count(4)  # those that were given stay
    page.locator("#mm-settings-button").click()
    expect(page.locator("#mm-judge-choice input")).to_have_value("moods, gone")
    (place / "models" / "renamed").rename(place / "models" / "moods")
