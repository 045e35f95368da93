"""Which models decode faster with flash attention on this processor: what their first loads found, in a small file.

That it is kept also keeps the answers: with and without it the last bits differ, and with them a greedy text in time.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from .files import read_json, write_json
from .plan import MemoryPlan

FILE = "flash-attention.json"
KEPT = 1000  # models, the newest


class Attention:
    """What is known, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = Lock()  # loads of several models end at once

    def flash(self, model: str, weights: int) -> bool | None:
        """Whether a model with so many bytes of weights is quicker with it; None where that was not tried yet."""
        found = self._known().get(_key(model, weights))
        return found if isinstance(found, bool) else None

    def learn(self, plan: MemoryPlan, flash: bool) -> None:
        """Keep what a load found."""
        with self._lock:
            known = self._known() | {_key(plan.model, plan.weights): flash}
            write_json(self._path, dict(list(known.items())[-KEPT:]))

    def _known(self) -> dict[str, object]:
        found = read_json(self._path)
        return found if isinstance(found, dict) else {}


def _key(model: str, weights: int) -> str:
    return f"{model}, {weights} bytes"
