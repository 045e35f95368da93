"""Numbers that a person types into the settings of the Chat page, in Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from .page import visit
from .serving import app
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]


def test_a_number_that_cannot_be_is_told_beside_its_box(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with app(tmp_path_factory.mktemp("app"), MULTIMODEL_COLUMNS=["gguf:guide"]) as server:
        for chat in visit(browser, server):
            chat.page.locator("#mm-settings-button").click()
            panel = chat.page.locator("#mm-settings")
            heat = panel.get_by_label("number input for Temperature")
            heat.fill("99")
            heat.blur()
            panel.locator("#mm-loading > button").click()
            context = panel.get_by_label("Context length")
            context.fill("0")
            told = panel.get_by_text("Context length is 0. Choose 1 to 10,000,000.")
            chat.expect(told).to_be_visible()
            assert context.input_value() == "0"
            context.fill("512")
            chat.expect(told).to_have_count(0)
            chat.expect(chat.columns.first).to_contain_text("512 tokens of context")
            context.fill("")
            chat.expect(chat.columns.first).not_to_contain_text("tokens of context")
            panel.locator("#mm-settings-close").click()
            chat.page.locator("#mm-settings-button").click()
            chat.expect(heat).to_have_value("2")
        assert "Traceback" not in server.printed()
