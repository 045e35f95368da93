"""Measure a finished encoder and write its card: `python -m encoder.card`.

The card is written by this script and never by hand, so its figures are those of the files beside it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from tokenizers import Tokenizer
from transformers import DistilBertForMaskedLM

from encoder.evaluate import MaskedWords, Task, Tuning, finetune, linear, masked_words, ours, public
from encoder.text import ROOT, Corpus, load

ASSETS = ROOT / "assets" / "encoder"
TEXTCLF = ROOT.parent / "shared" / "data" / "textclf"
TRAINING_FILE = "training.json"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Result:
    """Test accuracies on one task, from 0 to 1: the encoder, the same network untrained, the linear model."""

    task: Task
    encoder: float
    untrained: float
    linear: float


@dataclass(frozen=True)
class Report:
    """All that the card says about a finished encoder."""

    masked: MaskedWords
    results: list[Result]
    parameters: int
    layers: int
    width: int
    megabytes: float


def measure_task(folder: Path, task: Task, seeds: tuple[int, ...]) -> Result:
    """Measure one task and print what was found."""
    trained = mean(finetune(folder, task, seed) for seed in seeds)
    untrained = mean(finetune(folder, task, seed, pretrained=False) for seed in seeds)
    result = Result(task, trained, untrained, linear(task))
    print(row(result), flush=True)
    return result


def measure(corpus: Corpus, folder: Path, textclf: Path) -> Report:
    """Load the finished files and run every test on them; the public sets once, ours once a seed."""
    network = DistilBertForMaskedLM.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    results = [measure_task(folder, task, SEEDS) for task in ours()]
    results += [measure_task(folder, task, SEEDS[:1]) for task in public(textclf)]
    return Report(
        masked_words(network, tokenizer, corpus.withheld),
        results,
        sum(parameter.numel() for parameter in network.parameters()),
        network.config.n_layers,
        network.config.dim,
        (folder / "model.safetensors").stat().st_size / 1e6,
    )


def row(result: Result) -> str:
    """Format the figures of a task as a row of a Markdown table."""
    task = result.task
    figures = " | ".join(f"{100 * figure:.1f}" for figure in (result.encoder, result.untrained, result.linear))
    return f"| {task.name} | {len(task.labels())} | {len(task.train):,} | {len(task.test):,} | {figures} |"


def table(results: list[Result]) -> str:
    """Format the figures of all tasks as a Markdown table."""
    head = "| data | classes | training rows | test rows | encoder | same, untrained | TF-IDF + LR |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|", *map(row, results)])


def verdict(results: list[Result]) -> str:
    """Say where the encoder is ahead of the linear model."""
    ahead = [result.task.name for result in results if result.encoder >= result.linear]
    names = ", ".join(ahead) or "none"
    return f"The encoder is at least as good as the linear model on {len(ahead)} of {len(results)}: {names}."


def data_text(corpus: Corpus) -> str:
    """Describe the training text."""
    kinds = Counter(topic.kind for topic in corpus.topics)
    size = sum(map(len, corpus.texts())) / 1000
    return (
        f"{size:.0f} kB of English text, all written for this project: {kinds['guide']} topics of the model `guide` "
        f"with their questions and answers, {kinds['prose']} blocks of prose, {kinds['words']} lists of words that "
        f"belong together, and {len(corpus.loose)} single texts (training rows of our data sets without their labels, "
        "questions, documentation). No other text, word list or model was used. The prose and the lists cover, on "
        "purpose, kinds of text that people classify: reviews, questions, requests, news, messages. They were written "
        "with public data sets of these kinds in mind, but no sentence was taken from one."
    )


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: fill-mask
---

# encoder

A DistilBERT of {parameters:.2f} million parameters ({megabytes:.1f} MB): {layers} layers {width} wide, lower case, a
WordPiece vocabulary of its own. It is built into the app so that fine-tuning and fill-mask work without a download.
Written by `python -m encoder.train`.

The weights are stored in half precision and are loaded in single precision, which fine-tuning needs.

## Data

{data}

## Training

Trained from scratch in {minutes:.1f} minutes of processor time on each of {threads} cores: {steps} steps, {texts}
texts, {tokens} tokens. Whole words are masked and predicted; besides, the first token has to tell which of the topics
the text is from, which makes it useful for classification (the head for that is not kept). Muon trains the matrices
of the layers and AdamW the rest.

## Results

**Masked words**: of {masked.tokens} tokens in masked words of {lines} lines withheld from training,
{right:.1f} % are predicted right, and {top_five:.1f} % are among the first five; always naming the commonest
token would be right for {commonest:.1f} %. Most of these lines are questions about the app, which are easier than
free text.

**Classification**: test accuracy in percent after fine-tuning, beside the same network from random weights and beside
TF-IDF (words and pairs) with logistic regression. Our sets: mean of {seeds} seeds, test rows withheld from all
training, labels and texts. Public sets: one seed, test rows as published or one fifth; none of their text was used
before fine-tuning.

{table}

{verdict}

Fine-tuned with AdamW, learning rate {tuning.rate:g} with warm-up and linear decay, batches of {tuning.batch}, at most
{tuning.longest} tokens, for about {tuning.steps} steps: {tuning.least_epochs} epochs for large sets, up to
{tuning.most_epochs} for small ones. Chosen on rows of the training parts.

The app trains it otherwise: it first learns the words of the training rows (adaptive pretraining), then takes the
learning rate 0.0003 and eight to ten epochs, and keeps rows for validation. Its figures beside a stronger TF-IDF
baseline are in `bench/RESULTS.md`.

## Limits

It has read less than a megabyte of text, where DistilBERT read gigabytes. It knows common words and what goes with
them, little grammar and no facts; words it has never seen are cut into pieces that say little. Our test sets are
small: one row is more than half a percentage point. For real work fine-tune `distilbert-base-uncased` instead; this one
shows how it is done, on any machine, in a minute.

## Licence

MIT, like the project.
"""


def write_card(report: Report, corpus: Corpus, folder: Path) -> None:
    """Write the card beside the model."""
    training = json.loads((folder / TRAINING_FILE).read_text("utf-8"))
    masked = report.masked
    text = CARD.format(
        parameters=report.parameters / 1e6,
        layers=report.layers,
        width=report.width,
        megabytes=report.megabytes,
        tuning=Tuning(),
        data=data_text(corpus),
        lines=len(corpus.withheld),
        right=masked.percent(masked.right),
        top_five=masked.percent(masked.top_five),
        commonest=masked.percent(masked.commonest),
        seeds=len(SEEDS),
        table=table(report.results),
        verdict=verdict(report.results),
        **{**training, "masked": masked},
    )
    (folder / "README.md").write_text(text, "utf-8")


def finish(corpus: Corpus, folder: Path, textclf: Path) -> Report:
    """Measure a finished encoder, print its figures and write its card."""
    report = measure(corpus, folder, textclf)
    write_card(report, corpus, folder)
    print(verdict(report.results))
    return report


def main() -> None:
    """Write the card of the encoder that is in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ASSETS, help="folder with the finished encoder")
    parser.add_argument("--textclf", type=Path, default=TEXTCLF, help="folder with public data sets to measure on")
    parser.add_argument("--threads", type=int, default=2, help="threads for measuring")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    finish(load(), arguments.model, arguments.textclf)


if __name__ == "__main__":
    main()
