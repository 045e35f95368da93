"""Voting: on running and finished answers, in places, again and not at all; blind, kept, migrated and taken out."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from multimodel import blind
from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, ServerFailure
from multimodel.ratings import Rating, Ratings, Snapshot
from multimodel.settings import ChatSettings, Settings
from multimodel.store.database import NAME, Database
from multimodel.store.schema import MIGRATIONS, RANKED
from multimodel.votes import Ballot, Style, Vote
from tabs.chat import ChatTab
from tabs.explorer_panels import arena_rating, own_html
from tabs.leaderboard_page import Choice, download, page_html
from tabs.live import Follower
from tabs.view import board_view
from tabs.voting import decide

from .support import Fakes, eventually, fails, says, until
from .test_tabs import made

BEFORE = MIGRATIONS.index(RANKED)
FINE = Style(4)
SECRETS = ("aardvark", "badger", "caracal")  # what the models are called


@pytest.fixture
def start() -> Iterator[Callable[..., Boards]]:
    engines: list[Engine] = []

    def begin(fakes: Fakes, count: int = 3) -> Boards:
        for engine in engines:
            engine.close()
        columns = tuple(f"fake:{name}" for name in SECRETS[:count])
        engines.append(
            Engine(Settings(chat=ChatSettings(columns=columns, data_dir=Path("data"))), connect=fakes.connect)
        )
        return Boards(engines[-1])

    yield begin
    for engine in engines:
        engine.close()


def ask(board: Board, prompt: str = "Hello?") -> Board:
    board.send(prompt)
    eventually(lambda: not board.active())
    return board


def cast(boards: Boards, board: Board) -> list[Ballot]:
    """The ballots that count, without what hangs on the texts."""
    votes = boards.store.votes(boards.owner(board.id))
    return [Ballot(v.ballot.models, v.ballot.verdict, v.ballot.ranks, (), v.ballot.blind) for v in votes]


def keys(board: Board) -> list[str]:
    return [column.key for column in board.columns()]


def models(*names: str) -> tuple[str, ...]:
    return tuple(f"fake:{name}" for name in names)


# voting


def test_a_vote_is_kept_and_shown(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = ask(boards.get(None))
    second = board.columns()[1]
    board.vote(second.key, second.turns[0].id, "best")
    assert board.votes == {second.turns[0].id: "best"}
    (vote,) = boards.store.votes(boards.owner(board.id))
    assert vote.ballot == Ballot(models(*SECRETS), "best", (0, 1, 0), (FINE,) * 3)
    assert (vote.prompt, vote.topic, vote.conversation) == ("Hello?", "other", board.chat)
    boards = start(Fakes(says("fine")))
    assert boards.get(board.id).votes == board.votes
    assert [stand.place for stand in boards.get(board.id).row()] == [0, 1, 0]


def test_a_vote_can_be_changed_and_taken_back(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = ask(boards.get(None))
    a, b, c = keys(board)
    board.decide("best", {a: 1})
    board.decide("tie")
    assert set(board.votes.values()) == {"tie"} and len(board.votes) == 3
    board.decide("ranked", {c: 1, a: 2, b: 2})
    assert list(board.votes.values()) == ["2", "2", "best"]
    assert cast(boards, board) == [Ballot(models(*SECRETS), "ranked", (2, 2, 1))]
    board.decide("none")
    assert board.votes == {} and cast(boards, board) == [] and board.newest_vote() is None
    assert start(Fakes(says("fine"))).get(board.id).votes == {}


def test_an_answer_that_failed_cannot_be_voted_on(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine"), aardvark=fails(ServerFailure("broken", retry_after=3600.0), "half")))
    board = ask(boards.get(None))
    failed, second, third = board.columns()
    for vote in (lambda: board.vote(failed.key, 1, "best"), lambda: board.decide("ranked", {failed.key: 1})):
        with pytest.raises(BadRequest, match="failed"):
            vote()
    assert [stand.state for stand in board.row()] == ["failed", "ready", "ready"]
    board.decide("best", {second.key: 1})
    assert cast(boards, board) == [Ballot(models("badger", "caracal"), "best", (1, 0))]
    board.remove(third.key)
    with pytest.raises(BadRequest, match="No other column"):
        board.vote(second.key, second.turns[0].id, "best")


@pytest.mark.parametrize("stop", [True, False])
def test_a_vote_on_running_answers_ends_them_or_not(start: Callable[..., Boards], stop: bool) -> None:
    go = Event()
    boards = start(Fakes(says("fine"), caracal=until(go, "so far")))
    board = boards.get(None)
    board.send("Hello?")
    eventually(lambda: [stand.state for stand in board.row()] == ["ready", "ready", "running"])
    a, _b, c = keys(board)
    board.decide("ranked", {c: 1, a: 2}, stop=stop)
    assert cast(boards, board) == [Ballot(models(*SECRETS), "ranked", (2, 0, 1))]
    if stop:
        eventually(lambda: not board.active())
        assert board.columns()[2].turns[0].answer.finish_reason == "stopped"
    assert board.active() is not stop
    go.set()


def test_an_answer_that_has_not_begun_waits_for_its_words_and_then_replaces_the_early_vote(
    start: Callable[..., Boards],
) -> None:
    go = Event()
    boards = start(Fakes(says("fine"), caracal=until(go)))
    board = boards.get(None)
    board.send("Hello?")
    eventually(lambda: [stand.state for stand in board.row()] == ["ready", "ready", "silent"])
    a, _b, c = keys(board)
    with pytest.raises(BadRequest, match="not begun"):
        board.decide("ranked", {c: 1})
    board.decide("best", {a: 1})
    assert cast(boards, board) == [Ballot(models("aardvark", "badger"), "best", (1, 0))]
    go.set()
    eventually(lambda: not board.active())
    board.regenerate(c)
    eventually(lambda: not board.active())
    assert board.newest_vote(), "an early vote stays until it is changed"


def test_one_row_has_one_vote(start: Callable[..., Boards]) -> None:
    go = Event()
    boards = start(Fakes(says("fine"), caracal=lambda messages: (go.wait(20), *says("late")(messages))[1:]))
    board = boards.get(None)
    board.send("Hello?")
    eventually(lambda: [stand.state for stand in board.row()] == ["ready", "ready", "silent"])
    a, _b, c = keys(board)
    board.decide("best", {a: 1})
    go.set()
    eventually(lambda: not board.active())
    board.decide("ranked", {c: 1})
    assert cast(boards, board) == [Ballot(models(*SECRETS), "ranked", (0, 0, 1))]
    assert list(board.votes.values()) == ["best"]


def test_only_columns_that_were_asked_the_same_make_a_row(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")), 2)
    board = boards.get(None)
    assert board.row() == ()
    ask(board)
    first, _second = board.columns()
    board.edit(first.key, first.turns[0].id, "Another?")
    eventually(lambda: not board.active())
    assert board.row() == () and board_view(board)["vote"]["columns"] == []
    with pytest.raises(BadRequest):
        board.decide("tie")


@pytest.mark.parametrize(
    "event",
    [
        {"verdict": "best"},
        {"verdict": "won", "places": {"a": 1}},
        {"verdict": "ranked", "places": {"a": 0}},
        {"verdict": "ranked", "places": {"a": "1"}},
        {"verdict": "ranked", "places": [1]},
    ],
)
def test_what_is_no_vote_is_refused(start: Callable[..., Boards], event: dict[str, Any]) -> None:
    board = ask(start(Fakes(says("fine"))).get(None))
    with pytest.raises(BadRequest, match="no vote"):
        decide(board, SimpleNamespace(**event))


def test_votes_are_a_visitors_own(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    mine, theirs = ask(boards.get(None)), boards.get(None)
    mine.decide("tie")
    assert cast(boards, theirs) == []
    boards.join(boards.invite(theirs.id), mine.id)
    assert len(cast(boards, theirs)) == 1, "they come along to the other device"


# blind


def seen(board: Board) -> str:
    """All that the page is sent: as a whole, and by the stream of running answers."""
    page = Follower(board, board.revision, [column.key for column in board.columns()])
    return json.dumps([board_view(board), page.news(), page.view(), page.news(), page.end()])


def test_names_and_figures_stay_on_the_server_until_the_vote(start: Callable[..., Boards]) -> None:
    go = Event()
    boards = start(
        Fakes(
            says("fine"), badger=fails(ServerFailure("badger broke", retry_after=3600.0)), caracal=until(go, "so far")
        )
    )
    board = boards.get(None)
    board.set_blind(True)
    board.send("Hello?")
    eventually(lambda: sorted(stand.state for stand in board.row()) == ["failed", "ready", "running"])
    for _ in range(2):
        text = seen(board)
        assert not [name for name in (*SECRETS, "fake", "TTFT", "tok/s", "tokens") if name in text]
        assert [f"Model {letter}" in text for letter in "ABC"] == [True] * 3
        assert "failed. What went wrong can be seen after the vote" in text
        go.set()
        eventually(lambda: not board.active())
    board.decide("tie")
    text = seen(board)
    assert all(name in text for name in (*SECRETS, "badger broke", "TTFT", "tokens"))
    assert board_view(board)["vote"]["revealed"] == ", ".join(
        f"{letter} is {column.model.name} (fake)" for letter, column in zip("ABC", board.columns(), strict=True)
    )
    assert [ballot.blind for ballot in cast(boards, board)] == [True]
    board.decide("bad")
    assert [ballot.blind for ballot in cast(boards, board)] == [False], "who changes it knows the names"


def test_the_next_prompt_shuffles_and_hides_again_and_histories_stay_apart(start: Callable[..., Boards]) -> None:
    fakes = Fakes(says("fine"), **{name: says(f"this is {name}") for name in SECRETS})
    boards = start(fakes)
    board = boards.get(None)
    board.set_blind(True)
    orders = set()
    for round in range(12):
        ask(board, f"question {round}")
        assert board.hidden
        orders.add(tuple(column.model.name for column in board.columns()))
        earlier = json.dumps([c["turns"][:-1] for c in board_view(board)["columns"]])
        assert "this is" not in earlier, "earlier answers were seen with their names"
        board.decide("tie")
        assert not board.hidden
    assert len(orders) > 1
    for column in board.columns():
        own = f"this is {column.model.name}"
        assert {turn.answer.text for turn in column.turns} == {own} and len(column.turns) == 12
        said = [message.content for message in fakes[column.model.name].asked[-1] if message.role == "assistant"]
        assert said == [own] * 11


def test_blindness_survives_a_restart_and_a_new_chat(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = boards.get(None)
    board.set_blind(True)
    order = [column.model for column in ask(board).columns()]
    assert boards.fresh(board.id).hidden
    again = start(Fakes(says("fine"))).get(board.id)
    assert again.hidden and [column.model for column in again.columns()] == order
    again.reveal()
    assert start(Fakes(says("fine"))).get(board.id).blind == "shown"


def test_what_was_seen_is_not_hidden_again(start: Callable[..., Boards]) -> None:
    board = ask(start(Fakes(says("fine"))).get(None))
    board.set_blind(True)
    assert board.blind == "shown", "these answers can be recognised"
    ask(board, "and now?")
    assert board.hidden
    board.undo()
    assert board.blind == "shown"
    board.set_blind(False)
    board.undo()
    assert board.blind == ""


def test_a_first_prompt_can_be_undone_blindly(start: Callable[..., Boards]) -> None:
    board = start(Fakes(says("fine"))).get(None)
    board.set_blind(True)
    ask(board)
    board.undo()
    assert board.hidden and not board.row()


def test_what_would_tell_the_names_is_refused(start: Callable[..., Boards]) -> None:
    board = start(Fakes(says("fine"))).get(None)
    board.set_blind(True)
    ask(board)
    for op in ("choose", "settings", "branch", "walk", "left", "a new one"):
        with pytest.raises(BadRequest):
            blind.refuse(board, op)
    for op in blind.ALLOWED:
        blind.refuse(board, op)
    board.reveal()
    blind.refuse(board, "choose")
    with pytest.raises(BadRequest, match="shuffled"):
        blind.refuse(board, "left")


# kept


def as_before(folder: Path) -> sqlite3.Connection:
    """The conversations in a file as the app made it before votes had places."""
    path = folder / NAME
    path.rename(folder / "newer")
    Database(folder, MIGRATIONS[:BEFORE]).close()
    file = sqlite3.connect(path)
    file.execute("ATTACH ? AS newer", (str(folder / "newer"),))
    for table in ("conversations", "states", "turns"):
        columns = ", ".join(name for _, name, *_ in file.execute(f"PRAGMA main.table_info({table})"))
        file.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM newer.{table}")
    file.commit()
    return file


def test_votes_of_the_version_before_are_read_with_style_and_topic(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")), 2)
    board = ask(boards.get(None), "Write a Python function")
    owner = boards.owner(board.id)
    boards.store.close()
    body = '{"models":["fake:badger","fake:aardvark"],"verdict":"best"}'
    with closing(as_before(Path("data"))) as file, file:
        row = (owner, board.chat, 5.0, "[1, 2]", 2, body)
        file.execute("INSERT INTO votes (owner, conversation, at, turns, best, body) VALUES (?, ?, ?, ?, ?, ?)", row)
    boards = start(Fakes(says("fine")), 2)
    (vote,) = boards.store.votes(owner)
    (copy,) = Path("data").glob(f"*-version-{BEFORE}.sqlite3")
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("SELECT count(*) FROM votes").fetchone() == (1,)
    assert vote == Vote(
        (2, 1),
        Ballot(models("badger", "aardvark"), "best", (), (FINE, FINE)),
        board.chat,
        5.0,
        "code",
        "Write a Python function",
    )
    again = boards.get(board.id)
    assert again.votes == {2: "best"} and again.newest_vote()
    again.decide("none")
    assert boards.store.votes(owner) == []


def test_a_tag_of_the_conversation_is_the_topic_of_its_votes(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = ask(boards.get(None), "What is 3 + 4?")
    board.decide("tie")
    owner = boards.owner(board.id)
    topics = []
    for tag in ("", "school", ""):
        boards.store.tag(owner, board.chat, tag)
        topics += [vote.topic for vote in boards.store.votes(owner)]
        assert [entry.tag for entry in (*boards.entries(board.id), *boards.entries(board.id, "what"))] == [tag] * 2
    assert topics == ["maths", "school", "maths"]


def test_a_vote_outlives_its_conversation_without_its_words(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    board = ask(boards.get(None), "A secret prompt")
    board.decide("tie")
    owner = boards.owner(board.id)
    boards.store.tag(owner, board.chat, "private")
    boards.store.delete(owner, board.chat)
    boards.store.close()
    with closing(sqlite3.connect(Path("data") / NAME)) as file, file:
        file.execute("UPDATE conversations SET deleted = 1.0")
    (vote,) = start(Fakes(says("fine"))).store.votes(owner)
    assert (vote.prompt, vote.topic, vote.ballot.styles) == ("", "private", (FINE,) * 3)
    with closing(sqlite3.connect(Path("data") / NAME)) as file:
        assert "secret prompt" not in "\n".join(file.iterdump())


def test_the_migration_keeps_what_there_was(tmp_path: Path) -> None:
    old = Database(tmp_path, MIGRATIONS[:BEFORE])
    old.connection.execute("INSERT INTO conversations (id, owner, created, updated) VALUES ('x', 'o', 1, 2)")
    old.close()
    new = Database(tmp_path)
    assert new.connection.execute("SELECT id, tag FROM conversations").fetchall() == [("x", "")]
    new.close()


# the leaderboard


def votes() -> list[Vote]:
    plain, blindly = Ballot(models("a", "b"), "best"), Ballot(models("b", "a", "c"), "ranked", (1, 2, 2), blind=True)
    return [
        Vote((1, 2), plain, "chat", 0.0, "code", "=HYPERLINK(1)"),
        Vote((3, 4, 5), blindly, "chat", 86400.0, "<b>mine</b>", "Which?\nOf these"),
    ]


def test_the_page_says_what_to_do_where_there_is_no_vote() -> None:
    assert "Ask two or more columns" in page_html([], Choice())
    assert "No vote of this kind" in page_html(votes(), Choice(topic="maths"))


def test_the_page_shows_what_counts() -> None:
    html = page_html(votes(), Choice())
    assert "2 votes" in html and "a (fake)" in html and "more votes to separate" in html
    assert "a (fake) won 1 of 2 against b (fake)" in html and "b (fake) won 1 of 1 against c (fake)" in html
    assert "<b>mine" not in html and "&lt;b&gt;mine" in html
    only = page_html(votes(), Choice(topic="code"))
    assert "1 vote." in only and "c (fake)" not in only
    assert "1 vote." in page_html(votes(), Choice(blind=True))
    controlled = page_html(votes(), Choice(controlled=True))
    assert "Change" in controlled and "no taste" in controlled and "Of 2 votes the texts are gone" in controlled


def test_votes_and_ratings_come_out_as_files() -> None:
    name, kind, text = download(votes(), Choice(), "votes", "json")
    assert (name, kind) == ("votes.json", "application/json")
    _first, second = json.loads(text)
    assert second == {
        "when": "1970-01-02T00:00:00+00:00",
        "prompt": "Which?\nOf these",
        "topic": "<b>mine</b>",
        "models": ["fake:b", "fake:a", "fake:c"],
        "verdict": "ranked",
        "places": [1, 2, 2],
        "blind": True,
        "conversation": "chat",
    }
    rows = list(csv.DictReader(io.StringIO(download(votes(), Choice(), "votes", "csv")[2])))
    assert [row["models"] for row in rows] == ["fake:a | fake:b", "fake:b | fake:a | fake:c"]
    assert rows[0]["prompt"] == "'=HYPERLINK(1)", "a spreadsheet must not run it"
    rated = json.loads(download(votes(), Choice(), "ratings", "json")[2])
    assert [row["rank"] for row in rated] == [1, 2, 3] and all(r["low"] < r["rating"] < r["high"] for r in rated)
    table = download(votes(), Choice(), "ratings", "csv")[2]
    assert [row["model"] for row in csv.DictReader(io.StringIO(table))] == [row["model"] for row in rated]
    assert download([], Choice(), "ratings", "csv")[2].strip() == ""


def test_the_arena_is_named_only_where_it_rates_the_same_model() -> None:
    day = date(2026, 1, 2)
    snapshot = Snapshot(
        day, "Arena", "", (Rating("tiny-1", 1234.0, None, None, 9, day), Rating("gpt", 1300.0, 1, 2, 3, day))
    )
    rated = Ratings((snapshot,), {"maker/tiny": ("tiny-1",)}, ("maker/Tiny",))
    known = {model: found.name for model in MODELS if (found := arena_rating(model, rated))}
    assert known == {"gguf:maker/Tiny-GGUF:Q4_K_M": "tiny-1", "hf-inference:maker/Tiny": "tiny-1", "openai:gpt": "gpt"}
    votes = [Vote((1, 2), Ballot(("hf-inference:maker/Tiny", "echo:any"), "best"))]
    html = own_html(votes, rated)
    assert "Your 1 vote" in html and "<td>1234</td>" in html and "<td>–</td>" in html
    assert "vote below them" in own_html([], rated)


MODELS = (
    "gguf:maker/Tiny-GGUF:Q4_K_M",
    "gguf:other/Tiny-GGUF:Q4_K_M",
    "hf-inference:maker/Tiny",
    "openai:gpt",
    "echo:any",
)


def test_no_other_part_of_the_page_tells_the_names(start: Callable[..., Boards]) -> None:
    boards = start(Fakes(says("fine")))
    engine = boards._engine
    board = boards.get(None)
    board.set_blind(True)
    ask(board)
    tab = ChatTab(engine, boards)

    def page() -> None:
        with gr.Blocks() as blocks:
            tab.build(blocks)

    made(page)
    said: list[Any] = [tab.measure("word " * 1000, board.id), tab.cost.expect("word", board.id)]
    said += [*tab.shared_settings(board.id).values(), *tab.own(board.id, keys(board)[0], True).values()]
    text = str(said)
    assert "for all columns" in text and not [name for name in SECRETS if name in text]
    for op in ("choose", "settings"):
        refused = tab.act(board.id, SimpleNamespace(op=op, key=keys(board)[0], model="echo:a"))  # type: ignore[arg-type]
        assert "hidden until the vote" in refused[tab.warning]
