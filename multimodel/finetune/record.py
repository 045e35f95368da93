"""The folder of a finished model: weights and tokenizer, and the record of how it came about."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..folder import CONFIG
from ..hardware import cores, memory
from . import onnx, store
from .card import card
from .events import Reader, Writer, finite, fold
from .judging import Judgement
from .prepare import Prepared
from .runfolder import Trained
from .types import TrainUpdate

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "scikit-learn", "numpy")


@dataclass(slots=True)
class Session:
    """Seconds of the parts of this try."""

    _last: float
    seconds: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        """The part of this name has ended."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def build(run: Prepared, found: Judgement, trained: Trained, session: Session) -> Path:
    """Write everything but the manifest into the run's folder `model`; returns it."""
    folder = run.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run.model.save_pretrained(folder)
    run.tokenizer.save_pretrained(folder)
    _readable(folder)
    found.labels.save(folder)
    session.mark("saving")
    data = metadata(run, trained, session)
    _write(folder / store.METADATA, data)
    _write(folder / store.METRICS, found.metrics)
    _write(folder / store.MISCLASSIFIED, {"errors": found.errors})
    _write(folder / store.HISTORY, history(run))
    (folder / store.CARD).write_text(card(data, found.metrics), encoding="utf-8")
    if (Path(run.order.models) / run.config.name / onnx.FOLDER).is_dir():  # the model that this one replaces
        Writer(run.folder).log("The 8-bit export was of the model before; export it again.")
    return folder


def _readable(folder: Path) -> None:
    """Give the weights, which their library writes for this user alone, the rights that the other files have."""
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / CONFIG).stat().st_mode)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(finite(value), indent=2, ensure_ascii=False), encoding="utf-8")


def metadata(run: Prepared, trained: Trained, session: Session) -> dict[str, Any]:
    """What somebody needs who wants to make the model again, or to judge it."""
    chosen = ("adaptation", "learning_rate", "max_length", "precision")
    parameters = run.config.asdict() | {name: run.plan[name] for name in chosen if name in run.plan}
    return {
        "name": run.config.name,
        "task": run.labels.task,
        "classes": list(run.labels.classes),
        "base": run.config.base,
        "created": run.order.created,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "source": run.data.source,
            "sha256": run.order.data_hash,
            "rows": run.plan["rows"],
            "counts": run.data.counts,
            "notes": list(run.data.notes),
        },
        "parameters": parameters,
        "reasons": {name: value for name, value in run.plan.items() if name.endswith("_reason")},
        "training": asdict(trained),
        "weights": {"all": run.plan["parameters"], "trained": run.plan["trained_parameters"]},
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(run.plan["device"]),
        "seconds": dict(session.seconds),
        "memory": {"peak": peak_memory(run.plan["device"])},
    }


def versions() -> dict[str, str]:
    """The packages whose versions matter."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """The machine, without its name."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device,
        "name": name,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory": memory().total,
        "system": platform.system(),
    }


def peak_memory(device: str) -> int:
    """Most bytes that this process has held: on the GPU where it trained there, else resident. 0 where not known."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def history(run: Prepared) -> dict[str, Any]:
    """All curves of the run: [step, value] by name."""
    update = fold(TrainUpdate(run.config.name), Reader(run.folder).read())
    curves = {name: [[p.step, p.value] for p in points] for name, points in update.curves.items()}
    return {"total_steps": update.total_steps, "epochs": update.epochs, "curves": curves}
