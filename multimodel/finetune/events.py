"""The story of a run: a file of JSON lines that only grows, and what it amounts to so far.

The process that trains writes it; pages, tabs and terminals read it, each from where it stopped. So a reload, a second
tab and a restart of the app see the same run. One object a line, with "kind" and "at" (ISO 8601, UTC):

    phase       phase, detail, fraction and seconds_left (of the preparation, or null)
    plan        values: what was chosen, total_steps and epochs among them
    resumed     step: what came after it in the file was lost
    progress    step, epoch, steps_per_second, samples_per_second, seconds_left
    points      step, values: one point of each curve
    evaluating  fraction
    evaluation  step, metrics, best: {step, metric, value, highest} or null
    log         text
    end         phase, detail, model, metrics, error: {type, message, hint} or null, retry
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import MultimodelError, by_name
from .types import Best, Curves, Point, TrainUpdate

FILE = "events.jsonl"
LOG_LINES = 200  # kept in an update

Event = dict[str, Any]


class Writer:
    """Appends events. Whoever holds the lock of a run has the only one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            self._write(b"\n")  # the line that a killed writer left

    def write(self, kind: str, **values: Any) -> None:
        """One event; numbers that JSON does not have become null."""
        event = {"kind": kind, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **values}
        self._write(json.dumps(finite(event), separators=(",", ":")).encode("ascii") + b"\n")

    def log(self, text: str) -> None:
        """A line for the log."""
        self.write("log", text=text)

    def phase(
        self, phase: str, detail: str = "", fraction: float | None = None, seconds_left: float | None = None
    ) -> None:
        """Where the run is now."""
        self.write("phase", phase=phase, detail=detail, fraction=fraction, seconds_left=seconds_left)

    def end(self, phase: str, detail: str = "", error: MultimodelError | None = None, **values: Any) -> None:
        """The last event of this try."""
        said = None
        if error:
            said = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
        self.write("end", phase=phase, detail=detail, error=said, **values)

    def _write(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(line)


class Silent(Writer):
    """Says nothing: of several processes that train one model only the first tells of it."""

    def _write(self, line: bytes) -> None:
        pass


def finite(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity become None.

    >>> finite({"a": [1.5, float("nan")]})
    {'a': [1.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


class Reader:
    """Reads the events of a run as they come, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / FILE
        self._offset = 0

    def read(self) -> list[Event]:
        """The events since the last call; a line that is still being written waits for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_parsed(whole.splitlines()))


def _parsed(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # a killed writer's last line
            continue
        if isinstance(event, dict) and "kind" in event:
            yield event


def fold(update: TrainUpdate, events: Iterable[Event]) -> TrainUpdate:
    """The run after these events; `new` has the points they brought."""
    update = replace(update, new={})
    for event in events:
        change = CHANGES.get(event["kind"])
        if change:
            update = change(update, event)
    return update


def _phase(update: TrainUpdate, event: Event) -> TrainUpdate:
    phase = event["phase"]
    return replace(
        update,
        phase=phase,
        detail=event["detail"],
        prepared=event["fraction"] if phase == "preparing" else None,
        evaluated=0.0 if phase == "evaluating" else None,
        seconds_left=event.get("seconds_left"),
        error=None,
        retry={},
        model=None if phase in ("queued", "preparing") else update.model,
    )


def _plan(update: TrainUpdate, event: Event) -> TrainUpdate:
    values = dict(update.plan) | event["values"]
    return replace(
        update,
        plan=values,
        total_steps=values.get("total_steps", update.total_steps),
        epochs=values.get("epochs", update.epochs),
    )


def _resumed(update: TrainUpdate, event: Event) -> TrainUpdate:
    step = event["step"]
    curves = {name: tuple(p for p in points if p.step <= step) for name, points in update.curves.items()}
    best = update.best if update.best and update.best.step <= step else None
    epoch = update.epochs * step / update.total_steps if update.total_steps else 0.0
    return replace(update, step=step, epoch=epoch, curves=curves, best=best)


def _progress(update: TrainUpdate, event: Event) -> TrainUpdate:
    return replace(
        update,
        phase="training",
        evaluated=None,
        step=event["step"],
        epoch=event["epoch"],
        steps_per_second=event["steps_per_second"],
        samples_per_second=event["samples_per_second"],
        seconds_left=event["seconds_left"],
    )


def _points(update: TrainUpdate, event: Event) -> TrainUpdate:
    return _with_points(update, event["step"], event["values"])


def _evaluating(update: TrainUpdate, event: Event) -> TrainUpdate:
    return replace(update, phase="evaluating", evaluated=event["fraction"])


def _evaluation(update: TrainUpdate, event: Event) -> TrainUpdate:
    best = Best(**event["best"]) if event["best"] else None
    update = _with_points(update, event["step"], event["metrics"])
    return replace(update, metrics=event["metrics"], best=best, evaluated=None)


def _with_points(update: TrainUpdate, step: int, values: Mapping[str, float | None]) -> TrainUpdate:
    found = {name: Point(step, value) for name, value in values.items() if value is not None}
    return replace(update, curves=_added(update.curves, found), new=_added(update.new, found))


def _added(curves: Curves, points: Mapping[str, Point]) -> Curves:
    return {**curves, **{name: (*curves.get(name, ()), point) for name, point in points.items()}}


def _log(update: TrainUpdate, event: Event) -> TrainUpdate:
    return replace(update, log=(*update.log, event["text"])[-LOG_LINES:])


def _end(update: TrainUpdate, event: Event) -> TrainUpdate:
    said = event["error"]
    return replace(
        update,
        phase=event["phase"],
        detail=event["detail"],
        evaluated=None,
        prepared=None,
        seconds_left=None,
        position=None,
        error=by_name(said["type"])(said["message"], hint=said["hint"]) if said else None,
        model=event.get("model") or update.model,
        metrics=event.get("metrics") or update.metrics,
        retry=event.get("retry") or {},
    )


CHANGES = {
    "phase": _phase,
    "plan": _plan,
    "resumed": _resumed,
    "progress": _progress,
    "points": _points,
    "evaluating": _evaluating,
    "evaluation": _evaluation,
    "log": _log,
    "end": _end,
}
