"""Voting as a person meets it: blind until the vote, ranked by keys, counted in the leaderboard, kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .page import ENDLESS, Chat
from .serving import Server, app
from .support import needs, needs_browser

pytestmark = [pytest.mark.browser, needs_browser, needs("playwright")]

NAMES = re.compile(r"aardvark|echo:|\bEcho\b|TTFT|tok/s")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with app(tmp_path_factory.mktemp("app"), MULTIMODEL_COLUMNS=["echo:aardvark", "echo:slow"]) as server:
        yield server


LISTEN = """
window.heard = [];
const real = window.fetch;
window.fetch = async (...asked) => {
  const answer = await real(...asked);
  const reader = answer.clone().body?.getReader(), words = new TextDecoder();
  const listen = ({ value, done }) => done || (window.heard.push(words.decode(value)), reader.read().then(listen));
  reader?.read().then(listen).catch(() => {});
  return answer;
};
"""


class Wire:
    """What the server has sent to a page since it was opened or the last look."""

    def __init__(self, page: Any) -> None:
        self._page = page
        page.add_init_script(LISTEN)

    def text(self) -> str:
        return str(self._page.evaluate("window.heard.splice(0).join('')"))


def vote(chat: Chat, name: str) -> Any:
    return chat.page.get_by_role("group", name="Vote on the newest answers").get_by_role("button", name=name)


def blind(chat: Chat, state: str) -> None:
    chat.until("state => document.documentElement.dataset.mmBlind === state", state)


def leaderboard(chat: Chat) -> Any:
    """The open leaderboard."""
    vote(chat, "What your votes say").click()
    board = chat.page.get_by_role("dialog", name="Your leaderboard")
    chat.expect(board.locator(".mv-table, .mv-empty").first).to_be_visible()
    return board


def ratings_in_the_explorer(chat: Chat) -> Any:
    """What the Explorer shows of the visitor's own votes."""
    chat.page.get_by_role("tab", name="Explorer").click()
    chat.page.get_by_role("tab", name="Ratings").click()
    own = chat.page.get_by_role("region", name="Your votes")
    chat.expect(own).to_contain_text("1 vote")
    return own


def listened(chat: Chat) -> tuple[Chat, Wire]:
    """Another tab of the same visitor, and what the server sends to it."""
    other = Chat(chat.page.context.new_page(), chat.url)
    wire = Wire(other.page)
    other.open()
    return other, wire


def test_a_blind_vote_reaches_the_leaderboard(chat: Chat) -> None:
    chat, wire = listened(chat)
    chat.page.get_by_role("button", name="Blind", exact=True).click()
    blind(chat, "hidden")
    assert "aardvark" in wire.text(), "until now they were told"
    chat.ask(ENDLESS)
    chat.expect(vote(chat, "is better").first).to_be_visible()
    chat.until("document.querySelectorAll('.mm-live .mm-md, .mm-turn .mm-md').length === 2")
    assert sorted(chat.names()) == ["Model A", "Model B"]
    assert not NAMES.search(chat.page.locator("#mm-chat").evaluate("node => node.outerHTML").replace(ENDLESS, ""))
    heard = wire.text()
    assert "Model A" in heard and not NAMES.search(heard), "the server itself must not tell"
    first = chat.columns.nth(0).get_attribute("data-key")
    chat.page.get_by_label("A vote stops others").check()
    vote(chat, "Model A is better").click()  # while the slow one still answers
    blind(chat, "shown")
    chat.finished()
    assert sorted(chat.names()) == ["aardvark", "slow"]
    winner = chat.names()[0]
    chat.expect(chat.page.locator(".mm-vote-said")).to_contain_text(f"Revealed: A is {winner} (Echo)")
    chat.expect(chat.columns.nth(0).locator(".mm-vote")).to_have_text("Best")
    assert chat.columns.nth(0).get_attribute("data-key") == first
    board = leaderboard(chat)
    chat.expect(board.locator(".mv-table tbody tr").first).to_contain_text(f"{winner} (Echo)")
    board.get_by_role("button", name="Controlled").click()
    chat.expect(board.locator(".mv-taste")).to_contain_text("Your votes")
    board.get_by_text("Export", exact=True).click()
    with chat.page.expect_download() as saved:
        board.get_by_role("button", name="Votes, JSON").click()
    (kept,) = json.loads(saved.value.path().read_text("utf-8"))
    assert kept["blind"] and kept["verdict"] == "best" and kept["prompt"] == ENDLESS
    chat.page.keyboard.press("Escape")
    own = ratings_in_the_explorer(chat)
    chat.expect(own.locator("tbody tr").first).to_contain_text(f"{winner} (Echo)")
    own.get_by_role("button", name="Open the leaderboard").click()
    chat.expect(chat.page.get_by_role("dialog", name="Your leaderboard")).to_be_visible()
    the_next_prompt_is_blind_again(*listened(chat), winner)
    assert not chat.errors


def the_next_prompt_is_blind_again(chat: Chat, wire: Wire, winner: str) -> None:
    """In another tab, which finds the vote again."""
    chat.finished()
    chat.expect(vote(chat, f"{winner} is better")).to_have_attribute("aria-pressed", "true")
    wire.text()
    chat.ask("again")
    chat.finished(2)
    blind(chat, "hidden")
    heard = wire.text()
    assert "Model B" in heard and not NAMES.search(heard)
    vote(chat, "Show the names").click()
    blind(chat, "shown")
    chat.expect(vote(chat, "Take the vote back")).to_have_count(0)


def test_three_are_ranked_by_keys_and_a_telephone_has_room_for_it(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Add column").click()
    chat.expect(chat.columns).to_have_count(3)
    chat.ask("one two")
    chat.finished()
    chat.page.locator(".mm-body").first.focus()
    for key in "31=2v":
        chat.page.keyboard.press(key)
    chat.expect(vote(chat, "Take the vote back")).to_be_visible()
    for column, mark in ((0, "2nd"), (1, "2nd"), (2, "Best")):
        chat.expect(chat.columns.nth(column).locator(".mm-vote")).to_have_text(mark)
    chat.page.set_viewport_size({"width": 390, "height": 844})
    assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    vote(chat, "All are bad").scroll_into_view_if_needed()
    chat.expect(vote(chat, "All are bad")).to_be_in_viewport()
    chat.page.keyboard.press("0")
    chat.expect(chat.page.locator(".mm-vote")).to_have_count(0)
    board = leaderboard(chat)
    chat.expect(board.locator(".mv-empty")).to_contain_text("No votes yet")


CUT = """() => [...document.querySelectorAll(".mm-vote-name span")].filter(part => part.scrollWidth > part.clientWidth)
  .map(part => part.textContent)"""


def test_a_long_name_is_cut_where_it_is_like_the_others(chat: Chat) -> None:
    for index in (0, 1):
        chat.pick(index, "echo:a-model-whose-name-is-long")
    chat.page.get_by_role("button", name="Add column").click()
    chat.expect(chat.columns).to_have_count(3)
    chat.pick(2, "echo:a-model-whose-name-is-short")
    chat.ask("hello")
    chat.finished()
    for width in (1440, 390):
        chat.page.set_viewport_size({"width": width, "height": 844})
        alike = "a-model-whose-name-is-long (Echo)"
        assert chat.page.evaluate(CUT) == [alike, alike, "a-model-whose-name-is-short"[:-8]]
