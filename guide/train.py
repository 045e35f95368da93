"""Train `guide` from the written text: `python -m guide.train` does everything.

It generates dialogues, trains tokenizer and network for a fixed time, measures the result, converts it to
both file formats and writes the model card.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from guide.batches import Encoder, Shape, stream
from guide.card import TRAINING_FILE, finish
from guide.convert import ASSETS, save_all, write_json
from guide.dialogues import Answers, Generator, Mix
from guide.model import build, train_tokenizer
from guide.parallel import Exchange
from guide.text import Corpus, load

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
PATIENCE = 1.6
WARM_UP_STEPS = 60
TOKENIZER_DIALOGUES = 40_000


@dataclass(frozen=True)
class Recipe:
    """What may be changed about a training run."""

    minutes: float = 24.0
    threads: int = 2
    seed: int = 1
    hidden: int = 256
    layers: int = 4
    inner: int = 384
    vocabulary: int = 3072
    rate: float = 2e-3
    smoothing: float = 0.0
    simple_until: float = 0.4
    simple: Mix = Mix(single=0.97)
    mix: Mix = Mix()
    shape: Shape = Shape()


class Clock:
    """Counts processor time, so that a run on a busy machine is as good as one on an idle machine.

    It does not wait for ever: the time on the wall counts as well, with a discount.
    """

    def __init__(self) -> None:
        self.processor, self.wall = time.process_time(), time.monotonic()

    def seconds(self) -> float:
        """Return the time that counts against the limit."""
        return max(time.process_time() - self.processor, (time.monotonic() - self.wall) / PATIENCE)


@dataclass
class Progress:
    """What a run has done so far."""

    steps: int = 0
    tokens: int = 0
    dialogues: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    def count(self, ids: torch.Tensor, loss: float, seconds: float, processes: int) -> None:
        """Count a step that every process has made with a batch like this one."""
        self.loss = 0.98 * self.loss + 0.02 * loss if self.steps else loss
        self.steps += 1
        self.tokens += ids.numel() * processes
        self.dialogues += len(ids) * processes
        self.seconds = seconds

    def __str__(self) -> str:
        speed = self.tokens / max(1.0, self.seconds)
        return (
            f"{self.seconds:5.0f} s  step {self.steps}  loss {self.loss:.3f}  "
            f"{self.dialogues} dialogues  {speed:.0f} tokens/s"
        )


def tokenizer_texts(generator: Generator, answers: Answers) -> Iterator[str]:
    """Yield questions as often as they are asked and answers often enough to be cut well."""
    for _ in range(TOKENIZER_DIALOGUES):
        yield from (turn.question for turn in generator.dialogue())
    for label in answers.labels():
        for text in answers.variants(label):
            yield from [text] * 10


def make_encoder(corpus: Corpus, recipe: Recipe) -> Encoder:
    """Train the tokenizer and wrap it for the corpus."""
    answers = Answers(corpus)
    texts = tokenizer_texts(Generator(corpus, recipe.seed, recipe.mix), answers)
    return Encoder(train_tokenizer(texts, recipe.vocabulary), answers, recipe.shape)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """List the weights of the layers, which Muon trains."""
    return [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]


def optimizers(model: nn.Module, rate: float, exchange: Exchange) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices, which learns faster per step, and AdamW for the rest.

    Muon costs a quarter of a step, so the processes divide the matrices among themselves.
    """
    chosen = {id(p) for p in matrices(model)}
    others = [p for p in model.parameters() if id(p) not in chosen]
    mine = exchange.part(matrices(model))
    return [
        torch.optim.Muon(mine, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def schedule(step: int, done: float) -> float:
    """Scale the learning rate: a short rise, then a cosine over the time of the run."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def batch_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the weighted loss on the answers; only they pass through the large output layer."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        chosen = weights[:, 1:] > 0
        scores = model.lm_head(hidden[:, :-1][chosen])
    losses = cross_entropy(scores.float(), ids[:, 1:][chosen], reduction="none", label_smoothing=smoothing)
    kept = weights[:, 1:][chosen]
    return (losses * kept).sum() / kept.sum()


def train(model: LlamaForCausalLM, lessons: list[Batches], recipe: Recipe, exchange: Exchange) -> Progress:
    """Train until the time is used up.

    Single questions come first: they are short, so many more of them fit into the same time.
    """
    chosen, progress, clock = optimizers(model, recipe.rate, exchange), Progress(), Clock()
    limit = recipe.minutes * 60
    while progress.seconds < limit:
        done = progress.seconds / limit
        ids, weights = next(lessons[done >= recipe.simple_until])
        loss = batch_loss(model, ids, weights, recipe.smoothing)
        model.zero_grad(set_to_none=True)
        loss.backward()
        seconds = exchange.average(model, clock.seconds())
        step(model, chosen, recipe.rate * schedule(progress.steps, done))
        exchange.gather(matrices(model))
        progress.count(ids, loss.item(), seconds, recipe.threads)
        if progress.steps % 200 == 0 and exchange.rank == 0:
            print(progress, flush=True)
    return progress


def step(model: nn.Module, chosen: list[torch.optim.Optimizer], rate: float) -> None:
    """Change the weights once."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in chosen:
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        optimizer.step()


def work(rank: int, corpus: Corpus, recipe: Recipe, tokenizer: str, exchange: Exchange, result: Path) -> None:
    """Train as one of several processes; all hold the same network and the first one saves it."""
    exchange.rank = rank
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    encoder = Encoder(Tokenizer.from_str(tokenizer), Answers(corpus), recipe.shape)
    seeds = count(recipe.seed + 100 * (rank + 1))
    generators = [Generator(corpus, next(seeds), mix) for mix in (recipe.simple, recipe.mix)]
    model = new_model(encoder, recipe)
    model.model.compile(dynamic=True)
    progress = train(model, [stream(generator, encoder) for generator in generators], recipe, exchange)
    if rank == 0:
        torch.save({"weights": model.state_dict(), "progress": asdict(progress)}, result)


def new_model(encoder: Encoder, recipe: Recipe) -> LlamaForCausalLM:
    """Build the untrained network of a recipe."""
    return build(encoder.tokenizer.get_vocab_size(), recipe.hidden, recipe.layers, recipe.inner)


def fit(corpus: Corpus, recipe: Recipe) -> tuple[LlamaForCausalLM, Encoder, Progress]:
    """Train tokenizer and network on a corpus."""
    encoder = make_encoder(corpus, recipe)
    model = new_model(encoder, recipe)
    exchange = Exchange.create(recipe.threads, sum(p.numel() for p in model.parameters()))
    with TemporaryDirectory() as folder:
        result = Path(folder, "result.pt")
        arguments = (corpus, recipe, encoder.tokenizer.to_str(), exchange, result)
        torch.multiprocessing.spawn(work, arguments, nprocs=recipe.threads)
        saved = torch.load(result)
    model.load_state_dict(saved["weights"])
    return model, encoder, Progress(**saved["progress"])


def main() -> None:
    """Train, write both forms of the model, measure them and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=Recipe.minutes, help="processor time for training, for each process"
    )
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="processes of one thread each")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the finished model")
    arguments = parser.parse_args()
    corpus, recipe = load(), Recipe(minutes=arguments.minutes, threads=arguments.threads)
    model, encoder, progress = fit(corpus, recipe)
    print(progress, flush=True)
    save_all(model, encoder.tokenizer, arguments.out)
    training = {**asdict(progress), "minutes": progress.seconds / 60, "threads": recipe.threads}
    write_json(arguments.out / TRAINING_FILE, training)
    finish(corpus, arguments.out)


if __name__ == "__main__":
    main()
