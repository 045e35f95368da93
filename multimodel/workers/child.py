"""The child process of one local model: `python -m multimodel.workers.child`, spoken to as in `protocol`.

A damaged file can kill an interpreter and a model's own code can loop, so neither happens in the app.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import BinaryIO, cast

from ..types import LoadOptions, StageName
from .pace import Pace
from .process import pipes, settle
from .protocol import Frame, Runtime, RuntimeModule, encode, error_frame, ran_out, read
from .scheduler import Scheduler

RUNTIMES = frozenset({"llama", "torch"})
LINGER = 2.0  # seconds that a step may take to end once the app is gone

Commands = SimpleQueue[Frame | None]
Send = Callable[[Sequence[Frame]], None]


def main() -> None:
    """Load the model, then answer until the input ends."""
    settle()
    commands: Commands = SimpleQueue()
    stdin, stdout = pipes()
    short = Event()  # memory ran out

    def send(events: Sequence[Frame]) -> None:
        if any(map(ran_out, events)):
            short.set()
        stdout.write(b"".join(map(encode, events)))
        stdout.flush()

    Thread(target=_listen, args=(stdin, commands), daemon=True).start()
    first = commands.get()
    if first is None:
        return
    try:
        runtime, pace = _load(first, send)
    except Exception as error:
        send([error_frame(None, error)])
        return
    try:
        serve(Scheduler(runtime, send, pace), commands, short.is_set)
    except BrokenPipeError:  # the app is gone
        pass
    finally:
        runtime.close()


def serve(scheduler: Scheduler, commands: Commands, spent: Callable[[], bool] = lambda: False) -> None:
    """Obey commands between steps until None comes; sleep while there is nothing to do, or end where it is spent."""
    while scheduler.busy or not spent():
        try:
            command = commands.get(block=not scheduler.busy)
        except Empty:
            scheduler.step()
            continue
        if command is None:
            return
        scheduler.handle(command)


def _load(command: Frame, send: Send) -> tuple[Runtime, Pace]:
    def progress(stage: StageName, fraction: float | None, detail: str) -> None:
        send([{"event": "progress", "stage": stage, "fraction": fraction, "detail": detail}])

    name = command["runtime"]
    if name not in RUNTIMES:
        raise ValueError(f"There is no runtime {name!r}.")
    progress("starting", None, "")
    module = cast(RuntimeModule, import_module(f"multimodel.workers.{name}"))
    path, options = Path(command["path"]), LoadOptions(**command["options"])
    runtime = module.load(path, options, command["threads"], progress)
    pace = Pace(runtime.set_threads, command["threads"])
    pace.probe(runtime.trial)
    send([{"event": "ready", "facts": asdict(runtime.facts)}])
    return runtime, pace


def _listen(stdin: BinaryIO, commands: Commands) -> None:
    while command := read(stdin):
        commands.put(command)
    commands.put(None)
    time.sleep(LINGER)
    os._exit(0)  # loading or a long step in native code does not look at the queue


if __name__ == "__main__":
    main()
