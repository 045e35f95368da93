"""Between the pipe and a runtime: who is next, who is cancelled, what happened when."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict

from .protocol import Frame, Request, Runtime, error_frame, messages_from, request_from

STAMPED = frozenset({"started", "text", "done"})
OVER = frozenset({"done", "error"})


class Scheduler:
    """Admits requests in order of arrival while there are free slots, and steps the runtime."""

    def __init__(self, runtime: Runtime, send: Callable[[Sequence[Frame]], None]) -> None:
        self._runtime = runtime
        self._send = send
        self._waiting: deque[Request] = deque()
        self._active: set[int] = set()

    @property
    def busy(self) -> bool:
        """Whether there is something to step."""
        return bool(self._active)

    def handle(self, command: Frame) -> None:
        """Obey one command of the app, between two steps."""
        match command:
            case {"op": "generate"}:
                self._waiting.append(request_from(command))
            case {"op": "cancel", "id": id}:
                self._waiting = deque(request for request in self._waiting if request.id != id)
                self._drop(id)
            case {"op": "measure", "id": id}:
                self._send([self._measured(id, command)])
            case {"op": "threads", "count": count}:
                self._runtime.set_threads(count)
        self._admit()

    def step(self) -> None:
        """One step of all active requests. An exception of the step ends them, not the process."""
        try:
            events = self._runtime.step()
        except Exception as error:
            events = [error_frame(id, error) for id in self._active]
        self._send(_stamped(events))
        over = [event["id"] for event in events if event["event"] in OVER]
        for id in over:
            self._drop(id)
        if over:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self._runtime.facts.slots:
            request = self._waiting.popleft()
            self._send(_stamped([{"event": "started", "id": request.id}]))
            try:
                events = self._runtime.admit(request)
                self._active.add(request.id)
            except Exception as error:
                events = [error_frame(request.id, error)]
            self._send(_stamped(events))

    def _drop(self, id: int) -> None:
        self._active.discard(id)
        self._runtime.drop(id)

    def _measured(self, id: int, command: Frame) -> Frame:
        try:
            return {"event": "size", "id": id, "size": asdict(self._runtime.measure(messages_from(command)))}
        except Exception as error:
            return error_frame(id, error)


def _stamped(events: Sequence[Frame]) -> Sequence[Frame]:
    now = time.perf_counter()
    for event in events:
        if event["event"] in STAMPED:
            event["at"] = now
    return events
