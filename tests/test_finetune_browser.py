"""The Fine-tune tab as a person uses it: Chromium, from a spreadsheet with faults to a model, with reload and stop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .finetune.support import sentences, tiny_encoder
from .serving import Server, app
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_browser, needs("playwright", "torch", "transformers")]

PATIENCE = 150_000  # milliseconds; the machine may be busy, and libraries take long to start then


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("finetune")
    tiny_encoder(folder / "encoder")
    with app(folder, MULTIMODEL_COLUMNS=["echo:any"]) as server:
        yield server


class Tab:
    """The tab, by the names of its parts."""

    def __init__(self, context: Any, server: Server) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.url = server.url
        self.open()

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.get_by_role("tab", name="Fine-tune").click()
        self.find(".mf-runs > li").first.wait_for()

    def reload(self) -> None:
        self.open()
        self.errors.clear()  # Gradio complains of the streams that the reload has cut

    def find(self, selector: str) -> Any:
        return self.page.locator(f"#mm-finetune-train {selector}")

    def see(self, selector: str, text: str) -> Any:
        """Wait until this part shows this text."""
        found = self.find(selector).filter(has_text=re.compile(text)).first
        found.wait_for()
        return found

    def upload(self, name: str, lines: list[str]) -> None:
        file = {"name": name, "mimeType": "text/csv", "buffer": "\n".join(lines).encode()}
        self.find("[data-file]").set_input_files(file)

    def set(self, name: str, value: str) -> None:
        self.find(f'[data-set="{name}"]').fill(value)

    def steps(self) -> int:
        """How many steps the run that is shown has done."""
        found = re.match(r"([\d,]+) of", self.find('[data-bar="run"]').inner_text().split("\n")[-1])
        return int(found[1].replace(",", "")) if found else 0

    def beyond(self, steps: int) -> int:
        """Wait until the run has done more steps; returns how many."""
        self.page.wait_for_function(
            "steps => Number((document.querySelector('[data-bar=run]')?.lastChild.textContent || '')"
            ".split(' of')[0].replaceAll(',', '')) > steps",
            arg=steps,
        )
        return self.steps()

    def close(self) -> None:
        assert not self.errors
        self.page.close()


def faulty() -> list[str]:
    """A spreadsheet with copies, a row without a label and a class of its own in capitals."""
    rows = [f"{text},{label}" for text, label in sentences(240)]
    odd = ["a dull day,", "all fine,Pos"]
    return ["id,message,mood", *(f"{i},{row}" for i, row in enumerate([*rows, *rows[:5], *odd]))]


def begin(tab: Tab, folder: Path, name: str, epochs: int) -> None:
    tab.find('[data-set="base"]').select_option("?")
    tab.set("other", str(folder / "encoder"))
    tab.set("name", name)
    tab.set("epochs", str(epochs))
    tab.set("batch_size", "2")  # many steps, so that it does not end while the page is being looked at
    tab.find(".mf-more summary").click()
    tab.set("early_stopping", "0")
    tab.see(".mf-memory", "Fits")
    tab.find('[data-do="start"]').click()


def test_from_a_spreadsheet_to_a_model(browser: Any, served: Server) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab, folder = Tab(context, served), served.log.parent

    tab.upload("moods.csv", faulty())
    for finding in ("5 rows repeat", "1 row has no label", "1 class is written in several ways"):
        tab.see("[data-finding]", finding)
    tab.find('[data-finding="duplicates"] [data-fix]').click()
    tab.see(".mf-good", "Copies are left out")
    assert tab.find('[data-finding="duplicates"]').count() == 0
    tab.find('[data-finding="missing_labels"] [data-ignore]').click()
    tab.see(".mf-off", "no label")
    tab.find('[data-fix="label_twins"]').click()
    tab.see(".mf-chart h3", "2 classes")

    begin(tab, folder, "moods", 200)
    before = tab.beyond(20)
    tab.see(".mf-now", r"Training, epoch \d+.*steps/s.*samples/s.*left")
    tab.find("[data-curves] path.mf-line").first.wait_for()

    tab.reload()  # a reload finds the run and goes on showing it
    assert tab.beyond(before) > before
    other = Tab(context, served)  # so does a second page
    other.see(".mf-run", "moods.*(Training|Judging)")
    other.close()

    tab.find('[data-act="stop"]').click()
    tab.see(".mf-said", r"Stopped at step [\d,]+ of [\d,]+")
    tab.see(".mf-tile", "Accuracy.*TF-IDF")
    stopped = tab.steps()
    tab.page.evaluate("document.addEventListener('mm-model-ready', (event) => (window.ready = event.detail.name))")
    tab.find('[data-act="resume"]').click()
    assert tab.beyond(stopped) > stopped
    tab.find('[data-act="stop"]').click()
    tab.see(".mf-said", "Stopped at step")
    tab.page.wait_for_function("window.ready === 'moods'")

    tab.find('[data-run="moods"]').click()  # it is shown already, and stays so
    tab.see(".mf-title", "moods")
    assert tab.find('[data-act="anew"]').count() == 0  # it would replace the saved model
    tab.find('[data-do="other"]').dispatch_event("click")  # what the new run begins with are the rows of this one
    tab.find('[data-do="again"]').click()
    tab.see(".mf-facts", r"\d+ rows.*to train on")
    tab.set("epochs", "2")
    tab.find('[data-do="start"]').click()
    tab.see(".mf-title", "moods-2.*Done")
    assert tab.find(".mf-heat tbody td").count() == 4
    for name in ("moods", "moods-2"):
        tab.find(f'[data-pick="{name}"]').check()
    tab.find('[data-do="compare"]').click()
    tab.see(".mf-versus tr", r"Epochs\s*(200\s*2|2\s*200)")
    assert tab.find("[data-overlaid] figure").count() == 3

    tab.find('[data-run="moods-2"]').click()
    tab.find('[data-try="moods-2"]').click()
    tab.page.locator("#mm-finetune-predict").wait_for()
    assert tab.find(".mf-runs").is_hidden()
    tab.close()
    context.close()


def test_what_cannot_be_used_is_said_and_nothing_else_is_lost(browser: Any, served: Server) -> None:
    tab = Tab(browser.new_context(), served)
    tab.set("epochs", "7")
    tab.upload("alone.csv", ["text", "one", "two", "three"])
    tab.see("[data-bring-said]", "only one column")
    tab.upload("rows.csv", ["text,label", *(f"{text},{label}" for text, label in sentences(40))])
    tab.see("[data-report]", "only 40 rows")
    with tab.page.expect_file_chooser() as chooser:
        tab.find('[data-do="test"]').click()
    test = "\n".join(["text,label", *(f"{text},{label}" for text, label in sentences(12, seed=5))])
    chooser.value.set_files({"name": "test.csv", "mimeType": "text/csv", "buffer": test.encode()})
    tab.see(".mf-source", "rows.csv and test.csv")
    tab.see(".mf-facts", "12 for the final figures")
    assert tab.find('[data-set="epochs"]').input_value() == "7"  # a setting that a person made stays
    tab.set("name", "../up")
    tab.find('[data-do="start"]').click()
    tab.see("[data-start-said]", "cannot be the name of a model")
    tab.reload()  # data and settings survive a reload
    tab.see(".mf-facts", "12 for the final figures")
    assert [tab.find(f'[data-set="{name}"]').input_value() for name in ("epochs", "name")] == ["7", "../up"]
    tab.close()
