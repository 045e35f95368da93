"""Batches of the server: found again after any end, asked one at a time, by nobody but their visitor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodel.batch.jobs import JOB, Batches, BatchJob
from multimodel.batch.plan import Batch, Setting, prompts_in, text_of
from multimodel.batch.run import ANSWERS, POLITE, run
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, BatchError
from multimodel.settings import ChatSettings, Settings
from multimodel.types import Message, ModelId
from tabs.batch import Asking

from .support import GUIDE_GGUF, eventually, needs

ME, OTHER = "a" * 64, "b" * 64
SLOW, ANY = ModelId("echo", "slow"), ModelId("echo", "any")
LONG = " ".join(str(number) for number in range(200))
BATCH = Batch(prompts=("one", "two", "three"), models=(ANY,))
ENDLESS = Batch(prompts=("one", LONG), models=(ANY, SLOW))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(chat=ChatSettings(data_dir=tmp_path / "data"))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    with Engine(settings) as made:
        yield made


@pytest.fixture
def batches(engine: Engine) -> Batches:
    return Batches(engine)


def reach(batches: Batches, id: str, want: Callable[[BatchJob], bool]) -> BatchJob:
    """The batch, once it is so."""
    eventually(lambda: want(batches.get(ME, id)))
    return batches.get(ME, id)


def over(job: BatchJob) -> bool:
    return not job.active


def test_a_batch_is_asked_and_found_again(batches: Batches, settings: Settings) -> None:
    id = batches.start(ME, "mine", BATCH)
    job = reach(batches, id, over)
    assert (job.state, job.title, job.update.done, job.update.counts[0].total) == ("done", "mine", 3, 3)
    assert batches.all(OTHER) == []
    with Engine(settings) as again:
        (found,) = Batches(again).all(ME)
        assert (found.id, found.state, found.update.done) == (id, "done", 3)


def test_nobody_else_can_touch_it(batches: Batches) -> None:
    id = batches.start(ME, "mine", BATCH)
    reach(batches, id, over)
    for act in (batches.stop, batches.resume, batches.delete, batches.folder):
        for owner, name in ((OTHER, id), (ME, "../" + id), (ME, "0" * 16), ("../x", id)):
            with pytest.raises(BadRequest):
                act(owner, name)


def test_stopped_it_goes_on_and_asks_nothing_twice(batches: Batches) -> None:
    id = batches.start(ME, "", ENDLESS)
    reach(batches, id, lambda job: job.update.done == 2 and job.update.answer is not None)
    batches.stop(ME, id)
    job = reach(batches, id, over)
    assert (job.state, job.update.done, job.title) == ("stopped", 2, "one and 1 more")
    lines = (batches.folder(ME, id) / ANSWERS).read_text()
    batches.resume(ME, id)
    reach(batches, id, lambda job: job.update.done == 3)
    with pytest.raises(BadRequest, match="already"):
        batches.resume(ME, id)
    with pytest.raises(BadRequest, match="being asked"):
        batches.delete(ME, id)
    batches.stop(ME, id)
    reach(batches, id, over)
    assert (batches.folder(ME, id) / ANSWERS).read_text().startswith(lines)


def test_one_is_asked_at_a_time_and_the_next_leaves_the_line(batches: Batches) -> None:
    first, second = batches.start(ME, "1", ENDLESS), batches.start(OTHER, "2", BATCH)
    reach(batches, first, lambda job: job.state == "running")
    assert batches.get(OTHER, second).state == "waiting"
    batches.stop(OTHER, second)
    assert batches.get(OTHER, second).state == "stopped"
    batches.stop(ME, first)
    reach(batches, first, over)


def test_the_end_of_the_app_interrupts_it_and_no_error_is_written(settings: Settings) -> None:
    with Engine(settings) as engine:
        batches = Batches(engine)
        id = batches.start(ME, "", ENDLESS)
        reach(batches, id, lambda job: job.update.done == 2 and job.update.answer is not None)
    with Engine(settings) as engine:
        batches = Batches(engine)
        job = batches.get(ME, id)
        assert (job.state, job.update.done, job.update.errors) == ("interrupted", 2, 0)
        batches.rename(ME, id, "  another ")
        assert batches.get(ME, id).title == "another"
        batches.delete(ME, id)
        assert batches.all(ME) == []
        with pytest.raises(BadRequest):
            batches.get(ME, id)


def test_errors_are_asked_again(batches: Batches, tmp_path: Path) -> None:
    id = batches.start(ME, "", Batch(prompts=("a",), models=(ModelId("gguf", str(tmp_path / "none.gguf")), ANY)))
    assert reach(batches, id, over).update.errors == 1
    batches.resume(ME, id, retry=True)
    job = reach(batches, id, over)
    assert (job.state, job.update.done, job.update.errors) == ("done", 2, 1)
    assert len((batches.folder(ME, id) / ANSWERS).read_text().splitlines()) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"title": "x"}', '{"title": "x", "created": -1, "state": "done"}'])
def test_a_broken_folder_is_left_out(text: str, batches: Batches) -> None:
    id = batches.start(ME, "", BATCH)
    reach(batches, id, over)
    (batches.folder(ME, id) / JOB).write_text(text)
    assert batches.all(ME) == []


def test_a_folder_that_another_process_asks_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    first = run(BATCH, tmp_path, engine)
    next(first)
    with pytest.raises(BatchError, match="another process"):
        next(run(BATCH, tmp_path, engine))
    first.close()
    assert list(run(BATCH, tmp_path, engine))[-1].finished


def test_a_chat_goes_first(engine: Engine, tmp_path: Path) -> None:
    chat = engine.start(SLOW, [Message("user", LONG)])
    eventually(engine.answering)
    asking = run(BATCH, tmp_path, engine)
    waits = [next(asking) for _ in range(3)]
    assert [update.waiting for update in waits] == ["", POLITE, POLITE]
    chat.stop()
    *_, last = asking
    assert last.finished and not last.waiting


@needs("llama_cpp")
@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_models_leave_after_their_turn_but_for_one_that_was_here(engine: Engine, tmp_path: Path) -> None:
    guide = ModelId("gguf", "guide")
    batch = Batch(prompts=("Hello",), models=(guide,), settings=(Setting(),))
    list(run(batch, tmp_path / "cold", engine))
    assert not engine.pool.residents()
    list(engine.ask(guide, [Message("user", "Hello")]))
    list(run(batch, tmp_path / "warm", engine))
    assert [resident.spec.id for resident in engine.pool.residents()] == [guide]


# what the page asks


@pytest.fixture
def asking(engine: Engine) -> Asking:
    return Asking(engine, Boards(engine))


@pytest.fixture
def form(asking: Asking) -> dict[str, Any]:
    """What the page sends of a new run."""
    sets = [{"name": "a", "temperature": "0", "max_tokens": "20", "seed": "", "top_p": "", "system": "Be brief."}]
    address = asking.boards.get(None).id
    return {"id": address, "prompts": "one\ntwo", "models": ["echo:any"], "sets": sets, "repeats": 2, "title": "t"}


def test_a_run_from_the_form_to_files(asking: Asking, form: dict[str, Any]) -> None:
    assert "<b>4 answers</b>" in asking.plan(form)["html"]
    run = asking.begin(form)["run"]
    mine = {"id": form["id"], "run": run}
    eventually(lambda: not asking.watch(mine)["shown"]["active"])
    shown = asking.watch(mine)["shown"]
    assert "Replay" in shown["head"] and asking.watch(mine | {"seen": shown["stamp"]})["shown"].keys() == {"stamp"}
    assert "echo:any" in asking.report(mine)["html"] and "Be brief." in asking.report(mine)["asked"]
    files = {kind: asking.download(mine | {"kind": kind})["download"] for kind in ("json", "md", "html")}
    assert [name for name, _, _ in files.values()] == ["t.json", "t.md", "t.html"]
    again = asking.act(mine | {"act": "replay"})["run"]
    eventually(lambda: not asking.watch(mine | {"run": again})["shown"]["active"])
    assert "<b>4</b> identical" in asking.report(mine | {"run": again})["html"]
    assert "by earlier runs" in asking.plan(form)["html"]
    assert "by earlier runs" not in asking.plan(form | {"models": ["echo:any", "echo:new"]})["html"]
    stranger = {"id": asking.boards.get(None).id, "run": run}
    assert asking.watch(stranger)["gone"] and "error" in asking.report(stranger)


def test_runs_go_along_with_a_visitor_who_joins_another_browser(asking: Asking, form: dict[str, Any]) -> None:
    run = asking.begin(form)["run"]
    eventually(lambda: not asking.watch({"id": form["id"], "run": run})["shown"]["active"])
    other = asking.boards.get(None).id
    asking.boards.join(asking.boards.invite(other), form["id"])
    assert asking.watch({"id": other, "run": run})["shown"]["done"] == 4
    assert asking.watch({"id": form["id"], "run": run})["gone"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompts": ""}, "no prompts"),
        ({"models": []}, "no models"),
        ({"models": "x"}, "no models"),
        ({"models": ["ecko:any"]}, "ecko"),
        ({"sets": [{"name": "a", "temperature": "hot"}]}, "temperature of &#x27;a&#x27;"),
        ({"sets": [{"name": "a", "temperature": "9"}]}, "temperature"),
        ({"sets": [{"name": "a"}, {"name": "a"}]}, "the same"),
        ({"repeats": 10**9}, "answers were asked for"),
        ({"sets": None}, "no settings"),
    ],
)
def test_a_wrong_form_is_told(wrong: dict[str, Any], says: str, asking: Asking, form: dict[str, Any]) -> None:
    for method in (asking.plan, asking.begin):
        assert says in method(form | wrong)["error"]
    assert asking.watch({"id": form["id"]})["list"].count("<button") == 0


def test_what_the_chat_asked_becomes_a_run(asking: Asking, form: dict[str, Any]) -> None:
    board = asking.boards.get(form["id"])
    board.choose(board.columns()[0].key, ANY)
    board.send("hello\nthere")
    eventually(lambda: not board.active())
    taken = asking.chat(form)
    assert prompts_in(taken["text"]) == ("hello\nthere",)
    assert "echo:any" in taken["models"] and taken["sets"][0]["temperature"] == "0"


def test_files_that_were_not_uploaded_are_not_read(asking: Asking, form: dict[str, Any]) -> None:
    for method in (asking.prompts, asking.bring):
        assert "error" in method(form | {"path": "/etc/passwd"})


def test_prompts_come_back_from_the_text_they_become() -> None:
    for prompts in (("one", "two"), ("a\nb", "c"), ("x",), ("a\nb",)):
        assert prompts_in(text_of(prompts)) == prompts


def test_markup_of_texts_is_not_markup_of_the_page(asking: Asking, form: dict[str, Any]) -> None:
    bad = "<img src=x onerror=alert(1)>"
    made = form | {"prompts": bad, "title": bad, "sets": [{"name": bad}], "repeats": 1}
    mine = {"id": form["id"], "run": asking.begin(made)["run"]}
    eventually(lambda: not asking.watch(mine)["shown"]["active"])
    seen = [
        json.dumps(asking.watch(mine)),
        json.dumps(asking.report(mine)),
        asking.download(mine | {"kind": "html"})["download"][2],
    ]
    for text in seen:
        assert "&lt;img" in text and "<img" not in text, text[max(0, text.find("<img") - 200) :][:300]


def test_the_thread_of_batches_ends_with_the_engine(settings: Settings) -> None:
    with Engine(settings) as engine:
        Batches(engine).start(ME, "", ENDLESS)
        assert any(thread.name == "batches" for thread in threading.enumerate())
    assert not any(thread.name == "batches" for thread in threading.enumerate())
