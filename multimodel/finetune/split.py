"""One model split over several processes (FSDP): each holds its part of the weights, gradients and moments.

`accelerate launch --use_fsdp` asks for it. A checkpoint is that of a run that is not split: either goes on from the
other's, and what judges and saves the model reads whole weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .events import Writer
from .trainer import GroupedTrainer
from .tuning import layers_of

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # as the Trainer calls them


def splitting(model: Any) -> dict[str, Any]:
    """Settings of the library for a model that is split: its layers one by one, so that one at a time is whole."""
    layers = {type(layer).__name__ for layer in layers_of(model)}
    config = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": sorted(layers) or None,
        "state_dict_type": "FULL_STATE_DICT",
    }
    return {"fsdp": True, "fsdp_config": config}


class Splits(Trainer):
    """The Trainer with a model that is split, and whole weights and moments in its checkpoints.

    The model has the weights of the checkpoint before it is given here: a split one takes no whole weights.
    """

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate splits models on GPUs only; on the processor it would train whole copies and say nothing."""
        short = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
        policy = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32)  # gradients are summed in full
        settings = self.args.fsdp_plugin_args | {"mixed_precision_policy": policy}
        self.args.fsdp_plugin_args = settings
        super().create_accelerator_and_postprocess()
        if not self.is_fsdp_enabled:
            state = self.accelerator.state
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin(**settings)
            self.is_fsdp_enabled = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole weights; all processes give their parts, the first one keeps them."""
        self._save(output_dir, whole_weights(self.model, self.args.should_save))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights are there already."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        optimizer, schedule = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        whole = _each(optimizer.state_dict(), lambda _, part: _whole(part, self.args.should_save))
        if self.args.should_save:
            torch.save(whole, Path(output_dir, OPTIMIZER))
            torch.save(schedule.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        optimizer, schedule = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        whole = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", weights_only=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        optimizer.load_state_dict(_each(whole, lambda index, moment: _split(moment, weights[index])))
        schedule.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))


class SplitTrainer(Splits, GroupedTrainer):
    """The same with our order of rows."""


class Share(TrainerCallback):
    """Tells how much of the model this process holds."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """The model is split now."""
        parts = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in model.parameters()]
        mine, every = sum(part.numel() for part in parts), sum(weight.numel() for weight in model.parameters())
        said = f"The model is split: the first of {args.world_size} processes holds {mine:,} of {every:,} weights."
        self._writer.log(said)


def whole_weights(model: Any, keep: bool = True) -> dict[str, Any]:
    """The weights of a model, split or not, on the processor; all its processes have to ask for them."""
    return {name: _whole(part, keep) for name, part in model.state_dict().items()}


def _each(state: dict[str, Any], change: Callable[[int, Any], Any]) -> dict[str, Any]:
    """The state of an optimizer with every value of every weight, given by its index, changed."""
    found = {i: {name: change(i, value) for name, value in values.items()} for i, values in state["state"].items()}
    return {**state, "state": found}


def _whole(part: Any, keep: bool) -> Any:
    """What the processes hold of a tensor, put together; each of them has to ask for it. None unless kept."""
    whole = part.full_tensor() if isinstance(part, DTensor) else part
    if not keep:
        return None
    return whole.cpu() if isinstance(whole, torch.Tensor) else whole


def _split(moment: Any, weight: DTensor) -> Any:
    """This process's part of a moment, as it has its weight; what is not of the weight's shape stays."""
    if not isinstance(moment, torch.Tensor) or moment.shape != weight.shape:
        return moment
    return distribute_tensor(moment.to(weight.device), weight.device_mesh, weight.placements)
