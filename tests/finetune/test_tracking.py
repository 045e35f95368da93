"""Trackers keep the curves beside the run, and whatever happens to them, the run does not wait and does not end."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

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


@pytest.mark.slow
@needs("wandb")
def test_a_run_without_network_is_kept_offline_for_weights_and_biases(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    settings = settings_in(place)
    own = TrackingSettings(wandb_key=SecretStr("k" * 40), wandb_url=f"http://127.0.0.1:{closed}")
    jobs = Jobs(settings.model_copy(update={"tracking": own}), Cores(1))
    base = TrainConfig(data=str(place / "data.csv"), base=str(place / "encoder"), name="unheard", epochs=1)
    jobs.start(replace(base, precision="float32"))
    *_, end = jobs.follow("unheard")
    jobs.close()
    assert end.phase == "done", end.error
    said = "\n".join(end.log)
    assert "cannot be reached" in said and "wandb sync" in said
    assert list((settings.models.fine_tuned_dir / ".wandb" / "wandb").glob("offline-run-*/*.wandb"))
    written = b"".join(path.read_bytes() for path in (jobs.store.runs / "unheard").rglob("*") if path.is_file())
    assert b"kkkk" not in written, "the key was written into the run's folder"
