"""A model split over two processes (FSDP) on the processor: it learns, resumes, and is saved as any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.kills import ordered
from multimodel import Predictor
from multimodel.finetune import checkpoints
from multimodel.finetune.control import STOP
from multimodel.finetune.jobs import SPLIT, Jobs
from multimodel.finetune.types import TrainConfig, TrainUpdate

from ..support import ROOT, eventually, needs
from .support import settings_in, story, tiny_encoder, weights

pytestmark = pytest.mark.slow

LAUNCHERS = {"accelerate": "accelerate.commands.launch", "torchrun": "torch.distributed.run"}


def config(place: Path, name: str, **settings: object) -> TrainConfig:
    """A run of 64 steps in two processes."""
    values = {"data": str(place / "data.csv"), "base": str(place / "encoder"), "name": name}
    usual = {"epochs": 8, "batch_size": 8, "gradient_accumulation": 2, "learning_rate": 1e-2, "checkpoint_steps": 3}
    return TrainConfig(**values | {"precision": "float32", "early_stopping": 0} | usual | settings)  # type: ignore[arg-type]


def launched(place: Path, name: str, *, split: bool = True) -> subprocess.Popen[bytes]:
    """The command for two processes as it is written out, at work; what it says goes into the run's folder."""
    program, *options = Jobs(settings_in(place)).launch_command(name, 2, split=split)
    options = options[1:] if program == "accelerate" else options
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MULTIMODEL_TRACKING": "false"}
    with (folder(place, name) / "stderr.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", LAUNCHERS[program], *options], cwd=ROOT, env=environment, stderr=said, stdout=said
        )


def ended(place: Path, name: str, process: subprocess.Popen[bytes]) -> TrainUpdate:
    """The run once its command has ended."""
    try:
        process.wait(300)
    finally:
        process.kill()
    return story(folder(place, name))


def trained(place: Path, asked: TrainConfig, *, split: bool = True) -> TrainUpdate:
    ordered(asked, settings_in(place))
    end = ended(place, asked.name, launched(place, asked.name, split=split))
    assert end.phase == "done", (folder(place, asked.name) / "stderr.txt").read_text()[-3000:]
    return end


def killed(place: Path, name: str, rank: int, step: int) -> TrainUpdate:
    """The run after one of its processes was killed, once there was a whole checkpoint of that step or later."""
    process = launched(place, name)
    eventually(lambda: _newest(place, name) >= step, 120)
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            child.kill()
    return ended(place, name, process)


def _newest(place: Path, name: str) -> int:
    found = checkpoints.newest(folder(place, name), tidy=False)
    return checkpoints.step_of(found) if found else -1


def folder(place: Path, name: str) -> Path:
    return place / "models" / ".runs" / name


@pytest.fixture(scope="module")
def guesser(place: Path) -> str:
    """A base model that can guess words, so that it learns those of the rows first."""
    return str(tiny_encoder(place / "guesser", masked=True))


@pytest.fixture(scope="module")
def split(place: Path, guesser: str) -> TrainUpdate:
    """A run of a model that is split, from its start to its end."""
    return trained(place, config(place, "split", base=guesser, adaptation=1))


def test_a_model_split_over_two_processes_is_that_of_two_whole_copies(
    place: Path, guesser: str, split: TrainUpdate
) -> None:
    assert split.step == split.total_steps == 64  # 240 rows, 32 a step, eight times
    (said,) = [line for line in split.log if line.startswith("The model is split")]
    held, every = (int(word.replace(",", "")) for word in said.split() if "," in word)
    assert every == split.plan["parameters"] and 0.45 < held / every < 0.55
    copies = trained(place, config(place, "copies", base=guesser, adaptation=1), split=False)
    assert [line for line in copies.log if line.startswith("Adaptive")] == [
        line for line in split.log if line.startswith("Adaptive")
    ]
    texts = ["the film was great and warm", "a dull day", "superb rain", "the house was broken and cold"]
    settings = settings_in(place)
    found, plain = (Predictor(str(place / "models" / name), settings=settings)(texts) for name in ("split", "copies"))
    assert [answer.label for answer in found] == ["pos", "neg", "pos", "neg"]
    for one, other in zip(found, plain, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_trained_again_and_killed_it_ends_with_the_same_bits(place: Path, split: TrainUpdate) -> None:
    first = weights(place, "split")
    assert not checkpoints.all_of(folder(place, "split"))  # it is done: the command begins anew
    lost = killed(place, "split", rank=1, step=12)  # in the second epoch
    assert lost.phase == "failed" and lost.error and "Another process" in str(lost.error)
    assert "same command" in lost.error.hint and weights(place, "split") == first
    (place / "models" / "split" / "model.safetensors").unlink()
    end = ended(place, "split", launched(place, "split"))
    assert end.phase == "done" and end.metrics == split.metrics
    assert weights(place, "split") == first
    assert end.curves == split.curves, "points of another try are there, or points are missing"


@needs("peft")
def test_lora_and_frozen_layers_are_split_stopped_and_go_on_whole(place: Path) -> None:
    from safetensors import safe_open

    ordered(config(place, "few", lora_rank=4, freeze_layers=1), settings_in(place))
    process = launched(place, "few")
    eventually(lambda: _newest(place, "few") >= 4, 120)
    (folder(place, "few") / STOP).touch()
    end = ended(place, "few", process)
    assert end.phase == "stopped" and 4 <= end.step < 64 and end.model
    end = ended(place, "few", launched(place, "few", split=False))  # from the checkpoint of the split model
    assert end.phase == "done" and end.step == 64
    with safe_open(place / "models" / "few" / "model.safetensors", "pt") as saved:
        assert not [name for name in saved.keys() if "lora" in name]  # noqa: SIM118 - it is no mapping


def test_all_processes_stop_early_together(place: Path) -> None:
    end = trained(place, config(place, "poor", learning_rate=5e-2, early_stopping=1, gradient_accumulation=1))
    assert end.step < end.total_steps == 120 and "ended early" in end.detail


def test_only_accelerate_splits(place: Path) -> None:
    settings = settings_in(place)
    ordered(config(place, "written"), settings)
    jobs = Jobs(settings)
    command = jobs.launch_command("written", 4, split=True, gpus=True, machines=2, rank=1, address="10.0.0.1:7000")
    assert command[:2] == ["accelerate", "launch"] and command[2 : 2 + len(SPLIT)] == SPLIT
    assert "--multi_gpu" not in command  # accelerate refuses both
    assert "--num_processes 8 --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1" in " ".join(command)
    assert "--use_fsdp" not in jobs.launch_command("written", 4, gpus=True)
