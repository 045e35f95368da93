"""Measure an encoder: masked words, and text classification after fine-tuning beside a linear model."""

from __future__ import annotations

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertForSequenceClassification

from encoder.batches import Line, mask, pad
from encoder.model import ID, NO_TOPIC, PAD
from encoder.text import NAMES, Row, in_test, rows
from guide.batches import group

TOKENS = 1024


@dataclass(frozen=True)
class Task:
    """A data set with a fixed split."""

    name: str
    train: list[Row]
    test: list[Row]

    def labels(self) -> list[str]:
        """List the labels in order."""
        return sorted({row.label for row in self.train})


@dataclass(frozen=True)
class Tuning:
    """How an encoder is fine-tuned."""

    steps: int = 400
    most_epochs: int = 12
    least_epochs: int = 4
    batch: int = 32
    rate: float = 5e-4
    longest: int = 128

    def epochs(self, rows: int) -> int:
        """Return how often the rows are gone through: small sets more often than large ones."""
        wanted = math.ceil(self.steps * self.batch / rows)
        return min(self.most_epochs, max(self.least_epochs, wanted))


@dataclass(frozen=True)
class MaskedWords:
    """How many tokens of masked words were predicted right, and how many always naming the commonest would be."""

    tokens: int
    right: int
    top_five: int
    commonest: int

    def percent(self, number: int) -> float:
        """Return a share of the tokens in percent."""
        return 100 * number / max(1, self.tokens)


def ours() -> Iterator[Task]:
    """Yield our own data sets; the encoder has never seen their test rows."""
    for name in NAMES:
        found = rows(name)
        yield Task(name, [r for r in found if not in_test(r.text)], [r for r in found if in_test(r.text)])


def tsv(path: Path, text: int, label: int) -> list[Row]:
    """Read two columns of a file of tab-separated values without a header."""
    with open(path, encoding="utf-8", newline="") as file:
        return [Row(row[text], row[label]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def split(name: str, found: list[Row]) -> Task:
    """Split a data set that comes without test rows: one fifth, stratified."""
    labels = [row.label for row in found]
    return Task(name, *train_test_split(found, test_size=0.2, stratify=labels, random_state=42))


def sst2(folder: Path) -> Task:
    """Read the film reviews."""
    return Task("sst2", tsv(folder / "train.tsv", 0, 1), tsv(folder / "test.tsv", 0, 1))


def trec6(folder: Path) -> Task:
    """Read the questions."""
    parts = [(folder / f"TREC.{part}.all").read_text("iso-8859-1").splitlines() for part in ("train", "test")]
    found = [[Row(line.split(" ", 1)[1], line.split(" ", 1)[0]) for line in part] for part in parts]
    return Task("trec6", *found)


def sms_spam(folder: Path) -> Task:
    """Read the text messages, each once: the file repeats many, and copies would be on both sides."""
    return split("sms_spam", list(dict.fromkeys(tsv(folder / "sms.tsv", 1, 0))))


def ag_news(folder: Path) -> Task:
    """Read the news; only the file of 7,600 rows."""
    with open(folder / "test.csv", encoding="utf-8", newline="") as file:
        return split("ag_news", [Row(f"{title}. {text}", label) for label, title, text in csv.reader(file)])


def clinc150(folder: Path) -> Task:
    """Read the requests to an assistant, without those out of scope."""
    found = json.loads((folder / "data_full.json").read_text("utf-8"))
    return Task("clinc150", *([Row(*pair) for pair in found[part]] for part in ("train", "test")))


READERS: dict[str, Callable[[Path], Task]] = {
    "sst2": sst2,
    "trec6": trec6,
    "sms_spam": sms_spam,
    "ag_news": ag_news,
    "clinc150": clinc150,
}


def public(folder: Path) -> Iterator[Task]:
    """Yield those of the public data sets that are there."""
    for name, read in READERS.items():
        if (folder / name).is_dir():
            yield read(folder / name)


@torch.no_grad()
def masked_words(network: DistilBertForMaskedLM, tokenizer: Tokenizer, texts: tuple[str, ...]) -> MaskedWords:
    """Mask 15 % of the words of each text and count the tokens predicted right."""
    network.eval()
    rng, right, top_five = random.Random(0), 0, 0
    wanted: Counter[int] = Counter()
    lines = [mask(found, 0.15, tokenizer.get_vocab_size(), rng) for found in tokenizer.encode_batch(list(texts))]
    for batch in group(lines, TOKENS, rng):
        ids, targets, _ = pad(batch)
        chosen = targets != NO_TOPIC
        scores = network(ids, attention_mask=(ids != ID[PAD]).long()).logits[chosen]
        best = scores.topk(5).indices == targets[chosen][:, None]
        right, top_five = right + int(best[:, 0].sum()), top_five + int(best.sum())
        wanted.update(targets[chosen].tolist())
    return MaskedWords(wanted.total(), right, top_five, max(wanted.values()))


def linear(task: Task) -> float:
    """Return the test accuracy of TF-IDF with logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit([row.text for row in task.train], [row.label for row in task.train])
    return float(model.score([row.text for row in task.test], [row.label for row in task.test]))


def encode(tokenizer: Tokenizer, found: list[Row], labels: list[str], longest: int) -> list[Line]:
    """Encode rows; the number of the label takes the place of the topic."""
    tokenizer.enable_truncation(longest)
    encoded = tokenizer.encode_batch([row.text for row in found])
    numbers = {label: number for number, label in enumerate(labels)}
    return [Line(e.ids, [], numbers[row.label]) for e, row in zip(encoded, found, strict=True)]


def classifier(folder: Path, labels: int, pretrained: bool) -> DistilBertForSequenceClassification:
    """Load an encoder with a new head, or the same network with random weights."""
    settings = DistilBertConfig.from_pretrained(folder, num_labels=labels, attn_implementation="eager")
    if not pretrained:
        return DistilBertForSequenceClassification(settings)
    return DistilBertForSequenceClassification.from_pretrained(folder, config=settings)


def finetune(folder: Path, task: Task, seed: int, tuning: Tuning = Tuning(), pretrained: bool = True) -> float:
    """Fine-tune an encoder on a task and return its test accuracy."""
    torch.manual_seed(seed)
    labels, tokenizer = task.labels(), Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = classifier(folder, len(labels), pretrained)
    lines, rng = encode(tokenizer, task.train, labels, tuning.longest), random.Random(seed)
    epochs = tuning.epochs(len(lines))
    batches = [batch for _ in range(epochs) for batch in by_length(lines, tuning.batch, rng)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=tuning.rate, weight_decay=0.01)
    rise = max(1, len(batches) // 10)
    network.train()
    for number, batch in enumerate(batches):
        scale = min((number + 1) / rise, (len(batches) - number) / (len(batches) - rise))
        optimizer.param_groups[0]["lr"] = tuning.rate * scale
        optimizer.zero_grad()
        ids, _, wanted = pad(batch)
        torch.nn.functional.cross_entropy(scores(network, ids), wanted).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return accuracy(network, encode(tokenizer, task.test, labels, tuning.longest))


def by_length(lines: list[Line], size: int, rng: random.Random) -> list[list[Line]]:
    """Group lines of similar length into batches of equally many, in random order."""
    drawn = sorted(rng.sample(lines, len(lines)), key=lambda line: len(line.ids) + rng.uniform(-3, 3))
    batches = [drawn[i : i + size] for i in range(0, len(drawn), size)]
    rng.shuffle(batches)
    return batches


def scores(network: DistilBertForSequenceClassification, ids: Tensor) -> Tensor:
    """Return the scores of the labels, (texts, labels)."""
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = network(ids, attention_mask=(ids != ID[PAD]).long()).logits
    return found.float()


@torch.no_grad()
def accuracy(network: DistilBertForSequenceClassification, lines: list[Line]) -> float:
    """Return the share of lines whose label is predicted right."""
    network.eval()
    right = 0
    for batch in group(list(lines), TOKENS, random.Random(0)):
        ids, _, wanted = pad(batch)
        right += int((scores(network, ids).argmax(-1) == wanted).sum())
    return right / len(lines)
