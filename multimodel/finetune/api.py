"""`multimodel.finetune(config)`: a whole run from a script."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from ..compute import Cores
from ..errors import MultimodelError
from ..hardware import cores
from ..settings import Settings
from .jobs import Jobs
from .types import TrainConfig, TrainUpdate


def finetune(config: TrainConfig, *, settings: Settings | None = None) -> Generator[TrainUpdate]:
    """Train, and tell how it goes: each update replaces the one before, the last has ended.

    An error is the last update's; nothing is raised. Closing the generator stops the run: it ends after its step, and
    the best model so far is saved. A run that was cut short is resumed with `Jobs.resume`.
    """
    settings = settings or Settings.load()
    with closing(Jobs(settings, Cores(settings.performance.threads or cores()))) as jobs:
        try:
            name = jobs.start(config)
        except MultimodelError as error:
            yield TrainUpdate(config.name, "failed", error=error)
            return
        try:
            yield from jobs.follow(name)
        except GeneratorExit:
            jobs.stop(name)
            for _ in jobs.follow(name):
                pass
            raise
