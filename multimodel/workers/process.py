"""What every child process of the app has in common: how it is started, how it settles in, how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, BinaryIO

from ..settings import ROOT, child_environment

SLEEP = {"OMP_WAIT_POLICY": "passive"}
"""A thread that waits for the others sleeps. By default it spins, and where another program needs the core that it
spins on, all wait: measured at two threads on two busy cores, 0.6 tokens a second instead of 16 in torch, 3 instead of
40 in llama.cpp."""


def spawn(
    module: str,
    *arguments: str,
    threads: int,
    output: int = subprocess.PIPE,
    errors: int | IO[bytes] = subprocess.PIPE,
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m module`, without keys and without the Hub; its input is a pipe that says when the app ends.

    `more`: variables of its environment, beside those that all have.
    """
    own = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GGML_NO_BACKTRACE": "1",  # what a debugger prints would stand behind the words that say what was wrong
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), child_environment().get("PYTHONPATH", "")])),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],  # -P: a file in the folder cannot pose as a module
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        env=SLEEP | child_environment() | own | dict(more or {}),
    )


def settle() -> None:
    """Ctrl+C is for the app, which then ends its children; a crash leaves no core file with conversations in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """The commands and the way back. What else writes to standard output, native code too, goes to standard error."""
    stdin = os.fdopen(os.dup(0), "rb")
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return stdin, stdout


def reason(code: int) -> str:
    """How a process ended, by the name of its signal.

    >>> reason(-11), reason(3)
    ('SIGSEGV', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
