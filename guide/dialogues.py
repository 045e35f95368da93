"""Make training dialogues from the written text.

A dialogue is a list of turns, each a question and the label of its answer. Labels are a topic id, the id
with `+` for its second answer, `oos` for a refusal, or ids joined by `|` for "did you mean".
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from guide.text import OUT_OF_SCOPE, Corpus, Topic, held_out, in_dev, words
from guide.wording import Rates, Rewriter, content_words

TEMPLATE_PERCENT = 5
FOLLOW_UP_PERCENT = 8
MOST_AMBIGUOUS = 300
TELLING = 8
FAMILIAR = 40


@dataclass(frozen=True)
class Turn:
    """One question with the label of its answer."""

    question: str
    label: str


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of questions and dialogues; the figures were tuned on the development split."""

    out_of_scope: float = 0.31
    unsure: float = 0.03
    written: float = 0.45
    joined: float = 0.08
    bag: float = 0.12
    hint: float = 0.2
    single: float = 0.55
    follow_up: float = 0.6
    small_talk: float = 0.2


class Answers:
    """Turns labels into answer texts."""

    def __init__(self, corpus: Corpus) -> None:
        self.topics = corpus.topics
        self.refusals = corpus.phrases["refusals"]
        self.unsure = corpus.phrases["unsure"][0]

    def variants(self, label: str) -> tuple[str, ...]:
        """Return every right answer for a label."""
        if label == OUT_OF_SCOPE:
            return self.refusals
        if "|" in label:
            names = [self.topics[key].name for key in label.split("|")]
            return (self.unsure.format(", ".join(names[:-1]) + " or " + names[-1]),)
        if label.endswith("+"):
            return (self.topics[label[:-1]].more,)
        return (self.topics[label].answer,)

    def labels(self) -> list[str]:
        """List the labels of all fixed answers."""
        more = [f"{key}+" for key, topic in self.topics.items() if topic.more]
        return [*self.topics, *more, OUT_OF_SCOPE]


def shared_questions(corpus: Corpus) -> dict[str, str]:
    """Find written questions that several topics claim; the honest reply to them is to ask back."""
    owners: dict[str, set[str]] = defaultdict(set)
    for topic in corpus.topics.values():
        for question in topic.questions:
            owners[" ".join(words(question))].add(topic.id)
    return {text: "|".join(sorted(ids)) for text, ids in owners.items() if len(ids) > 1}


def ambiguous_words(corpus: Corpus, most: int = MOST_AMBIGUOUS) -> dict[str, str]:
    """Find content words of exactly two or three topics, so that the model can ask back when given one.

    A word that is itself a whole question or noun of some topic has a clear meaning and is left out.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    clear: set[str] = set()
    for topic in corpus.topics.values():
        for question in topic.questions:
            found = words(question)
            clear.update(found if len(content_words(found)) == 1 else ())
            for word in set(content_words(found)):
                counts[word][topic.id] += 1
        clear.update(noun.lower() for noun in (*topic.nouns, *topic.hints, topic.name))
    clear.update(word for line in corpus.out_of_scope for word in words(line))
    shared = {word: c for word, c in counts.items() if is_ambiguous(c) and word not in clear and len(word) > 2}
    kept = sorted(shared, key=lambda word: -shared[word].total())[:most]
    return {word: "|".join(sorted(shared[word])) for word in sorted(kept)}


def is_ambiguous(topics: Counter[str]) -> bool:
    """Say whether two or three topics share a word and none of them owns nearly all its uses."""
    return 2 <= len(topics) <= 3 <= topics.total() and max(topics.values()) < 0.75 * topics.total()


class Generator:
    """Draws questions and dialogues, either for training or from what training never shows."""

    def __init__(
        self, corpus: Corpus, seed: int, mix: Mix = Mix(), rates: Rates = Rates(), withheld: bool = False
    ) -> None:
        self.corpus, self.mix, self.withheld = corpus, mix, withheld
        self.rng = random.Random(seed)
        self.phrases = corpus.phrases
        self.rewrite = Rewriter(self.rng, corpus.synonyms, self.phrases["before"], self.phrases["after"], rates)
        self.ids = list(corpus.topics)
        self.talk = [key for key in self.ids if corpus.topics[key].kind == "talk"]
        self.shared = shared_questions(corpus)
        self.written = {key: self._split(topic.questions) for key, topic in corpus.topics.items()}
        self.refused = self._split(corpus.out_of_scope)
        self.strange = sorted(self._outer() - self._own())
        self.spread = self._spread()
        self.nouns = self._unique_nouns()
        self.framed = {key: self.templates(topic) for key, topic in corpus.topics.items() if topic.kind != "talk"}
        self.unsure = ambiguous_words(corpus) | self.shared
        self.follow_ups = self._follow_up_table()

    def _split(self, questions: tuple[str, ...]) -> list[str]:
        """Keep the questions of this generator's side of the development split."""
        clear = [question for question in questions if " ".join(words(question)) not in self.shared]
        kept = [question for question in clear if in_dev(question) == self.withheld]
        return kept or ([] if self.withheld else list(questions))

    def _own(self) -> set[str]:
        """Collect the words of the topics."""
        texts = [text for t in self.corpus.topics.values() for text in (*t.questions, *t.hints, *t.nouns, t.name)]
        return {word for text in texts for word in words(text)}

    def _outer(self) -> set[str]:
        """Collect the content words of what is out of scope."""
        fillers = [text for texts in self.corpus.slots.fillers.values() for text in texts]
        return {word for text in (*self.refused, *fillers) for word in content_words(words(text))}

    def _spread(self) -> Counter[str]:
        """Count for every word the topics that use it."""
        hints = {key: topic.hints for key, topic in self.corpus.topics.items()}
        texts = {key: (*questions, *hints[key]) for key, questions in self.written.items()}
        return Counter(word for found in texts.values() for word in {w for text in found for w in words(text)})

    def _unique_nouns(self) -> dict[str, list[str]]:
        """Collect names and nouns that belong to one topic only; shared ones would mislead."""
        named = {key: {n.lower() for n in (*t.nouns, t.name)} for key, t in self.corpus.topics.items()}
        owners = Counter(noun for nouns in named.values() for noun in nouns)
        return {key: sorted(n for n in nouns if owners[n] == 1) for key, nouns in named.items()}

    def _follow_up_table(self) -> dict[str, list[tuple[str, str]]]:
        """List for every topic the follow-up phrases it allows and what each leads to."""
        table: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for rule in self.corpus.follow_ups:
            for previous, target in rule.targets.items():
                table[previous] += [(phrase, target) for phrase in rule.phrases]
        return {key: [p for p in pairs if self._is_mine(key, p[0])] for key, pairs in table.items()}

    def _is_mine(self, previous: str, phrase: str) -> bool:
        """Say on which side of the follow-up split a combination lies."""
        return held_out(f"after {previous}: {phrase}", FOLLOW_UP_PERCENT) == self.withheld

    # Single questions

    def templates(self, topic: Topic) -> list[str]:
        """Combine nouns of the topic with sentence frames; some combinations are withheld as a test."""
        frames = self.phrases["term frames" if topic.kind == "term" else "how frames"]
        made = [frame.format(noun) for frame in frames for noun in self.nouns[topic.id]]
        return [t for t in made if held_out(f"template {topic.id} {t}", TEMPLATE_PERCENT) == self.withheld]

    def fragment(self, question: str, spread: int) -> str:
        """Cut a run of words out of a question that still says something of its own."""
        parts = question.rstrip("?.! ").split(" ")
        size = self.rng.randint(2, max(2, len(parts) - 1))
        start = self.rng.randint(0, max(0, len(parts) - size))
        piece = " ".join(parts[start : start + size])
        return piece if self._is_telling(words(piece), spread) else question

    def joined(self, questions: list[str], spread: int = TELLING) -> str:
        """Join pieces of two questions of one topic, so that their words are learnt in new company."""
        first, second = (self.rng.choice(questions) for _ in range(2))
        glue = self.rng.choice(self.phrases["joins"])
        return f"{self.fragment(first, spread)} {glue} {self.fragment(second, spread)}".replace(" ,", ",")

    def bag(self, questions: list[str], spread: int = TELLING) -> str:
        """Keep only some content words of one or two questions, in any order, in a loose frame."""
        source = " ".join(self.rng.choice(questions) for _ in range(self.rng.choice((1, 1, 2))))
        found = list(dict.fromkeys(content_words(words(source))))
        chosen = self.rng.sample(found, min(len(found), self.rng.randint(1, 4)))
        if not self._is_telling(chosen, spread):
            return source
        text = chosen[0]
        for word in chosen[1:]:
            glue = self.rng.choice(self.phrases["joins"]) if self.rng.random() < 0.6 else ""
            text = f"{text} {glue} {word}".replace("  ", " ").replace(" ,", ",")
        return self.rng.choice(self.phrases["loose frames"]).format(text)

    def _is_telling(self, found: list[str], spread: int) -> bool:
        """Say whether some content word is known from at most so many topics."""
        return any(self.spread[word] <= spread for word in content_words(found))

    def hint(self, hints: tuple[str, ...]) -> str:
        """Put one or two short fragments into a loose frame."""
        text = self.rng.choice(hints)
        if self.rng.random() < 0.35:
            text = f"{text} {self.rng.choice(self.phrases['joins'])} {self.rng.choice(hints)}".replace(" ,", ",")
        return self.rng.choice(self.phrases["loose frames"]).format(text) if self.rng.random() < 0.6 else text

    def about(self, key: str) -> str:
        """Draw a plain question about a topic from one of the five sources."""
        topic, questions = self.corpus.topics[key], self.written[key]
        sources: list[tuple[float, Callable[[], str]]] = [
            (self.mix.written, lambda: self.rng.choice(questions)),
            (self.mix.joined, lambda: self.joined(questions)),
            (self.mix.bag, lambda: self.bag(questions)),
            (self.mix.hint, lambda: self.hint(topic.hints or topic.questions)),
            (1.0, lambda: self.rng.choice(self.framed.get(key) or questions)),
        ]
        return self._drawn(sources)

    def _drawn(self, sources: list[tuple[float, Callable[[], str]]]) -> str:
        """Draw from one of several sources by their shares; the last one takes what is left."""
        roll = self.rng.random()
        for share, source in sources[:-1]:
            if roll < share:
                return source()
            roll -= share
        return sources[-1][1]()

    def slot_filled(self) -> str:
        """Fill an out-of-scope pattern; some results are withheld as a test."""
        slots = self.corpus.slots
        while True:
            pattern = self.rng.choice(slots.patterns)
            text = re.sub(r"\{(\w+)\}", lambda gap: self.rng.choice(slots.fillers[gap[1]]), pattern)
            if held_out("slots " + text, TEMPLATE_PERCENT) == self.withheld:
                return text

    def transplanted(self) -> str:
        """Ask a topic's question about something else: a known sentence does not make a known thing."""
        question = self.rng.choice(self.written[self.rng.choice(self.ids)])
        telling = [word for word in content_words(words(question)) if self.spread[word] <= FAMILIAR]
        for word in telling:
            question = re.sub(rf"(?i)(?<!\w){re.escape(word)}(?!\w)", self.rng.choice(self.strange), question)
        return question if telling else self.rng.choice(self.refused)

    def near_miss(self) -> str:
        """Put a word of a topic among strange ones: a known word does not make a known thing."""
        noun = self.rng.choice(self.nouns[self.rng.choice(self.ids)] or ["model"])
        line = self.rng.choice(self.refused)
        found = content_words(words(line))
        if len(found) > 2 and self.rng.random() < 0.5:
            return re.sub(rf"(?i)(?<!\w){re.escape(self.rng.choice(found))}(?!\w)", noun, line, count=1)
        parts = [noun, *self.rng.sample(self.strange, self.rng.choice((1, 1, 2)))]
        self.rng.shuffle(parts)
        return self.rng.choice(self.phrases["loose frames"]).format(" ".join(parts))

    def outside(self) -> str:
        """Draw a question that the model must refuse."""
        sources: list[tuple[float, Callable[[], str]]] = [
            (0.33, self.slot_filled),
            (0.33, lambda: self.rng.choice(self.refused)),
            (0.04, lambda: self.joined(self.refused, 0)),
            (0.04, lambda: self.bag(self.refused, 0)),
            (0.16, self.near_miss),
            (0.1, self.transplanted),
        ]
        return self._drawn(sources) if self.refused else self.slot_filled()

    def ambiguous(self) -> Turn:
        """Draw a bare word that two or three topics share."""
        word = self.rng.choice(list(self.unsure))
        frame = self.rng.choice(self.phrases["ambiguous frames"])
        return Turn(self.rewrite.recase(frame.format(word)), self.unsure[word])

    def question(self, key: str) -> Turn:
        """Draw a varied question for a topic or for out-of-scope."""
        plain = self.outside() if key == OUT_OF_SCOPE else self.about(key)
        return Turn(self.rewrite(plain), key)

    def opening(self) -> Turn:
        """Draw a turn that needs no previous one."""
        roll = self.rng.random()
        if roll < self.mix.out_of_scope:
            return self.question(OUT_OF_SCOPE)
        if roll < self.mix.out_of_scope + self.mix.unsure and self.unsure:
            return self.ambiguous()
        return self.question(self.rng.choice(self.ids))

    # Dialogues

    def ellipsis(self, previous: str) -> Turn:
        """Ask for another topic of the same kind by its noun alone: "and top-p?"."""
        topics = self.corpus.topics
        key = self.rng.choice([key for key in self.ids if topics[key].kind == topics[previous].kind])
        frame = self.rng.choice(self.phrases["ellipsis frames"])
        noun = self.rng.choice(self.nouns[key] or [topics[key].name])
        return Turn(self.rewrite(frame.format(noun)), key)

    def more(self, previous: str) -> Turn | None:
        """Ask for the second answer of the previous topic."""
        allowed = [phrase for phrase in self.phrases["more"] if self._is_mine(previous, phrase)]
        if not self.corpus.topics[previous].more or not allowed:
            return None
        return Turn(self.rewrite(self.rng.choice(allowed)), previous + "+")

    def ruled(self, previous: str) -> Turn | None:
        """Ask a follow-up that a written rule resolves."""
        pairs = self.follow_ups.get(previous)
        if not pairs:
            return None
        phrase, target = self.rng.choice(pairs)
        return Turn(self.rewrite(phrase), target)

    def follow_up(self, previous: str) -> Turn | None:
        """Ask something that is clear only after the previous topic."""
        roll = self.rng.random()
        if roll < 0.4:
            return self.more(previous)
        return self.ruled(previous) if roll < 0.85 else self.ellipsis(previous)

    def starter(self) -> Turn:
        """Draw an opening, with topics that have follow-up rules more often."""
        if self.follow_ups and self.rng.random() < 0.5:
            return self.question(self.rng.choice(list(self.follow_ups)))
        return self.opening()

    def next_turn(self, anchor: str) -> Turn:
        """Continue a dialogue: follow up on the last topic, chat a little, or change the topic."""
        roll = self.rng.random()
        turn = self.follow_up(anchor) if anchor and roll < self.mix.follow_up else None
        if turn:
            return turn
        if roll > 1 - self.mix.small_talk and self.talk:
            return self.question(self.rng.choice(self.talk))
        return self.starter()

    def anchor_after(self, label: str, anchor: str) -> str:
        """Name the topic that "it" means after a turn: small talk does not change it."""
        key = label.rstrip("+")
        if key not in self.corpus.topics:
            return ""
        return anchor if key in self.talk else key

    def conversation(self, length: int) -> list[Turn]:
        """Draw a dialogue of the given number of turns."""
        turns = [self.starter()]
        anchor = self.anchor_after(turns[0].label, "")
        while len(turns) < length:
            turns.append(self.next_turn(anchor))
            anchor = self.anchor_after(turns[-1].label, anchor)
        return turns

    def dialogue(self) -> list[Turn]:
        """Draw a training dialogue of one to six turns, mostly one because that teaches fastest."""
        if self.rng.random() < self.mix.single:
            return [self.opening()]
        return self.conversation(self.rng.choice((2, 2, 3, 3, 4, 5, 6)))
