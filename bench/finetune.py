"""Fine-tuning and prediction against what people use today: `python -m bench.finetune`.

Training: a DistilBERT of the base shape with random weights, on SST-2 rows, through `Trainer.train()` each:
run_classification.py's default (float32, every row padded to 128 tokens), the stock Trainer (float32, padded to the
longest of the batch), and ours. Prediction: the same shape, 10,000 rows, against `pipeline("text-classification")` at
the batch size that is best for it, in float32 and in 8 bits. How good models are: bench.finetune_quality; what the
interface costs: bench.finetune_beside.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)

from multimodel.finetune import classifier, onnx, prepare, trainer
from multimodel.finetune import data as rows
from multimodel.finetune.data import Dataset
from multimodel.finetune.events import Silent
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.predict import Predictor
from multimodel.finetune.reading import read
from multimodel.finetune.runfolder import DATA
from multimodel.finetune.store import Store, write_manifest
from multimodel.finetune.types import TrainConfig
from multimodel.settings import ModelSettings, PerformanceSettings, Settings

from .kills import ordered
from .report import ROOT, Report, Table, finish, in_turn, load, paired, parser

SETS = ROOT.parent / "shared" / "data" / "textclf"
VOCABULARY = ROOT.parent / "shared" / "data" / "tokenizers" / "bert-base-uncased"
BATCH = 32
PADDED = 128
TINY = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128}
SIZES = (1, 2, 4, 8, 16, 32)  # batch sizes of the pipeline
ROWS = 10_000
TRIAL = 600  # rows on which its best batch size is found


@dataclass(frozen=True)
class Speed:
    """Rows a second."""

    rows: float


class Clock(TrainerCallback):
    """Seconds of all steps but the first, which allocates."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is over."""
        self.marks.append(time.perf_counter())

    def speed(self, batch: int) -> Speed:
        """Rows a second after the first step."""
        return Speed(batch * (len(self.marks) - 1) / (self.marks[-1] - self.marks[0]))


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.set_defaults(rounds=2)
    asked = options.parse_args()
    if not SETS.exists():
        print(f"{SETS} is not there.", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    classifier.quiet()
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        training, notes = train(Path(folder), asked)
        prediction, more = predict(Path(folder), asked)
    packages = ("torch", "transformers", "accelerate", "tokenizers", "onnxruntime")
    report = Report("finetune", "Fine-tuning", (training, prediction), (*notes, *more), packages)
    return finish(report, asked, before, "1")


# --- training ---


def train(place: Path, asked: Any) -> tuple[Table, list[str]]:
    """Samples a second of the three ways to train, in turn."""
    base = model_folder(place, tiny=asked.tiny)
    steps = 3 if asked.tiny else 24
    run = prepared(place, base, count=steps * BATCH)
    ways: dict[str, Callable[[int], Speed]] = {
        "padded to 128, float32": lambda _: stock(run, place, steps, padded_to=PADDED),
        "stock Trainer, float32": lambda _: stock(run, place, steps),
        "MultiModel": lambda _: ours(run, place, steps),
    }
    found = {name: [speed.rows for speed in speeds] for name, speeds in in_turn(ways, asked.rounds, warm_up=0).items()}
    mine = found["MultiModel"]
    lines = [(name, f"{median(v):.1f}", f"{paired(mine, v):.2f}" if v is not mine else "") for name, v in found.items()]
    table = Table(("training", "samples/s", "ours is … times as fast"), tuple(lines), "Training, batches of 32 rows")
    lengths = run.sets["train"].lengths
    notes = [
        f"Training: {steps} steps a turn on {len(lengths)} rows of SST-2, {np.mean(lengths):.1f} tokens on average; "
        f"{run.plan['parameters'] / 1e6:.0f} million random weights; ours in {run.plan['precision_reason']}.",
    ]
    return table, notes


def model_folder(place: Path, *, tiny: bool) -> Path:
    """A DistilBERT of random weights with the uncased vocabulary."""
    folder = place / "base"
    tokenizer = transformers.BertTokenizerFast.from_pretrained(VOCABULARY)
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=len(tokenizer), num_labels=2, **(TINY if tiny else {}))
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder


def prepared(place: Path, base: Path, count: int) -> prepare.Prepared:
    """A run on the first rows of SST-2, planned as any run is."""
    table = read(SETS / "sst2" / "train.tsv")
    lines = [f"{text}\t{label}" for text, label in table.rows[:count]]
    (place / "sst2.tsv").write_text("text\tlabel\n" + "\n".join(lines), encoding="utf-8")
    settings = Settings(models=ModelSettings(fine_tuned_dir=place / "models"))
    config = TrainConfig(
        data=str(place / "sst2.tsv"),
        name="bench",
        base=str(base),
        epochs=1,
        batch_size=BATCH,
        validation_size=0.0,
        test_size=0.0,
    )
    folder = ordered(config, settings)
    assert (folder / DATA).exists()
    return prepare.prepare(folder, Silent(folder))


def fresh(run: prepare.Prepared) -> Any:
    """The base model again, so that every turn starts from the same weights."""
    return classifier.load_model(Path(run.order.base), run.labels)


def stock(run: prepare.Prepared, place: Path, steps: int, *, padded_to: int | None = None) -> Speed:
    """The library's Trainer with its own defaults."""
    model, clock = fresh(run), Clock()
    pad: dict[str, Any] = {"padding": "max_length", "max_length": padded_to} if padded_to else {}
    collator = transformers.DataCollatorWithPadding(run.tokenizer, **pad)
    part = run.sets["train"]
    features = [{"input_ids": ids, "labels": label} for ids, label in zip(part.ids, part.truth, strict=True)]
    args = transformers.TrainingArguments(
        output_dir=str(place / "stock"),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    loop = Trainer(model=model, args=args, train_dataset=features, data_collator=collator, callbacks=[clock])
    loop.remove_callback(PrinterCallback)
    loop.train()
    return clock.speed(BATCH)


def ours(run: prepare.Prepared, place: Path, steps: int) -> Speed:
    """Our Trainer, with what the plan chose."""
    clock = Clock()
    loop = trainer.GroupedTrainer(
        model=fresh(run),
        args=trainer.arguments(run.config, place / "ours", run.plan | {"logging_steps": max(1, steps // 4)}),
        train_dataset=run.sets["train"],
        data_collator=trainer.collate(run.pad, run.labels.task),
        compute_loss_func=trainer.loss_function(run.labels.task, None),
        callbacks=[clock],
    )
    loop.remove_callback(PrinterCallback)
    loop.train()
    return clock.speed(BATCH)


# --- prediction ---


def predict(place: Path, asked: Any) -> tuple[Table, list[str]]:
    """Rows a second of prediction on texts of mixed length, in turn; the pipeline's best batch size is found before."""
    texts = mixed(60 if asked.tiny else ROWS)
    folder, own = saved(place, texts)
    exported = onnx.export(folder, own)
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    trial = texts[: max(SIZES) if asked.tiny else TRIAL]

    def pipeline(size: int, some: Sequence[str]) -> Speed:
        return timed(lambda: classify(list(some), batch_size=size, truncation=True), len(some))

    tried = {size: pipeline(size, trial).rows for size in SIZES}
    best = max(tried, key=lambda size: tried[size])
    with Predictor(folder, settings=own) as full, Predictor(folder, precision="int8", settings=own) as short:
        ways: dict[str, Callable[[int], Speed]] = {
            f"pipeline, batches of {best}": lambda _: pipeline(best, texts),
            "MultiModel, float32": lambda _: timed(lambda: full(texts), len(texts)),
            "MultiModel, 8 bits": lambda _: timed(lambda: short(texts), len(texts)),
        }
        found = {n: [v.rows for v in speeds] for n, speeds in in_turn(ways, asked.rounds, warm_up=0).items()}
        same = np.mean([a.label == b.label for a, b in zip(full(trial), short(trial), strict=True)])
    theirs = next(iter(found.values()))
    lines = [(n, f"{median(v):.1f}", f"{paired(v, theirs):.2f}" if v is not theirs else "") for n, v in found.items()]
    words = np.mean([len(text.split()) for text in texts])
    caption = f"Prediction, {len(texts):,} texts of {words:.0f} words on average, from three data sets"
    sizes = ", ".join(f"{size}: {speed:.1f}" for size, speed in tried.items())
    agreed = json.loads((exported / onnx.AGREEMENT).read_text("utf-8"))
    notes = [
        f"Prediction: the pipeline's rows a second on {len(trial):,} texts by batch size: {sizes}.",
        f"8 bits: {same:.1%} of {len(trial):,} answers as in float32, probabilities at most "
        f"{agreed['largest_difference']:.3f} apart on {agreed['rows']:,} texts (random weights: the worst case); "
        f"{agreed['bytes']['int8'] / 1e6:.0f} MB instead of {agreed['bytes']['float32'] / 1e6:.0f} MB.",
    ]
    return Table(("prediction", "rows/s", "times as fast as the pipeline"), tuple(lines), caption), notes


def saved(place: Path, texts: Sequence[str]) -> tuple[Path, Settings]:
    """The model of random weights as the app saves one, with the rows of its run."""
    models = ModelSettings(fine_tuned_dir=place / "saved")
    settings = Settings(models=models, performance=PerformanceSettings(threads=1))
    folder, run = models.fine_tuned_dir / "bench", Store(settings).runs / "bench"
    shutil.copytree(place / "base", folder)
    labels = LabelMap("single_label", ("a", "b"))
    labels.save(folder)
    write_manifest(folder)
    run.mkdir(parents=True)
    some = tuple(texts[:1000])
    which = tuple("ab"[i % 2] for i in range(len(some)))
    rows.save(Dataset(some, which, ("test",) * len(some), tuple(range(len(some)))), run / DATA)
    return folder, settings


def mixed(count: int) -> list[str]:
    """Texts of short, middle and long sets in turn, each once."""
    news = [str(row[2]) for row in read(SETS / "ag_news" / "test.csv").rows]
    reviews = [str(row[0]) for name in ("train", "dev") for row in read(SETS / "sst2" / f"{name}.tsv").rows]
    questions = [str(row[0]) for row in read(SETS / "clinc150" / "data_full.json").rows]
    return list(dict.fromkeys(text for three in zip(news, reviews, questions, strict=False) for text in three))[:count]


def timed(work: Callable[[], Sequence[Any]], rows: int) -> Speed:
    """Rows a second of a call."""
    started = time.perf_counter()
    work()
    return Speed(rows / (time.perf_counter() - started))


if __name__ == "__main__":
    raise SystemExit(main())
