"""A classifier in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BrokenFile
from .classifier import Outputs, in_batches, rectangle
from .onnx import need

TOKENS = 512  # in a batch, padded: in 8 bits the processor's cache is full sooner
ROWS = 64


class Session:
    """A model file in memory."""

    def __init__(self, path: Path, pad: int, threads: int) -> None:
        """Raises MissingDependency, BrokenFile."""
        need("onnxruntime")
        self._path, self._pad, self._threads = path, pad, 0
        self.set_threads(threads)

    def set_threads(self, count: int) -> None:
        """Use so many processor threads from now on: their number is settled with the session, so it is made anew."""
        if count == self._threads:
            return
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, count)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores too
        try:
            self._session: Any = ort.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has a class of its own for each cause
            hint = "Export it again."
            raise BrokenFile(f"{self._path.name} cannot be loaded: {str(error)[:300]}", hint=hint) from error
        self._threads = count

    def logits(self, rows: Sequence[Sequence[int]]) -> Outputs:
        """The outputs (rows, outputs) for texts, given as token ids, in their order."""
        return in_batches(rows, self._ask, TOKENS, ROWS)

    def _ask(self, batch: Sequence[Sequence[int]]) -> Outputs:
        ids, mask = rectangle(batch, self._pad)
        found: Outputs = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return found
