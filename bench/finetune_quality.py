"""How good fine-tuned models are: `python -m bench.finetune_quality`.

Accuracy after equal epochs: the stock Trainer and ours from the same built-in encoder, with the same learning rate, on
SST-2 and TREC, the mean of six seeds. Wrong labels: a tenth of the labels changed, and how high they rank. The built-in
encoder beside TF-IDF: bench.finetune_encoder.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import transformers
from sklearn.metrics import roc_auc_score

from multimodel.finetune import classifier, prepare, sources, trainer
from multimodel.finetune.baseline import out_of_fold
from multimodel.finetune.data import Dataset
from multimodel.finetune.events import Silent
from multimodel.finetune.types import TrainConfig
from multimodel.settings import Settings

from .finetune import BATCH, SETS
from .kills import alone_in, ordered
from .report import ROOT, Report, Table, finish, load, parser

SEEDS = (1, 2, 3, 4, 5, 6)
EPOCHS = 3
FLIPPED = 0.1


@dataclass(frozen=True)
class Source:
    """A data set, and what its columns are called."""

    name: str
    path: Path
    columns: tuple[str | None, str | None]  # text, label; None: found by itself


def known(place: Path) -> list[Source]:
    """The public data sets, each as one file that says which rows are whose."""
    trec = place / "trec6"
    trec.mkdir()
    for part, file in (("train", "TREC.train.all"), ("test", "TREC.test.all")):
        lines = (SETS / "trec6" / file).read_text("latin-1").splitlines()
        rows = [line.partition(" ") for line in lines if line.strip()]
        found = [{"label": label.partition(":")[0], "text": text} for label, _, text in rows]
        (trec / f"{part}.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return [
        Source("SST-2", SETS / "sst2", (None, None)),
        Source("TREC", trec, ("text", "label")),
        Source("SMS spam", SETS / "sms_spam" / "sms.tsv", (None, None)),
        Source("CLINC150", SETS / "clinc150" / "data_full.json", (None, None)),
        Source("AG News", SETS / "ag_news" / "test.csv", (None, None)),
    ]


def config(source: Source, name: str, **more: Any) -> TrainConfig:
    """A run on a data set."""
    text, label = source.columns
    base = str(ROOT / "assets" / "encoder")
    return TrainConfig(data=str(source.path), base=base, name=name, text_column=text, label_column=label, **more)


# --- equal epochs ---


def equal(place: Path, sets: Sequence[Source], settings: Settings, seeds: Sequence[int], epochs: int) -> Table:
    """Test accuracy of the stock Trainer and of ours, after as many epochs at the same learning rate."""
    lines = []
    for source in sets:
        found: dict[str, list[float]] = {"stock": [], "ours": []}
        for seed in seeds:
            asked = config(source, f"{source.name} {seed}", seed=seed, epochs=epochs, batch_size=BATCH)
            folder = ordered(asked, settings)
            for name, train in (("stock", stock), ("ours", ours)):
                run = prepare.prepare(folder, Silent(folder))
                found[name].append(accuracy(run, train(run, place)))
        theirs, mine = (100 * fmean(found[name]) for name in ("stock", "ours"))
        apart = [100 * (b - a) for a, b in zip(found["stock"], found["ours"], strict=True)]
        lines.append((source.name, f"{theirs:.2f}", f"{mine:.2f}", f"{fmean(apart):+.2f}", error_of(apart)))
    caption = f"Test accuracy after {epochs} epochs, per cent, mean of {len(seeds)} seeds"
    columns = ("data", "stock Trainer", "MultiModel", "difference", "its standard error")
    return Table(columns, tuple(lines), caption)


def error_of(values: Sequence[float]) -> str:
    """The standard error of the mean; nothing for one value.

    >>> error_of([1.0, 2.0, 3.0]), error_of([1.0])
    ('0.58', '')
    """
    return f"{stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""


def stock(run: prepare.Prepared, place: Path) -> Any:
    """The model as the library's Trainer trains it: float32, rows in random order, padded by batch."""
    part = run.sets["train"]
    features = [{"input_ids": ids, "labels": label} for ids, label in zip(part.ids, part.truth, strict=True)]
    args = trainer.arguments(run.config, place / "stock", run.plan | {"logging_steps": 1000, "precision": "float32"})
    loop = transformers.Trainer(
        model=run.model,
        args=args,
        train_dataset=features,
        data_collator=transformers.DataCollatorWithPadding(run.tokenizer),
    )
    return trained(loop)


def ours(run: prepare.Prepared, place: Path) -> Any:
    """The model as ours trains it."""
    loop = trainer.GroupedTrainer(
        model=run.model,
        args=trainer.arguments(run.config, place / "ours", run.plan | {"logging_steps": 1000}),
        train_dataset=run.sets["train"],
        data_collator=trainer.collate(run.pad, run.labels.task),
        compute_loss_func=trainer.loss_function(run.labels.task, None),
    )
    return trained(loop)


def trained(loop: transformers.Trainer) -> Any:
    """The model after the loop."""
    loop.remove_callback(transformers.PrinterCallback)
    loop.train()
    return loop.model


def accuracy(run: prepare.Prepared, model: Any) -> float:
    """Of the test rows."""
    part = run.sets["test"]
    found = classifier.logits(model, part.ids, run.pad)
    return float((found.argmax(axis=1) == np.asarray(part.truth)).mean())


# --- wrong labels ---


def noise(sets: Sequence[Source], settings: Settings, rank: Callable[[Dataset, list[int]], Any]) -> Table:
    """How high changed labels rank: the area under the ROC curve."""
    lines = []
    for source in sets:
        data = sources.mapped(config(source, "noise"), settings)
        data = data.where(lambda i, data=data: data.labelled(i) and data.splits[i] in ("", "train"))  # type: ignore[misc]
        wrong, truth = flipped(data)
        lines.append((source.name, f"{len(data):,}", f"{roc_auc_score(wrong, rank(data, truth)):.3f}"))
    caption = f"Wrong labels: {FLIPPED:.0%} of the labels changed at random, ranked by doubt"
    return Table(("data", "rows", "AUROC"), tuple(lines), caption)


def flipped(data: Dataset) -> tuple[list[bool], list[int]]:
    """(which labels were changed, all labels as class indexes)."""
    generator, classes = random.Random(0), data.classes
    truth = [classes.index(str(label)) for label in data.labels]
    changed = set(generator.sample(range(len(data)), round(FLIPPED * len(data))))
    others = [generator.choice([c for c in range(len(classes)) if c != label]) for label in truth]
    return [i in changed for i in range(len(data))], [others[i] if i in changed else t for i, t in enumerate(truth)]


def doubt(data: Dataset, truth: list[int]) -> Any:
    """What the app ranks suspects by."""
    shares = out_of_fold(data.texts, truth, len(data.classes), 0)
    return 1.0 - shares[np.arange(len(truth)), truth]


def main() -> int:
    """Measure and print."""
    asked = parser(__doc__).parse_args()
    if not SETS.exists():
        print(f"{SETS} is not there.", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    classifier.quiet()
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = alone_in(place / "models")
        sets = known(place)
        if asked.tiny:
            sets = [replace(source, path=cut(source, place)) for source in sets[:3]]
        seeds, epochs = ((1,), 1) if asked.tiny else (SEEDS, EPOCHS)
        tables = (
            equal(place, sets[:2], settings, seeds, epochs),
            noise(sets[:3], settings, doubt),
        )
    packages = ("torch", "transformers", "accelerate", "scikit-learn")
    return finish(
        Report("finetune_quality", "How good fine-tuned models are", tables, (), packages), asked, before, "1"
    )


def cut(source: Source, place: Path) -> Path:
    """The first rows of a data set."""
    table = sources.table(str(source.path), Settings())
    target = place / f"{source.name} cut.jsonl"
    step = max(1, len(table.rows) // 300)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows[::step]]
    target.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return target


if __name__ == "__main__":
    raise SystemExit(main())
