"""Draw texts, mask whole words and make padded batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from encoder.model import ID, MASK, NO_TOPIC, PAD, SPECIAL
from encoder.text import Corpus, Topic
from guide.batches import group, width

POOL = 2048


@dataclass(frozen=True)
class Mix:
    """How often each kind of text is drawn, and how much of it is masked."""

    words: float = 0.25
    prose: float = 0.25
    guide: float = 0.2
    loose: float = 0.3
    masked: float = 0.2
    tokens: int = 1536
    longest: int = 128


@dataclass
class Line:
    """One text as token ids; a target is the right id where one is to be predicted."""

    ids: list[int]
    targets: list[int]
    topic: int = NO_TOPIC


class Source:
    """Draws texts from a corpus, each with the number of its topic."""

    def __init__(self, corpus: Corpus, seed: int, mix: Mix) -> None:
        self.corpus, self.mix, self.rng = corpus, mix, random.Random(seed)
        numbered = list(enumerate(corpus.topics))
        self.topics = {kind: [(n, t) for n, t in numbered if t.kind == kind] for kind in ("words", "prose", "guide")}

    def draw(self) -> tuple[str, int]:
        """Draw a text and its topic."""
        kinds = ("words", "prose", "guide", "loose")
        kind = self.rng.choices(kinds, [getattr(self.mix, kind) for kind in kinds])[0]
        if kind == "loose":
            return self.rng.choice(self.corpus.loose), NO_TOPIC
        number, topic = self.rng.choice(self.topics[kind])
        return self.passage(topic), number

    def passage(self, topic: Topic) -> str:
        """Make a text of a topic: some of its words, or one to three of its passages."""
        if topic.kind == "words":
            return ", ".join(self.rng.sample(topic.texts, min(len(topic.texts), self.rng.randint(1, 10))))
        most = min(3 if topic.kind == "prose" else 1, len(topic.texts))
        return " ".join(self.rng.sample(topic.texts, self.rng.randint(1, most)))


def word_spans(encoding: Encoding) -> list[list[int]]:
    """List the places of each word's tokens, special tokens left out."""
    spans: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            spans.setdefault(word, []).append(place)
    return list(spans.values())


def mask(encoding: Encoding, share: float, vocabulary: int, rng: random.Random) -> Line:
    """Choose whole words to be predicted: 80 % are masked, 10 % replaced, 10 % left, as in BERT (2018), 3.1."""
    ids, spans = list(encoding.ids), word_spans(encoding)
    targets = [NO_TOPIC] * len(ids)
    for span in rng.sample(spans, min(len(spans), max(1, round(share * len(spans))))):
        fate = rng.random()
        for place in span:
            targets[place] = ids[place]
            if fate < 0.8:
                ids[place] = ID[MASK]
            elif fate < 0.9:
                ids[place] = rng.randrange(len(SPECIAL), vocabulary)
    return Line(ids, targets)


def pad(lines: list[Line]) -> tuple[Tensor, Tensor, Tensor]:
    """Stack lines into tensors of ids, (texts, tokens), targets, (texts, tokens), and topics, (texts,)."""
    wide = max(map(width, lines))
    ids = [line.ids + [ID[PAD]] * (wide - len(line.ids)) for line in lines]
    targets = [line.targets + [NO_TOPIC] * (wide - len(line.targets)) for line in lines]
    return torch.tensor(ids), torch.tensor(targets), torch.tensor([line.topic for line in lines])


def stream(source: Source, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield training batches for ever, each of texts drawn and masked anew."""
    mix, vocabulary = source.mix, tokenizer.get_vocab_size()
    tokenizer.enable_truncation(mix.longest)
    while True:
        texts, topics = zip(*(source.draw() for _ in range(POOL)), strict=True)
        lines = [mask(found, mix.masked, vocabulary, source.rng) for found in tokenizer.encode_batch(list(texts))]
        for line, topic in zip(lines, topics, strict=True):
            line.topic = topic
        for batch in group(lines, mix.tokens, source.rng):
            yield pad(batch)
