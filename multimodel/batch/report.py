"""What came of a batch: figures of each model, how far models agree, and all answers side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

from ..finetune.checkpoints import write_last
from ..types import Snapshot
from ..web import DOCUMENT_POLICY
from .plan import Batch
from .run import Answered, answers

ROUGH = 40  # tokens below which a rate is rough


@dataclass(frozen=True, slots=True)
class Lane:
    """The figures of one model under one setting. Times are medians over its warm answers, in seconds."""

    model: str
    setting: str
    answers: int
    errors: int
    ttft: float | None
    tokens_per_second: float | None
    output_tokens: float | None
    words: float
    loading: float  # seconds that the slowest answer waited for the model: the cold start
    memory: int  # bytes, the most seen; 0: not on this machine
    cut: int  # answers that ended at the length limit

    @property
    def rough(self) -> bool:
        """Whether the rate stands on short answers."""
        return self.output_tokens is not None and self.output_tokens < ROUGH


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two lanes say the same to the same prompts, each 0..1."""

    one: str
    other: str
    equal: float  # share of prompts with the same text, but for case and space
    alike: float  # mean share of words in common order (Ratcliff and Obershelp 1988)


@dataclass(frozen=True, slots=True)
class Report:
    """A batch with all its answers."""

    batch: Batch
    answered: tuple[Answered, ...]
    lanes: tuple[Lane, ...]
    agreements: tuple[Agreement, ...]


def report(folder: Path) -> Report:
    """The report of a folder, of as much as was answered. Raises BatchError."""
    batch = Batch.load(folder)
    found = tuple(answers(folder, batch))
    lanes = [(m, s) for m in range(len(batch.models)) for s in range(len(batch.settings))]
    of = {lane: [one for one in found if one.item[:2] == lane] for lane in lanes}
    figures = tuple(_lane(_name(batch, *lane), of[lane]) for lane in lanes)
    pairs = combinations(lanes, 2)
    return Report(
        batch, found, figures, tuple(_agreement(batch, one, other, of[one], of[other]) for one, other in pairs)
    )


def write(folder: Path) -> list[Path]:
    """Write report.json, report.md and report.html into a folder; returns their paths. Raises BatchError."""
    found = report(folder)
    forms: dict[str, Callable[[Report], str]] = {"json": to_json, "md": to_markdown, "html": to_html}
    paths = [folder / f"report.{suffix}" for suffix in forms]
    for path, form in zip(paths, forms.values(), strict=True):
        write_last(path, form(found))
    return paths


def _name(batch: Batch, model: int, setting: int) -> tuple[str, str]:
    return str(batch.models[model]), batch.settings[setting].name


def _lane(name: tuple[str, str], found: Sequence[Answered]) -> Lane:
    good = [one.answer for one in found if not one.answer.error]
    tokens = [answer.usage.output_tokens for answer in good if answer.usage]
    return Lane(
        *name,
        answers=len(found),
        errors=len(found) - len(good),
        ttft=_median(answer.timing.ttft for answer in good),
        tokens_per_second=_median(map(_rate, good)),
        output_tokens=_median(tokens),
        words=fmean([len(answer.text.split()) for answer in good] or [0]),
        loading=max((one.answer.timing.loading for one in found), default=0.0),
        memory=max((one.memory for one in found), default=0),
        cut=sum(answer.finish_reason == "length" for answer in good),
    )


def _rate(answer: Snapshot) -> float | None:
    return answer.timing.tokens_per_second(answer.usage.output_tokens) if answer.usage else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _agreement(
    batch: Batch, one: tuple[int, int], other: tuple[int, int], mine: Sequence[Answered], theirs: Sequence[Answered]
) -> Agreement:
    """Of the first answers to each prompt that both gave without an error."""
    texts = [
        {each.item.prompt: each.answer.text for each in found if each.item.repeat == 0 and not each.answer.error}
        for found in (mine, theirs)
    ]
    both = [
        (texts[0][prompt].lower().split(), texts[1][prompt].lower().split())
        for prompt in texts[0]
        if prompt in texts[1]
    ]
    equal = fmean([a == b for a, b in both] or [0.0])
    alike = fmean([SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in both] or [0.0])
    return Agreement(" · ".join(_name(batch, *one)), " · ".join(_name(batch, *other)), equal, alike)


# as text


def to_json(found: Report) -> str:
    """Everything, for programs."""
    batch = found.batch
    rows = [
        {
            "model": str(batch.models[one.item.model]),
            "setting": batch.settings[one.item.setting].name,
            "prompt": batch.prompts[one.item.prompt],
            "repeat": one.item.repeat,
            "text": one.answer.text,
            "finish_reason": one.answer.finish_reason,
            "ttft": one.answer.timing.ttft,
            "tokens_per_second": _rate(one.answer),
            "loading": one.answer.timing.loading,
            "usage": asdict(one.answer.usage) if one.answer.usage else None,
            "error": str(one.answer.error) if one.answer.error else None,
            "memory": one.memory,
        }
        for one in found.answered
    ]
    settings = [{"name": s.name, "params": s.params.asdict(), "system": s.system} for s in batch.settings]
    values = {
        "settings": settings,
        "lanes": [asdict(lane) for lane in found.lanes],
        "agreement": [asdict(pair) for pair in found.agreements],
        "answers": rows,
    }
    return json.dumps(values, ensure_ascii=False, indent=1)


HEAD = ("model", "setting", "answers", "errors", "TTFT", "tok/s", "tokens", "cut", "ready after", "memory")


def cells(lane: Lane) -> tuple[str, ...]:
    """A row of the table under HEAD."""
    rate = "–" if lane.tokens_per_second is None else f"{'about ' * lane.rough}{lane.tokens_per_second:.1f}"
    return (
        lane.model,
        lane.setting,
        f"{lane.answers:,}",
        f"{lane.errors:,}",
        "–" if lane.ttft is None else f"{1000 * lane.ttft:.0f} ms",
        rate,
        "–" if lane.output_tokens is None else f"{lane.output_tokens:.0f}",
        f"{lane.cut:,}",
        f"{lane.loading:.1f} s",
        f"{lane.memory / 1e9:.2f} GB" if lane.memory else "–",
    )


def to_markdown(found: Report) -> str:
    """Tables, then every prompt with its answers."""
    batch = found.batch
    said = len(found.answered)
    lines = [f"# {len(batch.prompts)} prompts, {len(found.lanes)} lanes, {said:,} of {len(batch):,} answers", ""]
    lines += _table(HEAD, [cells(lane) for lane in found.lanes])
    lines += ["Times are medians. Models were asked alone, one answer after another. A dash is not known.", ""]
    if found.agreements:
        rows = [(a.one, a.other, f"{a.equal:.0%}", f"{a.alike:.0%}") for a in found.agreements]
        lines += ["## Agreement", "", *_table(("one", "other", "same text", "words alike"), rows)]
    for number, prompt in enumerate(batch.prompts):
        lines += [f"## {number + 1}. {' '.join(prompt.split())[:200]}", ""]
        for one in found.answered:
            if one.item.prompt == number:
                name = " · ".join(_name(batch, one.item.model, one.item.setting))
                lines += [f"**{name}**", "", *(f"> {line}" for line in _text(one).splitlines() or [""]), ""]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), [":--"] * len(head), *cells]] + [""]


def _text(one: Answered) -> str:
    return f"Error: {one.answer.error}" if one.answer.error else one.answer.text


STYLE = """
:root { color-scheme: light dark; --page: #f7f7f8; --card: #fff; --line: #dedee4; --text: #1c1c21; --soft: #5f5f6b;
  --bar: #4f46e5; --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --page: #131316; --card: #1b1b1f; --line: #34343c; --text: #ececf0;
  --soft: #a3a3b0; --bar: #8b85ff; --bad: #ff8f85 } }
* { box-sizing: border-box }
body { margin: 0; padding: 24px; background: var(--page); color: var(--text); font: 15px/1.55 system-ui, sans-serif }
h1 { margin: 0 0 4px; font-size: 20px } h2 { margin: 28px 0 8px; font-size: 16px }
p { margin: 0 0 16px; color: var(--soft); font-size: 13px }
.wide { overflow-x: auto }
table { border-collapse: collapse; background: var(--card); font-variant-numeric: tabular-nums; font-size: 13.5px }
th, td { padding: 6px 12px; border: 1px solid var(--line); text-align: right; white-space: nowrap }
th { font-weight: 600 } th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 4px 12px; align-items: center;
  max-width: 720px; font-size: 13.5px; font-variant-numeric: tabular-nums }
.bars i { height: 12px; min-width: 2px; border-radius: 3px; background: var(--bar) }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(260px, 1fr); gap: 12px; overflow-x: auto }
.cell { min-width: 0; padding: 10px 14px; border: 1px solid var(--line); border-radius: 10px; background: var(--card);
  overflow-wrap: anywhere; white-space: pre-wrap }
.cell b { display: block; font-size: 12.5px; font-weight: 400; color: var(--soft) }
.error { color: var(--bad) }
.prompt { margin: 24px 0 8px; white-space: pre-wrap; overflow-wrap: anywhere; font-weight: 600 }
@media (max-width: 760px) { body { padding: 10px } .row { grid-auto-columns: 88% } }
"""


def to_html(found: Report) -> str:
    """A page of its own: no script, nothing from outside, every text escaped."""
    batch = found.batch
    title = f"{len(batch.prompts)} prompts, {len(found.lanes)} lanes"
    agreement = [(a.one, a.other, f"{a.equal:.0%}", f"{a.alike:.0%}") for a in found.agreements]
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{DOCUMENT_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
        f"<p>{len(found.answered):,} of {len(batch):,} answers. Times are medians; models were asked alone, one answer "
        "after another. A dash is not known.</p>",
        _html_table(HEAD, [cells(lane) for lane in found.lanes]),
        _bars("Tokens per second", found.lanes, lambda lane: lane.tokens_per_second, "{:.1f}"),
        _bars("Time to first token, ms", found.lanes, lambda lane: lane.ttft and 1000 * lane.ttft, "{:.0f}"),
        _bars("Memory, GB", found.lanes, lambda lane: lane.memory / 1e9 or None, "{:.2f}"),
        "<h2>Agreement</h2>" * bool(agreement),
        _html_table(("one", "other", "same text", "words alike"), agreement) if agreement else "",
        "<h2>Answers</h2>",
        *(_prompt_html(found, number) for number in range(len(batch.prompts))),
        "</body></html>\n",
    ]
    return "".join(parts)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def _bars(title: str, lanes: Sequence[Lane], value: Callable[[Lane], float | None], form: str) -> str:
    """Bars of what is known; nothing where nothing is."""
    known = [(lane, number) for lane in lanes if (number := value(lane))]
    if not known:
        return ""
    most = max(number for _, number in known)
    rows = "".join(
        f"<span>{escape(lane.model)} · {escape(lane.setting)}</span>"
        f'<i style="width:{100 * number / most:.1f}%"></i><span>{form.format(number)}</span>'
        for lane, number in known
    )
    return f'<h2>{title}</h2><div class="bars">{rows}</div>'


def _prompt_html(found: Report, number: int) -> str:
    cells = "".join(
        f'<div class="cell{" error" * bool(one.answer.error)}">'
        f"<b>{escape(' · '.join(_name(found.batch, one.item.model, one.item.setting)))}</b>{escape(_text(one))}</div>"
        for one in found.answered
        if one.item.prompt == number
    )
    return (
        f'<div class="prompt">{number + 1}. {escape(found.batch.prompts[number])}</div><div class="row">{cells}</div>'
    )
