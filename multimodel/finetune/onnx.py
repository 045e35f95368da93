"""A model in 8 bits for ONNX Runtime, beside its weights in `onnx/`: written by a process of its own, and compared.

onnx/  model_int8.onnx   the classifier, its weights in 8 bits
       agreement.json    how its answers compare with those of the weights it was made of

It counts when the model's manifest names it. The packages are the extra `onnx` of pyproject.toml.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import MissingDependency, ModelNotFound, WorkerCrashed
from ..settings import Settings
from ..workers.process import reason, spawn
from ..workers.protocol import error_from, read
from . import runfolder
from .store import MANIFEST, Store, disk_error

FOLDER = "onnx"
MODEL = "model_int8.onnx"
AGREEMENT = "agreement.json"
TO_EXPORT = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "To add it: python -m pip install onnx onnxscript onnxruntime."


def export(folder: Path, settings: Settings) -> Path:
    """Write the model of a folder in 8 bits into its `onnx/`, and how it compares; returns that. Seconds to a minute.

    The model itself stays as it is; what was exported before is replaced. Raises MissingDependency, LoadError,
    TrainingError where it cannot be written, WorkerCrashed.
    """
    need(*TO_EXPORT)
    if not (folder / MANIFEST).exists():
        raise ModelNotFound(f"{folder.name} is no fine-tuned model.", hint="Fine-tune one, then export it.")
    built = folder.parent / f".onnx-{secrets.token_hex(4)}"
    try:
        built.mkdir()
        _convert(folder, built, settings)
        return Store(settings).add(folder, built, FOLDER)
    except OSError as error:
        raise disk_error(error, f"The 8-bit version of {folder.name}") from error
    finally:
        shutil.rmtree(built, ignore_errors=True)


def exported(folder: Path) -> Path | None:
    """The 8-bit model of a folder; None where there is none, or only half of one."""
    path = folder / FOLDER / MODEL
    try:
        row = runfolder.read(folder / MANIFEST)["files"].get(f"{FOLDER}/{MODEL}")
        return path if row and row["size"] == path.stat().st_size else None
    except (LookupError, OSError, ModelNotFound):
        return None


def agreement(folder: Path) -> Mapping[str, Any]:
    """How the 8-bit model of a folder compares with its weights. Raises BrokenFile.

    rows and their source; same_answer, the share of rows with the same answer; largest_difference, of a probability
    (or a number); the figures of both where the rows have labels; bytes of both.
    """
    return runfolder.read(folder / FOLDER / AGREEMENT)


def need(*packages: str) -> None:
    """Raise MissingDependency unless they are installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"The 8-bit version needs {', '.join(missing)}.", hint=INSTALL)


def _convert(folder: Path, built: Path, settings: Settings) -> None:
    runs, assets = Store(settings).runs / folder.name, settings.models.assets_dir
    arguments = [str(path.resolve()) for path in (folder, built, runs, assets)]
    threads = settings.performance.threads or 1
    process = spawn("multimodel.finetune.onnx_child", *arguments, threads=threads, errors=subprocess.DEVNULL)
    with process:
        try:
            found = read(cast(BinaryIO, process.stdout))
        except BaseException:  # whoever waited has left
            process.kill()
            raise
    if found is None:
        hint = "Try again; if it ends again, memory may be short."
        raise WorkerCrashed(f"The process that exports ended ({reason(process.returncode)}).", hint=hint)
    if found["event"] == "error":
        raise error_from(found)
