"""What came of a batch, as values: figures of each lane, how far lanes agree, and what a replay says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations, groupby
from math import ceil
from pathlib import Path
from statistics import fmean, median

from ..fairlane import few
from ..settings import Settings
from .machine import Machine, recorded
from .plan import Batch
from .replay import Original, Verdict, replayed, verdicts
from .run import Answered, answers

LONG = 1500  # words above which two answers are compared by their beginnings


@dataclass(frozen=True, slots=True)
class Lane:
    """The figures of one model under one setting. Times are medians in seconds, of answers that ran alone."""

    model: str
    setting: str
    answers: int  # that have ended, errors included
    errors: int
    ttft: float | None
    ttft_p95: float | None
    tokens_per_second: float | None
    output_tokens: float | None
    words: float
    loading: float  # seconds that the slowest answer waited for the model: the cold start
    memory: int  # bytes, the most seen; 0: not on this machine
    cut: int  # answers that ended at the length limit
    endings: tuple[tuple[str, int], ...] = ()  # (finish reason, answers)
    cost: float | None = None  # US dollars of those whose price is known; None: nobody is paid, or none is known
    unpriced: int = 0  # paid answers whose price is not known
    estimated: bool = False  # whether some of the cost is an estimate
    shared: int = 0  # answers beside which others ran

    @property
    def name(self) -> str:
        """The model and its setting."""
        return f"{self.model} · {self.setting}"

    @property
    def rough(self) -> bool:
        """Whether the rate stands on answers of few tokens, or such as came in a moment."""
        return self.output_tokens is not None and few(self.output_tokens, self.tokens_per_second or 0.0)

    @property
    def good(self) -> int:
        """Answers without an error."""
        return self.answers - self.errors


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two lanes say the same to the same prompts, each 0..1."""

    one: str
    other: str
    equal: float  # share of prompts with the same text, but for case and space
    alike: float  # mean share of words in common order (Ratcliff and Obershelp 1988)
    prompts: int = 0  # that both answered
    places: tuple[int, int] = (0, 0)  # of the two lanes


@dataclass(frozen=True, slots=True)
class Report:
    """A batch with all its answers."""

    batch: Batch
    answered: tuple[Answered, ...]
    lanes: tuple[Lane, ...]
    agreements: tuple[Agreement, ...]  # of lanes that answered a prompt both
    machine: Machine
    before: Original | None = None  # what it replays
    verdicts: tuple[Verdict, ...] = ()

    @property
    def tally(self) -> str:
        """How many answers there are of those that were asked for, and how many errors instead."""
        good, errors = (sum(getattr(lane, name) for lane in self.lanes) for name in ("good", "errors"))
        failed = f", {counted(errors, 'error')}" if errors else ""
        return f"{good:,} of {counted(len(self.batch), 'answer')}{failed}"

    def lane_of(self, one: Answered) -> int:
        """The place of an answer's lane."""
        return one.item.model * len(self.batch.settings) + one.item.setting

    def parted(self) -> list[list[Verdict]]:
        """The verdicts that are not identical; failures of a lane for one reason, one after another, as one."""
        others = [verdict for verdict in self.verdicts if verdict.kind != "identical"]
        return [list(same) for _, same in groupby(others, key=_reason)]

    @property
    def title(self) -> str:
        """What was asked, in a line."""
        batch = self.batch
        counts = [(len(batch.prompts), "prompt"), (len(batch.models), "model"), (len(batch.settings), "setting")]
        return ", ".join(counted(*count) for count in counts)


def counted(number: int, thing: str) -> str:
    """
    >>> counted(1, "error"), counted(1200, "answer")
    ('1 error', '1,200 answers')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _reason(verdict: Verdict) -> tuple[object, ...]:
    item = verdict.item
    return (item.model, item.setting, verdict.words) if verdict.kind == "error" else item


def report(folder: Path, settings: Settings | None = None) -> Report:
    """The report of a folder, of as much as was answered. Raises BatchError, ForeignFile."""
    batch = Batch.load(folder, own=True)
    found = tuple(answers(folder, batch))
    lanes = [(m, s) for m in range(len(batch.models)) for s in range(len(batch.settings))]
    of = [[one for one in found if one.item[:2] == lane] for lane in lanes]
    figures = tuple(_lane(str(batch.models[m]), batch.settings[s].name, of[i]) for i, (m, s) in enumerate(lanes))
    pairs = [_agreement(figures, (i, j), of[i], of[j]) for i, j in combinations(range(len(lanes)), 2)]
    before = replayed(folder, settings or Settings())
    return Report(
        batch,
        found,
        figures,
        tuple(pair for pair in pairs if pair.prompts),
        recorded(folder),
        before,
        verdicts(before, found) if before else (),
    )


def _lane(model: str, setting: str, found: Sequence[Answered]) -> Lane:
    good = [one for one in found if not one.answer.error]
    alone = [one.answer for one in good if not one.shared] or [one.answer for one in good]
    first = sorted(ttft for answer in alone if (ttft := answer.timing.ttft) is not None)
    tokens = [one.answer.usage.output_tokens for one in good if one.answer.usage]
    costs = [cost for one in found if (cost := one.answer.cost)]
    known = [cost.amount for cost in costs if cost.amount is not None]
    return Lane(
        model,
        setting,
        answers=len(found),
        errors=len(found) - len(good),
        ttft=_median(first),
        ttft_p95=percentile(first, 0.95),
        tokens_per_second=_median(answer.rate for answer in alone),
        output_tokens=_median(tokens),
        words=fmean([len(one.answer.text.split()) for one in good] or [0]),
        loading=max((one.answer.timing.loading for one in found), default=0.0),
        memory=max((one.memory for one in found), default=0),
        cut=sum(one.answer.finish_reason == "length" for one in good),
        endings=tuple(Counter(str(one.answer.finish_reason) for one in found).most_common()),
        cost=sum(known) if known else None,
        unpriced=len(costs) - len(known),
        estimated=any(cost.estimated for cost in costs),
        shared=sum(one.shared for one in found),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that this share of the values does not exceed (nearest rank); None of none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0], 0.95), percentile([], 0.5)
    (2.0, 2.0, None)
    """
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def _agreement(
    lanes: Sequence[Lane], places: tuple[int, int], mine: Sequence[Answered], theirs: Sequence[Answered]
) -> Agreement:
    """Of the first answers to each prompt that both gave without an error."""
    texts = [
        {each.item.prompt: each.answer.text for each in found if each.item.repeat == 0 and not each.answer.error}
        for found in (mine, theirs)
    ]
    both = [(words(texts[0][prompt]), words(texts[1][prompt])) for prompt in texts[0] if prompt in texts[1]]
    equal = fmean([a == b for a, b in both] or [0.0])
    alike = fmean([SequenceMatcher(None, a[:LONG], b[:LONG], autojunk=False).ratio() for a, b in both] or [0.0])
    one, other = (lanes[place].name for place in places)
    return Agreement(one, other, equal, alike, len(both), places)


def words(text: str) -> list[str]:
    """The words by which texts are compared."""
    return text.lower().split()
