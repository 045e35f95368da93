"""Prompts sent while columns still answer: they wait, in order, and are asked when all columns are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from multimodel import Engine, ModelId
from multimodel.attachment import Attachment
from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.errors import BadRequest, ServerFailure
from multimodel.settings import ChatSettings, Settings
from multimodel.waiting import HEAVIEST, MOST, Queue

from .support import Fakes, Reply, eventually, fails, says, until

FAST, LATE = ModelId("fake", "fast"), ModelId("fake", "late")


@pytest.fixture
def running() -> Iterator[Callable[..., Engine]]:
    engines = []

    def start(folder: Path, **replies: Reply) -> Engine:
        settings = Settings(chat=ChatSettings(data_dir=folder))
        engines.append(Engine(settings, connect=Fakes(says("fine"), **replies).connect))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def prompts(board: Board) -> list[list[str]]:
    return [[turn.prompt for turn in column.turns] for column in board.columns()]


def waiting(board: Board) -> list[str]:
    return [item.prompt for item in board.queue.waiting]


def test_what_waits_is_asked_in_order_once_all_columns_have_answered(
    running: Callable[..., Engine], tmp_path: Path
) -> None:
    gate = Event()
    board = Board(running(tmp_path, late=until(gate, "late")), [FAST, LATE])
    for prompt in ("one", "two", "three"):
        assert board.send(prompt)
    assert waiting(board) == ["two", "three"]
    eventually(lambda: board.columns()[0].live is None)  # one column is done: the other is still waited for
    assert waiting(board) == ["two", "three"] and prompts(board) == [["one"], []]
    gate.set()
    eventually(lambda: len(board.kept().turns) == 6)  # nobody looks at the columns: the server goes on by itself
    eventually(lambda: not board.active())
    assert prompts(board) == [["one", "two", "three"]] * 2 and not board.queue


def test_a_page_that_follows_hears_of_answers_begun_later(running: Callable[..., Engine], tmp_path: Path) -> None:
    gate, heard = Event(), Event()
    board = Board(running(tmp_path, late=until(gate, "late")), [LATE])
    board.send("one")
    board.send("two")
    unwatch = board.watch(lambda: None if board.queue else heard.set())
    assert not heard.is_set()
    gate.set()
    assert heard.wait(20)
    unwatch()
    eventually(lambda: not board.active())


def test_a_stop_of_all_keeps_what_waits_until_a_person_says_so(running: Callable[..., Engine], tmp_path: Path) -> None:
    gate = Event()
    board = Board(running(tmp_path, late=until(gate, "late")), [LATE])
    board.send("one")
    board.send("two")
    board.stop()
    eventually(lambda: not board.active())
    assert waiting(board) == ["two"] and board.queue.paused
    gate.set()
    assert board.send("sooner")  # what a person asks now does not queue behind what was stopped
    eventually(lambda: not board.active())
    assert prompts(board) == [["one", "sooner"]] and waiting(board) == ["two"]
    board.go_on()
    eventually(lambda: not board.active())
    assert prompts(board) == [["one", "sooner", "two"]]


def test_where_every_answer_fails_the_next_is_not_asked(running: Callable[..., Engine], tmp_path: Path) -> None:
    gate = Event()

    def broken(messages: object) -> Iterator[object]:
        gate.wait(20)
        yield from fails(ServerFailure("It is down."))(())  # type: ignore[arg-type]

    board = Board(running(tmp_path, late=broken), [LATE])
    board.send("one")
    board.send("two")
    gate.set()
    eventually(lambda: not board.active())
    assert waiting(board) == ["two"] and board.queue.paused


def test_what_waits_survives_the_end_of_the_app_and_then_waits_for_a_click(
    running: Callable[..., Engine], tmp_path: Path
) -> None:
    first = running(tmp_path, guide=until(Event(), "so far"))
    board = Boards(first).get(None)
    board.send("one")
    note = Attachment("note.txt", "text", 5, text="alpha")
    board.send("two", files=[note])
    board.send("three")
    board.requeue(lambda queue: queue.move(2, -1))
    first.close()
    running(tmp_path).close()  # the start takes away files that belong to nothing
    again = Boards(running(tmp_path)).get(board.id)
    assert waiting(again) == ["three", "two"] and again.queue.paused and not again.active()
    assert [item.files for item in again.queue.waiting] == [(), (note,)]
    again.go_on()
    eventually(lambda: not again.active() and not again.queue)
    assert prompts(again)[0][-2:] == ["three", "two"]
    assert [turn.files for turn in again.columns()[0].turns][-2:] == [(), (note,)]
    again.flush()
    assert not Boards(again._engine).get(board.id).queue


def test_it_can_be_edited_moved_and_removed() -> None:
    queue = Queue().add("one").add("two").add("three")
    assert [item.prompt for item in queue.edit(2, "zwei").move(3, -5).remove(1).waiting] == ["three", "zwei"]
    assert queue.edit(2, "  ") == queue.remove(2)
    assert queue.move(9, 1) == queue.remove(9) == queue
    assert not Queue(queue.waiting, paused=True).remove(1).remove(2).remove(3).paused
    full = queue
    while len(full.waiting) < MOST:
        full = full.add("more")
    with pytest.raises(BadRequest, match="50 prompts wait already"):
        full.add("too many")
    heavy = queue.add("with files", [Attachment("a.txt", "text", 1, text="a" * HEAVIEST)])
    with pytest.raises(BadRequest, match="Too many large files wait already"):
        heavy.add("one more", [Attachment("b.txt", "text", 1, text="b")])
    assert heavy.add("without files").waiting[-1].files == ()
