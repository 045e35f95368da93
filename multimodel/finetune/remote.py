"""A run on a machine of the Hub: all it needs in one folder, the command that trains it, the model back there."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelNotFound
from ..folder import complete
from ..settings import ROOT, Settings
from . import data as rows
from . import sources
from .bases import ALIASES, base_folder
from .card import public
from .runfolder import DATA, Order
from .store import RUNS, check_name
from .types import TrainConfig

if TYPE_CHECKING:
    from ..hub.job import Job

IMAGE = "python:3.11"
MODELS, BASE = "models", "./base"  # beside the program, there
PACKAGES = {
    "pydantic", "pydantic-settings", "psutil", "httpx2", "huggingface_hub", "torch", "transformers", "accelerate",
    "safetensors", "tokenizers", "filelock", "Jinja2", "datasets", "pyarrow", "openpyxl", "scikit-learn", "peft",
    "numpy", "trackio", "rich",
}  # fmt: skip
"""Of the requirements, those that training needs."""


def submit(config: TrainConfig, settings: Settings, *, flavor: str, timeout: str = "4h") -> Job:
    """Train on a machine of the Hub; the model comes into a private repository of its name.

    Rows, base model and program go into a private repository NAME-run. `flavor`: the machine, as the Hub calls it.
    Raises DataError, LoadError, and what `hub.job.submit` raises.
    """
    job = import_module("multimodel.hub.job")
    name = repository(config.name)
    with tempfile.TemporaryDirectory() as place:
        bundle(config, settings, Path(place))
        asked = command(config.name, name, job.FILES)
        found: Job = job.submit(
            Path(place), f"{name}-run", asked, settings, image=IMAGE, flavor=flavor, timeout=timeout
        )
    return found


def repository(name: str) -> str:
    """The name of a model as the Hub takes it.

    >>> repository("My reviews 2")
    'My-reviews-2'
    """
    return re.sub(r"[^\w.]+|-{2,}", "-", check_name(name)).strip("-.") or "model"


def bundle(config: TrainConfig, settings: Settings, place: Path) -> None:
    """Write what the run needs into a folder: its rows, split already; its base model; this program."""
    run = place / MODELS / RUNS / config.name
    run.mkdir(parents=True)
    data = sources.prepared(config, settings)
    digest = rows.save(replace(data, source=public(data.source)), run / DATA)
    own = {"data": public(config.data), "validation_data": None, "test_data": None}  # the rows are split already
    there = config.merge(own | {"base": _base(config, settings, place)})
    Order(there, "", MODELS, digest, datetime.now(UTC).isoformat()).save(run)
    shutil.copytree(ROOT / "multimodel", place / "multimodel", ignore=shutil.ignore_patterns("__pycache__"))
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line for line in lines if re.split(r"[<>=\[ ]", line)[0] in PACKAGES]
    (place / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")


def _base(config: TrainConfig, settings: Settings, place: Path) -> str:
    """How the base model is called there: one of the Hub by its name, one of this machine by its copy."""
    name = ALIASES.get(config.base, config.base)
    if "/" in name and not Path(name).exists():
        return name
    steps = base_folder(config.base, settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            folder = Path(end.value)
            break
    if not complete(folder):
        raise ModelNotFound(f"The base model {folder.name} is not whole.", hint="Choose another, or get it again.")
    shutil.copytree(folder, place / BASE, ignore=shutil.ignore_patterns("onnx", "manifest.json"))
    return BASE


def command(name: str, target: str, files: str) -> list[str]:
    """What the job does: copy the files, add the packages, train, and bring the model to the Hub."""
    train = ["python", "-m", "multimodel.finetune", "--resume", name, "--push", target]
    steps = [
        f"cp -r {files} /tmp/run",
        "cd /tmp/run",
        "python -m pip install -q -r requirements.txt",
        f"FINE_TUNED_DIR={MODELS} {shlex.join(train)}",
    ]
    return ["bash", "-c", " && ".join(steps)]
