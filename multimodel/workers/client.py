"""The app's end of a model's child process: start it, talk to it, notice its death, end it."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import psutil

from ..errors import MultimodelError, NotEnoughMemory, WorkerCrashed
from ..types import Loaded, LoadOptions, Message, Prompt, PromptSize, SamplingParams
from .process import reason, spawn
from .prompt import OTHER_TEMPLATE
from .protocol import (
    MEMORY_HINT,
    Facts,
    Frame,
    Status,
    as_frames,
    encode,
    error_frame,
    error_from,
    prompt_from,
    ran_out,
    read,
    says_out_of_memory,
)

HEARTBEAT = 0.2  # seconds: how long a wait goes on before the one who waits may change their mind
GRACE = 2.0  # seconds: how long a child may take to end by itself
STDERR_KEPT = 4096  # bytes
CRASHED_HINT = (
    "Send the prompt again to start it anew. If it ends again, download its file again, which may be damaged, "
    "or close other models: memory may be short."
)

LOADING = 0  # the id under which the events of `load` are routed; requests count from one


class Worker:
    """One child process. Several threads may ask at once; each has its own queue of events."""

    def __init__(self, name: str, *, threads: int, more: Mapping[str, str] | None = None) -> None:
        """Start the child for the model called `name`; `threads` is its first share of the cores.

        `more`: variables of its environment, beside those that all children have.
        """
        self.name = name
        self.facts: Facts | None = None  # known once loaded
        self.files = Loaded()  # which it was loaded from; who loads it knows
        self.threads = threads  # its share of the cores
        self._ids = itertools.count(1)
        self._lock = Lock()  # the queues: between the threads that ask and the reader
        self._writing = Lock()  # the pipe to the child: between the threads that ask and the one that closes
        self._queues: dict[int, SimpleQueue[Frame]] = {}
        self._ended: Frame | None = None  # why no more events will come
        self._spent = False  # memory ran out in it: what it has begun goes on, then it ends by itself
        self._closing = False
        self._said: deque[bytes] = deque(maxlen=64)  # the last lines of its standard error
        self._process = spawn("multimodel.workers.child", threads=threads, more=more)
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (cast(BinaryIO, pipe) for pipe in pipes)
        self._readers = [Thread(target=target, daemon=True) for target in (self._read_events, self._read_stderr)]
        for reader in self._readers:
            reader.start()

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._ended is None and not self._spent

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def memory(self) -> int:
        """Resident bytes of the child; 0 once it has ended."""
        return int(self._memory().rss)

    def own_memory(self) -> int:
        """Bytes of it that no file backs; the rest, such as mapped weights, the system counts as free."""
        found = self._memory()
        return int(found.rss - getattr(found, "shared", 0))

    def _memory(self) -> Any:
        with suppress(psutil.Error):
            if self._ended is None:
                return psutil.Process(self.pid).memory_info()
        return SimpleNamespace(rss=0)

    def load(self, runtime: str, path: Path, options: LoadOptions) -> Generator[Frame | None]:
        """Bring the model in: `progress` events, and None every HEARTBEAT while there is none.

        Raises what the child raised, or WorkerCrashed. Afterwards `facts` is set.
        """
        command = {"op": "load", "runtime": runtime, "path": str(path), "options": asdict(options)}
        for event in self._ask(LOADING, command | {"threads": self.threads}):
            if event and event["event"] == "ready":
                self.facts = Facts(**event["facts"] | {"notes": tuple(event["facts"]["notes"])})
                return
            yield event

    def generate(
        self, messages: Sequence[Message], params: SamplingParams, fresh: bool = False
    ) -> Generator[Frame | None]:
        """The events of one answer up to `done`, and None every HEARTBEAT while there is none. Closing it cancels.

        `fresh`: the prompt is evaluated whole, whatever a cache holds of it.
        Raises what the child raised, or WorkerCrashed.
        """
        id = next(self._ids)
        command = {"op": "generate", "id": id, "messages": as_frames(messages), "params": params.asdict()}
        finished = False
        try:
            for event in self._ask(id, command | {"fresh": True} if fresh else command):
                finished = event is not None and event["event"] == "done"
                yield event
                if finished:
                    return
        except Exception:
            finished = True
            raise
        finally:
            if not finished:
                self._send({"op": "cancel", "id": id})

    def measure(self, messages: Sequence[Message], timeout: float = GRACE) -> PromptSize | None:
        """The size of a prompt; None where the child is too busy to say in time."""
        event = self._reply({"op": "measure", "messages": as_frames(messages)}, timeout)
        return PromptSize(**event["size"]) if event else None

    def inspect(self, messages: Sequence[Message], params: SamplingParams, timeout: float = 5 * GRACE) -> Prompt | None:
        """What the model would read; None where the child is too busy to say in time. Raises what `generate` raises."""
        command = {"op": "inspect", "messages": as_frames(messages), "params": params.asdict()}
        event = self._reply(command, timeout)
        return prompt_from(event) if event else None

    def status(self, timeout: float = HEARTBEAT) -> Status | None:
        """What the child is doing; None where it is too busy to say in time. Raises WorkerCrashed."""
        event = self._reply({"op": "status"}, timeout)
        return Status(**event["status"]) if event else None

    def set_threads(self, count: int) -> None:
        """Tell the child its share of the cores."""
        if count != self.threads:
            self.threads = count
            self._send({"op": "threads", "count": count})

    def close(self, grace: float = GRACE) -> None:
        """End the child: ask, after `grace` seconds terminate, then kill. Safe to call twice, from any thread."""
        self._closing = True
        self._close_stdin()
        for end in (None, self._process.terminate, self._process.kill):
            if end:
                end()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
                break
        for reader in self._readers:
            reader.join(GRACE)

    def _reply(self, command: Frame, timeout: float) -> Frame | None:
        """The one event that answers a command; None where there is none in time."""
        id = next(self._ids)
        beats = itertools.count(1)
        with closing(self._ask(id, command | {"id": id})) as events:
            for event in events:
                if event or next(beats) * HEARTBEAT >= timeout:
                    return event
        return None

    def _ask(self, id: int, command: Frame) -> Generator[Frame | None]:
        """Send a command and hand out the events of its id; an `error` event is raised."""
        queue: SimpleQueue[Frame] = SimpleQueue()
        with self._lock:
            self._queues[id] = queue
            if self._ended:
                queue.put(self._ended)
        try:
            self._send(command)
            while True:
                event = _next(queue)
                if event and event["event"] == "error":
                    raise error_from(event)
                yield event
        finally:
            with self._lock:
                self._queues.pop(id, None)

    def _send(self, command: Frame) -> None:
        with suppress(OSError, ValueError), self._writing:  # a dead child is reported by the reader
            self._stdin.write(encode(command))
            self._stdin.flush()

    def _close_stdin(self) -> None:
        if self._writing.acquire(timeout=GRACE):  # a child that reads no more may block the one who writes
            with suppress(OSError):
                self._stdin.close()
            self._writing.release()

    def _read_events(self) -> None:
        with self._stdout, suppress(ValueError):  # a dying child may not have finished its last line
            while event := read(self._stdout):
                self._spent = self._spent or ran_out(event)
                with self._lock:
                    queue = self._queues.get(event.get("id") or LOADING)
                if queue:
                    queue.put(event)
        self._end()

    def _end(self) -> None:
        """Collect the child, which has closed its output, and tell everyone who waits."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        self._readers[1].join(GRACE)
        self._close_stdin()
        with self._lock:
            self._ended = error_frame(None, self._obituary(code))
            for queue in self._queues.values():
                queue.put(self._ended)

    def _obituary(self, code: int) -> MultimodelError:
        if self._closing:
            return WorkerCrashed(f"{self.name} was unloaded.", hint="Send the prompt again to load it.")
        if self._spent:
            return error_from(error_frame(None, MemoryError()))
        if reason(code) == "SIGVTALRM":  # the limit of `prompt.time_limit`
            loops = f"The chat template of {self.name} did not come to an end, so its process was ended."
            return WorkerCrashed(loops, hint=OTHER_TEMPLATE)
        last = self._last_words()
        ended = f"The process of {self.name} ended ({reason(code)})." + (f" Its last words: {last}" if last else "")
        if says_out_of_memory(last):
            return NotEnoughMemory(ended, hint=MEMORY_HINT)
        return WorkerCrashed(ended, hint=CRASHED_HINT)

    def _last_words(self) -> str:
        """The last line of its standard error, or the last that tells of want of memory: a backtrace may follow.

        Of native code without the folder that it was built in.
        """
        said = b"".join(self._said)[-STDERR_KEPT:].decode("utf-8", "replace").strip().splitlines()
        last = next(filter(says_out_of_memory, reversed(said)), said[-1] if said else "")
        return re.sub(r"^/\S*/(?=[^\s/]+:\d+: )", "", last.strip())[:300]

    def _read_stderr(self) -> None:
        with self._stderr:
            for line in iter(lambda: self._stderr.readline(STDERR_KEPT), b""):
                self._said.append(line)


def _next(queue: SimpleQueue[Frame]) -> Frame | None:
    try:
        return queue.get(timeout=HEARTBEAT)
    except Empty:
        return None
