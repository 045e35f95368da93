"""The process that exports: `python -m multimodel.finetune.onnx_child MODEL TARGET RUN ASSETS`; answers with one frame.

MODEL  the fine-tuned model's folder
TARGET where the 8-bit version is written
RUN    the folder of the run that made the model: its rows are those both versions are compared on
ASSETS the app's own files: texts to compare on, where the run is gone
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..settings import ModelSettings, Settings
from ..workers.process import pipes, settle
from ..workers.protocol import encode, error_frame
from . import data as rows
from . import sources
from .classifier import Outputs, quiet
from .data import Dataset
from .forward import answers
from .metrics import quick
from .onnx import AGREEMENT, MODEL
from .predicting import Model
from .probability import decide, probabilities
from .reading import read
from .runfolder import DATA, write

MOST_ROWS = 1000  # that both versions are compared on


def export(folder: Path, target: Path, run: Path, assets: Path) -> None:
    """Write the 8-bit version of a model, and how it compares. Raises LoadError."""
    model = Model(folder, device="cpu")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx-") as place:
        plain = Path(place) / "model.onnx"
        _write(model, plain)
        _quantise(plain, target / MODEL)
    write(target / AGREEMENT, compare(model, target / MODEL, *_rows(model, run, assets)))


def _write(model: Model, path: Path) -> None:
    """The classifier in float32 as ONNX knows it, for any number of rows and tokens."""
    ids = torch.ones((2, 8), dtype=torch.int64)
    each = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=model.longest)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            answers(model.classifier),
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": each, "attention_mask": each},
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=True)


def _quantise(source: Path, target: Path) -> None:
    """Weights in 8 bits, activations in 8 bits as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source, load_external_data=False)
    weights = {value.name for value in graph.graph.initializer}
    shapes = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]  # of weights that the next step turns round
    graph.graph.value_info.extend(shapes)
    onnx.save(graph, source)
    quantize_dynamic(source, target, weight_type=QuantType.QInt8)


def _rows(model: Model, run: Path, assets: Path) -> tuple[Dataset, str]:
    """Labelled texts that training did not see, where the run still has them; else texts of a sample set."""
    if (run / DATA).exists():
        data = model.labels.known(rows.load(run / DATA))
        split = next(name for name in ("test", "validation", "train") if name in data.splits)
        return data.of(split).take(range(min(MOST_ROWS, data.splits.count(split)))), f"{split} rows"
    found = sources.samples(Settings(models=ModelSettings(assets_dir=assets)))
    for name, path in found.items():
        table = read(path)
        texts = tuple(str(cell) for cell in table.column(rows.text_column(table))[:MOST_ROWS])
        blank = ("",) * len(texts)
        return Dataset(texts, blank, blank, tuple(range(len(texts)))), f"texts of the sample set {name}"
    return Dataset((), (), (), ()), "no texts at hand"


def compare(model: Model, exported: Path, data: Dataset, source: str) -> dict[str, Any]:
    """What `onnx.agreement` tells."""
    sizes = {"float32": sum(p.stat().st_size for p in model.folder.glob("*.safetensors"))}
    found: dict[str, Any] = {"rows": len(data), "source": source, "bytes": sizes | {"int8": exported.stat().st_size}}
    if not len(data):
        return found
    short = Model(model.folder, device="cpu", precision="int8", exported=exported)
    full, less = (np.array(one.logits(data.texts), dtype=np.float32) for one in (model, short))
    found |= _differences(model, full, less)
    if any(data.splits):
        truth = model.labels.truth(data.labels)
        found |= {"float32": quick(full, truth, model.labels.task), "int8": quick(less, truth, model.labels.task)}
    return found


def _differences(model: Model, full: Outputs, less: Outputs) -> dict[str, float]:
    labels = model.labels
    scale = labels.deviation if labels.task == "regression" else 1.0
    shares = [probabilities(outputs, labels.task, labels.temperature) * scale for outputs in (full, less)]
    found = {"largest_difference": float(np.abs(shares[0] - shares[1]).max())}
    if labels.task != "regression":
        said = [decide(part, labels.task, labels.thresholds or None) for part in shares]
        same = said[0] == said[1]
        found["same_answer"] = float((same if same.ndim == 1 else same.all(axis=1)).mean())
    return found


def main() -> None:
    """Export, and say how it went."""
    settle()
    _, stdout = pipes()
    quiet()
    try:
        for name in ("torch.onnx", "onnxscript"):
            import_module("logging").getLogger(name).setLevel("ERROR")
        export(*(Path(argument) for argument in sys.argv[1:5]))
        frame = {"event": "done"}
    except Exception as error:
        frame = error_frame(None, error)
    stdout.write(encode(frame))
    stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of libraries may take seconds to end
