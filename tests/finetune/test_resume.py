"""A run that is killed at any moment goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bench.kills import Forks, ordered, survive
from multimodel.errors import DiskFull
from multimodel.finetune import checkpoints
from multimodel.finetune.control import STOP
from multimodel.finetune.events import Reader
from multimodel.finetune.runfolder import forget
from multimodel.finetune.types import TrainConfig

from ..support import eventually, needs
from .support import settings_in, story, weights

pytestmark = pytest.mark.slow


def config(place: Path, name: str, **settings: object) -> TrainConfig:
    """A run of thirty steps that saves after each and judges four times."""
    values = {"data": str(place / "data.csv"), "base": str(place / "encoder"), "name": name}
    usual = {"epochs": 4, "learning_rate": 3e-3, "checkpoint_steps": 1, "precision": "float32"}
    return TrainConfig(**values | usual | settings)  # type: ignore[arg-type]


def test_five_kills_and_five_resumes_end_with_the_same_bits(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    settled = {"gradient_accumulation": 2, "batch_size": 8}  # with batches that wait for their step
    survive(pool, ordered(config(place, "whole", **settled), settings), 0, seed=0, longest=0.0)
    killed = ordered(config(place, "killed", **settled), settings)
    assert survive(pool, killed, 5, seed=7, longest=0.1) == 5
    assert weights(place, "killed") == weights(place, "whole")
    assert story(killed).phase == "done"
    resumed = [event["step"] for event in Reader(killed).read() if event["kind"] == "resumed"]
    assert len(set(resumed)) > 1, "the kills did not come in the middle of training"
    whole, again = (json.loads((place / "models" / n / "metrics.json").read_text()) for n in ("whole", "killed"))
    assert whole == again


@needs("peft")
def test_lora_resumes_with_the_same_bits(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    survive(pool, ordered(config(place, "whole lora", lora_rank=4), settings), 0, seed=0, longest=0.0)
    killed = ordered(config(place, "killed lora", lora_rank=4), settings)
    assert survive(pool, killed, 2, seed=3, longest=0.1) == 2
    assert weights(place, "killed lora") == weights(place, "whole lora")


def test_bfloat16_and_a_stop_in_the_middle_end_with_the_same_bits(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    survive(pool, ordered(config(place, "whole16", precision="bfloat16"), settings), 0, seed=0, longest=0.0)
    folder = ordered(config(place, "stopped16", precision="bfloat16"), settings)
    (folder / STOP).touch()  # it stops after its first step
    pool.start(folder)
    assert pool.wait() == 0
    update = story(folder)
    assert (update.phase, update.step) == ("stopped", 1)
    assert "best model so far" in update.detail and update.model
    forget(folder)
    pool.start(folder)
    assert pool.wait() == 0
    update = story(folder)
    assert update.phase == "done"
    assert weights(place, "stopped16") == weights(place, "whole16")
    steps = [point.step for point in update.curves["loss"]]
    assert steps == sorted(set(steps)), "a point of the curve came twice"


def test_a_damaged_checkpoint_is_passed_over(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    folder = ordered(config(place, "damaged"), settings)
    (folder / STOP).touch()
    pool.start(folder)
    pool.wait()
    forget(folder)
    survive(pool, ordered(config(place, "undamaged"), settings), 0, seed=0, longest=0.0)
    half = folder / "checkpoint-999"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    flipped = folder / "checkpoint-998"
    flipped.mkdir()
    (flipped / "model.safetensors").write_bytes(b"whole")
    checkpoints.seal(flipped)
    (flipped / "model.safetensors").write_bytes(b"wrong")  # as long as before
    pool.start(folder)
    assert pool.wait() == 0
    assert weights(place, "damaged") == weights(place, "undamaged")


def test_after_training_only_the_rest_is_done_again(place: Path, pool: Forks) -> None:
    folder = ordered(config(place, "late"), settings_in(place))
    (folder / STOP).touch()
    pool.start(folder)
    pool.wait()
    first, points = weights(place, "late"), len(story(folder).curves["loss"])
    shutil.rmtree(place / "models" / "late")  # as if it had been killed before the model was saved
    pool.start(folder)
    assert pool.wait() == 0
    assert weights(place, "late") == first
    assert len(story(folder).curves["loss"]) == points
    assert story(folder).phase == "stopped"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which bounds the files of another process")
def test_a_disk_that_is_full_costs_nothing_that_was_saved(place: Path, pool: Forks) -> None:
    import resource

    settings = settings_in(place)
    survive(pool, ordered(config(place, "roomy", epochs=12), settings), 0, seed=0, longest=0.0)
    folder = ordered(config(place, "full", epochs=12), settings)
    pid = pool.start(folder)
    eventually(lambda: checkpoints.newest(folder, tidy=False) is not None, 120)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (60_000, 60_000))  # less than a checkpoint, more than the events
    assert pool.wait() == 1
    end = story(folder)
    assert end.phase == "failed" and isinstance(end.error, DiskFull), end.error
    assert "resume" in end.error.hint and not (place / "models" / "full").exists()
    kept = checkpoints.newest(folder)
    assert kept and checkpoints.step_of(kept) >= 1
    assert survive(pool, folder, 0, seed=0, longest=0.0) == 0
    assert weights(place, "full") == weights(place, "roomy")
