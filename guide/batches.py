"""Turn dialogues into padded batches of token ids with a weight for every token."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from tokenizers import Tokenizer

from guide.dialogues import Answers, Generator, Turn
from guide.model import BOS, END, GUIDE, PAD, SPECIAL, USER

ID = {token: number for number, token in enumerate(SPECIAL)}
POOL = 4096
ROUND = 4


@dataclass(frozen=True)
class Shape:
    """How dialogues become batches; the figures were tuned on the development split."""

    tokens: int = 768
    longest: int = 512
    full: float = 0.1
    early: int = 8
    late_weight: float = 0.3


class Encoded(Protocol):
    """Anything that has token ids."""

    ids: list[int]


Item = TypeVar("Item", bound=Encoded)


@dataclass
class Sample:
    """One dialogue as token ids; weight 0 marks what the model need not predict."""

    ids: list[int]
    weights: list[float]


class Encoder:
    """Encodes dialogues, caching the answers because they repeat."""

    def __init__(self, tokenizer: Tokenizer, answers: Answers, shape: Shape = Shape()) -> None:
        self.tokenizer, self.answers, self.shape = tokenizer, answers, shape
        self.cache: dict[str, list[int]] = {}
        self.deciding = self._deciding_lengths()

    def text(self, text: str) -> list[int]:
        """Encode a text as it is, without special tokens around it."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, text: str) -> list[int]:
        """Encode an answer with the end token that the model must learn to write."""
        if text not in self.cache:
            self.cache[text] = [*self.text(text), ID[END]]
        return self.cache[text]

    def _deciding_lengths(self) -> dict[str, int]:
        """Find for every answer how many tokens it takes to tell it from all others."""
        texts = {text for label in self.answers.labels() for text in self.answers.variants(label)}
        starts = Counter(tuple(self.answer(text)[:n]) for text in texts for n in range(1, 17))
        return {t: next((n for n in range(1, 16) if starts[tuple(self.answer(t)[:n])] == 1), 16) for t in texts}

    def cut(self, text: str) -> int:
        """Return how much of an answer shows which one it is; the rest is recited, not decided."""
        return max(4, self.deciding.get(text, 15) + 1)

    def question(self, ids: list[int]) -> list[int]:
        """Wrap an encoded question up to where the answer begins."""
        return [ID[USER], *ids, ID[END], ID[GUIDE]]

    def prompt(self, turns: list[Turn]) -> list[int]:
        """Encode a conversation up to the answer of its last turn."""
        ids = [ID[BOS]]
        for number, turn in enumerate(turns):
            ids += self.question(self.text(turn.question))
            if number < len(turns) - 1:
                ids += self.answer(self.answers.variants(turn.label)[0])
        return ids

    def sample(self, turns: list[Turn], encoded: list[list[int]], rng: random.Random) -> Sample:
        """Encode one training dialogue; most last answers are cut where they are decided."""
        sample = Sample([ID[BOS]], [0.0])
        for number, (turn, ids) in enumerate(zip(turns, encoded, strict=True)):
            text = rng.choice(self.answers.variants(turn.label))
            answer = self.answer(text)
            if number == len(turns) - 1 and rng.random() >= self.shape.full:
                answer = answer[: self.cut(text)]
            asked = self.question(ids)
            early = min(len(answer), self.shape.early)
            sample.ids += asked + answer
            sample.weights += [0.0] * len(asked) + [1.0] * early + [self.shape.late_weight] * (len(answer) - early)
        return Sample(sample.ids[: self.shape.longest], sample.weights[: self.shape.longest])

    def samples(self, dialogues: list[list[Turn]], rng: random.Random) -> list[Sample]:
        """Encode many dialogues at once, which is much faster than one by one."""
        questions = [turn.question for turns in dialogues for turn in turns]
        encoded = iter(self.tokenizer.encode_batch(questions, add_special_tokens=False))
        return [self.sample(turns, [next(encoded).ids for _ in turns], rng) for turns in dialogues]


def width(sample: Encoded) -> int:
    """Round a length up: new shapes cost the matrix library time, so there should be few of them."""
    return -(-len(sample.ids) // ROUND) * ROUND


def pad(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack samples into rectangular tensors of ids and weights."""
    wide = max(map(width, samples))
    ids = [sample.ids + [ID[PAD]] * (wide - len(sample.ids)) for sample in samples]
    weights = [sample.weights + [0.0] * (wide - len(sample.weights)) for sample in samples]
    return torch.tensor(ids), torch.tensor(weights)


def group(samples: list[Item], tokens: int, rng: random.Random) -> list[list[Item]]:
    """Group samples of similar length into batches of about equally many tokens."""
    rng.shuffle(samples)
    batches: list[list[Item]] = [[]]
    for sample in sorted(samples, key=width):
        if batches[-1] and (len(batches[-1]) + 1) * width(sample) > tokens:
            batches.append([])
        batches[-1].append(sample)
    rng.shuffle(batches)
    return batches


def stream(generator: Generator, encoder: Encoder) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield training batches for ever, each made of new dialogues."""
    while True:
        samples = encoder.samples([generator.dialogue() for _ in range(POOL)], generator.rng)
        for batch in group(samples, encoder.shape.tokens, generator.rng):
            yield pad(batch)
