"""Load and check the written training text of `guide`.

The text lives in plain files so that anybody can add a topic without reading code. Run
`python -m guide.text` to see what is missing or malformed before an hour of training is spent on it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent
TEXT = ROOT / "text"
TESTS = ROOT / "tests"
OUT_OF_SCOPE = "oos"
MINIMUM_QUESTIONS = 30
DEV_PERCENT = 6


@dataclass(frozen=True)
class Topic:
    """One thing the model can talk about, with its answer and the ways people ask for it."""

    id: str
    kind: str
    name: str
    answer: str = ""
    more: str = ""
    nouns: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class FollowUp:
    """Phrasings that make sense only after a topic, and the topic each previous one leads to."""

    phrases: tuple[str, ...]
    targets: dict[str, str]


@dataclass(frozen=True)
class Slots:
    """Sentence patterns with `{slot}` gaps and the words that fit each gap."""

    patterns: tuple[str, ...]
    fillers: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Corpus:
    """Everything the dialogue generator draws from."""

    topics: dict[str, Topic]
    follow_ups: tuple[FollowUp, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    slots: Slots = field(default_factory=lambda: Slots((), {}))
    synonyms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    phrases: dict[str, tuple[str, ...]] = field(default_factory=dict)


def held_out(key: str, percent: int) -> bool:
    """Withhold a stable share of keys, so that every run and machine agrees on what is unseen."""
    return int(hashlib.md5(key.lower().encode()).hexdigest(), 16) % 100 < percent


def in_dev(question: str) -> bool:
    """Say whether a written question is kept for development instead of training."""
    return held_out("dev " + question.strip(), DEV_PERCENT)


def words(text: str) -> list[str]:
    """Split a text into lower-case words, keeping names such as top-p or q4_k_m whole."""
    return re.findall(r"[a-z0-9][a-z0-9_.:/'-]*[a-z0-9]|[a-z0-9]", text.lower())


def lines(path: Path) -> list[str]:
    """Read the non-empty lines of a file that are not comments, without outer spaces."""
    found = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in found if line and not line.startswith("#")]


def blocks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each `# heading` of a file with the lines below it."""
    heading: str = ""
    body: list[str] = []
    for line in (raw.strip() for raw in path.read_text("utf-8").splitlines()):
        if line.startswith("# "):
            if heading:
                yield heading, body
            heading, body = line[2:].strip(), []
        elif line:
            body.append(line)
    if heading:
        yield heading, body


def tagged(body: Iterable[str], tag: str) -> list[str]:
    """Return the contents of the lines that begin with `tag:`."""
    return [line[len(tag) + 1 :].strip() for line in body if line.startswith(tag + ":")]


def split_list(text: str) -> tuple[str, ...]:
    """Split a list whose parts are joined by semicolons."""
    return tuple(part.strip() for part in text.split(";") if part.strip())


def read_catalogue(path: Path = ROOT / "topics.tsv") -> dict[str, Topic]:
    """Read the list of topics, which fixes their ids, kinds and names."""
    rows = (line.split("\t") for line in lines(path))
    return {row[0]: Topic(row[0], row[1], row[2]) for row in rows}


def read_hints(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read all `words*.txt`: short fragments in which people might hint at a topic."""
    rows = (line.split(":", 1) for path in sorted(folder.glob("words*.txt")) for line in lines(path))
    hints: dict[str, tuple[str, ...]] = {}
    for key, listed in rows:
        hints[key] = hints.get(key, ()) + split_list(listed)
    return hints


def read_topic(head: Topic, body: list[str], hints: tuple[str, ...]) -> Topic:
    """Fill a topic of the catalogue with its written text."""
    nouns = [noun for line in tagged(body, "C") for noun in split_list(line)]
    return Topic(
        head.id,
        head.kind,
        head.name,
        answer=" ".join(tagged(body, "A")),
        more=" ".join(tagged(body, "M")),
        nouns=tuple(dict.fromkeys(nouns)),
        questions=tuple(dict.fromkeys(tagged(body, "Q"))),
        hints=hints,
    )


def read_topics(folder: Path, catalogue: dict[str, Topic]) -> dict[str, Topic]:
    """Read all `part*.txt`; topics nobody has written yet are left out."""
    topics: dict[str, Topic] = {}
    hints = read_hints(folder)
    for path in sorted(folder.glob("part*.txt")):
        for heading, body in blocks(path):
            if heading in catalogue:
                topics[heading] = read_topic(catalogue[heading], body, hints.get(heading, ()))
    return {key: topic for key, topic in topics.items() if topic.answer and topic.questions}


def read_follow_ups(path: Path, known: Iterable[str]) -> tuple[FollowUp, ...]:
    """Read the follow-up rules, dropping pairs whose topics have no text yet."""
    known = set(known)
    rules = []
    for _, body in blocks(path):
        pairs = [line.split("->") for line in body if "->" in line and not line.startswith("Q:")]
        targets = {a.strip(): b.strip() for a, b in pairs}
        kept = {a: b for a, b in targets.items() if a in known and b.rstrip("+") in known}
        rules.append(FollowUp(tuple(tagged(body, "Q")), kept))
    return tuple(rule for rule in rules if rule.targets)


def read_slots(path: Path) -> Slots:
    """Read out-of-scope patterns (`# patterns`) and the words for their gaps."""
    lists = dict(blocks(path))
    patterns = tuple(lists.pop("patterns", ()))
    fillers = {key: tuple(x for line in body for x in split_list(line)) for key, body in lists.items()}
    fillers["number"] = tuple(str(number) for number in range(2, 120))
    fillers["year"] = tuple(str(year) for year in range(1203, 2024, 17))
    return Slots(patterns, fillers)


def read_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """Map every word of a synonym line to the other words of that line."""
    table: dict[str, tuple[str, ...]] = {}
    for line in lines(path):
        group = split_list(line)
        for word in group:
            table[word] = table.get(word, ()) + tuple(other for other in group if other != word)
    return table


def read_out_of_scope(folder: Path) -> tuple[str, ...]:
    """Read all `oos*.txt`, one question a line."""
    found = [line for path in sorted(folder.glob("oos*.txt")) for line in lines(path)]
    return tuple(dict.fromkeys(found))


def load(folder: Path = TEXT) -> Corpus:
    """Load the whole corpus from a folder of text files."""
    topics = read_topics(folder, read_catalogue())
    return Corpus(
        topics=topics,
        follow_ups=read_follow_ups(folder / "followups.txt", topics),
        out_of_scope=read_out_of_scope(folder),
        slots=read_slots(folder / "slots.txt"),
        synonyms=read_synonyms(folder / "synonyms.txt"),
        phrases={key: tuple(body) for key, body in blocks(folder / "phrases.txt")},
    )


def read_locked(folder: Path = TESTS) -> list[tuple[str, str]]:
    """Read the locked test as (topic id, question); only the final score may look at it."""
    rows = [line.split("\t", 1) for path in sorted(folder.glob("locked_*.tsv")) for line in lines(path)]
    return [(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2]


def topic_problems(topic: Topic) -> Iterator[str]:
    """Name what is missing in one topic."""
    if len(topic.questions) < MINIMUM_QUESTIONS:
        yield f"{topic.id}: only {len(topic.questions)} questions"
    if topic.kind != "talk" and not topic.more:
        yield f"{topic.id}: no second answer (M:)"
    if topic.kind != "talk" and not topic.nouns:
        yield f"{topic.id}: no nouns (C:)"


def check(corpus: Corpus) -> list[str]:
    """List what would hurt training: missing topics, thin topics, answers that cannot be told apart."""
    problems = [f"{key}: no text" for key in read_catalogue() if key not in corpus.topics]
    for topic in corpus.topics.values():
        problems += topic_problems(topic)
    starts = Counter(topic.answer[:40] for topic in corpus.topics.values())
    return problems + [f"answers begin alike: {start!r}" for start, count in starts.items() if count > 1]


def main() -> int:
    """Print the size of the corpus and its problems."""
    corpus = load()
    questions = sum(len(topic.questions) for topic in corpus.topics.values())
    print(f"{len(corpus.topics)} topics, {questions} questions, {len(corpus.out_of_scope)} out of scope")
    problems = check(corpus)
    print("\n".join(problems) or "no problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
