"""What was said is kept: through the end of the app, through full and locked disks, old files and broken ones."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.conversation import MARKS, Options, Turn
from multimodel.engine import Engine
from multimodel.errors import NewerDatabase, NotKept, ServerFailure
from multimodel.settings import ChatSettings, Settings
from multimodel.store import Store
from multimodel.store.database import NAME, Database
from multimodel.store.schema import MIGRATIONS
from multimodel.types import (
    Chunk,
    LoadOptions,
    ModelId,
    SamplingParams,
    Snapshot,
    Timing,
    TokenLogprob,
    ToolCall,
    Usage,
)

from .support import Fakes, Reply, eventually, fails, says, until

A, B = ModelId("fake", "a"), ModelId("fake", "b")
OWNER = "owner"
FINE = says("fine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def running() -> Iterator[Callable[..., Engine]]:
    """Starts engines of fake models over the same folder, each after the end of the one before."""
    engines: list[Engine] = []

    def start(reply: Reply = FINE, folder: Path = Path("data"), **replies: Reply) -> Engine:
        for engine in engines:
            engine.close()
        chat = ChatSettings(columns=(str(A), str(B)), data_dir=folder)
        engines.append(Engine(Settings(chat=chat), connect=Fakes(reply, **replies).connect))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def ask(board: Board, prompt: str) -> None:
    assert board.send(prompt)
    eventually(lambda: not board.active())


def texts(board: Board) -> list[list[str]]:
    return [[turn.answer.text for turn in column.turns] for column in board.columns()]


# what comes back


def test_a_conversation_is_found_again_as_it_was(running: Callable[..., Engine]) -> None:
    boards = Boards(running(says("one ", "two")))
    board = boards.get(None)
    board.set_options(Options(SamplingParams(temperature=0.5, seed=3), "Be brief."))
    own = Options(
        SamplingParams(top_p=0.5), load=LoadOptions(dtype="int4", context_length=999, chat_template="{{ m }}")
    )
    board.set_options(own, board.columns()[1].key)
    ask(board, "Hello?")
    ask(board, "And again?")
    board.move(board.columns()[0].key, 1)
    before = board.columns()

    again = Boards(running()).get(board.id)
    assert again is not board
    assert [(c.key, c.model, c.own, [t.id for t in c.turns]) for c in again.columns()] == [
        (c.key, c.model, c.own, [t.id for t in c.turns]) for c in before
    ]
    assert again.shared == board.shared
    turn, was = again.columns()[0].turns[1], before[0].turns[1]
    assert (turn.prompt, turn.answer.text, turn.asked) == ("And again?", "one two", was.asked)
    assert turn.answer.usage == was.answer.usage and turn.answer.finish_reason == "stop"
    assert turn.answer.timing.ttft == was.answer.timing.ttft
    assert turn.answer.timing.total == was.answer.timing.total
    assert turn.answer.params == was.answer.params == (again.columns()[0].own or again.shared).params


def test_an_error_is_found_again_with_its_hint(running: Callable[..., Engine]) -> None:
    failure = ServerFailure("broken \ud800", hint="Wait.", retry_after=3600.0)
    board = Boards(running(says("fine"), a=fails(failure, "half"))).get(None)
    ask(board, "Hello?")
    answer = Boards(running()).get(board.id).columns()[0].turns[0].answer
    assert (answer.text, answer.finish_reason) == ("half", "error")
    assert isinstance(answer.error, ServerFailure)
    assert (str(answer.error), answer.error.hint) == ("broken �", "Wait.")


def test_log_probabilities_are_kept(running: Callable[..., Engine]) -> None:
    tokens = (TokenLogprob.of(b"\xc3", -0.5, (TokenLogprob.of(b"\xc3", -0.5), TokenLogprob.of(b"x", -2.0))),)

    def reply(_: object) -> Generator[Chunk]:
        yield Chunk("é", logprobs=tokens)
        yield Chunk("!", logprobs=(TokenLogprob.of(b"!", -0.1),), finish_reason="stop")

    engine = running(reply)
    board = Boards(engine).get(None)
    ask(board, "Hello?")
    chat = board.id.partition(".")[2]
    assert engine.store.logprobs(chat)[1] == (*tokens, TokenLogprob.of(b"!", -0.1))


def test_the_words_are_kept_as_they_come(running: Callable[..., Engine], folder: Path) -> None:
    go = Event()
    engine = running(until(go, "so ", "far"), folder=folder)
    board = Boards(engine).get(None)
    board.send("Hello?")
    eventually(lambda: all(column.live and column.live.text for column in board.columns()))
    with closing(sqlite3.connect(folder / NAME)) as other:
        eventually(lambda: other.execute("SELECT sum(length(text)) FROM pieces").fetchone() == (12,))
        go.set()
        eventually(lambda: other.execute("SELECT count(*) FROM turns WHERE text = 'so far'").fetchone() == (2,))
        assert other.execute("SELECT count(*) FROM pieces").fetchone() == (0,)


def test_a_call_is_kept_as_it_comes(running: Callable[..., Engine], folder: Path, tmp_path: Path) -> None:
    go, begun = Event(), ToolCall("weather", '{"city": "Par', "1")

    def reply(_: object) -> Generator[Chunk]:
        yield Chunk(calls=(replace(begun, arguments=""),))
        yield Chunk(calls=(begun,))
        go.wait(60)
        yield Chunk(finish_reason="stop")

    board = Boards(running(reply, folder=folder)).get(None)
    board.send("Hello?")
    held = "SELECT count(DISTINCT turn) FROM pieces WHERE calls LIKE '%Par%'"
    (later := tmp_path / "later").mkdir()
    with closing(sqlite3.connect(folder / NAME)) as now, closing(sqlite3.connect(later / NAME)) as copy:
        eventually(lambda: now.execute(held).fetchone() == (2,))
        now.backup(copy)  # as the app would leave it if it ended here
    go.set()
    eventually(lambda: not board.active())
    for column in Boards(running(folder=later)).get(board.id).columns():
        assert (column.turns[0].answer.calls, column.turns[0].answer.finish_reason) == ((begun,), "interrupted")


KILLED = """
    import sys
    from pathlib import Path
    from multimodel.boards import Boards
    from multimodel.engine import Engine
    from multimodel.settings import ChatSettings, Settings

    chat = ChatSettings(columns=("echo:slow", "echo:any"), data_dir=Path("data"))
    with Engine(Settings(chat=chat)) as engine:
        board = Boards(engine).get(None)
        board.send(" ".join(str(number) for number in range(500)))
        print(board.id, flush=True)
        while board.active():
            live = board.columns()[0].live
            print(live.text if live else "", flush=True)
            import time; time.sleep(0.3)
"""


def test_kill_9_in_the_middle_of_an_answer_loses_nothing_that_was_shown(running: Callable[..., Engine]) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment())
    assert process.stdout
    id = process.stdout.readline().strip()
    shown = ""
    while shown.count(" ") < 12:
        shown = process.stdout.readline().strip()
    time.sleep(0.25)  # two beats of the writer, and a little
    process.kill()
    process.wait()
    process.stdout.close()

    board = Boards(running()).get(id)
    slow, quick = board.columns()
    assert slow.live is None
    (turn,) = slow.turns
    assert turn.answer.finish_reason == "interrupted"
    assert turn.answer.text.startswith(shown) and turn.prompt.startswith(turn.answer.text.rstrip())
    assert turn.answer.timing.ttft is not None
    assert quick.turns[0].answer.finish_reason == "stop"


def _environment() -> dict[str, str]:
    import os

    from .support import ROOT

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_what_the_end_of_the_app_cuts_off_is_kept(running: Callable[..., Engine]) -> None:
    board = Boards(running(until(Event(), "so far"))).get(None)
    board.send("Hello?")
    eventually(lambda: all(column.live and column.live.text for column in board.columns()))
    again = Boards(running()).get(board.id)
    assert texts(again) == [["so far"], ["so far"]]


# who sees what


def test_another_visitor_finds_nothing_of_it(running: Callable[..., Engine]) -> None:
    engine = running()
    boards = Boards(engine)
    mine, theirs = boards.get(None), boards.get(None)
    ask(mine, "my secret")
    secret, chat = theirs.id.partition(".")[0], mine.id.partition(".")[2]
    assert boards.get(f"{secret}.{chat}") is not mine
    assert texts(boards.get(f"{secret}.{chat}")) == [[], []]
    assert boards.open(theirs.id, chat) is theirs
    assert boards.entries(theirs.id) == boards.entries(theirs.id, "secret") == []
    engine.store.rename(boards.owner(theirs.id), chat, "stolen")
    assert [entry.title for entry in boards.entries(mine.id)] == ["my secret"]
    engine.store.rename(boards.owner(mine.id), chat, "mine")
    assert [entry.title for entry in boards.entries(mine.id)] == ["mine"]


def test_the_file_does_not_hold_the_secret(running: Callable[..., Engine], folder: Path) -> None:
    board = Boards(running(folder=folder)).get(None)
    ask(board, "Hello?")
    running(folder=folder)
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"Hello?" in written and board.id.partition(".")[0].encode() not in written


@pytest.mark.parametrize("id", ["", ".", "short.0123456789abcdef", "x" * 43, "x" * 43 + ".../../etc", "é" * 43 + ".0"])
def test_an_address_that_is_none_of_ours_gets_a_board_of_its_own(running: Callable[..., Engine], id: str) -> None:
    board = Boards(running()).get(id)
    assert board.id != id and texts(board) == [[], []]


# the list


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store(folder)) as made:
        yield made


def put(store: Store, id: str, *turns: tuple[str, str], owner: str = OWNER, title: str = "") -> None:
    """A conversation of one column, written as a board writes it."""
    from multimodel.conversation import Conversation, Lane, State, title_of

    made, parent = [], None
    for number, (prompt, answer) in enumerate(turns, 1):
        said = Snapshot(A, answer, Timing(0.0, 0.5, 1.0), Usage(1, 2), "stop")
        made.append(Turn(prompt, said, number, parent, "k", float(number)))
        parent = number
    state = State(1, (Lane("k", A, None, parent),))
    store.save(owner, id, Conversation(title or title_of(turns[0][0]), 0.0, (state,), tuple(made)), {})


def test_the_newest_comes_first_and_what_is_pinned_before_it(store: Store) -> None:
    for name in ("one", "two", "three"):
        put(store, name, (name, "fine"))
    assert [entry.title for entry in store.entries(OWNER)] == ["three", "two", "one"]
    store.pin(OWNER, "one", True)
    assert [(entry.title, entry.pinned) for entry in store.entries(OWNER)[:2]] == [("one", True), ("three", False)]
    store.pin(OWNER, "one", False)
    store.rename(OWNER, "two", "zwei")
    assert [entry.title for entry in store.entries(OWNER)] == ["three", "zwei", "one"]


def test_what_is_deleted_comes_back_when_asked(store: Store) -> None:
    put(store, "one", ("one", "fine"))
    store.delete(OWNER, "one")
    assert store.entries(OWNER) == store.find(OWNER, "fine") == []
    store.restore(OWNER, "one")
    assert [entry.id for entry in store.entries(OWNER)] == ["one"]


def test_what_was_deleted_long_ago_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Store(folder)) as store:
        put(store, "one", ("one", "fine"))
        put(store, "two", ("two", "fine"))
        store.delete(OWNER, "one")
    monkeypatch.setattr("multimodel.store.store.DELETED_FOR", -1.0)
    with closing(Store(folder)) as store:
        assert not store.known("one") and store.known("two")
        assert [entry.id for entry in store.find(OWNER, "fine")] == ["two"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("cache", ["one"]),
        ("CACHE what", ["one"]),
        ("cach", ["one"]),
        ("cafe", ["two"]),
        ("coffee", ["two"]),
        ("nothing-like-it", []),
        ("\"' OR 1=1 -- * ( ) NEAR", []),
        ("%", ["two", "one"]),  # no word: everything
        ("键值", ["two"]),
    ],
)
def test_words_are_found_in_titles_prompts_and_answers(store: Store, words: str, found: list[str]) -> None:
    put(store, "one", ("What is the KV cache?", "It keeps keys and values."))
    put(store, "two", ("Where is the café?", "什么是键值缓存"), title="About coffee")
    put(store, "other", ("cache café coffee 键值", "x"), owner="somebody else")
    assert [entry.id for entry in store.find(OWNER, words)] == found


def test_an_excerpt_marks_what_was_found(store: Store) -> None:
    put(store, "one", ("Hello", "A long text about the cache of keys"))
    (entry,) = store.find(OWNER, "cache")
    assert f"{MARKS[0]}cache{MARKS[1]}" in entry.excerpt


# what goes wrong


def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room(running: Callable[..., Engine]) -> None:
    engine = running(says("word " * 20_000))
    board = Boards(engine).get(None)
    ask(board, "first")
    connection = engine.store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    ask(board, "second")
    eventually(lambda: engine.store.problem is not None)
    assert "full" in str(engine.store.problem) and engine.store.problem and engine.store.problem.hint
    assert len(board.columns()[0].turns) == 2, "the answer stays on the screen"
    connection.execute("PRAGMA max_page_count = 1000000")
    eventually(lambda: engine.store.problem is None)
    assert len(Boards(running()).get(board.id).columns()[0].turns) == 2


def test_a_locked_file_is_told_and_written_once_it_is_free(running: Callable[..., Engine], folder: Path) -> None:
    engine = running(folder=folder)
    board = Boards(engine).get(None)
    ask(board, "first")
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as other:
        eventually(lambda: other.execute("SELECT count(*) FROM turns WHERE ending IS NOT NULL").fetchone() == (2,))
        other.execute("BEGIN IMMEDIATE")
        ask(board, "second")
        eventually(lambda: "another program" in str(engine.store.problem))
        assert texts(board) == [["fine", "fine"]] * 2
        with pytest.raises(NotKept):
            engine.store.rename(OWNER, "x", "y")
        other.execute("COMMIT")
    eventually(lambda: engine.store.problem is None)
    assert texts(Boards(running(folder=folder)).get(board.id)) == [["fine", "fine"]] * 2


def test_two_apps_do_not_share_a_file(folder: Path) -> None:
    with closing(Store(folder)) as first, closing(Store(folder)) as second:
        assert first.problem is None
        assert "Another app" in str(second.problem)
        put(second, "one", ("one", "fine"))
        assert [entry.id for entry in second.entries(OWNER)] == ["one"], "in memory it works"
        assert first.entries(OWNER) == []
    with closing(Store(folder)) as third:
        assert third.problem is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with closing(Store(tmp_path / "file" / "data")) as store:
        assert store.problem and "MULTIMODEL_DATA_DIR" in store.problem.hint


@pytest.mark.parametrize("damage", ["garbage", "torn", "foreign"])
def test_a_broken_file_is_set_aside_and_a_new_one_begun(folder: Path, damage: str) -> None:
    with closing(Store(folder)) as store:
        for number in range(50):
            put(store, f"id{number}", ("prompt", "word " * 500))
    path = folder / NAME
    if damage == "foreign":
        path.unlink()
        with closing(sqlite3.connect(path)) as other:
            other.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 1;")
    else:
        content = path.read_bytes()
        path.write_bytes(b"garbage" * 1000 if damage == "garbage" else content[:8192] + b"\xff" * (len(content) - 8192))
    before = path.read_bytes()
    with closing(Store(folder)) as store:
        assert store.problem is None
        assert "kept as" in store.note
        put(store, "one", ("one", "fine"))
        assert [entry.id for entry in store.entries(OWNER)] == ["one"]
    (aside,) = folder.glob("*broken*.sqlite3")
    assert aside.read_bytes() == before


def test_a_file_of_a_newer_version_is_left_alone(folder: Path) -> None:
    with closing(Store(folder)) as store:
        put(store, "one", ("one", "fine"))
    with closing(sqlite3.connect(folder / NAME)) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = (folder / NAME).read_bytes()
    with pytest.raises(NewerDatabase):
        Database(folder)
    with closing(Store(folder)) as store:
        assert isinstance(store.problem, NewerDatabase) and "Update" in store.problem.hint
        assert store.entries(OWNER) == []
    assert (folder / NAME).read_bytes() == before


def test_a_file_of_an_older_version_is_migrated_with_a_copy_of_it_kept(folder: Path) -> None:
    with closing(Store(folder)) as store:
        put(store, "one", ("one", "fine"))
    more = (*MIGRATIONS, "ALTER TABLE conversations ADD COLUMN colour TEXT; CREATE TABLE more (x);")
    with closing(Database(folder, more)) as migrated:
        assert migrated.connection.execute("SELECT title, colour FROM conversations").fetchall() == [("one", None)]
        assert migrated.connection.execute("PRAGMA user_version").fetchone() == (len(more),)
    (copy,) = folder.glob("*-version-*.sqlite3")
    with closing(sqlite3.connect(copy)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert old.execute("SELECT title FROM conversations").fetchall() == [("one",)]


def test_a_migration_that_fails_changes_nothing(folder: Path) -> None:
    with closing(Store(folder)) as store:
        put(store, "one", ("one", "fine"))
    with pytest.raises(NotKept):
        Database(folder, (*MIGRATIONS, "CREATE TABLE half (x); SELECT * FROM nowhere;"))
    with closing(Store(folder)) as store:
        assert store.problem is None and [entry.id for entry in store.entries(OWNER)] == ["one"]
    with closing(sqlite3.connect(folder / NAME)) as other:
        assert not other.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchall()
