"""Ask llama.cpp itself what a context takes, for a model of which only the header is here.

With `no_alloc` llama.cpp lays out weights, caches and buffers without making them, and logs their sizes. It wants a
file of full length, so the header is written into a sparse one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from ..settings import child_environment
from .context import ContextSettings
from .gguf import Header, without_vocabulary

SECONDS = 8.0  # a plan may take; DeepSeek V3 with its 61 layers of 256 experts takes one and a half
GRACE = 1.0
CHILD = Path(__file__).with_name("engine_child.py")
MIB = 1 << 20

CACHE = re.compile(r"llama_kv_cache\w*: size = +([\d.]+) MiB")
STATE = re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB")
OUTPUT = re.compile(r"output buffer size = +([\d.]+) MiB")
FUNCTION = re.compile(r"^[a-z_]+: ")  # with which its messages begin
COMPUTE = re.compile(r"compute buffer size = +([\d.]+) MiB")


@dataclass(frozen=True, slots=True)
class Account:
    """What llama.cpp says a context takes, in bytes; or why it makes none, or that its process ended over it."""

    kv_cache: int = 0
    recurrent: int = 0
    compute: int = 0
    output: int = 0
    refusal: str = ""
    ended: bool = False


def available() -> bool:
    """Whether llama.cpp is installed."""
    return find_spec("llama_cpp") is not None


class Accountant:
    """One child process that knows llama.cpp, started when first asked and again when it has died."""

    def __init__(self) -> None:
        self._lock = Lock()  # one question at a time
        self._child: _Child | None = None
        self._closed = False

    def account(
        self, header: Header, contexts: Sequence[ContextSettings], *, gpu: bool = False, seconds: float = SECONDS
    ) -> tuple[Account, ...] | None:
        """What each context takes; None where llama.cpp is missing, does not answer in time, or was closed."""
        if not available() or not header.tensors:
            return None
        deadline = time.monotonic() + seconds
        with self._lock, tempfile.TemporaryDirectory(prefix="multimodel-plan-") as folder:
            path = Path(folder) / "model.gguf"
            if self._closed or not _write(header, path):
                return None
            layers = -1 if gpu else 0
            model = {"no_alloc": True, "load_mode": 0, "use_extra_bufts": False, "n_gpu_layers": layers}
            question = {"path": str(path), "model": model}
            return self._all(question, contexts, deadline)

    def warm(self) -> None:
        """Start the child, so that it is ready when it is asked."""
        if available():
            with self._lock:
                if not self._closed:
                    self._alive()

    def close(self) -> None:
        """End the child, for good."""
        with self._lock:
            self._closed = True
            if self._child:
                self._child.close()
                self._child = None

    def _alive(self) -> _Child:
        if not self._child or not self._child.alive:
            if self._child:
                self._child.close()
            self._child = _Child()
        return self._child

    def _all(
        self, question: dict[str, Any], contexts: Sequence[ContextSettings], deadline: float
    ) -> tuple[Account, ...] | None:
        """The accounts of all contexts; one over which the child ends is followed by a new child for the rest."""
        found: list[Account] = []
        while len(found) < len(contexts):
            child = self._alive()
            fresh = child.asked == 0
            answers = child.ask(question | {"contexts": [c.params() for c in contexts[len(found) :]]}, deadline)
            found += [_read(answer) for answer in answers]
            if len(found) < len(contexts):
                child.close()
                if time.monotonic() >= deadline:
                    return None
                if fresh or answers:  # else it may have been on its way out, having been idle
                    found.append(Account(ended=True))
        return tuple(found)


class _Child:
    """The process and the thread that reads its answers."""

    def __init__(self) -> None:
        self.asked = 0
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=child_environment() | {"GGML_NO_BACKTRACE": "1"},  # else a failed assertion waits for a debugger
        )
        self._reader = Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: dict[str, Any], deadline: float) -> list[dict[str, Any]]:
        """An answer for each context; fewer where the child ends or the time does."""
        self.asked += 1
        answers: list[dict[str, Any]] = []
        with suppress(OSError, Empty):
            assert self._process.stdin
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            while len(answers) < len(question["contexts"]):
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
                if answer is None:
                    break
                answers.append(answer)
        return answers

    def close(self) -> None:
        """End it, however it fares."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._reader.join(GRACE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._answers.put(json.loads(line))
        self._answers.put(None)
        self._process.wait()  # it may have ended by itself, having been idle: nobody else would collect it


def _write(header: Header, path: Path) -> bool:
    """The sparse file; False where the file system has none of that length."""
    content, length = without_vocabulary(header)
    try:
        with path.open("wb") as file:
            file.write(content)
            file.truncate(length)
    except (OSError, OverflowError):
        return False
    return True


def _read(answer: dict[str, Any]) -> Account:
    if "error" in answer:
        return Account(refusal=f"llama.cpp: {FUNCTION.sub('', str(answer['error']))}")
    log = "\n".join(map(str, answer["log"]))
    return Account(_sum(CACHE, log), _sum(STATE, log), _sum(COMPUTE, log), _sum(OUTPUT, log))


def _sum(pattern: re.Pattern[str], log: str) -> int:
    return round(sum(float(found) for found in pattern.findall(log)) * MIB)
