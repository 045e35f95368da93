"""What every test gets, doctests included: no settings, no keys, no network, and nothing left behind."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

OURS = ("MULTIMODEL_", "OPENAI_", "HF_", "HUGGINGFACE_", "GRADIO_", "TRACKIO_", "WANDB_")
ALSO = frozenset({"ENDPOINTS", "MODEL_CACHE_DIR", "FINE_TUNED_DIR"})
GRACE = 3.0  # seconds that a process or thread may take to end after its test

# Here and not in a fixture: huggingface_hub and gradio read these when they are first imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False")
os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test gives back its threads and processes; it is the first fixture, so that it looks when all others ended.

    `browser` and its app live as long as a module; `serving` and playwright see to their ends.
    """
    threads, children = set(threading.enumerate()), set(_children())
    yield
    if "browser" in request.fixturenames:
        return
    left = _left(threads, children)
    deadline = time.monotonic() + GRACE
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _left(threads, children)
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def empty_environment(no_leaks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no key of whoever runs the tests; folders, and the place of a `.env`, are the test's own."""
    for name in os.environ:
        if name.startswith(OURS) or name in ALSO:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_CACHE_DIR", str(tmp_path / "model_cache"))
    monkeypatch.setenv("FINE_TUNED_DIR", str(tmp_path / "fine_tuned_models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


@pytest.fixture(autouse=True)
def only_loopback(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever leaves this machine is refused, and fails the test even where the error is caught."""
    outside: list[str] = []

    def guarded(real: Any, host_of: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args)
            if is_outside(host):
                outside.append(str(host))
                raise OSError(f"tests reach loopback only, not {host}")
            return real(*args, **kwargs)

        return call

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), lambda _, address: address))
    monkeypatch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_: host))
    yield
    assert not outside, f"the network was asked for: {outside}"


def is_outside(address: object) -> bool:
    """Whether an address, or a host, is another machine; paths of Unix sockets are not."""
    host = address[0] if isinstance(address, tuple) else address
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost") or not isinstance(host, str) or host.startswith(("/", "\0")):
        return False
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return not (number.is_loopback or number.is_unspecified)


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _left(threads: set[threading.Thread], children: set[psutil.Process]) -> list[str]:
    alive = [t for t in threading.enumerate() if t not in threads and not t.daemon]
    return [f"thread {t.name}" for t in alive] + [_name(p) for p in _children() if p not in children and _counts(p)]


def _counts(process: psutil.Process) -> bool:
    """Not the tracker that Python's own multiprocessing keeps for as long as the interpreter lives."""
    return "resource_tracker" not in _name(process)


def _name(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}"
