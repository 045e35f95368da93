"""Runs belong to the server: in line for the device, followed by many, stopped, killed, interrupted, taken up again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from multimodel.compute import Cores
from multimodel.errors import InvalidName, ModelNotFound, TrainingError, WorkerCrashed
from multimodel.finetune import checkpoints, sources
from multimodel.finetune.events import Writer
from multimodel.finetune.jobs import LOST, Jobs
from multimodel.finetune.runfolder import Order
from multimodel.finetune.types import TrainConfig

from ..support import eventually
from .support import settings_in

pytestmark = pytest.mark.slow


@pytest.fixture
def home(place: Path, tmp_path: Path) -> Path:
    """A folder of its own with the shared rows and encoder."""
    shutil.copy(place / "data.csv", tmp_path)
    shutil.copytree(place / "encoder", tmp_path / "encoder")
    return tmp_path


@pytest.fixture
def jobs(home: Path) -> Iterator[Jobs]:
    made = Jobs(settings_in(home), Cores(1))
    yield made
    made.close()


def config(home: Path, name: str, **settings: object) -> TrainConfig:
    values = {"data": str(home / "data.csv"), "base": str(home / "encoder"), "name": name, "checkpoint_steps": 1}
    return TrainConfig(**values | {"early_stopping": 0} | settings)  # type: ignore[arg-type]


def training(jobs: Jobs, name: str) -> bool:
    return jobs.get(name).step > 2


def over(jobs: Jobs, name: str) -> bool:
    return jobs.get(name).ended and not jobs._working(name)


def test_one_at_a_time_the_rest_in_line(jobs: Jobs, home: Path) -> None:
    first, second, third = (jobs.start(config(home, name, epochs=200)) for name in ("first", "second", "third"))
    eventually(lambda: training(jobs, first), 120)
    assert [update.run for update in jobs.all()] == [third, second, first]
    assert [jobs.get(name).position for name in (first, second, third)] == [None, 1, 2]
    with pytest.raises(InvalidName, match="already"):
        jobs.start(config(home, "second"))
    with pytest.raises(TrainingError, match="running"):
        jobs.discard(first)
    with pytest.raises(TrainingError, match="running"):
        jobs.resume(first)
    jobs.stop(second)
    eventually(lambda: over(jobs, second))
    assert jobs.get(second).phase == "stopped" and jobs.get(third).position == 1
    assert jobs.get(second).error is None
    one, two = jobs.follow(first), jobs.follow(first)  # two pages
    assert next(one).step > 2 and next(two).curves["loss"]
    jobs.stop(first)
    *_, end = one
    assert end.phase == "stopped" and end.model
    *_, same = two
    assert same.curves == end.curves
    eventually(lambda: jobs.get(third).phase not in ("queued",), 30)
    jobs.stop(third)
    eventually(lambda: over(jobs, third), 120)
    jobs.discard(second)
    with pytest.raises(ModelNotFound):
        jobs.get(second)


def test_a_killed_process_is_told_and_resumed(jobs: Jobs, home: Path) -> None:
    name = jobs.start(config(home, "killed", epochs=8))
    eventually(lambda: training(jobs, name), 120)
    process = jobs._line[0].process
    assert process
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: over(jobs, name))
    killed = jobs.get(name)
    assert killed.phase == "failed" and isinstance(killed.error, WorkerCrashed)
    assert "SIGKILL" in str(killed.error) and "batch size" in killed.error.hint
    assert killed.retry == {"batch_size": 16, "gradient_accumulation": 2}  # a system short of memory kills so too
    jobs.resume(name, killed.retry)  # as many steps as before
    *_, end = jobs.follow(name)
    assert (end.phase, end.step, end.total_steps) == ("done", 64, killed.total_steps)
    assert Order.load(jobs.store.runs / name).config.batch_size == 16
    with pytest.raises(TrainingError, match="done"):
        jobs.resume(name)


def test_the_end_of_the_app_interrupts_and_the_next_goes_on(home: Path) -> None:
    settings = settings_in(home)
    jobs = Jobs(settings, Cores(1))
    name, waiting = jobs.start(config(home, "long", epochs=100)), jobs.start(config(home, "waiting", epochs=1))
    eventually(lambda: training(jobs, name), 120)
    jobs.close()
    left = Jobs(settings).get(name)
    assert left.phase == "interrupted" and left.error is None
    assert Jobs(settings).get(waiting).phase == "queued"
    later = Jobs(settings, Cores(1))
    assert later.recover() == [name, waiting]
    eventually(lambda: later.get(name).step > left.step, 120)
    resumed = later.get(name)
    assert resumed.curves["loss"][: left.step] == left.curves["loss"][: left.step]
    later.stop(name)
    *_, end = later.follow(name)
    assert end.phase == "stopped"
    *_, last = later.follow(waiting)
    assert last.phase == "done"
    later.close()


def test_an_app_that_was_killed_leaves_a_run_that_waits_for_a_person(jobs: Jobs, home: Path) -> None:
    name = jobs.start(config(home, "lost", epochs=100))
    eventually(lambda: training(jobs, name), 120)
    jobs.stop(name)
    *_, end = jobs.follow(name)
    events = jobs.store.runs / name / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join(lines[:-5]) + lines[-5][:20])  # as a kill in the middle of a line leaves it
    later = Jobs(settings_in(home))
    *_, seen = later.follow(name)
    assert (seen.phase, seen.detail) == ("interrupted", LOST)
    assert later.recover() == []
    assert later.get(name).phase == "interrupted"
    later.resume(name)
    eventually(lambda: later.get(name).phase == "training" or over(later, name), 120)
    later.stop(name)
    *_, end = later.follow(name)
    assert end.phase == "stopped"


def test_a_machine_that_is_shut_down_lets_a_run_save_itself(jobs: Jobs, home: Path) -> None:
    name = jobs.start(config(home, "shut", epochs=100, checkpoint_steps=1000))
    eventually(lambda: training(jobs, name), 120)
    process = jobs._line[0].process
    assert process
    process.send_signal(signal.SIGTERM)
    eventually(lambda: over(jobs, name), 60)
    left = jobs.get(name)
    assert (left.phase, left.error) == ("interrupted", None) and left.step > 2
    assert checkpoints.newest(jobs.store.runs / name) == jobs.store.runs / name / f"checkpoint-{left.step}"


def test_two_starts_at_once_are_one_run(home: Path) -> None:
    many = [Jobs(settings_in(home), Cores(1)) for _ in range(4)]  # four apps on one folder
    asked = config(home, "once", data=str(home / "nowhere.csv"))
    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(jobs.start, asked) for jobs in many for _ in range(2)]
    won = [end for end in ends if end.exception() is None]
    assert len(won) == 1 and won[0].result() == "once"
    assert all(isinstance(end.exception(), InvalidName) for end in ends if end is not won[0])
    for one in many:
        one.close()


def test_rows_that_a_page_has_repaired_are_trained_on(jobs: Jobs, home: Path) -> None:
    asked = config(home, "given", epochs=1)
    data = sources.prepared(asked, settings_in(home)).where(lambda i: i % 3 != 0)
    jobs.start(asked, data)
    *_, end = jobs.follow("given")
    assert end.phase == "done"
    assert sum(end.plan["rows"].values()) == len(data) == 200


def test_a_folder_that_cannot_be_written_is_said(home: Path) -> None:
    blocked = home / "models"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(TrainingError) as caught:
        Jobs(settings_in(home)).start(config(home, "x"))
    assert caught.value.hint


def test_a_run_whose_model_was_renamed_is_resumed_under_its_new_name(jobs: Jobs, home: Path) -> None:
    name = jobs.start(config(home, "before", epochs=40))
    eventually(lambda: training(jobs, name), 120)
    jobs.stop(name)
    *_, stopped = jobs.follow(name)
    jobs.store.rename(name, "after")
    jobs.resume("after")
    *_, end = jobs.follow("after")
    assert (end.phase, end.error) == ("done", None) and end.total_steps == stopped.total_steps
    assert [update.run for update in jobs.all()] == jobs.store.names() == ["after"]
    assert jobs.store.damaged("after") == []
    assert "# after\n" in (jobs.store.path("after") / "README.md").read_text()


def test_a_name_that_was_another_runs_before_shows_nothing_of_it(jobs: Jobs, home: Path) -> None:
    for name, created in (("one", "2026-01-01"), ("two", "2026-01-02")):
        folder = jobs.store.runs / name
        folder.mkdir(parents=True)
        Order(config(home, name), "", str(jobs.store.folder), "", created).save(folder)
        Writer(folder).log(f"told by {name}")
    assert [jobs.get(name).log for name in ("one", "two")] == [("told by one",), ("told by two",)]
    shutil.rmtree(jobs.store.runs / "one")
    (jobs.store.runs / "two").rename(jobs.store.runs / "one")
    assert jobs.get("one").log == ("told by two",)


def test_following_beats_while_nothing_is_new(jobs: Jobs, home: Path) -> None:
    name = jobs.start(config(home, "beats", epochs=200))
    assert len(list(islice(jobs.follow(name), 4))) == 4
    jobs.stop(name)
    *_, end = jobs.follow(name)
    assert end.phase == "stopped"
