"""Adaptive pretraining: before it learns the labels, the base model learns the words of the training texts.

A share of the tokens has to be guessed, as when the base model was made (Gururangan et al. 2020, "Don't Stop
Pretraining"). Most of them are masked, some are other words and some are left as they are, so that the model learns to
read texts without masks too (Devlin et al. 2019, "BERT"). It helps models that have read little. Texts of the
validation and test rows are not read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import AutoModelForMaskedLM, PrinterCallback, Trainer, TrainerState, TrainingArguments

from .. import folder as files
from ..settings import process_rank, splits_model
from . import checkpoints
from .classifier import own_errors, padded
from .control import Control
from .events import Silent, Writer
from .fitting import MASKED
from .order import grouped
from .prepare import Prepared
from .reporter import Reporter, Rules, check_room
from .runfolder import ADAPTED, ADAPTING
from .split import Splits, splitting, whole_weights
from .trainer import arguments
from .tuning import load_weights

SAYS = "learning the words of your texts"
RATE = 5e-4
OTHERS = 0.1  # of the tokens to guess are replaced by a random word, as many are left as they are, the rest is masked
REST = -100  # the target of a token that is not guessed
GUESSED = "guessed"  # in a batch: which tokens are
LOGS = 50  # points of the loss, of which the log tells the first and the last


def adapt(run: Prepared, writer: Writer, control: Control) -> bool:
    """Give the run's model the weights of the adapted base model, made first where they are not there yet.

    False where it was asked to stop before they were done; the writer then knows.
    """
    rounds, path = run.plan.get("adaptation", 0), run.folder / ADAPTED  # none in the plan of an older version
    if not rounds:
        return True
    if path.exists():
        learned = load_file(path)
    elif model := _learned(run, rounds, writer, control):
        learned = _inner(model)
        if not process_rank():
            _keep(learned, path)
    else:
        return False
    _give(run.model, learned)
    return True


def give_kept(run: Prepared) -> None:
    """Give the run's model the weights that adaptive pretraining has left, where it has left any."""
    if (path := run.folder / ADAPTED).exists():
        _give(run.model, load_file(path))


def _give(model: Any, learned: Mapping[str, torch.Tensor]) -> None:
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model  # without LoRA around it
    names = {name.replace(".base_layer.", "."): name for name in whole.base_model.state_dict()}  # nor within it
    found = {names[name]: value for name, value in learned.items() if name in names}
    whole.base_model.load_state_dict(found, strict=False)  # a pooler is the classifier's own


def _learned(run: Prepared, rounds: int, writer: Writer, control: Control) -> Any:
    """The base model after so many rounds over the texts; None where it was asked to stop."""
    place, model = run.folder / ADAPTING, _base(Path(run.order.base))
    place.mkdir(exist_ok=True)
    rules = _rules(model, run.config.checkpoint_steps)
    check_room(run.folder, (checkpoints.KEPT + 1) * rules.room, "Its checkpoints take up to")
    reporter = Telling(place, writer, control, rules)
    split, last = splits_model(), checkpoints.newest(place, tidy=process_rank() == 0)
    if split and last:
        load_weights(model, last)
    keep_guessed(model)
    loop = (Splits if split else Trainer)(
        model=model,
        args=_arguments(run, place, rounds, **(splitting(model) if split else {})),
        train_dataset=MaskedRows(run, rounds),
        data_collator=collate(run.pad),
        compute_loss_func=loss,
        callbacks=[reporter],
    )
    loop.remove_callback(PrinterCallback)  # it prints every point
    loop.train(resume_from_checkpoint=str(last) if last else None)
    if loop.state.global_step < loop.state.max_steps:
        phase, said = ("interrupted", "The app ended") if control.stopping == "interrupted" else ("stopped", "Stopped")
        writer.end(phase, f"{said} while it was {SAYS}. Resume to go on from there.")
        return None
    writer.log(_said(loop.state, rounds))
    return model


def _inner(model: Any) -> dict[str, torch.Tensor]:
    """The weights without the head, by their names in the base model."""
    inside, every = f"{model.base_model_prefix}.", whole_weights(model)
    return {name.removeprefix(inside): value for name, value in every.items() if name.startswith(inside)}


def _base(folder: Path) -> Any:
    files.check_safe(folder)
    with own_errors(f"The model of {folder.name}"):
        return AutoModelForMaskedLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )


def _keep(learned: Mapping[str, torch.Tensor], path: Path) -> None:
    """Save it, whole or not at all."""
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in learned.items()}, part)
    os.replace(part, path)
    shutil.rmtree(path.parent / ADAPTING, ignore_errors=True)


def _rules(model: Any, every: int | None) -> Rules:
    size = 12 * sum(part.numel() for part in model.parameters()) + 1_000_000  # weights and two moments
    return Rules(frozenset(), "loss", judged_on=0, patience=0, samples=1, checkpoint_steps=every, room=size)


def _arguments(run: Prepared, place: Path, rounds: int, **more: Any) -> TrainingArguments:
    """One epoch of the library's over the rows of all rounds, in the order in which they lie."""
    steps = max(1, rounds * len(run.sets["train"]) // (run.config.batch_size * run.config.gradient_accumulation))
    config = run.config.merge({"epochs": 1, "schedule": "linear", "warmup": 0.1})
    told = {"learning_rate": RATE, "logging_steps": max(1, steps // LOGS)}
    args = arguments(config, place, run.plan | told, **more)
    args.train_sampling_strategy = "sequential"
    return args


def _said(state: TrainerState, rounds: int) -> str:
    """
    >>> _said(TrainerState(log_history=[{"loss": 6.02, "step": 1}, {"loss": 3.5, "step": 9}]), 10)
    'Adaptive pretraining, epochs: 10; the loss of masked words went from 6.02 to 3.50.'
    """
    found = [row["loss"] for row in state.log_history if "loss" in row]
    change = f"; the loss of masked words went from {found[0]:.2f} to {found[-1]:.2f}" if found else ""
    return f"Adaptive pretraining, epochs: {rounds}{change}."


class Telling(Reporter):
    """The reporter of a training, which tells of it as a part of the preparation."""

    def __init__(self, folder: Path, writer: Writer, control: Control, rules: Rules) -> None:
        super().__init__(folder, Silent(folder), control, rules)
        self._told = writer

    def _progress(self, state: TrainerState) -> None:
        self._told.phase("preparing", SAYS, state.global_step / max(1, state.max_steps), self._left(state))


class MaskedRows(Dataset[dict[str, Any]]):
    """The training rows of all rounds one after another, each time with other tokens to guess.

    Which they are depends on the seed and the place alone, so that a resume sees the same.
    """

    def __init__(self, run: Prepared, rounds: int) -> None:
        words = run.tokenizer
        self._special = np.array(sorted(words.all_special_ids))
        self._words = np.setdiff1d(np.arange(len(words)), self._special)
        self._mask, self._seed = words.mask_token_id, run.config.seed
        instead = words.unk_token_id if words.unk_token_id is not None else run.pad  # of a mask that somebody typed
        self._ids = [[instead if i == self._mask else i for i in row] for row in run.sets["train"].ids]
        lengths, batch = run.sets["train"].lengths, run.config.batch_size
        self._order = [row for round in range(rounds) for row in grouped(lengths, batch, self._seed + round)]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> dict[str, Any]:
        ids = np.array(self._ids[self._order[place]])
        generator = np.random.default_rng((self._seed, place))
        chance = generator.random(len(ids))
        chance[np.isin(ids, self._special)] = 2.0
        chosen = (chance < MASKED) | (chance == min(1.0, chance.min()))  # one at least, where there is a word
        how, words = generator.random(len(ids)), generator.choice(self._words, len(ids))
        instead = np.select([how < OTHERS, how < 2 * OTHERS], [words, ids], self._mask)
        return {"ids": np.where(chosen, instead, ids), "truth": np.where(chosen, ids, REST)}


def collate(pad: int) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Rows as one batch, padded to its longest."""

    def batch(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        truth = padded([row["truth"] for row in rows], REST)["input_ids"]
        return padded([row["ids"] for row in rows], pad) | {"labels": truth, GUESSED: truth != REST}

    return batch


def keep_guessed(model: Any) -> None:
    """Have the model give logits for tokens to guess only, (such tokens, vocabulary): most of the work is saved."""
    chosen: list[torch.Tensor] = []

    def note(module: nn.Module, args: Any, inputs: dict[str, torch.Tensor]) -> Any:
        chosen[:] = [inputs[GUESSED]]
        return args, {name: value for name, value in inputs.items() if name != GUESSED}

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        output["last_hidden_state"] = output.last_hidden_state[chosen[0]]
        return output

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.base_model.register_forward_hook(keep)


def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The cross-entropy of the tokens to guess: its mean, or its part of the mean over all batches of one step."""
    wanted = labels[labels != REST]
    total = functional.cross_entropy(outputs.logits.float(), wanted, reduction="sum")
    return total / max(1, len(wanted) if num_items_in_batch is None else num_items_in_batch)
