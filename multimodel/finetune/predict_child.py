"""The process that predicts: `python -m multimodel.finetune.predict_child`. One JSON object a line, both ways.

    {"op": "load", "folder": str, "precision": str}  {"labels": {LabelMap} or null}
    {"op": "logits", "texts": [str]}                 {"logits": [[float]]}
    {"op": "occluded", "text": str}                  {"pieces": [[int, int]], "logits": [[float]]}
    {"op": "fillings", "text": str, "top": int}      {"fillings": [[str, float, str]]}
    {"op": "threads", "count": int}                  no answer

An error comes as {"event": "error", ...}, as workers.protocol writes it. End of input ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import BrokenFile
from ..workers.process import pipes, settle
from ..workers.protocol import Frame, encode, error_frame, read


class Server:
    """Answers commands one after another; the libraries are loaded while nobody asks yet."""

    def __init__(self) -> None:
        self._library = import_module("multimodel.finetune.predicting")  # seconds
        self._model: Any = None
        self._threads = 0

    def answer(self, command: Frame) -> Frame | None:
        """The answer to a command; None where there is none. Raises what goes wrong."""
        operations: dict[str, Callable[[Frame], Frame | None]] = {
            "load": self._load,
            "logits": lambda c: {"logits": self._model.logits(c["texts"])},
            "occluded": self._occluded,
            "fillings": lambda c: {"fillings": self._model.fillings(c["text"], c["top"])},
            "threads": self._set_threads,
        }
        return operations[command["op"]](command)

    def _load(self, command: Frame) -> Frame:
        self._model = self._library.Model(
            Path(command["folder"]), threads=self._threads or None, precision=command["precision"]
        )
        try:
            return {"labels": asdict(self._model.labels)}
        except BrokenFile:  # a base model can still fill gaps
            return {"labels": None}

    def _occluded(self, command: Frame) -> Frame:
        pieces, found = self._model.occluded(command["text"])
        return {"pieces": pieces, "logits": found}

    def _set_threads(self, command: Frame) -> None:
        self._threads = command["count"]
        (self._model or self._library).set_threads(self._threads)


def main() -> None:
    """Answer until the input ends."""
    settle()
    stdin, stdout = pipes()
    server = Server()
    while command := read(stdin):
        try:
            found = server.answer(command)
        except Exception as error:
            found = error_frame(None, error)
        if found is not None:
            stdout.write(encode(found))
            stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of libraries may take seconds to end
