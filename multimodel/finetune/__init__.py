"""From labelled texts to a classifier in use. Calling the package trains: `multimodel.finetune(TrainConfig(...))`.

types    what a run is told and what it reports
tables   files of any kind as rows; data: rows as labelled texts; report: what is wrong with them, and the repair
jobs     runs as they belong to the server: start, follow, stop, resume, list; one per device, the rest in line
child    the process that trains; train, trainer: what happens in it
tracking what trackio and Weights & Biases are told; fitting: the largest batch; remote: a run on the Hub's machines
store    the saved models; predict: using them; onnx: in 8 bits
console  the command line, `python -m multimodel.finetune`; options: its options
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from importlib import import_module
from types import ModuleType
from typing import Any

from .types import TrainConfig, TrainUpdate


class _Package(ModuleType):
    """A module that can be called, so that `multimodel.finetune` is both the verb and the place."""

    def __call__(self, config: TrainConfig, **options: Any) -> Generator[TrainUpdate]:
        """See `api.finetune`."""
        updates: Generator[TrainUpdate] = import_module(f"{__name__}.api").finetune(config, **options)
        return updates


sys.modules[__name__].__class__ = _Package
