"""Which batch size fits a machine's memory, by the memory plan of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..memory import MemoryPlan, Target, Training
from .types import RANGES, TrainConfig

MOST = int(RANGES["batch_size"][1])  # rows
Planned = Callable[[Training], MemoryPlan]
"""The plan of training the base model in a way."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest batch that fits, 0 for none, and what training then takes; bytes."""

    batch_size: int
    needed: int
    available: int


def training_of(config: TrainConfig, length: int) -> Training:
    """How a config trains, as far as memory is concerned. `length`: tokens, where the config leaves it open."""
    return Training(
        batch_size=config.batch_size,
        sequence_length=config.max_length or length,
        method="lora" if config.lora_rank else "full",
        checkpointing=config.gradient_checkpointing,
        rank=config.lora_rank or Training().rank,
        autocast=config.precision in ("bfloat16", "float16"),
    )


def largest_batch(config: TrainConfig, length: int, planned: Planned, target: Target, most: int = MOST) -> Fit:
    """The largest batch, a power of two up to `most`, that fits a device with a tenth to spare.

    Frozen layers are not counted on, nor the mixed precision that "auto" may choose, so it rather fits than not.
    """
    how = training_of(config, length)
    found = Fit(0, planned(replace(how, batch_size=1)).safe_total, target.usable)
    size = 1
    while size <= most:
        plan = planned(replace(how, batch_size=size))
        if plan.fit(target).level != "fits":
            break
        found = Fit(size, plan.safe_total, target.usable)
        size *= 2
    return found
