"""Train `encoder` from the written text: `python -m encoder.train` does everything.

It trains tokenizer and network for a fixed time, writes the files, measures them and writes the model card.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DistilBertForMaskedLM

from encoder.batches import Mix, Source, stream
from encoder.card import ASSETS, TEXTCLF, TRAINING_FILE, finish
from encoder.model import CLS, CONTEXT, MASK, PAD, SEP, UNKNOWN, Learner, build, train_tokenizer
from encoder.text import Corpus, load
from guide.convert import write_json
from guide.parallel import Exchange
from guide.train import Clock, matrices, optimizers, schedule, step

Batches = Iterator[tuple[Tensor, Tensor, Tensor]]
ARCHITECTURE = {"architectures": ["DistilBertForMaskedLM"], "model_type": "distilbert"}
TOKENIZER_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "cls_token": CLS,
    "sep_token": SEP,
    "mask_token": MASK,
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": CONTEXT,
    "clean_up_tokenization_spaces": False,
}
WORD_WEIGHT = 3  # how often the tokenizer sees a word of the lists, so that few of them are cut


@dataclass(frozen=True)
class Recipe:
    """What may be changed about a training run."""

    minutes: float = 15.0
    threads: int = 2
    seed: int = 1
    width: int = 256
    layers: int = 2
    vocabulary: int = 8192
    rate: float = 1.5e-3
    topic_weight: float = 0.5
    mix: Mix = Mix()


@dataclass
class Progress:
    """What a run has done so far; the losses are running means."""

    steps: int = 0
    tokens: int = 0
    texts: int = 0
    masked: float = 0.0
    topic: float = 0.0
    seconds: float = 0.0

    def count(self, ids: Tensor, masked: float, topic: float, processes: int) -> None:
        """Count a step that every process has made with a batch like this one."""
        old = 0.98 if self.steps else 0.0
        self.masked = old * self.masked + (1 - old) * masked
        self.topic = old * self.topic + (1 - old) * topic
        self.steps += 1
        self.tokens += ids.numel() * processes
        self.texts += len(ids) * processes

    def __str__(self) -> str:
        speed = self.tokens / max(1.0, self.seconds)
        return (
            f"{self.seconds:5.0f} s  step {self.steps}  masked words {self.masked:.3f}  topic {self.topic:.3f}  "
            f"{self.texts} texts  {speed:.0f} tokens/s"
        )


def tokenizer_texts(corpus: Corpus) -> Iterator[str]:
    """Yield what the tokenizer is trained on."""
    yield from corpus.texts()
    for topic in corpus.topics:
        if topic.kind == "words":
            yield from topic.texts * (WORD_WEIGHT - 1)


def train(
    learner: Learner, batches: Iterable[tuple[Tensor, Tensor, Tensor]], recipe: Recipe, exchange: Exchange
) -> Progress:
    """Train until the time is used up."""
    chosen, progress, clock = optimizers(learner, recipe.rate, exchange), Progress(), Clock()
    limit = recipe.minutes * 60
    for ids, targets, topics in batches:
        with torch.autocast("cpu", torch.bfloat16):
            masked, topic = learner.losses(ids, targets, topics)
        learner.zero_grad(set_to_none=True)
        (masked + recipe.topic_weight * topic).backward()
        progress.count(ids, masked.item(), topic.item(), recipe.threads)
        progress.seconds = exchange.average(learner, clock.seconds())
        step(learner, chosen, recipe.rate * schedule(progress.steps, progress.seconds / limit))
        exchange.gather(matrices(learner))
        if progress.steps % 200 == 0 and exchange.rank == 0:
            print(progress, flush=True)
        if progress.seconds >= limit:
            break
    return progress


def work(rank: int, corpus: Corpus, recipe: Recipe, tokenizer: str, exchange: Exchange, result: Path) -> None:
    """Train as one of several processes; all hold the same network and the first one saves it."""
    exchange.rank = rank
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    words = Tokenizer.from_str(tokenizer)
    learner = new_learner(corpus, words, recipe)
    torch.manual_seed(recipe.seed + 1 + rank)  # each drops out other units
    batches = stream(Source(corpus, recipe.seed + 100 * (rank + 1), recipe.mix), words)
    progress = train(learner, batches, recipe, exchange)
    if rank == 0:
        torch.save({"weights": learner.network.state_dict(), "progress": asdict(progress)}, result)


def new_learner(corpus: Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Learner:
    """Build the untrained network of a recipe."""
    return Learner(build(tokenizer.get_vocab_size(), recipe.width, recipe.layers), len(corpus.topics))


def fit(corpus: Corpus, recipe: Recipe) -> tuple[DistilBertForMaskedLM, Tokenizer, Progress]:
    """Train tokenizer and network on a corpus."""
    tokenizer = train_tokenizer(tokenizer_texts(corpus), recipe.vocabulary)
    learner = new_learner(corpus, tokenizer, recipe)
    exchange = Exchange.create(recipe.threads, sum(p.numel() for p in learner.parameters()))
    with TemporaryDirectory() as folder:
        result = Path(folder, "result.pt")
        arguments = (corpus, recipe, tokenizer.to_str(), exchange, result)
        torch.multiprocessing.spawn(work, arguments, nprocs=recipe.threads)
        saved = torch.load(result)
    learner.network.load_state_dict(saved["weights"])
    return learner.network, tokenizer, Progress(**saved["progress"])


def save(network: DistilBertForMaskedLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that `transformers` loads, with weights in half precision.

    The settings ask for single precision when the weights are loaded, because fine-tuning needs it.
    """
    network.half().save_pretrained(folder)
    network.float()
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", {**network.config.to_diff_dict(), "dtype": "float32", **ARCHITECTURE})
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", TOKENIZER_SETTINGS)


def main() -> None:
    """Train, write the files, measure them and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=Recipe.minutes, help="processor time for training, for each process"
    )
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="processes of one thread each")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the finished model")
    parser.add_argument("--textclf", type=Path, default=TEXTCLF, help="folder with public data sets to measure on")
    arguments = parser.parse_args()
    corpus, recipe = load(), Recipe(minutes=arguments.minutes, threads=arguments.threads)
    network, tokenizer, progress = fit(corpus, recipe)
    print(progress, flush=True)
    save(network, tokenizer, arguments.out)
    training = {**asdict(progress), "minutes": progress.seconds / 60, "threads": recipe.threads}
    write_json(arguments.out / TRAINING_FILE, training)
    finish(corpus, arguments.out, arguments.textclf)


if __name__ == "__main__":
    main()
