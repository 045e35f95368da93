"""Trackers keep the curves beside the run, and whatever happens to them, the run does not wait and does not end."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from transformers import TrainerCallback

from multimodel.compute import Cores
from multimodel.finetune import tracking
from multimodel.finetune.jobs import Jobs
from multimodel.finetune.runfolder import Order
from multimodel.finetune.store import Store
from multimodel.finetune.tracking import Aside, reachable, trackers
from multimodel.finetune.types import TrainConfig
from multimodel.settings import TrackingSettings

from ..support import eventually, needs
from .conftest import Finished
from .support import settings_in

ARGS, STATE, CONTROL = SimpleNamespace(), SimpleNamespace(global_step=1), SimpleNamespace()


class Keeper(TrainerCallback):
    """A tracker that keeps what it is told; `broken` names the event that it fails at, `gate` one it waits at."""

    def __init__(self, broken: str = "", gate: Event | None = None) -> None:
        self.told: list[tuple[str, int]] = []
        self._broken, self._gate = broken, gate

    def _hear(self, event: str, state: SimpleNamespace) -> None:
        if self._gate:
            self._gate.wait(20)
        if event == self._broken:
            raise RuntimeError(f"no {event}\nand more")
        self.told.append((event, state.global_step))

    def on_train_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self._hear("begin", state)

    def on_log(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self._hear("log", state)

    def on_train_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self._hear("end", state)


def told(aside: Aside) -> None:
    """A whole run, as the Trainer tells it."""
    state = SimpleNamespace(global_step=1)
    aside.on_train_begin(ARGS, state, CONTROL)
    aside.on_log(ARGS, state, CONTROL, logs={"loss": 1.0})
    state.global_step = 2
    aside.on_log(ARGS, state, CONTROL, logs={"loss": 0.5})
    aside.on_train_end(ARGS, state, CONTROL)


def test_everything_arrives_as_it_was_when_it_happened() -> None:
    keeper, said, ended = Keeper(), list[str](), list[str]()
    aside = Aside("keeper", [lambda: keeper], said.append, finish=lambda: ended.append("finished"))
    told(aside)
    aside.close()
    assert keeper.told == [("begin", 1), ("log", 1), ("log", 2), ("end", 2)]
    assert said == [] and ended == ["finished"]


def test_nobody_waits_for_one_that_hangs() -> None:
    gate, said = Event(), list[str]()
    keeper = Keeper(gate=gate)
    aside = Aside("keeper", [lambda: keeper], said.append)
    told(aside)  # returns while the tracker still begins
    assert keeper.told == []
    aside.close(0.05)
    assert len(said) == 1 and "did not finish" in said[0]
    gate.set()
    eventually(lambda: len(keeper.told) == 4)


@pytest.mark.parametrize("broken", ["begin", "log", "end"])
def test_one_that_fails_is_left_out(broken: str) -> None:
    said: list[str] = []
    aside = Aside("keeper", [lambda: Keeper(broken)], said.append)
    told(aside)
    aside.close()
    assert said == [f"keeper is left out (no {broken}); the run's own record has its curves."]


def test_where_the_first_way_fails_the_next_is_taken() -> None:
    keeper, said = Keeper(), list[str]()
    aside = Aside("keeper", [lambda: Keeper("begin"), lambda: keeper], said.append)
    told(aside)
    aside.close()
    assert keeper.told[0] == ("begin", 1) and len(keeper.told) == 4
    assert said == ["keeper: no begin"]


def test_one_that_never_began_is_closed() -> None:
    Aside("keeper", [Keeper], lambda _: None).close()


@pytest.fixture
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of this process stays as it is."""
    monkeypatch.setattr(tracking, "tell_libraries", lambda values: None)
    yield


@pytest.mark.usefixtures("nothing_told")
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(TrainConfig(data="d", name="n"), "", str(tmp_path), "", "")
    key = TrackingSettings(wandb_key=SecretStr("k" * 40))
    said: list[str] = []
    assert trackers(order, TrackingSettings(enabled=False, wandb_key=key.wandb_key), said.append) == [] == said
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert trackers(order, key, said.append) == []
    assert ["pip install trackio" in line or "pip install wandb" in line for line in said] == [True, True]
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    assert [found.name for found in trackers(order, key, said.append)] == ["trackio", "Weights & Biases"]
    assert [found.name for found in trackers(order, TrackingSettings(), said.append)] == ["trackio"]


def test_a_door_is_open_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reachable(f"http://127.0.0.1:{port}/x")
    assert not reachable(f"http://127.0.0.1:{port}")


@needs("trackio")
def test_trackio_keeps_the_curves_beside_the_models(finished: Finished) -> None:
    (path,) = (finished.settings.models.fine_tuned_dir / ".trackio").glob("multimodel.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select metrics from metrics where run_name = 'moods'").fetchall()
    database.close()
    names = {name for (metrics,) in rows for name in json.loads(metrics)}
    assert {"train/loss", "train/learning_rate", "eval/f1"} <= names
    assert any("trackio show" in line for line in finished.updates[-1].log)
    assert ".trackio" not in Store(finished.settings).names()


class Refusing(BaseHTTPRequestHandler):
    """A server that refuses the key, whatever it is asked."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        status, answer = self.answer(asked.decode())
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def answer(self, asked: str) -> tuple[int, object]:
        return 401, {}

    def log_message(self, *_: object) -> None: ...


class Failing(Refusing):
    """A server that lets a run begin, and then takes nothing of it."""

    def answer(self, asked: str) -> tuple[int, object]:
        if "file_stream" in self.path:
            return 500, {}
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        run = json.loads(asked)["variables"].get("name")
        bucket = {"id": "b", "name": run, "displayName": run, "config": "{}", "project": project}
        answers = {
            "RunResumeStatus": {"model": None},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
        }
        return 200, {"data": next((found for name, found in answers.items() if name in asked), {})}


@contextmanager
def server(kind: str) -> Iterator[str]:
    """The address of a server that is "closed", "silent" (nothing is answered), "refusing" or "failing"."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing if kind == "failing" else Refusing) as served:
        if kind == "closed":
            served.server_close()
        serving = kind in ("refusing", "failing")
        if serving:
            Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        if serving:
            served.shutdown()


def wandb_records(path: Path) -> list[Any]:
    """All records of a .wandb file: a LevelDB log of protocol buffers. One that was cut fails."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part, found = path.read_bytes(), 7, b"", []
    while place < len(data):
        if 32_768 - place % 32_768 < 7:  # the rest of a block that takes no header
            place += 32_768 - place % 32_768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the end of one
            found.append(Record.FromString(part))
            part = b""
    assert place == len(data) and not part, "the file was cut"
    return found


@pytest.mark.slow
@needs("wandb")
@pytest.mark.parametrize("kind", ["closed", "silent", "refusing", "failing"])
def test_a_run_that_its_server_does_not_take_is_kept_whole_for_weights_and_biases(place: Path, kind: str) -> None:
    settings, name = settings_in(place), f"unheard-{kind}"
    base = TrainConfig(data=str(place / "data.csv"), base=str(place / "encoder"), name=name, epochs=1, batch_size=4)
    with server(kind) as url:
        own = TrackingSettings(wandb_key=SecretStr("k" * 40), wandb_url=url)
        jobs = Jobs(settings.model_copy(update={"tracking": own}), Cores(1))
        jobs.start(replace(base, precision="float32"))
        *_, end = jobs.follow(name)
        jobs.close()
    assert end.phase == "done", end.error
    said = "\n".join(end.log)
    assert "left out" not in said and "did not finish" not in said
    assert ("kept offline" in said) == (kind != "failing")
    kept = Path(said.rpartition("wandb sync ")[2].splitlines()[0])
    assert kept.name.startswith("run-" if kind == "failing" else "offline-run-")
    assert kept.is_relative_to(settings.models.fine_tuned_dir)
    records = wandb_records(next(kept.glob("*.wandb")))
    rows = [{item.nested_key[0]: json.loads(item.value_json) for item in record.history.item} for record in records]
    steps = [row["train/global_step"] for row in rows if "train/loss" in row]
    assert steps == list(range(1, end.total_steps + 1))
    assert records[-1].HasField("exit")
    written = b"".join(path.read_bytes() for path in (jobs.store.runs / name).rglob("*") if path.is_file())
    assert b"kkkk" not in written, "the key was written into the run's folder"
