"""Conversations leave as files and come back equal; what is broken, foreign or hostile is refused in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.conversation import Options
from multimodel.engine import Engine
from multimodel.errors import ForeignFile, ServerFailure
from multimodel.exchange import LARGEST, from_json, to_json, to_markdown
from multimodel.settings import ChatSettings, Settings
from multimodel.types import Chunk, SamplingParams, TokenLogprob, Usage
from tabs.export import line, to_html

from .support import Fakes, eventually, fails

EVIL = "<script>alert(1)</script>\"'><img src=http://evil/x onerror=alert(1)>&"
TOKENS = (TokenLogprob.of(b"\xff", -0.5, (TokenLogprob.of(b" a", float("-inf")),)), TokenLogprob.of(b"b", -0.25))


def reply(messages: Any) -> Iterator[Chunk]:
    yield Chunk("So **it** is. ", reasoning="Let me think.", logprobs=TOKENS)
    yield Chunk(EVIL, note="A note.", finish_reason="stop", usage=Usage(7, 3, reused_tokens=2))


@pytest.fixture
def boards() -> Iterator[Boards]:
    chat = ChatSettings(columns=("fake:a", "fake:b"), data_dir=Path("data"))
    fakes = Fakes(reply, b=fails(ServerFailure("broken", hint="Wait.", retry_after=3600.0), "half"))
    with Engine(Settings(chat=chat), connect=fakes.connect) as engine:
        yield Boards(engine)


def ask(board: Board, prompt: str) -> None:
    assert board.send(prompt)
    eventually(lambda: not board.active())


@pytest.fixture
def board(boards: Boards) -> Board:
    """Two columns with an edited prompt, a second answer and settings of their own."""
    board = boards.get(None)
    board.set_options(Options(SamplingParams(temperature=0.5, stop=("END",)), "Be brief. é"))
    board.set_options(Options(SamplingParams(seed=1)), board.columns()[1].key)
    ask(board, "First?")
    ask(board, "Second?")
    first = board.columns()[0]
    board.edit(first.key, first.turns[0].id, "First, again?")
    eventually(lambda: not board.active())
    board.regenerate(first.key)
    eventually(lambda: not board.active())
    return board


def exported(boards: Boards, board: Board) -> str:
    return to_json(boards.kept(board.id, board.chat), boards.store.logprobs(board.chat))


def test_a_conversation_comes_back_as_it_left(boards: Boards, board: Board) -> None:
    text = exported(boards, board)
    again = boards.keep(board.id, *from_json(text))
    assert again.chat != board.chat
    assert exported(boards, again) == text
    ask(again, "And on?")
    assert len(again.columns()[0].turns) == 2
    assert again.columns()[0].turns[0].place.prompts == (1, 6)


def test_it_comes_back_after_a_restart_too(boards: Boards, board: Board) -> None:
    text = exported(boards, board)
    again = boards.keep(board.id, *from_json(text))
    fresh = Boards(boards._engine)  # nothing in memory
    assert exported(fresh, fresh.get(again.id)) == text


def test_another_visitor_can_bring_it_in(boards: Boards, board: Board) -> None:
    other = boards.get(None)
    theirs = boards.keep(other.id, *from_json(exported(boards, board)))
    assert theirs.id.partition(".")[0] == other.id.partition(".")[0]
    assert [entry.title for entry in boards.entries(other.id)] == ["First?"]


def test_the_file_tells_nothing_of_the_visitor(boards: Boards, board: Board) -> None:
    text = exported(boards, board)
    assert board.id.partition(".")[0] not in text and boards.owner(board.id) not in text


def spoilt(text: str, change: Callable[[Any], object]) -> str:
    content = json.loads(text)
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: c.update(format="other"), "format"),
        (lambda c: c.update(version=2), "version"),
        (lambda c: c.pop("turns"), "turns"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c["turns"][0].update(id="1"), "turns.0.id"),
        (lambda c: c["turns"][0].update(id=2), "turn 2"),
        (lambda c: c["turns"][1].update(parent=99), "turn 2"),
        (lambda c: c["turns"][1].update(parent=2), "turn 2"),
        (lambda c: c["turns"][0].update(prompt=None), "turns.0.prompt"),
        (lambda c: c["turns"][0].update(at=1e300), "turns.0.at"),
        (lambda c: c["turns"][0].update(column='"] evil'), "turns.0.column"),
        (lambda c: c["turns"][0]["ending"].update(finish_reason="because"), "finish_reason"),
        (lambda c: c["turns"][0]["ending"].update(usage={"input_tokens": "many"}), "usage"),
        (lambda c: c["turns"][0]["model"].update(name=""), "model"),
        (lambda c: c["turns"][0].update(logprobs=[["€", -1.0, []]]), "token"),
        (lambda c: c["turns"][0]["asked"]["params"].update(temperature=99), "temperature"),
        (lambda c: c["state"].update(lanes=[]), "0 columns"),
        (lambda c: c["state"]["lanes"].extend(c["state"]["lanes"] * 3), "8 columns"),
        (lambda c: c["state"]["lanes"][0].update(head=99), "a turn that is not in it"),
        (lambda c: c["state"]["lanes"][0].update(key='"],[evil="'), "cannot be called"),
        (lambda c: c["state"]["lanes"][1].update(key=c["state"]["lanes"][0]["key"]), "columns"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    boards: Boards, board: Board, change: Callable[[Any], object], part: str
) -> None:
    with pytest.raises(ForeignFile, match=re.escape(part)) as caught:
        from_json(spoilt(exported(boards, board), change))
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{}", "[]", "null", "\x00", "[" * 100_000, '{"a":' * 50_000, "1e999", '{"title": "\\ud800"}', EVIL,
     '{"format": "multimodel-conversation", "format": 1}', "x" * (LARGEST + 1)],
)  # fmt: skip
def test_what_is_no_conversation_is_refused(text: str) -> None:
    with pytest.raises(ForeignFile):
        from_json(text)


def test_markdown_shows_what_the_columns_show(boards: Boards, board: Board) -> None:
    text = to_markdown(boards.kept(board.id, board.chat), line)
    assert text.startswith("# First?\n")
    assert "> First, again?" in text and "## fake:a" in text and "So **it** is." in text and "3 tokens" in text


def test_the_page_runs_nothing_and_loads_nothing(boards: Boards, board: Board) -> None:
    html = to_html(boards.kept(board.id, board.chat))
    assert "default-src 'none'" in html
    assert "<strong>it</strong>" in html and "half" in html and "broken" in html
    assert not re.search(r"<(script|img|iframe|link|object|form)\b", html)
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", html.replace("&lt;img src=", ""))
    assert "&lt;script&gt;" in html
