"""What there is to know about a data set before training: figures, findings, and the repair of each finding.

A repair is a pure function from data set to data set; a page offers it as one click, a script by name.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .data import Dataset, in_splits, normal

Severity = Literal["error", "warning", "note"]
FEW_ROWS = 50  # in all
FEW_OF_CLASS = 8
UNEVEN = 3.0  # times as many rows of the largest class as of the smallest
SHOWN = 20  # rows named in a finding
ESTIMATE = 1.35  # tokens a word of ordinary English, where no tokenizer counts
SPECIALS = 2  # tokens that an encoder puts around a text


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know. `fix`: its name in FIXES, where there is a repair."""

    name: str
    severity: Severity
    title: str  # one sentence with the figures
    detail: str = ""  # why it matters, or what the repair does
    rows: tuple[int, ...] = ()  # some of them, as numbered in the source
    fix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # training settings that answer it instead


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per text."""

    median: int
    p95: int
    p99: int
    longest: int
    estimated: bool  # counted by words, because no tokenizer was at hand
    over: float  # share of texts longer than `limit`
    limit: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """A data set at a glance."""

    rows: int
    splits: Mapping[str, int]
    classes: Mapping[str, int]  # rows by class; empty for numbers
    range: tuple[float, float] | None  # of the numbers
    lengths: Lengths
    languages: Mapping[str, float]  # share of a sample of texts by language, guessed from letters and common words
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    recommended: Mapping[str, tuple[Any, str]]  # setting: (value, reason)


Count = Callable[[Sequence[str]], Sequence[int]]
"""Tokens of each text, special ones included."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a report has to know of the base model."""

    count: Count | None = None  # of its tokenizer
    limit: int = 512  # tokens it reads at most, where neither it nor its tokenizer says
    small: bool = False  # has read little


def report(data: Dataset, base: Base = Base()) -> DataReport:
    """Look at a data set, which is to train a base model."""
    lengths = _lengths(data.texts, base.count, base.limit)
    findings = tuple(found for look in LOOKS for found in look(data))
    findings = (*findings, *_length_finding(lengths))
    order = {"error": 0, "warning": 1, "note": 2}
    numbers = [label for label in data.labels if isinstance(label, float)]
    return DataReport(
        rows=len(data),
        splits=in_splits(data),
        classes=data.counts,
        range=(min(numbers), max(numbers)) if numbers else None,
        lengths=lengths,
        languages=languages(data.texts),
        findings=tuple(sorted(findings, key=lambda f: order[f.severity])),
        notes=data.notes,
        recommended=recommended(data, lengths, small=base.small),
    )


# --- lengths ---


def _lengths(texts: Sequence[str], count: Count | None, limit: int) -> Lengths:
    tokens = sorted(count(texts) if count else estimated_tokens(texts)) or [0]
    median, p95, p99 = (tokens[min(len(tokens) - 1, int(share * len(tokens)))] for share in (0.5, 0.95, 0.99))
    over = sum(n > limit for n in tokens) / len(tokens)
    return Lengths(median, p95, p99, tokens[-1], count is None, over, limit)


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens counted by words and, for scripts without blanks, by letters."""
    return [SPECIALS + max(round(len(t.split()) * ESTIMATE), len(t) // 6) for t in texts]


def _length_finding(lengths: Lengths) -> Iterator[Finding]:
    if lengths.over > 0:
        share = f"{lengths.over:.1%}" if lengths.over >= 0.001 else "A few"
        title = f"{share} of the texts are longer than the {lengths.limit} tokens the model reads."
        yield Finding("long_texts", "note", title, "Their ends are cut off.", settings={"max_length": lengths.limit})


# --- findings ---


def _few_rows(data: Dataset) -> Iterator[Finding]:
    if len(data) < FEW_ROWS:
        hint = "A classifier needs some dozens of rows of each class; the figures will be rough."
        yield Finding("few_rows", "warning", f"There are only {len(data)} rows.", hint)


def _empty(data: Dataset) -> Iterator[Finding]:
    texts = [i for i, text in enumerate(data.texts) if not text.strip()]
    if texts:
        title = f"{_many(texts, 'text is', 'texts are')} empty."
        yield _of_rows("empty_texts", "warning", title, "Such rows are left out.", data, texts)
    missing = [i for i, label in enumerate(data.labels) if label == ""]
    if missing:
        title = f"{_many(missing, 'row has', 'rows have')} no label."
        yield _of_rows("missing_labels", "warning", title, "Such rows are left out.", data, missing)
    none = [i for i, label in enumerate(data.labels) if label == ()]
    if none:
        title = f"{_many(none, 'text has', 'texts have')} none of the labels."
        yield Finding("no_labels", "note", title, "They teach the model to say nothing.", _shown(data, none))


def _duplicates(data: Dataset) -> Iterator[Finding]:
    extra = [i for rows in _groups(data).values() for i in rows[1:] if len(_labels_of(data, rows)) == 1]
    if extra:
        title = f"{_many(extra, 'row repeats', 'rows repeat')} a text with the same label."
        why = (
            "Copies weigh as much as new texts; the repair keeps the first. They never stand on both sides of a split."
        )
        yield _of_rows("duplicates", "note", title, why, data, extra)


def _conflicts(data: Dataset) -> Iterator[Finding]:
    rows = [i for group in _groups(data).values() if len(_labels_of(data, group)) > 1 for i in group]
    if rows and data.task != "regression":
        title = f"{len(rows):,} rows have the same text as another but another label."
        why = "One of them is wrong. The repair keeps the label that most copies have; where none has most, none stays."
        yield _of_rows("conflicting_labels", "warning", title, why, data, rows)


def _leaks(data: Dataset) -> Iterator[Finding]:
    if rows := leaked(data):
        title = f"{_many(rows, 'text of training is', 'texts of training are')} also in validation or test."
        why = "The model would be asked what it has learnt by heart. The repair takes them out of training."
        yield _of_rows("leaks", "warning", title, why, data, rows)


def _twins(data: Dataset) -> Iterator[Finding]:
    if pairs := [names for names in _twin_names(data).values() if len(names) > 1]:
        shown = "; ".join(" and ".join(map(repr, names)) for names in pairs[:5])
        title = f"{_many(pairs, 'class is', 'classes are')} written in several ways: {shown}."
        why = "The repair uses the most frequent spelling."
        yield Finding("label_twins", "warning", title, why, fix="label_twins")


def _classes(data: Dataset) -> Iterator[Finding]:
    counts = data.counts
    if data.task == "regression" or not counts:
        return
    if len(counts) == 1 and data.task == "single_label":
        name = next(iter(counts))
        yield Finding("one_class", "error", f"All rows have the label {name!r}.", "There is nothing to tell apart.")
        return
    rare = [name for name, n in counts.items() if n < FEW_OF_CLASS]
    if rare:
        shown = ", ".join(f"{name!r} ({counts[name]})" for name in rare[:5]) + (", …" if len(rare) > 5 else "")
        title = f"{_many(rare, 'class has', 'classes have')} fewer than {FEW_OF_CLASS} rows: {shown}."
        why = "Too few to learn or to judge. The repair leaves these classes out."
        fix = "rare_classes" if len(counts) - len(rare) >= 2 else ""
        yield Finding("rare_classes", "warning", title, why if fix else why.split(". ")[0] + ".", fix=fix)
    ratio = max(counts.values()) / max(1, min(n for name, n in counts.items()))
    if ratio >= UNEVEN:
        title = f"The largest class has {ratio:.0f} times the rows of the smallest."
        why = "A model may learn to say the frequent one. Class weights make rare classes count as much."
        yield Finding("imbalance", "note", title, why, settings={"class_weights": True})


def _unseen(data: Dataset) -> Iterator[Finding]:
    if not any(data.splits) or data.task == "regression":
        return
    known = set(data.where(lambda i: data.splits[i] in ("train", "")).classes)
    rows = [i for i in range(len(data)) if data.splits[i] in ("validation", "test") and set(data.tags(i)) - known]
    if rows:
        title = f"{_many(rows, 'row', 'rows')} of validation or test with classes that training never sees."
        yield _of_rows("unseen_classes", "warning", title, "The repair leaves them out.", data, rows)


def _many(things: Sequence[object], one: str, several: str) -> str:
    return f"{len(things):,} {one if len(things) == 1 else several}"


def _of_rows(name: str, severity: Severity, title: str, detail: str, data: Dataset, indexes: Sequence[int]) -> Finding:
    return Finding(name, severity, title, detail, _shown(data, indexes), fix=name)


def _shown(data: Dataset, indexes: Sequence[int]) -> tuple[int, ...]:
    return tuple(data.rows[i] for i in sorted(indexes)[:SHOWN])


def _groups(data: Dataset) -> dict[str, list[int]]:
    """The rows of each text that stands in several, by what the copies have in common."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(data.texts):
        if key := normal(text):
            groups[key].append(index)
    return {key: rows for key, rows in groups.items() if len(rows) > 1}


def _labels_of(data: Dataset, rows: Sequence[int]) -> set[Any]:
    return {tuple(sorted(data.tags(i))) or data.labels[i] for i in rows}


def _twin_names(data: Dataset) -> dict[str, list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name in data.classes if data.task != "regression" else ():
        names[normal(unicodedata.normalize("NFKC", name))].append(name)
    return names


def leaked(data: Dataset) -> list[int]:
    """The training rows whose text stands in validation or test too."""
    judged = {normal(data.texts[i]) for i in range(len(data)) if data.splits[i] in ("validation", "test")} - {""}
    return [i for i in range(len(data)) if data.splits[i] in ("train", "") and normal(data.texts[i]) in judged]


LOOKS: tuple[Callable[[Dataset], Iterator[Finding]], ...] = (
    _few_rows, _empty, _duplicates, _conflicts, _leaks, _twins, _classes, _unseen,
)  # fmt: skip


# --- repairs ---


def without_empty_texts(data: Dataset) -> Dataset:
    """Only rows with a text."""
    return data.where(lambda i: bool(data.texts[i].strip()))


def without_missing_labels(data: Dataset) -> Dataset:
    """Only rows with a label."""
    return data.where(lambda i: data.labels[i] != "")


def without_duplicates(data: Dataset) -> Dataset:
    """The first of rows with equal text and label."""
    extra = {i for rows in _groups(data).values() for i in rows[1:] if len(_labels_of(data, rows)) == 1}
    return data.where(lambda i: i not in extra)


def without_conflicts(data: Dataset) -> Dataset:
    """Of equal texts with different labels, those with the most frequent one; none where none is."""
    gone: set[int] = set()
    for rows in _groups(data).values():
        votes = Counter(tuple(sorted(data.tags(i))) or (str(data.labels[i]),) for i in rows)
        if len(votes) > 1:
            (first, most), (_, second) = votes.most_common(2)
            keep = first if most > second else None
            gone |= {i for i in rows if (tuple(sorted(data.tags(i))) or (str(data.labels[i]),)) != keep}
    return data.where(lambda i: i not in gone)


def without_leaks(data: Dataset) -> Dataset:
    """No text of validation or test in training."""
    gone = set(leaked(data))
    return data.where(lambda i: i not in gone)


def with_one_spelling(data: Dataset) -> Dataset:
    """Classes that differ only in case, blanks or width, under their most frequent spelling."""
    counts = data.counts
    names = {n: max(group, key=lambda g: counts[g]) for group in _twin_names(data).values() for n in group}
    labels = tuple(
        tuple(dict.fromkeys(names.get(tag, tag) for tag in label)) if isinstance(label, tuple)
        else names.get(label, label) if isinstance(label, str) else label
        for label in data.labels
    )  # fmt: skip
    return replace(data, labels=labels)


def without_rare_classes(data: Dataset) -> Dataset:
    """Only classes of at least FEW_OF_CLASS rows."""
    rare = {name for name, n in data.counts.items() if n < FEW_OF_CLASS}
    if data.task == "multi_label":
        kept = tuple(
            tuple(t for t in label if t not in rare) if isinstance(label, tuple) else label for label in data.labels
        )
        return replace(data, labels=kept)
    return data.where(lambda i: data.labels[i] not in rare)


def without_unseen(data: Dataset) -> Dataset:
    """No class in validation or test that training does not have."""
    known = set(data.where(lambda i: data.splits[i] in ("train", "")).classes)
    return data.where(lambda i: data.splits[i] not in ("validation", "test") or not set(data.tags(i)) - known)


FIXES: dict[str, Callable[[Dataset], Dataset]] = {
    "empty_texts": without_empty_texts,
    "missing_labels": without_missing_labels,
    "label_twins": with_one_spelling,
    "conflicting_labels": without_conflicts,
    "duplicates": without_duplicates,
    "leaks": without_leaks,
    "rare_classes": without_rare_classes,
    "unseen_classes": without_unseen,
}
"""The repairs by the name of their finding, in the order in which they work best."""


# --- languages ---

COMMON = {
    "English": "the and is to of in it you that was for with this but not are have my",
    "German": "der die das und ist nicht ich ein eine zu mit den auf für es auch sich",
    "French": "le la les et est pas je un une de des que pour dans ce il vous très",
    "Spanish": "el los las y es no que un una de por con para muy pero lo está",
    "Italian": "il gli e è non che un una di per con molto ma sono questo della",
    "Portuguese": "o os as e é não que um uma de por com para muito mas está isso",
    "Dutch": "de het een en is niet ik van dat op te met voor zijn maar ook",
}
WORDS = {name: frozenset(words.split()) for name, words in COMMON.items()}
SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}
LANGUAGE_SAMPLE = 1000  # texts


def languages(texts: Sequence[str]) -> dict[str, float]:
    """The share of each language in a sample, largest first: a guess from letters and common words, no measurement.

    >>> languages(["this is the best of all", "das ist nicht der Hund", "привет мир"])
    {'English': 0.33, 'German': 0.33, 'Cyrillic letters': 0.33}
    """
    step = max(1, len(texts) // LANGUAGE_SAMPLE)
    found = Counter(name for text in texts[::step] if (name := _language(text[:1000])))
    total = max(1, found.total())
    shares = {name: round(n / total, 2) for name, n in found.most_common(6)}
    return {name: share for name, share in shares.items() if share >= 0.01}


def _language(text: str) -> str:
    letters = Counter(_script(c) for c in text[:200] if c.isalpha())
    if not letters:
        return ""
    script = letters.most_common(1)[0][0]
    if "Japanese" in letters:
        return "Japanese"
    if script != "LATIN":
        return script if script in SCRIPTS.values() else f"{script.capitalize()} letters"
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {name: sum(word in known for word in words) for name, known in WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] else "too short to tell"


def _script(letter: str) -> str:
    word = "LATIN" if letter.isascii() else unicodedata.name(letter, "OTHER").split()[0].split("-")[0]
    return SCRIPTS.get(word, word)


# --- settings that suit the data ---


def recommended(data: Dataset, lengths: Lengths, *, small: bool = False) -> dict[str, tuple[Any, str]]:
    """Settings that suit this data and a base model that may be small, each with its reason."""
    rows = max(1, sum(s in ("train", "") for s in data.splits))
    epochs = 3 if rows >= 20_000 else 4 if rows >= 5_000 else 6 if rows >= 1_000 else 10
    epochs, why = (min(10, 2 * epochs), "fewer rows and small base models") if small else (epochs, "fewer rows")
    batch = 32 if rows >= 1_000 else 16 if rows >= 200 else 8
    longest = max_length(lengths.p99, lengths.limit)
    found: dict[str, tuple[Any, str]] = {
        "epochs": (epochs, f"{rows:,} rows to train on; {why} need more rounds"),
        "batch_size": (batch, f"about {math.ceil(rows / batch):,} steps an epoch"),
        "max_length": (longest, f"99 of 100 texts have at most {lengths.p99} tokens"),
    }
    counts = [n for n in data.counts.values() if n]
    if data.task == "single_label" and counts and max(counts) / min(counts) >= UNEVEN:
        found["class_weights"] = (True, "the classes are of very different size")
    return found


def max_length(p99: int, limit: int) -> int:
    """Room for 99 of 100 texts, in steps of 8 tokens, as far as the model reads.

    >>> max_length(37, 512), max_length(600, 512)
    (40, 512)
    """
    return max(8, min(limit, math.ceil(p99 / 8) * 8))
