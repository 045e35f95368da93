"""Servers and browsers as a person meets them: processes of their own, on loopback, watched while they run.

Every server is started with an environment made here from nothing, and with an eye on its sockets: what it, or a
process of its own, asks of another machine is refused and fails the test at the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .support import CHROMIUM, ROOT

STARTING = 120.0  # seconds that a server may take to answer, on a machine that does much else
ENDING = 30.0

EYE = """
import ipaddress, os, sys

def outside(host):
    host = host.decode() if isinstance(host, bytes) else host
    if not isinstance(host, str) or host in ("", "localhost"):
        return False
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return not (number.is_loopback or number.is_unspecified)

def look(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if outside(host):
        with open(os.environ["EYE_FILE"], "a") as file:
            print(event, host, sys.argv, file=file)
        raise OSError(f"only loopback is allowed, not {host}")

sys.addaudithook(look)
"""


@dataclass(frozen=True)
class Server:
    """A running server: its process, its address and what it has printed so far."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def printed(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Ctrl+C: the terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment(folder: Path, **settings: Any) -> dict[str, str]:
    """A fresh machine's environment with its folders under `folder`; values that are no text become JSON."""
    eye = folder / "eye"
    eye.mkdir(parents=True, exist_ok=True)
    (eye / "sitecustomize.py").write_text(EYE)
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder),
        "PYTHONPATH": str(eye),
        "EYE_FILE": str(folder / "outside.txt"),
        "MODEL_CACHE_DIR": str(folder / "model_cache"),
        "FINE_TUNED_DIR": str(folder / "fine_tuned_models"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "MULTIMODEL_THREADS": "1",
        **given,
    }


@contextmanager
def serving(command: Sequence[str], folder: Path, variables: dict[str, str], ready: str) -> Iterator[Server]:
    """Run a server until the block ends. `ready` is a pattern of its log, whose first group is the address."""
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_listen_to_ctrl_c,
        )  # fmt: skip
    try:
        yield Server(process, _wait_for(process, log, ready), log)
    finally:
        left = end(process)
    assert not left, f"processes outlived their server: {left}"
    asked = Path(variables["EYE_FILE"])
    assert not asked.exists(), f"the network was asked for: {asked.read_text()}"


def app(folder: Path, **settings: Any) -> Any:
    """The app with these settings, as `python app.py` starts it."""
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(free_port())]
    return serving(command, folder, environment(folder, **settings), r"Running on (http://\S+)")


def end(process: subprocess.Popen[bytes]) -> list[str]:
    """End a server; the processes that were left behind, which are ended too."""
    try:
        mine = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        mine = []
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(ENDING)
    return [name for other in mine if (name := _outlived(other))]


def ended(process: psutil.Process, timeout: float = ENDING) -> bool:
    """Whether a process has ended within the time; in a container nobody may take away what is left of it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def _outlived(process: psutil.Process) -> str:
    """The command of a process that did not end by itself; it is killed. Empty when it did."""
    if ended(process):
        return ""
    command = " ".join(process.cmdline())
    process.kill()
    return command


def _listen_to_ctrl_c() -> None:
    """Whoever runs the tests in the background has made the signal ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(process: subprocess.Popen[bytes], log: Path, ready: str) -> str:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        text = log.read_text("utf-8", errors="replace")
        if found := re.search(ready, text):
            return found[1].rstrip("/")
        assert process.poll() is None, f"ended at once:\n{text}"
        time.sleep(0.05)
    raise AssertionError(f"not ready after {STARTING:.0f} s:\n{log.read_text('utf-8', errors='replace')}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser in which no name but loopback's means anything."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()
