"""Time from `python app.py --no-browser` to its first page, over the same for a bare Gradio hello world.

Wall time ends when GET / is answered with 200; CPU time is that of the process up to then.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import psutil

from . import report
from .bare import cpu, environment
from .report import ROOT, Report, Table

HELLO = """
import sys
import gradio as gr
gr.Interface(lambda name: f"Hello {name}", "text", "text").launch(server_port=int(sys.argv[1]), quiet=True)
"""
HEAVY = ("torch", "transformers", "openai", "llama_cpp")
TARGET = 1.2
PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Start:
    """One start, up to the first page."""

    wall: float  # seconds
    cpu: float  # seconds


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, **options: Any) -> Generator[subprocess.Popen[str]]:
    """A server that has answered its first GET /; killed at the end. `options` are those of Popen."""
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()} | options
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, text=True, **options) as process:
        try:
            answers_at(process, f"http://127.0.0.1:{port}/")
            yield process
        finally:
            process.kill()


def start(command: Sequence[str], port: int) -> Start:
    """One measured start."""
    began = time.perf_counter()
    with running(command, port) as process:
        return Start(time.perf_counter() - began, cpu(psutil.Process(process.pid)))


def answers_at(process: subprocess.Popen[Any], url: str) -> None:
    """Wait until a server answers GET with 200. Raises RuntimeError when it has ended or takes too long."""
    until = time.perf_counter() + PATIENCE
    while not _answers(url):
        if process.poll() is not None or time.perf_counter() > until:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(0.01)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return bool(reply.status == 200 and reply.read())
    except OSError:
        return False


def imported() -> dict[str, float]:
    """Milliseconds that each module's import took, what it imports included, up to the app's first page."""
    with TemporaryFile("w+") as said:
        port = free_port()
        with running(["-X", "importtime", *_app(port)], port, stderr=said):
            pass
        said.seek(0)
        rows = re.findall(r"import time: +\d+ \| +(\d+) \| +(\S+)", said.read())
    return {name: int(microseconds) / 1000 for microseconds, name in rows}


def _start(command: Callable[[int], list[str]]) -> Start:
    port = free_port()
    return start(command(port), port)


def _app(port: int) -> list[str]:
    return ["app.py", "--no-browser", "--port", str(port)]


def measure(rounds: int) -> Report:
    """The table."""
    with TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        found = report.in_turn(
            {
                "`python app.py --no-browser`": lambda _: _start(_app),
                "Gradio hello world": lambda _: _start(lambda port: [str(hello), str(port)]),
            },
            rounds,
            warm_up=0,
        )
    modules = imported()
    *_, base = found.values()
    rows = tuple(_row(name, starts, base) for name, starts in found.items())
    return Report(
        name="startup",
        title=f"Start to the first page (target {TARGET} or less)",
        tables=(Table(("start", "CPU s", "ratio", "wall s", "ratio"), rows), _imports(modules)),
        notes=(f"Medians of {rounds} starts in turn, ended by the first GET / that answers 200.", _heavy(modules)),
        packages=("gradio",),
    )


def _row(name: str, mine: list[Start], base: list[Start]) -> tuple[str, ...]:
    return (
        name,
        f"{median(s.cpu for s in mine):.2f}",
        f"**{report.paired([s.cpu for s in mine], [s.cpu for s in base]):.2f}**",
        f"{median(s.wall for s in mine):.2f}",
        f"**{report.paired([s.wall for s in mine], [s.wall for s in base]):.2f}**",
    )


def _imports(modules: dict[str, float]) -> Table:
    """The dearest packages of one start."""
    tops = {name: ms for name, ms in modules.items() if "." not in name}
    dearest = sorted(tops, key=lambda name: -tops[name])[:8]
    rows = tuple((name, f"{tops[name]:.0f}") for name in dearest)
    return Table(("package", "ms"), rows, "Import times of the app, what a package imports included (`-X importtime`):")


def _heavy(modules: dict[str, float]) -> str:
    loaded = [name for name in HEAVY if name in modules]
    verdict = f"**{', '.join(loaded)} are imported**" if loaded else f"none of {', '.join(HEAVY)} is imported"
    return f"{len(modules)} modules by the first page; {verdict}."


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    options = report.parser(__doc__).parse_args(argv)
    before = report.load()
    return report.finish(measure(1 if options.tiny else options.rounds), options, before, "as Python has them")


if __name__ == "__main__":
    sys.exit(main())
