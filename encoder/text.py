"""Gather the text that the encoder is trained on: all of it was written for this project.

Run `python -m encoder.text` to see how much there is of each kind. Labels of the data sets are read by the
evaluation alone, and a fixed quarter of their rows is withheld from everything but the evaluation.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guide.text import blocks, held_out, split_list
from guide.text import load as load_guide

ROOT = Path(__file__).resolve().parent.parent
TEXT = Path(__file__).parent / "text"
DATASETS = ROOT / "assets" / "datasets"
DOCUMENTS = ("README.md", "guide/README.md", "CHANGELOG.md")
NAMES = ("sentiment", "intent", "spam")
TEST_PERCENT = 25
DEV_PERCENT = 4


@dataclass(frozen=True)
class Topic:
    """Texts that belong together: passages or questions, or the words of one meaning."""

    name: str
    kind: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Everything that is trained on, and the lines withheld to measure the prediction of masked words."""

    topics: tuple[Topic, ...]
    loose: tuple[str, ...]
    withheld: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Yield every text once."""
        yield from (text for topic in self.topics for text in topic.texts)
        yield from self.loose


@dataclass(frozen=True)
class Row:
    """A text of a data set with its label."""

    text: str
    label: str


def rows(name: str, folder: Path = DATASETS) -> list[Row]:
    """Read a data set of ours."""
    with open(folder / name / "data.csv", encoding="utf-8", newline="") as file:
        return [Row(row["text"], row["label"]) for row in csv.DictReader(file)]


def in_test(text: str) -> bool:
    """Say whether a row of a data set is kept for the evaluation."""
    return held_out("test " + text, TEST_PERCENT)


def in_dev(text: str) -> bool:
    """Say whether a line is kept for measuring the prediction of masked words."""
    return held_out("masked " + text, DEV_PERCENT)


def written(folder: Path = TEXT) -> Iterator[Topic]:
    """Yield the prose and the word lists written for the encoder."""
    for path in sorted(folder.glob("prose*.txt")):
        yield from (Topic(heading, "prose", tuple(body)) for heading, body in blocks(path))
    for path in sorted(folder.glob("words*.txt")):
        yield from (Topic(heading, "words", split_list("; ".join(body))) for heading, body in blocks(path))


def guided() -> Iterator[Topic]:
    """Yield the topics of the guide: questions, fragments and answers."""
    for topic in load_guide().topics.values():
        yield Topic(topic.id, "guide", (*topic.questions, *topic.hints, topic.answer, *filter(None, [topic.more])))


def documents(root: Path = ROOT) -> Iterator[str]:
    """Yield the paragraphs of the documentation, without code, tables and headings."""
    for name in DOCUMENTS:
        prose = "\n".join(part for i, part in enumerate((root / name).read_text("utf-8").split("```")) if i % 2 == 0)
        for paragraph in prose.split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) > 60 and not text.startswith(("#", "|", "!")):
                yield text


def loose() -> Iterator[str]:
    """Yield the texts that belong to no topic."""
    yield from load_guide().out_of_scope
    yield from documents()
    for name in NAMES:
        yield from (row.text for row in rows(name) if not in_test(row.text))


def without_dev(topic: Topic) -> Topic:
    """Leave the withheld lines out of a topic; the words of the lists are never withheld, as they are no lines."""
    if topic.kind == "words":
        return topic
    return Topic(topic.name, topic.kind, tuple(text for text in topic.texts if not in_dev(text)))


def load() -> Corpus:
    """Load the whole text."""
    everything, singles = [*written(), *guided()], list(dict.fromkeys(loose()))
    lines = [text for topic in everything if topic.kind != "words" for text in topic.texts] + singles
    return Corpus(
        topics=tuple(map(without_dev, everything)),
        loose=tuple(text for text in singles if not in_dev(text)),
        withheld=tuple(dict.fromkeys(text for text in lines if in_dev(text))),
    )


def main() -> None:
    """Print how much text of each kind there is."""
    corpus = load()
    topics, sizes = Counter(topic.kind for topic in corpus.topics), Counter[str]()
    for topic in corpus.topics:
        sizes[topic.kind] += sum(map(len, topic.texts))
    for kind, number in topics.items():
        print(f"{kind}: {number} topics, {sizes[kind] / 1000:.0f} kB")
    print(f"loose: {len(corpus.loose)} texts, {sum(map(len, corpus.loose)) / 1000:.0f} kB")
    print(f"withheld: {len(corpus.withheld)} lines")


if __name__ == "__main__":
    main()
