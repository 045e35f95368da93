"""What a run has on disk. Everything about it can be told from its folder, by any process.

.runs/NAME/  run.json          what is asked for: settings, the folder of the base model, where models are saved
             data.jsonl        the rows, with their splits
             plan.json         what was chosen at the first start; a resume keeps to it
             events.jsonl      the story
             adapting/         checkpoints of adaptive pretraining, sealed; gone once it is done
             adapted.safetensors  what it made of the base model; there whole or not at all
             checkpoint-STEP/  sealed: the newest two and the best
             trained.json      training is over: which checkpoint is the model; only the rest is to be done
             modules/          what `evaluate` copies the code of its figures to, and runs
             stop              asks the process to stop
             lock              held by the process that works on it
             stderr.txt        what its libraries said
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import filelock

from ..errors import BrokenFile
from .checkpoints import write_last
from .control import STOP
from .types import TrainConfig

RUN = "run.json"
DATA = "data.jsonl"
PLAN = "plan.json"
ADAPTING, ADAPTED = "adapting", "adapted.safetensors"
TRAINED = "trained.json"
MODULES = "modules"
LOCK = "lock"
STDERR = "stderr.txt"


def read(path: Path) -> dict[str, Any]:
    """A JSON object of ours. Raises BrokenFile."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "Fine-tune it again, or restore the folder."
        raise BrokenFile(f"{path.name} of {path.parent.name} cannot be read: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise BrokenFile(f"{path.name} of {path.parent.name} is damaged.", hint="Fine-tune it again.")
    return value


def write(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, there whole or not at all."""
    write_last(path, json.dumps(value, indent=2, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a run."""

    config: TrainConfig
    base: str  # the folder of the base model
    models: str  # where models are saved
    data_hash: str  # SHA-256 of data.jsonl
    created: str  # ISO 8601

    def save(self, folder: Path) -> None:
        """Write it into the run's folder."""
        write(folder / RUN, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The order of a run's folder, whose name is that of the run: it may have been renamed. Raises BrokenFile."""
        values = read(folder / RUN)
        try:
            return cls(TrainConfig.of({**values.pop("config"), "name": folder.name}), **values)
        except (TypeError, KeyError) as error:
            raise BrokenFile(f"{RUN} of {folder.name} is damaged: {error}", hint="Start the run anew.") from error


@dataclass(frozen=True, slots=True)
class Trained:
    """How training ended."""

    phase: str  # done or stopped
    step: int  # the checkpoint that is the model
    steps: int  # that were done
    total_steps: int
    early: bool  # ended because nothing got better

    def save(self, folder: Path) -> None:
        """Write it into the run's folder."""
        write(folder / TRAINED, asdict(self))

    def checkpoint(self, folder: Path) -> Path:
        """Where the weights of the model are, until it is saved."""
        return folder / f"checkpoint-{self.step}"

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """How the training of a run ended; None while it has not."""
        return cls(**read(folder / TRAINED)) if (folder / TRAINED).exists() else None


def lock_of(folder: Path) -> filelock.FileLock:
    """The lock that whoever works on a run holds; the system frees it when a process ends, however it ends."""
    return filelock.FileLock(folder / LOCK)


def worked_on(folder: Path) -> bool:
    """Whether a process works on the run now."""
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # the folder is gone, or may not be written
        return False
    lock.release()
    return False


def forget(folder: Path) -> None:
    """Let a run go on: what stopped it counts no more. One that is done, its checkpoints gone, has to begin anew."""
    (folder / STOP).unlink(missing_ok=True)
    trained = Trained.load(folder)
    if trained and (trained.phase == "stopped" or not trained.checkpoint(folder).exists()):
        (folder / TRAINED).unlink()


def forget_adaptation(folder: Path) -> None:
    """Remove what adaptive pretraining has left: it is over, or is to begin anew."""
    shutil.rmtree(folder / ADAPTING, ignore_errors=True)
    (folder / ADAPTED).unlink(missing_ok=True)
