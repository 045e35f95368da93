"""Transformers' Trainer with what it lacks: rows of like length together in an order that resumes, and class weights.

Evaluations and checkpoints are decided by the reporter alone, step by step, so the Trainer's own strategies are off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import distributed
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainingArguments

from .classifier import padded
from .metrics import decided
from .order import grouped
from .scores import loaded
from .types import Task, TrainConfig

Loss = Callable[..., torch.Tensor]


class Rows(Dataset[dict[str, Any]]):
    """Token ids and truths."""

    def __init__(self, ids: Sequence[Sequence[int]], truth: Sequence[Any]) -> None:
        self.ids, self.truth = ids, truth
        self.lengths = [len(row) for row in ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"ids": self.ids[index], "truth": self.truth[index]}

    def take(self, indexes: Sequence[int]) -> Rows:
        """Only these rows, in this order."""
        return Rows([self.ids[i] for i in indexes], [self.truth[i] for i in indexes])


def collate(pad: int, task: Task) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Rows as one batch, padded to its longest."""
    kind = torch.int64 if task == "single_label" else torch.float32

    def batch(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        found = padded([row["ids"] for row in rows], pad)
        return found | {"labels": torch.tensor(np.array([row["truth"] for row in rows]), dtype=kind)}

    return batch


class InOrder(Sampler[int]):
    """`order.grouped` as the library wants it: each epoch has an order of its own, the same after a resume.

    `epoch` is asked for whenever one begins: after a resume of several processes the Trainer's `set_epoch` gets lost
    in the samplers that are put around this one.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths, self._batch, self._seed, self._epoch = lengths, batch, seed, epoch

    def __iter__(self) -> Iterator[int]:
        return iter(grouped(self._lengths, self._batch, self._seed + self._epoch()))

    def __len__(self) -> int:
        return len(self._lengths)


class GroupedTrainer(Trainer):
    """The Trainer with our order of rows."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # Batches are dealt to the processes in turn, so those of one step are neighbours in length.
        each = self.args.train_batch_size * self.args.world_size
        rows = cast(Rows, self.train_dataset)
        return InOrder(rows.lengths, each, self.args.seed, lambda: int(self.state.epoch or 0))


def loss_function(task: Task, weights: Sequence[float] | None) -> Loss:
    """The loss of a batch: its mean, or its part of the mean over all batches of one step.

    Cross-entropy; for several labels binary cross-entropy of each; for numbers the squared error. `weights`: by class.
    """
    by_class = torch.tensor(weights) if weights else None

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        found = outputs.logits.float()
        weight = by_class.to(found.device) if by_class is not None else None
        if task == "single_label":
            total = functional.cross_entropy(found, labels, weight=weight, reduction="sum")
        elif task == "multi_label":
            total = functional.binary_cross_entropy_with_logits(found, labels, pos_weight=weight, reduction="sum")
        else:
            total = functional.mse_loss(found.reshape(-1), labels.reshape(-1), reduction="sum")
        return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    return loss


def class_weights(truth: Sequence[Any], task: Task, classes: int) -> list[float] | None:
    """Weights under which all classes count alike; 1 on average over the rows. None for numbers.

    For several labels: how much more a label weighs where it is than where it is not, at most 20.
    """
    if task == "regression":
        return None
    if task == "multi_label":
        have = np.asarray(truth).sum(axis=0)
        return [float(min(20.0, (len(truth) - n) / max(1.0, n))) for n in have]
    counts = np.bincount(np.asarray(truth), minlength=classes)
    return [float(len(truth) / (np.count_nonzero(counts) * max(1, n))) for n in counts]


def arguments(config: TrainConfig, folder: Path, plan: dict[str, Any], **more: Any) -> TrainingArguments:
    """The library's settings for a run; `plan` has what was chosen for it, `more` are settings beside ours."""
    cpu = plan["device"] == "cpu"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        learning_rate=plan["learning_rate"],
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=min(64, 2 * config.batch_size),
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        bf16=plan["precision"] == "bfloat16",
        fp16=plan["precision"] == "float16",
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and distributed.is_torchelastic_launched() else None,
        ddp_find_unused_parameters=False,
        seed=config.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=plan["logging_steps"],
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        report_to="none",  # trackers come as callbacks of their own, which training does not wait for
        project=plan.get("project", "multimodel"),
        run_name=config.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=not cpu,
        **more,
    )


def figures(task: Task, place: Path) -> Callable[[Any], dict[str, float]]:
    """What the Trainer computes in an evaluation; `place`: a folder for files of `evaluate`."""
    module = loaded(task, place)
    return lambda found: module.compute(predictions=decided(found.predictions, task), references=found.label_ids)
