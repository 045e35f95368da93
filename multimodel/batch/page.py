"""The report as HTML: in the app, and as a page of its own without a script. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape
from itertools import groupby
from typing import NamedTuple

from .. import prices
from ..fairlane import few
from ..types import LoadOptions, SamplingParams, Sent
from ..web import DOCUMENT_POLICY
from .charts import COLOURS, Bar, Part, bars, key, letter, stacks
from .replay import KINDS, Verdict
from .report import LONG, Agreement, Lane, Report, words
from .run import Answered
from .style import DOCUMENT, STYLE

OPEN = 12  # prompts whose answers are open at first
ENDINGS = {
    "stop": ("finished", "good"),
    "tool_calls": ("finished", "good"),
    "length": ("cut at the length limit", "caution"),
    "content_filter": ("ended by the content filter", "caution"),
    "incomplete": ("incomplete", "caution"),
    "stopped": ("stopped", "caution"),
    "interrupted": ("interrupted", "caution"),
    "error": ("failed", "bad"),
}
"""What the page calls a finish reason, and what it means."""
NOTE = "Times are medians of answers that ran alone, one after another. A dash is not known."


class Column(NamedTuple):
    """One figure of a lane."""

    name: str
    title: str
    text: str


def seconds(value: float | None) -> str:
    """A time to first token.

    >>> seconds(0.25), seconds(2.14), seconds(None)
    ('250 ms', '2.1 s', '–')
    """
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def pace(value: float | None, rough: bool = False) -> str:
    """Tokens per second; "~" where they stand on short answers.

    >>> pace(1443.02), pace(9.97, True), pace(None)
    ('1443', '~10.0', '–')
    """
    if value is None:
        return "–"
    return f"{'~' * rough}{value:.0f}" if value >= 100 else f"{'~' * rough}{value:.1f}"


def money(lane: Lane) -> str:
    """What a lane costs; a dash where that is not known, and where nobody is paid."""
    if lane.cost is None:
        return "–"
    unknown = f", {lane.unpriced} unknown" if lane.unpriced else ""
    return f"{'~' * lane.estimated}{prices.money(lane.cost)}{unknown}"


def columns(lane: Lane) -> tuple[Column, ...]:
    """The figures of a lane, as every form of the report has them."""
    speed = pace(lane.tokens_per_second, lane.rough)
    return (
        Column("answered", "Answers without an error, of all that were asked for", f"{lane.good:,}/{lane.answers:,}"),
        Column("TTFT", "Time to first token, median", seconds(lane.ttft)),
        Column("p95", "The time to first token that 95 of 100 answers do not exceed", seconds(lane.ttft_p95)),
        Column("tok/s", "Tokens after the first over the time after the first; ~: short answers", speed),
        Column("tokens", "Of an answer, median", "–" if lane.output_tokens is None else f"{lane.output_tokens:.0f}"),
        Column("cut", "Answers that ended at the length limit", f"{lane.cut:,}"),
        Column("ready after", "Download, start and loading: the slowest answer", f"{lane.loading:.1f} s"),
        Column(
            "memory", "The most that the model's process took", f"{lane.memory / 1e9:.2f} GB" if lane.memory else "–"
        ),
        Column("cost", "US dollars, of all answers", money(lane)),
    )


def to_html(found: Report) -> str:
    """A page of its own: no script, nothing from outside, every text escaped."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{DOCUMENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{found.title}</title><style>{DOCUMENT}{STYLE}</style></head>"
        f'<body><main class="mb-report"><h1>{found.title}</h1>{summary_html(found)}'
        f"{answers_html(found, range(len(found.batch.prompts)))}{asked_html(found)}</main></body></html>\n"
    )


def summary_html(found: Report) -> str:
    """What came of it: the table of lanes, charts, agreement, and what a replay says."""
    shared = sum(lane.shared for lane in found.lanes)
    beside = f" {shared:,} answers ran beside others; they do not count in the times." if shared else ""
    return (
        f'<p class="mb-soft">{found.tally}. {NOTE}{beside}</p>{_lanes_table(found)}'
        f"{_replay_html(found)}{_charts(found)}{_agreement_html(found)}"
    )


def _lanes_table(found: Report) -> str:
    heads = "".join(
        f'<th scope="col" title="{escape(column.title)}">{column.name}</th>' for column in columns(found.lanes[0])
    )
    rows = ""
    for i, lane in enumerate(found.lanes):
        cells = "".join(f'<td data-label="{column.name}">{escape(column.text)}</td>' for column in columns(lane))
        rows += f'<tr><th scope="row">{key(i, lane.model)}<small>{escape(lane.setting)}</small></th>{cells}</tr>'
    return (
        f'<table class="mb-lanes"><thead><tr><th scope="col">model and setting</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _charts(found: Report) -> str:
    lanes = [(i, lane) for i, lane in enumerate(found.lanes) if lane.answers]
    speed = [
        Bar(i, _name(x), x.tokens_per_second, pace(x.tokens_per_second, x.rough))
        for i, x in lanes
        if x.tokens_per_second
    ]
    first = [
        Bar(i, _name(x), 1000 * x.ttft, f"{seconds(x.ttft)}, p95 {seconds(x.ttft_p95)}", 1000 * (x.ttft_p95 or x.ttft))
        for i, x in lanes
        if x.ttft is not None
    ]
    memory = [Bar(i, _name(x), x.memory / 1e9, f"{x.memory / 1e9:.2f} GB") for i, x in lanes if x.memory]
    cost = [Bar(i, _name(x), x.cost, money(x)) for i, x in lanes if x.cost]
    drawn = (
        bars("Speed", "tokens per second", speed),
        bars("Time to first token", "milliseconds", first, '<span class="mb-legend">line: p95</span>', plot=60.0),
        stacks("How answers ended", "answers", [(i, _name(x), _parts(x)) for i, x in lanes]),
        bars("Memory", "GB, the most its process took", memory),
        bars("Cost", "US dollars, all answers", cost),
    )
    return f'<div class="mb-charts">{"".join(drawn)}</div>' if any(drawn) else ""


def _name(lane: Lane) -> str:
    """Short enough for a chart on a telephone."""
    model = lane.model if len(lane.model) <= 34 else f"{lane.model[:12]}…{lane.model[-20:]}"
    return f"{model} · {lane.setting}"


def _parts(lane: Lane) -> list[Part]:
    counts: dict[tuple[str, str], int] = {}
    for reason, count in lane.endings:
        ending = ENDINGS.get(reason, (reason, "caution"))
        counts[ending] = counts.get(ending, 0) + count
    order = list(dict.fromkeys(ENDINGS.values()))
    return [Part(*ending, counts[ending]) for ending in order if ending in counts]


def _agreement_html(found: Report) -> str:
    """A map of all pairs of lanes: how far their words are alike, and how many answers are the same."""
    if not found.agreements:
        return ""
    pairs = {pair.places: pair for pair in found.agreements}
    size = len(found.lanes)
    heads = "".join(f'<th scope="col">{key(i)}</th>' for i in range(size))
    rows = ""
    for i in range(size):
        cells = ""
        for j in range(size):
            pair = pairs.get((min(i, j), max(i, j)))
            cells += _heat(pair) if i != j else '<td class="mb-same"></td>'
        rows += f'<tr><th scope="row">{key(i, found.lanes[i].name)}</th>{cells}</tr>'
    return (
        '<section><h2>Agreement</h2><p class="mb-soft">Words in the same order, and below them how many answers are '
        f'the same text.</p><div class="mb-wide"><table class="mb-heat"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _heat(pair: Agreement | None) -> str:
    if not pair:
        return '<td title="No prompt was answered by both">–</td>'
    return (
        f'<td style="--mb-heat:{45 * pair.alike:.0f}%" title="{pair.prompts:,} prompts">{pair.alike:.0%}'
        f"<small>{pair.equal * pair.prompts:.0f}/{pair.prompts:,}</small></td>"
    )


# replay


def _replay_html(found: Report) -> str:
    if not found.before:
        return ""
    counts = {kind: sum(v.kind == kind for v in found.verdicts) for kind in KINDS}
    told = "".join(
        f'<span class="mb-verdict mb-v-{kind}"><b>{counts[kind]:,}</b> {words}</span>'
        for kind, words in KINDS.items()
        if counts[kind]
    )
    rows = "".join(_verdict_html(found, same) for same in found.parted())
    more = f'<details class="mb-parted" open><summary>Where they part</summary>{rows}</details>' if rows else ""
    none = '<span class="mb-soft">No answer has come yet.</span>'
    return f'<section><h2>Replay</h2><div class="mb-verdicts">{told or none}</div>{more}</section>'


def where_of(same: Sequence[Verdict]) -> str:
    """The prompts of verdicts that are told as one."""
    first, last = same[0].item.prompt + 1, same[-1].item.prompt + 1
    return f"prompt {first}" if first == last else f"prompts {first} to {last}"


def _verdict_html(found: Report, same: Sequence[Verdict]) -> str:
    verdict, item = same[0], same[0].item
    lane = item.model * len(found.batch.settings) + item.setting
    texts = "".join(
        f"<p><i>{when}</i><span>{escape(lead)}<mark>{escape(rest) or '(ends here)'}</mark></span></p>"
        for when, (lead, rest) in (("then", verdict.before), ("now", verdict.after))
        if verdict.kind != "error"
    )
    where = where_of(same)
    if found.batch.repeats > 1 and len(same) == 1:
        where += f", answer {item.repeat + 1}"
    said = f'<span class="mb-v-{verdict.kind}">{escape(verdict.words)}</span>'
    return f'<div class="mb-part"><div>{key(lane, found.lanes[lane].name)} · {where} · {said}</div>{texts}</div>'


# answers


def answers_html(found: Report, prompts: Iterable[int]) -> str:
    """These prompts with all their answers, and a choice of which to show."""
    choices = (("all", "All", " checked"), ("differ", "Only different", ""), ("failed", "Only failed or cut", ""))
    picks = "".join(
        f'<label><input type="radio" name="mb-show" value="{value}"{checked}><span>{words}</span></label>'
        for value, words, checked in choices
    )
    note = f" Words that {letter(0)} does not have are marked." if len(found.lanes) > 1 else ""
    rows = rows_html(found, prompts)
    return (
        f'<section class="mb-answers"><h2>Answers</h2><p class="mb-soft">Side by side, by prompt.{note}</p>'
        f'<div class="mb-pick" role="radiogroup" aria-label="Prompts to show">{picks}</div>'
        f"<div data-rows>{rows}</div></section>"
    )


def rows_html(found: Report, prompts: Iterable[int]) -> str:
    """The rows of these prompts."""
    of = {prompt: list(group) for prompt, group in groupby(_by_prompt(found), key=lambda one: one.item.prompt)}
    return "".join(_row(found, prompt, of.get(prompt, [])) for prompt in prompts)


def _by_prompt(found: Report) -> list[Answered]:
    return sorted(found.answered, key=lambda one: (one.item.prompt, found.lane_of(one), one.item.repeat))


def _row(found: Report, prompt: int, answered: Sequence[Answered]) -> str:
    first = next((one for one in answered if not one.answer.error), None)
    texts = {tuple(words(one.answer.text)) for one in answered if not one.answer.error}
    failed = sum(one.answer.error is not None for one in answered)
    cut = sum(one.answer.finish_reason == "length" for one in answered)
    tells = [
        ("differ", f"{len(texts)} different" if len(texts) > 1 else ""),
        ("same", "all the same" if len(texts) == 1 and len(answered) - failed > 1 else ""),
        ("cut", f"{cut} cut" if cut else ""),
        ("failed", f"{failed} failed" if failed else ""),
        ("none", "" if answered else "not asked yet"),
    ]
    kinds = " ".join(f"mb-is-{kind}" for kind, text in tells if text)
    chips = "".join(f'<span class="mb-chip mb-is-{kind}">{text}</span>' for kind, text in tells if text)
    text = found.batch.prompts[prompt]
    cells = "".join(_cell(found, one, first) for one in answered)
    short = escape(" ".join(text.split())[:160])
    whole = f'<div class="mb-prompt">{escape(text)}</div>' if len(text) > 160 or "\n" in text else ""
    kinds += " mb-long" * bool(whole)
    return (
        f'<details class="mb-row {kinds}"{" open" if prompt < OPEN else ""}><summary><i>{prompt + 1}</i>'
        f'<b>{short}</b>{chips}</summary>{whole}<div class="mb-cells">{cells}</div></details>'
    )


def _cell(found: Report, one: Answered, first: Answered | None) -> str:
    answer, lane = one.answer, found.lane_of(one)
    repeat = f" · answer {one.item.repeat + 1}" if found.batch.repeats > 1 else ""
    error = f'<p class="mb-error">{escape(str(answer.error))}</p>' if answer.error else ""
    thoughts = f"<details><summary>Thoughts</summary>{escape(answer.reasoning)}</details>" if answer.reasoning else ""
    said = marked(answer.text, first.answer.text) if first and first is not one else escape(answer.text)
    text = f'<div class="mb-text">{said}</div>' if said or not error else ""
    by = key(lane, found.lanes[lane].name)
    return (
        f'<div class="mb-cell mb-t{lane % COLOURS}"><div class="mb-by">{by}{repeat}</div>'
        f'{thoughts}{text}{error}<div class="mb-figures">{escape(_figures(one))}</div></div>'
    )


def _figures(one: Answered) -> str:
    answer = one.answer
    speed, cost = answer.rate, answer.cost
    parts = [
        f"TTFT {seconds(answer.timing.ttft)}" if answer.timing.ttft is not None else "",
        f"{pace(speed, few(answer.usage.output_tokens, speed))} tok/s" if speed and answer.usage else "",
        f"{answer.usage.output_tokens:,} tokens" if answer.usage else "",
        f"{'~' * cost.estimated}{prices.money(cost.amount)}" if cost and cost.amount is not None else "",
        ENDINGS.get(str(answer.finish_reason), (str(answer.finish_reason),))[0],
        "beside others" if one.shared else "",
    ]
    return " · ".join(filter(None, parts))


def marked(text: str, other: str) -> str:
    """A text with the words marked that the other does not have in that order.

    >>> marked("a big cat", "a cat"), marked("same", "same")
    ('a <mark>big</mark> cat', 'same')
    """
    mine, theirs = text.split(" "), other.split(" ")
    if len(mine) > LONG or len(theirs) > LONG:
        return escape(text)
    blocks = SequenceMatcher(None, theirs, mine, autojunk=False).get_opcodes()
    parts = [(kind, escape(" ".join(mine[start:end]))) for kind, _, _, start, end in blocks if start < end]
    return " ".join(part if kind == "equal" else f"<mark>{part}</mark>" for kind, part in parts)


# how it was asked


def asked_html(found: Report) -> str:
    """What a person needs to ask the same again: settings, files, versions, machine."""
    rows = [(f"Setting {s.name}", _setting(s.params, s.system, s.load)) for s in found.batch.settings]
    for i, model in enumerate(found.batch.models):
        known = dict.fromkeys(_origin(one) for one in found.answered if one.item.model == i)
        rows += [(str(model), text or "nothing is known of its files") for text in known]
    if str(found.machine):
        rows.append(("Machine", f"{found.machine}, Python {found.machine.python}"))
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f'<section><h2>How it was asked</h2><dl class="mb-asked">{cells}</dl></section>'


def _origin(one: Answered) -> str:
    """Which files or service answered, and how."""
    source, sent = one.source, one.answer.sent or Sent()
    loaded = sent.loaded
    parts = [
        f"revision {source.revision[:12]}" if source.revision else "",
        f"SHA-256 {source.file_hash[:16]}" if source.file_hash else "",
        f"{loaded.dtype} on {loaded.device}, {loaded.context_length:,} tokens of context" if loaded else "",
        sent.address,
        f"the service says {sent.model}" if sent.model else "",
        f"fingerprint {sent.fingerprint}" if sent.fingerprint else "",
        *(f"{package} {version}" for package, version in sent.versions or source.versions),
    ]
    return ", ".join(filter(None, parts))


def _setting(params: SamplingParams, system: str, load: LoadOptions) -> str:
    """
    >>> _setting(SamplingParams(seed=1), "Be brief.", LoadOptions(dtype="int4", chat_template="{{ messages }}"))
    'seed 1, chat_template of its own, dtype int4; system prompt: Be brief.'
    """
    loaded = {name: getattr(load, name) for name in sorted(load.changed())}
    loaded |= {"chat_template": "of its own"} if load.chat_template is not None else {}
    given = ", ".join(f"{name} {value}" for name, value in (params.asdict() | loaded).items()) or "as the model has it"
    return f"{given}; system prompt: {system}" if system.strip() else given
