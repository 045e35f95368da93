"""Measure `guide`: held-out questions, follow-ups and the locked test.

An answer counts as right when its first nine greedy tokens (or all, if it is shorter) are those of an
answer of the right topic; nine are enough to tell the answers apart and quick to compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from transformers import DynamicCache, LlamaForCausalLM

from guide.batches import ID, Encoder
from guide.dialogues import Generator, Turn
from guide.model import END
from guide.text import OUT_OF_SCOPE, Corpus, read_locked
from multimodel.workers.torch_cache import cache_argument

DECISIVE = 9
TEMPLATES_EACH = 2
OUTSIDE_CASES = 300
CONVERSATIONS = 400
Case = list[Turn]


@dataclass(frozen=True)
class Miss:
    """A case that went wrong and what was answered instead."""

    question: str
    wanted: str
    got: str


@dataclass(frozen=True)
class Score:
    """The result of one test."""

    right: int
    total: int
    misses: tuple[Miss, ...]

    @property
    def percent(self) -> float:
        """Return the share of right answers in percent."""
        return 100 * self.right / max(1, self.total)


def template_cases(generator: Generator) -> list[Case]:
    """Draw noisy template questions whose sentence was withheld from training (A)."""
    drawn = {
        key: generator.rng.sample(texts, min(TEMPLATES_EACH, len(texts))) for key, texts in generator.framed.items()
    }
    return [[Turn(generator.rewrite(text), key)] for key, texts in drawn.items() for text in texts]


def outside_cases(generator: Generator) -> list[Case]:
    """Draw out-of-scope questions, slot-filled and written, that training never showed (Ao)."""
    written = [Turn(question, OUT_OF_SCOPE) for question in generator.refused]
    filled = max(100, OUTSIDE_CASES - len(written))
    made = [Turn(generator.rewrite(generator.slot_filled()), OUT_OF_SCOPE) for _ in range(filled)]
    return [[turn] for turn in written + made]


def follow_up_cases(training: Generator, withheld: Generator) -> list[Case]:
    """Draw conversations of two to six turns that end in a withheld follow-up (F)."""
    cases: list[Case] = []
    while len(cases) < CONVERSATIONS:
        turns = training.conversation(1 + len(cases) % 5)
        anchor = ""
        for turn in turns:
            anchor = training.anchor_after(turn.label, anchor)
        last = (withheld.ruled if len(cases) % 2 else withheld.more)(anchor) if anchor else None
        if last:
            cases.append([*turns, last])
    return cases


def written_cases(withheld: Generator) -> list[Case]:
    """Return the written questions of the development split as they are (D)."""
    return [[Turn(question, key)] for key, questions in withheld.written.items() for question in questions]


def unsure_cases(generator: Generator) -> list[Case]:
    """Ask each ambiguous word once on its own (U)."""
    return [[Turn(word, label)] for word, label in generator.unsure.items()]


def locked_cases(corpus: Corpus) -> list[Case]:
    """Return the locked questions; call this only for a final score (L)."""
    known = {*corpus.topics, OUT_OF_SCOPE}
    return [[Turn(question, key)] for key, question in read_locked() if key in known]


def development_sets(corpus: Corpus, seed: int = 999) -> dict[str, list[Case]]:
    """Collect every test that may be looked at while developing."""
    training = Generator(corpus, seed)
    withheld = Generator(corpus, seed + 1, withheld=True)
    return {
        "A": template_cases(withheld),
        "Ao": outside_cases(withheld),
        "F": follow_up_cases(training, withheld),
        "D": written_cases(withheld),
        "U": unsure_cases(training),
    }


def same_length(prompts: list[list[int]], most: int = 128) -> Iterator[list[int]]:
    """Group prompts (by their places) that are equally long, so that none needs padding."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    for _, places in groupby(order, key=lambda at: len(prompts[at])):
        found = list(places)
        yield from (found[start : start + most] for start in range(0, len(found), most))


@torch.inference_mode()
def continuations(model: LlamaForCausalLM, prompts: list[list[int]], length: int) -> list[list[int]]:
    """Continue prompts greedily up to a number of tokens; a group stops when all its answers have ended."""
    results: list[list[int]] = [[] for _ in prompts]
    name = cache_argument(model.model)
    for places in same_length(prompts):
        ids, cache = torch.tensor([prompts[at] for at in places]), DynamicCache()
        for _ in range(length):
            hidden = model.model(input_ids=ids, use_cache=True, **{name: cache}).last_hidden_state
            ids = model.lm_head(hidden[:, -1:]).argmax(-1)
            for at, token in zip(places, ids[:, 0].tolist(), strict=True):
                results[at].append(token)
            if all(ID[END] in results[at] for at in places):
                break
    return results


class Judge:
    """Recognises which label an answer belongs to by its first tokens."""

    def __init__(self, encoder: Encoder, labels: Iterable[str]) -> None:
        self.owners: dict[tuple[int, ...], set[str]] = {}
        for label in labels:
            for text in encoder.answers.variants(label):
                start = tuple(encoder.answer(text)[:DECISIVE])
                self.owners.setdefault(start, set()).add(label)

    def labels(self, tokens: list[int]) -> set[str]:
        """Return the labels whose answer begins like this."""
        cut = tokens[: tokens.index(ID[END]) + 1] if ID[END] in tokens else tokens
        return self.owners.get(tuple(cut[:DECISIVE]), set())


def is_right(wanted: str, got: set[str]) -> bool:
    """Accept the topic's answer; a plain question may also get the topic's second answer."""
    return wanted in got or f"{wanted}+" in got


def score(model: LlamaForCausalLM, encoder: Encoder, cases: list[Case]) -> Score:
    """Count the cases whose last turn is answered rightly."""
    judge = Judge(encoder, [*encoder.answers.labels(), *{case[-1].label for case in cases}])
    model.eval()
    found = continuations(model, [encoder.prompt(case) for case in cases], DECISIVE)
    misses = []
    for case, tokens in zip(cases, found, strict=True):
        got = judge.labels(tokens)
        if not is_right(case[-1].label, got):
            answered = ",".join(sorted(got)) or encoder.tokenizer.decode(tokens)
            misses.append(Miss(case[-1].question, case[-1].label, answered))
    model.train()
    return Score(len(cases) - len(misses), len(cases), tuple(misses))


def topics_named(model: LlamaForCausalLM, encoder: Encoder, cases: list[Case]) -> int:
    """Count the cases in which the guide asks back and names the right topic."""
    start, topics = encoder.answers.unsure.split("{")[0], encoder.answers.topics
    asked = [case for case in cases if case[-1].label in topics]
    found = continuations(model, [encoder.prompt(case) for case in asked], 48)
    texts = [encoder.tokenizer.decode(tokens) for tokens in found]
    return sum(t.startswith(start) and topics[c[-1].label].name in t for c, t in zip(asked, texts, strict=True))
