"""Experiment trackers, by the Trainer's own callbacks: trackio here, and Weights & Biases where it has a key.

A tracker works in a thread of its own, so training waits for none: not for a library that starts slowly, not for a
server that does not answer. One that fails is left out; the run's own record has every curve all the same.
"""

from __future__ import annotations

import copy
import hashlib
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from transformers import TrainerCallback
from transformers.integrations import integration_utils

from ..settings import TrackingSettings, process_rank, tell_libraries
from .events import Writer
from .runfolder import Order

FOLDER = ".trackio"  # beside the models; trackio's database
OFFLINE = ".wandb"  # what Weights & Biases has not got yet
REACH = 3.0  # seconds to wait for a server's door
ANSWER = 4  # seconds that Weights & Biases may take to begin a run, and to send the rest of it at its end
FLUSH = 12.0  # seconds that all trackers together may take to finish once training has ended

Library: Any = integration_utils  # which has no types
Say = Callable[[str], None]
Way = Callable[[], TrainerCallback]


class Aside(TrainerCallback):
    """A tracker's callback, told of everything in a thread of its own."""

    def __init__(self, name: str, ways: Sequence[Way], say: Say, finish: Callable[[], None] = lambda: None) -> None:
        """`ways` to make the callback: where the first cannot begin, the next is tried."""
        self.name = name
        self._ways, self._say, self._finish = list(ways), say, finish
        self._events: SimpleQueue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Training begins: the tracker starts meanwhile."""
        self._put("on_train_begin", args, state, control, model=model)
        self._thread.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """A point of the curves, or an evaluation."""
        self._put("on_log", args, state, control, logs=dict(logs or {}))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training has ended."""
        self._put("on_train_end", args, state, control)

    def close(self, seconds: float = FLUSH) -> None:
        """Let it finish, for so long at most. Safe where it never began."""
        if not self._thread.ident:
            return
        self._events.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._say(f"{self.name} did not finish in time; the run's own record has its curves.")

    def _put(self, event: str, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._events.put((event, (args, copy.copy(state), control), more))

    def _work(self) -> None:
        try:
            inner = self._begun(self._events.get())
            while event := self._events.get():
                name, values, more = event
                getattr(inner, name)(*values, **more)
            self._finish()
        except Exception as error:  # a library of others, and no reason to end a run
            self._say(f"{self.name} is left out ({_first_line(error)}); the run's own record has its curves.")

    def _begun(self, event: tuple[str, tuple[Any, ...], dict[str, Any]] | None) -> TrainerCallback:
        """The callback, told that training begins; by the first way that works."""
        assert event is not None
        name, values, more = event
        while True:
            way = self._ways.pop(0)
            try:
                inner = way()
                getattr(inner, name)(*values, **more)
                return inner
            except Exception as error:
                if not self._ways:
                    raise
                self._say(f"{self.name}: {_first_line(error)}")


@contextmanager
def tracked(order: Order, writer: Writer) -> Iterator[list[Aside]]:
    """The trackers of a run while it trains; they finish with the block."""
    found = [] if process_rank() else trackers(order, TrackingSettings(), writer.log)
    try:
        yield found
    finally:
        deadline = time.monotonic() + FLUSH
        for tracker in found:
            tracker.close(max(0.0, deadline - time.monotonic()))


def trackers(order: Order, settings: TrackingSettings, say: Say) -> list[Aside]:
    """What this machine has, and is asked for; says what is missing."""
    if not settings.enabled:
        return []
    found = []
    if find_spec("trackio"):
        found.append(_trackio(Path(order.models) / FOLDER, settings.project, say))
    else:
        say("trackio is not installed, so the run's own record alone keeps its curves: python -m pip install trackio")
    if settings.wandb_key and find_spec("wandb"):
        found.append(_wandb(order, settings.wandb_key.get_secret_value(), settings, say))
    elif settings.wandb_key:
        say("Weights & Biases has a key here, but its package is missing: python -m pip install wandb")
    return found


def _trackio(folder: Path, project: str, say: Say) -> Aside:
    tell_libraries({"TRACKIO_DIR": str(folder.absolute())})
    say(f"trackio keeps the curves: TRACKIO_DIR={folder} trackio show --project {project}")
    return Aside("trackio", [Library.TrackioCallback], say)


def _wandb(order: Order, key: str, settings: TrackingSettings, say: Say) -> Aside:
    folder = Path(order.models) / OFFLINE
    run = hashlib.sha256(f"{order.config.name} {order.created}".encode()).hexdigest()[:12]
    tell_libraries(
        {
            "WANDB_API_KEY": key,
            "WANDB_BASE_URL": settings.wandb_url,
            "WANDB_PROJECT": settings.project,
            "WANDB_DIR": str(folder.absolute()),
            "WANDB_RUN_ID": run,  # a run that is resumed stays one
            "WANDB_RESUME": "allow",
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            "WANDB_DISABLE_CODE": "true",
            "WANDB_DISABLE_GIT": "true",
            "WANDB_INIT_TIMEOUT": str(ANSWER),
            "WANDB_FINISH_TIMEOUT": str(ANSWER),
            "WANDB_FINISH_TIMEOUT_RAISES": "true",
            "WANDB_ERROR_REPORTING": "false",
        }
    )

    def online() -> TrainerCallback:
        folder.mkdir(parents=True, exist_ok=True)
        if not reachable(settings.wandb_url):
            raise ConnectionError(f"{settings.wandb_url} cannot be reached.")
        found: TrainerCallback = Library.WandbCallback()
        return found

    def offline() -> TrainerCallback:
        import_module("wandb").teardown()  # a run that could not begin holds its id until then
        tell_libraries({"WANDB_MODE": "offline", "WANDB_FINISH_TIMEOUT": "0"})
        say(f"Weights & Biases: the run is kept offline, in {folder / 'wandb'}")
        found: TrainerCallback = Library.WandbCallback()
        return found

    return Aside("Weights & Biases", [online, offline], say, finish=lambda: _finish_wandb(say))


def _finish_wandb(say: Say) -> None:
    """End the run, which the callback leaves to the end of the process; say how the server gets what it has not."""
    run = import_module("wandb").run
    place, kept = Path(run.dir).parent, run.offline
    try:
        run.finish()
    except TimeoutError:
        kept = True
    if kept:
        say(f"Weights & Biases has not got the whole run; send it with: wandb sync {shlex.quote(str(place))}")


def reachable(url: str) -> bool:
    """Whether a server's door opens within a few seconds."""
    parts = urlsplit(url)
    try:
        socket.create_connection(
            (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), REACH
        ).close()
        return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
