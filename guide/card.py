"""Measure a finished model and write its card: `python -m guide.card`.

The card is written by this script and never by hand, so its figures are those of the files beside it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from guide.agreement import Agreement, compare, messages
from guide.batches import Encoder
from guide.convert import ASSETS, GGUF_FILE, HF_FOLDER
from guide.dialogues import Answers
from guide.evaluate import Case, Score, development_sets, locked_cases, score, topics_named
from guide.text import OUT_OF_SCOPE, Corpus, load, words

TRAINING_FILE = "training.json"
NAMES = {
    "A": ("sentence frames withheld from training", 93.0),
    "Ao": ("out of scope, withheld", 93.0),
    "F": ("follow-ups after one to five turns, combinations withheld", 90.0),
    "D": ("written questions withheld (same authors as the training text)", None),
    "U": ("bare words that two or three topics share", None),
    "L": ("locked questions by other authors", 75.0),
}


@dataclass(frozen=True)
class Report:
    """All that the card says about a finished model."""

    scores: dict[str, Score]
    named: int
    agreement: Agreement
    parameters: int
    megabytes: float


def measure(corpus: Corpus, folder: Path) -> Report:
    """Load the finished files and run every test on them."""
    model = LlamaForCausalLM.from_pretrained(folder / HF_FOLDER, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / HF_FOLDER)
    encoder = Encoder(tokenizer.backend_tokenizer, Answers(corpus))
    sets: dict[str, list[Case]] = {**development_sets(corpus), "L": locked_cases(corpus)}
    scores = {}
    for name, cases in sets.items():
        scores[name] = score(model, encoder, cases)
        print(f"{name}: {scores[name].percent:.1f} % of {scores[name].total}", flush=True)
    chats = [messages(case, encoder.answers) for cases in sets.values() for case in cases]
    return Report(
        scores,
        topics_named(model, encoder, sets["L"]),
        compare(model, tokenizer, folder / GGUF_FILE, chats),
        sum(parameter.numel() for parameter in model.parameters()),
        sum(path.stat().st_size for path in model_files(folder)) / 1e6,
    )


def model_files(folder: Path) -> list[Path]:
    """List the files of the finished model, without the card."""
    return [*(folder / HF_FOLDER).iterdir(), folder / GGUF_FILE]


def table(report: Report) -> str:
    """Format the figures as a Markdown table."""
    rows = ["| Test | Cases | Right | Wanted |", "|---|---:|---:|---:|"]
    for name, (what, wanted) in NAMES.items():
        found = report.scores[name]
        rows.append(
            f"| {name}: {what} | {found.total} | {found.percent:.1f} % | {f'{wanted:.0f} %' if wanted else '-'} |"
        )
    same = report.agreement
    rows.append(
        f"| same greedy answer in both engines | {same.prompts} | {same.percent(same.same_answers):.1f} % | 98 % |"
    )
    rows.append(f"| same tokens in both engines | {same.prompts} | {same.percent(same.same_tokens):.1f} % | 100 % |")
    rows.append(f"| answers that end by themselves | {same.prompts} | {same.percent(same.ended):.1f} % | - |")
    return "\n".join(rows)


def data_text(corpus: Corpus) -> str:
    """Describe the training text."""
    kinds = Counter(topic.kind for topic in corpus.topics.values())
    questions = sum(len(topic.questions) for topic in corpus.topics.values())
    return (
        f"{len(corpus.topics)} topics ({kinds['how']} on using the app, {kinds['term']} terms, {kinds['talk']} small "
        f"talk), {questions} written questions, {len(corpus.out_of_scope)} written questions out of scope and "
        f"{len(corpus.slots.patterns)} patterns for more, and {sum(len(r.targets) for r in corpus.follow_ups)} "
        "follow-up rules. All text was written for this project; no other data and no other model's weights were used."
    )


def coinciding(corpus: Corpus, cases: list[Case]) -> set[str]:
    """Find the questions that happen to occur in the training text word for word."""
    texts = [text for topic in corpus.topics.values() for text in (*topic.questions, *topic.hints)]
    seen = {tuple(words(text)) for text in (*texts, *corpus.out_of_scope)}
    return {case[-1].question for case in cases if tuple(words(case[-1].question)) in seen}


def locked_text(report: Report, corpus: Corpus) -> str:
    """Explain the locked result in more detail."""
    locked, same = report.scores["L"], coinciding(corpus, locked_cases(corpus))
    misses = Counter(miss.wanted == OUT_OF_SCOPE for miss in locked.misses)
    rest = locked.total - len(same)
    rest_right = rest - sum(miss.question not in same for miss in locked.misses)
    return (
        f"Of the {locked.total} locked questions, {locked.right} are right, {misses[False]} questions on a topic and "
        f"{misses[True]} out of scope are wrong; in {report.named} of the wrong ones the guide asks back and names "
        "the right topic. The locked questions were written before the training text, by others, and were not used "
        f"for it; {len(same)} of them occur in it word for word all the same, and of the other {rest} questions "
        f"{100 * rest_right / max(1, rest):.1f} % are right. They are mostly whole sentences with a word of the "
        "topic's name in them. D has shorter and odder wordings, and shows how much harder those are."
    )


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# guide

A chat model of {parameters:.2f} million parameters (Llama architecture, {megabytes:.1f} MB in all files) that
answers questions on MultiModel, explains the terms of the field and makes a little small talk. It is built into
the app so that a first conversation works without a download. Written by `python -m guide.train`.

- `hf/`: safetensors in float16 with tokenizer and settings, for transformers
- `{gguf}`: the same weights as GGUF Q8_0, for llama.cpp

## Data

{data}

## Training

Trained from scratch in {minutes:.1f} minutes of processor time on each of {threads} cores:
{dialogues} generated dialogues, {tokens} tokens, {steps} steps. The tokenizer is a byte-level BPE. Muon trains the
matrices and AdamW the rest, with the loss on the answers only. Most answers are cut where they are decided, so that
time goes into choosing the answer and not into reciting it. Questions are varied by synonyms, word order, left-out
words, typing errors and joined pieces.

## Results

An answer is right when its first nine greedy tokens are those of an answer of the right topic.

{table}

{locked}

## Limits

It knows only the topics it was trained on, answers them in fixed texts, and can take a question for another
one, above all when its words were never seen with the topic. It speaks only English, has no knowledge of the
world, does not follow system prompts and remembers only the conversation it is given, up to 1024 tokens.

## Licence

MIT, like the project.
"""


def write_card(report: Report, corpus: Corpus, folder: Path) -> None:
    """Write the card beside the model."""
    training = json.loads((folder / TRAINING_FILE).read_text("utf-8"))
    text = CARD.format(
        parameters=report.parameters / 1e6,
        megabytes=report.megabytes,
        gguf=GGUF_FILE,
        data=data_text(corpus),
        table=table(report),
        locked=locked_text(report, corpus),
        **training,
    )
    (folder / "README.md").write_text(text, "utf-8")


def finish(corpus: Corpus, folder: Path) -> Report:
    """Measure a finished model, print its figures and write its card."""
    report = measure(corpus, folder)
    write_card(report, corpus, folder)
    print(table(report))
    print(locked_text(report, corpus))
    return report


def main() -> None:
    """Write the card of the model that is in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ASSETS, help="folder with the finished model")
    finish(load(), parser.parse_args().model)


if __name__ == "__main__":
    main()
