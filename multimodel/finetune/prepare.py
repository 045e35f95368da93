"""Everything that training needs, in memory: model, tokens, truths, and the plan of what suits data and machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..folder import CONFIG, read_json
from . import data as rows
from . import runfolder
from .baseline import score
from .classifier import best_device, encode, load_model, load_tokenizer, longest
from .data import Dataset
from .events import Writer
from .fitting import choose_adaptation
from .labels import LabelMap
from .report import max_length
from .runfolder import Order
from .trainer import Rows
from .tuning import add_lora, choose_learning_rate, choose_precision, counted, freeze
from .types import SPLITS, TrainConfig


@dataclass(slots=True)
class Prepared:
    """A run ready to train. `plan` has what was chosen at the first start: the same after a resume."""

    folder: Path
    order: Order
    data: Dataset
    labels: LabelMap
    tokenizer: Any
    model: Any
    plan: dict[str, Any]
    sets: dict[str, Rows]  # tokens and truths by split

    @property
    def config(self) -> TrainConfig:
        return self.order.config

    @property
    def pad(self) -> int:
        """The token that fills a batch."""
        return int(self.tokenizer.pad_token_id or 0)


def prepare(folder: Path, writer: Writer) -> Prepared:
    """The run of a folder, its plan made where there is none yet. Raises MultimodelError."""
    writer.phase("preparing", "reading the data")
    order = Order.load(folder)
    data = rows.load(folder / runfolder.DATA)
    base = Path(order.base)
    tokenizer = load_tokenizer(base)
    labels = LabelMap.of(data)
    known = labels.known(data)
    if (gone := len(data) - len(known)) and not (folder / runfolder.PLAN).exists():
        writer.log(f"Rows of validation or test left out, because training has no row of their class: {gone:,}.")
    writer.phase("preparing", "loading the base model")
    model = new_model(order, labels)
    found = Prepared(folder, order, known, labels, tokenizer, model, {}, {})
    ids = _planned(found, longest(base, tokenizer), writer)
    found.sets = _sets(known, labels, ids)
    writer.write("plan", values=found.plan)
    return found


def new_model(order: Order, labels: LabelMap) -> Any:
    """The model of a run before its first step, whole, always with the same weights. Raises MultimodelError."""
    set_seed(order.config.seed)  # the new head is drawn at random
    model = load_model(Path(order.base), labels)
    freeze(model, order.config.freeze_layers)
    return add_lora(model, order.config.lora_rank)


def _sets(data: Dataset, labels: LabelMap, ids: Sequence[Sequence[int]]) -> dict[str, Rows]:
    whole = Rows(ids, labels.truth(data.labels))
    return {name: whole.take([i for i, split in enumerate(data.splits) if split == name]) for name in SPLITS}


def _planned(run: Prepared, limit: int, writer: Writer) -> list[list[int]]:
    """Give the run its plan, kept or new; returns the tokens of its texts."""
    path = run.folder / runfolder.PLAN
    if path.exists():
        run.plan = runfolder.read(path)
        return encode(run.tokenizer, run.data.texts, run.plan["max_length"])

    def progress(done: float) -> None:
        writer.phase("preparing", f"reading {len(run.data):,} texts", done)

    whole = encode(run.tokenizer, run.data.texts, limit, progress)
    length, why = _max_length([len(row) for row in whole], limit, run.config)
    ids = whole if length >= limit else encode(run.tokenizer, run.data.texts, length)
    run.plan = {"max_length": length, "max_length_reason": why} | _plan(run, ids, writer)
    runfolder.write(path, run.plan)
    return ids


def _plan(run: Prepared, ids: list[list[int]], writer: Writer) -> dict[str, Any]:
    every, trained = counted(run.model)
    device = best_device(run.config.device).type
    writer.phase("preparing", "measuring which number format is faster")
    precision, reason = choose_precision(run.model, ids, run.pad, run.config.precision, device)
    base = read_json(Path(run.order.base) / CONFIG)
    rounds, why_rounds = choose_adaptation(run.config, base, every, rows.in_splits(run.data)["train"])
    rate, why_rate = choose_learning_rate(every, run.config.learning_rate, run.config.lora_rank > 0)
    writer.phase("preparing", "scoring the baseline")
    judged = _judged_on(run.data)
    return {
        "device": device,
        "precision": precision,
        "precision_reason": reason,
        "adaptation": rounds,
        "adaptation_reason": why_rounds,
        "learning_rate": rate,
        "learning_rate_reason": why_rate,
        "parameters": every,
        "trained_parameters": trained,
        "rows": rows.in_splits(run.data),
        "classes": list(run.labels.classes),
        "task": run.labels.task,
        "metric": _metric(run.config.best_by, run.labels.task == "regression"),
        "judged_on": judged,
        "baseline": _baseline(run, judged),
    }


def _max_length(lengths: Sequence[int], limit: int, config: TrainConfig) -> tuple[int, str]:
    if config.max_length:
        return min(limit, config.max_length), "you chose it"
    ranked = sorted(lengths)
    p99 = ranked[min(len(ranked) - 1, math.ceil(0.99 * len(ranked)) - 1)]
    chosen = max_length(p99, limit)
    over = sum(n > chosen for n in lengths) / len(lengths)
    return chosen, f"99 of 100 texts have at most {p99} tokens; {over:.1%} are cut"


def _metric(asked: str, numbers: bool) -> str:
    """The figure that says what is best: the one asked for, where the task has it."""
    of_classes, of_numbers = ("accuracy", "f1"), ("rmse",)
    if asked == "auto" or asked in (of_classes if numbers else of_numbers):
        return "rmse" if numbers else "f1"
    return asked


def _judged_on(data: Dataset) -> str:
    """The split whose figures are shown: the test rows, else those of validation, else none."""
    return next((name for name in ("test", "validation") if name in data.splits), "")


def _baseline(run: Prepared, name: str) -> dict[str, float]:
    if not name:
        return {}
    parts = (run.data.of("train"), run.data.of(name))
    train, judged = ((part.texts, run.labels.truth(part.labels)) for part in parts)
    found = score(train, judged, run.labels.task, run.labels.classes, run.config.seed)
    if "rmse" in found:
        found["rmse"] *= run.labels.deviation
    return found
