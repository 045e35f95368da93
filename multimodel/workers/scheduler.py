"""Between the pipe and a runtime: who is next, who is cancelled, what happened when."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict

from .pace import Pace
from .protocol import (
    Frame,
    Request,
    Runtime,
    Status,
    error_frame,
    inspected_frame,
    messages_from,
    request_from,
)

STAMPED = frozenset({"started", "text", "done"})
OVER = frozenset({"done", "error"})
HOLD = 0.015
"""Seconds for which text may wait for more before it is sent, a fraction of the time between two updates of a page.
Each write wakes the app, which costs a small model as much as a token. When a token was ready is in its stamp, so no
figure changes; a model slower than 1 / HOLD tokens a second never waits."""


class Scheduler:
    """Admits requests in order of arrival while there are free slots, and steps the runtime."""

    def __init__(self, runtime: Runtime, send: Callable[[Sequence[Frame]], None], pace: Pace | None = None) -> None:
        self._runtime = runtime
        self._send = send
        self._pace = pace or Pace(runtime.set_threads)
        self._waiting: deque[Request] = deque()
        self._active: set[int] = set()
        self._begun: set[int] = set()  # requests whose first text was sent
        self._held: list[Frame] = []
        self._sent = 0.0
        self._prompt_tokens = self._reused_tokens = 0

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
                self._post([self._measured(id, command)])
            case {"op": "inspect", "id": id}:
                self._post([self._inspected(id, command)])
            case {"op": "status", "id": id}:
                self._post([{"event": "status", "id": id, "status": asdict(self._status())}])
            case {"op": "threads", "count": count}:
                self._pace.allow(count)
        self._admit()

    def step(self) -> None:
        """One step of all active requests. An exception of the step ends them, not the process."""
        began = time.perf_counter()
        try:
            events = self._runtime.step()
        except Exception as error:
            events = [error_frame(id, error) for id in self._active]
        if not any(event["event"] == "reading" for event in events):
            self._pace.took(time.perf_counter() - began, len(self._active))
        self._post(_stamped(events))
        over = [event for event in events if event["event"] in OVER]
        for event in over:
            self._count(event)
            self._drop(event["id"])
        if over:
            self._admit()

    def _post(self, events: Sequence[Frame]) -> None:
        """Send, in order; only the further pieces of a text that has begun may wait for each other."""
        self._held += events
        now = time.perf_counter()
        if self._held and (now - self._sent >= HOLD or not all(map(self._can_wait, events))):
            self._begun.update(event["id"] for event in self._held if event["event"] == "text")
            self._send(joined(self._held))
            self._held, self._sent = [], now

    def _can_wait(self, event: Frame) -> bool:
        return event["event"] == "text" and event["id"] in self._begun

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self._runtime.facts.slots:
            request = self._waiting.popleft()
            self._post(_stamped([{"event": "started", "id": request.id}]))
            try:
                events = self._runtime.admit(request)
                self._active.add(request.id)
            except Exception as error:
                events = [error_frame(request.id, error)]
            self._post(_stamped(events))

    def _count(self, event: Frame) -> None:
        usage = event.get("usage", {})
        self._prompt_tokens += usage.get("input_tokens", 0)
        self._reused_tokens += usage.get("reused_tokens", 0)

    def _status(self) -> Status:
        counts = (len(self._active), len(self._waiting), self._pace.threads, self._runtime.cached())
        return Status(*counts, self._prompt_tokens, self._reused_tokens)

    def _drop(self, id: int) -> None:
        self._active.discard(id)
        self._begun.discard(id)
        self._runtime.drop(id)

    def _measured(self, id: int, command: Frame) -> Frame:
        try:
            return {"event": "size", "id": id, "size": asdict(self._runtime.measure(messages_from(command)))}
        except Exception as error:
            return error_frame(id, error)

    def _inspected(self, id: int, command: Frame) -> Frame:
        try:
            return inspected_frame(id, self._runtime.inspect(request_from(command)))
        except Exception as error:
            return error_frame(id, error)


def joined(events: Sequence[Frame]) -> list[Frame]:
    """The same events with the pieces of each text as one, at the time of its last piece.

    >>> joined([{"event": "text", "id": 1, "text": "a", "at": 1.0}, {"event": "text", "id": 1, "text": "b", "at": 2.0}])
    [{'event': 'text', 'id': 1, 'text': 'ab', 'at': 2.0}]
    """
    texts: dict[int, Frame] = {}
    others = []
    for event in events:
        if event["event"] == "text" and (earlier := texts.get(event["id"])):
            earlier.update(text=earlier["text"] + event["text"], at=event["at"])
            if "logprobs" in event:
                earlier["logprobs"] = earlier.get("logprobs", []) + event["logprobs"]
            continue
        others.append(event)
        if event["event"] == "text":
            texts[event["id"]] = event
    return others


def _stamped(events: Sequence[Frame]) -> Sequence[Frame]:
    now = time.perf_counter()
    for event in events:
        if event["event"] in STAMPED:
            event["at"] = now
    return events
