"""Train `guide` from the written text: `python -m guide.train` does everything.

It generates dialogues, trains tokenizer and network for a fixed time, measures the result, converts it to
both file formats and writes the model card.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from guide.batches import Encoder, Shape, stream
from guide.convert import ASSETS, save_all
from guide.dialogues import Answers, Generator, Mix
from guide.model import build, train_tokenizer
from guide.text import Corpus, load

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
WARM_UP_STEPS = 60
TOKENIZER_DIALOGUES = 40_000


@dataclass(frozen=True)
class Recipe:
    """What may be changed about a training run."""

    minutes: float = 25.0
    threads: int = 2
    seed: int = 1
    hidden: int = 256
    layers: int = 3
    inner: int = 512
    vocabulary: int = 3584
    rate: float = 2e-3
    smoothing: float = 0.0
    simple_until: float = 0.45
    simple: Mix = Mix(single=0.97)
    mix: Mix = Mix()
    shape: Shape = Shape()


@dataclass
class Progress:
    """What a run has done so far."""

    steps: int = 0
    tokens: int = 0
    dialogues: int = 0
    loss: float = 0.0
    seconds: float = 0.0

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


def optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices, which learns faster per step, and AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def schedule(step: int, done: float) -> float:
    """Scale the learning rate: a short rise, then a cosine over the time of the run."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def batch_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the weighted loss on the answers; only they pass through the large output layer."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state
        chosen = weights[:, 1:] > 0
        scores = model.lm_head(hidden[:, :-1][chosen])
    losses = cross_entropy(scores.float(), ids[:, 1:][chosen], reduction="none", label_smoothing=smoothing)
    kept = weights[:, 1:][chosen]
    return (losses * kept).sum() / kept.sum()


def train(model: LlamaForCausalLM, simple: Batches, full: Batches, recipe: Recipe) -> Progress:
    """Train until the time is used up, so that a run fits any machine.

    Single questions come first: they are short, so many more of them fit into the same time.
    """
    chosen, progress, begun = optimizers(model, recipe.rate), Progress(), time.monotonic()
    limit = recipe.minutes * 60
    while progress.seconds < limit:
        done = progress.seconds / limit
        ids, weights = next(simple if done < recipe.simple_until else full)
        loss = batch_loss(model, ids, weights, recipe.smoothing)
        step(model, chosen, loss, recipe.rate * schedule(progress.steps, done))
        record(progress, ids, loss.item(), time.monotonic() - begun)
    return progress


def step(model: LlamaForCausalLM, chosen: list[torch.optim.Optimizer], loss: torch.Tensor, rate: float) -> None:
    """Change the weights once."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in chosen:
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        optimizer.step()


def record(progress: Progress, ids: torch.Tensor, loss: float, seconds: float) -> None:
    """Count a step and report now and then."""
    progress.steps += 1
    progress.tokens += ids.numel()
    progress.dialogues += len(ids)
    progress.seconds = seconds
    progress.loss = loss if progress.steps == 1 else 0.98 * progress.loss + 0.02 * loss
    if progress.steps % 200 == 0:
        print(progress, flush=True)


def prepare(recipe: Recipe) -> None:
    """Fix threads and seeds, so that runs are comparable."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)


def fit(corpus: Corpus, recipe: Recipe) -> tuple[LlamaForCausalLM, Encoder, Progress]:
    """Train tokenizer and network on a corpus."""
    prepare(recipe)
    encoder = make_encoder(corpus, recipe)
    model = build(encoder.tokenizer.get_vocab_size(), recipe.hidden, recipe.layers, recipe.inner)
    lessons = [Generator(corpus, recipe.seed + n, mix) for n, mix in enumerate((recipe.simple, recipe.mix), 1)]
    progress = train(model, *(stream(lesson, encoder) for lesson in lessons), recipe)
    return model, encoder, progress


def main() -> None:
    """Train and write both forms of the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=Recipe.minutes, help="time for training")
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="processor threads")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the finished model")
    arguments = parser.parse_args()
    corpus, recipe = load(), Recipe(minutes=arguments.minutes, threads=arguments.threads)
    model, encoder, progress = fit(corpus, recipe)
    print(progress)
    save_all(model, encoder.tokenizer, arguments.out)


if __name__ == "__main__":
    main()
