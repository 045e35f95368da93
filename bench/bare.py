"""A library's own loop in a process of its own, as a contestant: one question a line in, one measurement a line out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import psutil

from .report import ROOT


@dataclass(frozen=True)
class Sample:
    """One answer as it was measured; the times of several can be added."""

    prompt_tokens: int
    tokens: int
    seconds: float  # from asking to the end
    first: float  # seconds to the first token
    cpu: float  # seconds of the processor that the model's process used
    app: float = 0.0  # the same of the app's process, where there is one


class Bare:
    """A child that runs `bench.bare_llama` or `bench.bare_torch`."""

    def __init__(self, module: str, *arguments: str, threads: int = 1) -> None:
        own = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{module}", *arguments, str(threads)],
            cwd=ROOT,
            env={**environment(), **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, prompt: str, max_tokens: int) -> Sample:
        """One greedy answer. Where nobody sees the first token, its time is that of an answer of one token."""
        sample = self._ask(prompt, max_tokens)
        return sample if sample.first else replace(sample, first=self._ask(prompt, 1).seconds)

    def _ask(self, prompt: str, max_tokens: int) -> Sample:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"prompt": prompt, "max_tokens": max_tokens}) + "\n")
        self._process.stdin.flush()
        return Sample(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.terminate()


def environment() -> dict[str, str]:
    """The environment of a measured process: offline, no telemetry."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GRADIO_ANALYTICS_ENABLED": "False"}
    return {**os.environ, **quiet}


def cpu(*processes: psutil.Process) -> float:
    """Seconds of processor that the processes have used so far."""
    times = [process.cpu_times() for process in processes]
    return sum(t.user + t.system for t in times)


@dataclass(frozen=True)
class Said:
    """What a library's loop did with a prompt."""

    prompt_tokens: int
    tokens: int
    first: float | None = None  # when the first token was there, by time.perf_counter()


def serve(answer: Callable[[str, int], Said]) -> None:
    """Answer lines until the input ends."""
    me = psutil.Process()
    for line in sys.stdin:
        before, began = cpu(me), time.perf_counter()
        said = answer(**json.loads(line))
        seconds = time.perf_counter() - began
        first = 0.0 if said.first is None else said.first - began
        sample = Sample(said.prompt_tokens, said.tokens, seconds, first, cpu(me) - before)
        print(json.dumps(asdict(sample)), flush=True)


def gguf_path(folder: Path) -> Path | None:
    """A GGUF file in a folder or its `gguf/`, Q8_0 before others."""
    found = [*folder.glob("gguf/*.gguf"), *folder.glob("*.gguf")]
    return min(found, key=lambda path: ("q8_0" not in path.name.lower(), path.name), default=None)
