"""What others want of a process that trains: that it stops, or how many cores it may use."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import BinaryIO, Literal

APP = "--app"  # tells the process that its input is a pipe from the app
STOP = "stop"  # the file in a run's folder that asks it to stop; any process may write it

Stopping = Literal["", "stopped", "interrupted"]


class Control:
    """Listens to the app. Commands are lines of JSON: {"threads": 2}. The end of the input is the end of the app."""

    def __init__(self, folder: Path, commands: BinaryIO | None = None) -> None:
        self.threads = 0  # 0: not said yet
        self._stop = folder / STOP
        self._gone = threading.Event()
        if commands:
            threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    @property
    def stopping(self) -> Stopping:
        """Whether to stop, and why: a person asked, or the app has ended."""
        if self._stop.exists():
            return "stopped"
        return "interrupted" if self._gone.is_set() else ""

    def interrupt(self) -> None:
        """The system wants the process to end: save and do so. Safe in a signal handler."""
        self._gone.set()

    def _listen(self, commands: BinaryIO) -> None:
        for line in commands:
            try:
                self.threads = int(json.loads(line)["threads"])
            except (ValueError, KeyError, TypeError):
                continue
        self._gone.set()
