"""Where a batch was asked: hardware and versions, kept beside its answers."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from ..engine import Engine
from ..finetune.checkpoints import write_last
from ..hardware import cores
from ..store.forms import Form

FILE = "machine.json"


class Machine(Form):
    """What answered."""

    system: str = ""
    python: str = ""
    app: str = ""  # the version of this package; empty: it runs from its folder
    device: str = ""
    memory: int = 0  # bytes of the device
    cores: int = 0
    threads: int = 0  # that models share

    def __str__(self) -> str:
        parts = (self.device, f"{self.memory / 1e9:.0f} GB" if self.memory else "", self.system)
        return ", ".join(filter(None, parts)) if self.system else ""


def record(folder: Path, engine: Engine) -> None:
    """Write down what this machine is; answers are worth more than that, so it never fails."""
    device = engine.device()
    found = Machine(
        system=platform.platform(),
        python=platform.python_version(),
        app=_version(),
        device=device.name or device.kind,
        memory=device.total,
        cores=cores(),
        threads=engine.pool.cores.total,
    )
    with suppress(OSError):
        write_last(folder / FILE, found.model_dump_json(indent=1))


def recorded(folder: Path) -> Machine:
    """What was written down; empty where nothing was."""
    try:
        return Machine.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return Machine()


def _version() -> str:
    try:
        return version("multimodel")
    except PackageNotFoundError:
        return ""
