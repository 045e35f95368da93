"""The process that trains: `python -m multimodel.finetune.child RUN_FOLDER`. It speaks through the run's events.

Started by torchrun or accelerate there are several; the first speaks, saves and decides, the others train with it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import filelock

from ..errors import DiskFull, Diverged, MultimodelError, NotEnoughMemory, Unexpected, WorkerCrashed
from ..settings import process_rank
from ..workers.process import pipes, settle
from .control import APP, Control
from .events import Silent, Writer
from .runfolder import PLAN, Order, forget, lock_of
from .store import FULL_CODES, disk_error

PLANNING = 600.0  # seconds that the first process may take to make its plan
WAIT = 30.0  # seconds for a process of an earlier app that is still saving
FULL = (
    "enforce fail at inline_container",
    "PytorchStreamWriter",
    "No space left",
    "os error 28",
    "os error 122",
    "os error 27",
)
LOST = ("Connection closed by peer", "Connection reset by peer", "NCCL remote process exited")
OOM = ("out of memory", "can't allocate memory", "cannot allocate memory", "DefaultCPUAllocator", "bad_alloc")


def main(folder: Path, app: bool) -> int:
    """Train the run of a folder, or what is left of it; returns the exit code.

    `app`: whether the input is a pipe from the app, whose end means that the app has ended.
    """
    settle()
    if process_rank():
        return assist(folder)
    commands, _ = pipes()
    try:
        with lock_of(folder).acquire(timeout=WAIT):
            if not app:  # a command of a person, who wants the run to go on however it ended
                forget(folder)
            control = Control(folder, commands if app else None)
            signal.signal(signal.SIGTERM, lambda *_: control.interrupt())  # as when the machine is shut down
            return work(folder, control)
    except filelock.Timeout:
        sys.stderr.write("Another process works on this run.\n")
        return 1


def assist(folder: Path) -> int:
    """Train along with the first process, once its plan is there."""
    deadline = time.monotonic() + PLANNING
    while not (folder / PLAN).exists():
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.1)
    from .train import train

    train(folder, Silent(folder), Control(folder))
    return 0


def work(folder: Path, control: Control) -> int:
    """Train and say how it ended."""
    writer = Writer(folder)
    writer.phase("preparing", "starting the libraries")
    try:
        from .train import train  # seconds: the page shows them

        train(folder, writer, control)
    except BaseException as error:
        traceback.print_exc()
        own = own_error(error, folder)
        writer.end("failed", error=own, retry=retry(own, folder))
        return 1
    return 0


def own_error(error: BaseException, folder: Path) -> MultimodelError:
    """What ended the run, as ours, with what to do."""
    if isinstance(error, MultimodelError):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(mark.lower() in text.lower() for mark in OOM):
        hint = "Lower the batch size (with more gradient accumulation the result is the same), or the maximum length."
        return NotEnoughMemory("Training ran out of memory.", hint=hint)
    if any(mark in text for mark in FULL) or (isinstance(error, OSError) and error.errno in FULL_CODES):
        hint = "Free some space and resume: nothing before the last checkpoint is lost."
        return DiskFull("The disk is full.", hint=hint)
    if isinstance(error, OSError):
        return disk_error(error, f"The folder of {folder.name}")
    if any(mark in text for mark in LOST):
        hint = "Give the same command again: training goes on from the last checkpoint."
        return WorkerCrashed("Another process of the run has ended.", hint=hint)
    first = text.splitlines()[0][:500]
    return Unexpected(f"Training ended with {first}", hint=f"The details are in {folder.name}/stderr.txt.")


def retry(error: MultimodelError, folder: Path) -> dict[str, Any]:
    """Settings with which another try may succeed; empty where none would help."""
    config = Order.load(folder).config
    if isinstance(error, NotEnoughMemory):
        if config.batch_size > 1:
            half = config.batch_size // 2
            return {"batch_size": half, "gradient_accumulation": min(256, config.gradient_accumulation * 2)}
        return {} if config.gradient_checkpointing else {"gradient_checkpointing": True}
    if isinstance(error, Diverged):
        rate = config.learning_rate
        changes: dict[str, Any] = {"learning_rate": max(1e-7, rate / 3)} if rate else {"learning_rate": 1e-5}
        return changes | ({"precision": "float32"} if config.precision == "float16" else {})
    return {}


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), app=APP in sys.argv)
    sys.stderr.flush()
    os._exit(code)  # threads of libraries may take seconds to end, and everything is written
