"""Which batch size fits a machine's memory, by the memory plan of training, and whether that begins with words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidParameter
from ..memory import MemoryPlan, Target, Training
from ..memory.torch_plan import TorchModel
from .tokens import SMALL, guesses
from .types import RANGES, TrainConfig

if TYPE_CHECKING:
    from ..memory.subject import Subject  # comes with the Hub's library

MOST = int(RANGES["batch_size"][1])  # rows
STEPS = 20  # of an epoch, where there are rows for them: in very few a model learns nothing
MASKED = 0.15  # share of the tokens that have to be guessed in adaptive pretraining
ADAPTATION = 10  # epochs of it for a small base model
ADAPTATION_TEXTS = 100_000  # texts it reads meanwhile at most, as long as one epoch is not more

Planned = Callable[[Training], MemoryPlan]
"""The plan of training the base model in a way."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest batch that fits, 0 for none, and what training then takes; bytes."""

    batch_size: int
    needed: int
    available: int


def choose_adaptation(config: TrainConfig, base: Mapping[str, Any], parameters: int, count: int = 1) -> tuple[int, str]:
    """(epochs of adaptive pretraining, reason) for so many texts. Raises InvalidParameter where the base cannot.

    `base`: its configuration. Where there are many texts a small base model needs fewer epochs of them.
    """
    if config.adaptation is not None:
        if config.adaptation and not guesses(base):
            hint = "Set it to 0, or choose a base model that was not fine-tuned yet."
            raise InvalidParameter(f"Adaptive pretraining: {config.base} has no head that guesses words.", hint=hint)
        return config.adaptation, "you chose it"
    if not guesses(base):
        return 0, "the base model has no head that guesses words"
    if config.freeze_layers or config.lora_rank:
        return 0, "most weights stay as they are"
    if parameters >= SMALL:
        return 0, "the base model has read enough"
    return max(1, min(ADAPTATION, ADAPTATION_TEXTS // max(1, count))), "the base model is small and has read little"


def training_of(config: TrainConfig, length: int, base: Subject) -> Training:
    """How a config trains, as far as memory is concerned. `length`: tokens, where the config leaves it open.

    Raises InvalidParameter where the base model cannot be trained so.
    """
    if isinstance(base, TorchModel):
        check_frozen(config.freeze_layers, len(base.shape.layers))
    adapts = isinstance(base, TorchModel) and choose_adaptation(config, base.config, base.parameters)[0]
    return Training(
        batch_size=config.batch_size,
        sequence_length=config.max_length or length,
        method="lora" if config.lora_rank else "full",
        checkpointing=config.gradient_checkpointing,
        rank=config.lora_rank or Training().rank,
        autocast=config.precision in ("bfloat16", "float16"),
        masked=MASKED if adapts else 0.0,
    )


def check_frozen(frozen: int, layers: int) -> None:
    """Raise InvalidParameter where more layers are to be frozen than there are."""
    if frozen > layers:
        hint = f"Choose at most {layers}; all of them leaves only the head to train."
        raise InvalidParameter(f"The base model has {layers} layers, not {frozen}.", hint=hint)


def rows_of_steps(rows: int, accumulation: int = 1) -> int:
    """Rows a pass with which an epoch of so many rows has STEPS steps.

    >>> rows_of_steps(320), rows_of_steps(320, accumulation=2)
    (16, 8)
    """
    return (rows - 1) // (STEPS - 1) // accumulation  # the last step may have fewer rows


def largest_batch(how: Training, planned: Planned, target: Target, most: int = MOST) -> Fit:
    """The largest batch, a power of two up to `most`, that fits a device with a tenth to spare.

    Frozen layers are not counted on, nor the mixed precision that "auto" may choose, so it rather fits than not.
    """
    found = Fit(0, planned(replace(how, batch_size=1)).safe_total, target.usable)
    size = 1
    while size <= most:
        plan = planned(replace(how, batch_size=size))
        if plan.fit(target).level != "fits":
            break
        found = Fit(size, plan.safe_total, target.usable)
        size *= 2
    return found
