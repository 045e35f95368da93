"""What fine-tuned models say: values to HTML. Pure; every text of a person or a model is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from .format import seconds

if TYPE_CHECKING:
    from multimodel.finetune.batches import Batch, Row
    from multimodel.finetune.corrections import Correction
    from multimodel.finetune.labels import LabelMap
    from multimodel.finetune.types import Attribution, Filling, Prediction

BARS = 6  # labels with a bar; the rest is folded away
SHOWN = 300  # rows of a table
FAINT = 0.12  # of the strongest word's weight; below it a word is not marked
ORDERS = {"doubt": "Most in doubt first", "given": "As given", "label": "By label"}
DIFFERENT = "differ"


# one text


def answer_html(model: str, labels: LabelMap, said: Prediction, threshold: float | None) -> str:
    """A model's answer to one text: the label, how sure, every label's bar, and a place for the words that decided."""
    return (
        f'<article class="mp-answer" data-model="{escape(model)}"><h3 class="mp-by">{escape(model)}</h3>'
        f"{verdict_html(labels, said, threshold)}{bars_html(labels, said, threshold)}"
        f'<div class="mp-words" data-words></div>{correct_html(labels, said)}</article>'
    )


def verdict_html(labels: LabelMap, said: Prediction, threshold: float | None) -> str:
    """The answer in one line."""
    one = labels.at(said, threshold)
    if labels.task == "regression":
        return f'<p class="mp-verdict"><b>{escape(one.label)}</b></p>'
    if not one.labels:
        best = max(one.scores, key=lambda name: one.scores[name], default="")
        near = f"the nearest is {escape(best)} at {_percent(one.scores.get(best, 0.0))}"
        return f'<p class="mp-verdict mp-unsure"><b>No label</b><span>{near}</span></p>'
    if not labels.sure(one, threshold):
        near = f"{escape(one.label)} at {_percent(one.score)} is below your limit"
        return f'<p class="mp-verdict mp-unsure"><b>Not sure</b><span>{near}</span></p>'
    ranked = sorted(one.labels, key=lambda name: -one.scores[name])
    names = "".join(f"<b>{escape(name)}</b>" for name in ranked)
    sure = _percent(one.score) if labels.task == "single_label" else ""
    return f'<p class="mp-verdict">{names}<span>{sure}</span></p>'


def bars_html(labels: LabelMap, said: Prediction, threshold: float | None) -> str:
    """Every label's probability, the likeliest first; a click asks which words speak for it."""
    ranked = sorted(said.scores.items(), key=lambda row: -row[1])
    chosen = set(labels.at(said, threshold).labels)
    bars = [_bar(name, share, name in chosen) for name, share in ranked]
    first, rest = bars[:BARS], bars[BARS:]
    more = f'<details class="mp-more"><summary>{len(rest)} more labels</summary>{"".join(rest)}</details>'
    return f'<div class="mp-bars">{"".join(first)}{more if rest else ""}</div>' if bars else ""


def _bar(name: str, share: float, chosen: bool) -> str:
    said = f"{name}: {_percent(share)}"
    return (
        f'<button type="button" class="mp-bar{" mp-said" if chosen else ""}" data-explain="{escape(name)}" '
        f'title="{escape(said)}. Show which words speak for it" aria-label="{escape(said)}">'
        f"<span>{escape(name)}</span>"
        f'<i><i style="width:{100 * share:.2f}%"></i></i><em>{_percent(share)}</em></button>'
    )


def words_html(text: str, found: Sequence[Attribution], label: str, task: str) -> str:
    """A text with its words marked by how much each speaks for or against a label, and what the marks mean."""
    most = max((abs(word.weight) for word in found), default=0.0)
    if most <= 0:
        return '<p class="mx-soft">No single word decides here.</p>'
    unit = "" if task == "regression" else " log-odds"
    marked, end = [], 0
    for word in found:
        marked.append(escape(text[end : word.start]))
        marked.append(_word(word, most, unit))
        end = word.start + len(word.word)
    name = escape(label) if task != "regression" else "a higher number"
    against = "against it" if task != "regression" else "for a lower one"
    return (
        f"<h4>Which words decided</h4><p class='mp-text'>{''.join(marked)}{escape(text[end:])}</p>"
        f'<p class="mp-legend"><span class="mp-w mp-for" style="--w:0.8">solid line</span> for {name}'
        f'<span class="mp-w mp-against" style="--w:0.8">dotted line</span> {against}'
        "<span>The stronger the tint, the more a word weighs. Each was left out in turn.</span></p>"
    )


def _word(word: Attribution, most: float, unit: str) -> str:
    share = abs(word.weight) / most
    if share < FAINT:
        return escape(word.word)
    side = "for" if word.weight > 0 else "against"
    title = f"{word.weight:+.2f}{unit}"
    return f'<span class="mp-w mp-{side}" style="--w:{share:.2f}" title="{title}">{escape(word.word)}</span>'


def correct_html(labels: LabelMap, said: Prediction) -> str:
    """What is right instead, where a person knows better."""
    if labels.task == "regression":
        field = '<input type="number" step="any" data-right aria-label="The right number">'
    elif labels.task == "multi_label":
        boxes = "".join(
            f'<label class="mx-check"><input type="checkbox" value="{escape(name)}"'
            f"{' checked' if name in said.labels else ''}>{escape(name)}</label>"
            for name in labels.classes
        )
        field = f'<div class="mp-boxes" data-right-all>{boxes}</div>'
    else:
        field = f'<select data-right aria-label="The right label">{options_html(labels, said.label)}</select>'
    return (
        f'<details class="mp-correct"><summary>Not right?</summary><div><span>The right answer</span>{field}'
        '<button type="button" data-do="correct">Keep as a correction</button><output role="status"></output></div>'
        "</details>"
    )


def options_html(labels: LabelMap, besides: str) -> str:
    """The labels a text could have instead."""
    names = [name for name in labels.classes if name != besides]
    return "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)


def agreement_html(answers: Sequence[tuple[LabelMap, Prediction]], threshold: float | None) -> str:
    """Whether two models say the same."""
    first, second = (labels.at(said, threshold).label for labels, said in answers)
    if first == second:
        return '<p class="mp-agree mx-fit mx-fits"><b>Both say the same</b></p>'
    return '<p class="mp-agree mx-fit mx-tight"><b>They differ</b></p>'


# many texts


def progress_html(batch: Batch) -> str:
    """How far a batch is, with its end in sight, and how to stop it."""
    share = f"{100 * batch.fraction:.0f}"
    left = f", {seconds(batch.seconds_left)} left" if batch.seconds_left else ""
    words = f"{share} % of {batch.total:,} texts{left}" if batch.total else "Loading the model and reading the texts"
    return (
        f'<div class="mp-progress"><div role="status">{words}</div><div class="mm-bar" role="progressbar" '
        f'aria-valuenow="{share}" aria-label="Predicting"><i style="width:{share}%"></i></div>'
        '<button type="button" data-do="stop">Cancel</button></div>'
    )


def batch_html(
    batch: Batch,
    counts: Mapping[str, int],
    unsure: int,
    threshold: float | None,
    order: str,
    download: str,
) -> str:
    """A finished batch: how many of what, and a table of the rows."""
    whole = len(batch.rows) == batch.total
    rows = ordered(batch, threshold, order)
    shown = rows[:SHOWN]
    return (
        f'<div class="mp-batch">{_summary(batch, counts, unsure)}'
        f'<div class="mp-tools">{_orders(batch, order, whole)}{download}</div>{_part(batch, len(shown), whole, order)}'
        f"{_table(batch, shown, threshold)}</div>"
    )


def ordered(batch: Batch, threshold: float | None, order: str) -> list[Row]:
    """The rows of a batch as they are shown."""
    labels = batch.labels[0]
    if order == "doubt":
        return sorted(batch.rows, key=lambda row: -labels.doubt(row.said[0], threshold))
    if order == "label":
        return sorted(batch.rows, key=lambda row: (labels.at(row.said[0], threshold).label, -row.said[0].score))
    if order == DIFFERENT and len(batch.models) > 1:
        return [row for row in batch.rows if _differ(batch, row, threshold)]
    return list(batch.rows)


def _differ(batch: Batch, row: Row, threshold: float | None) -> bool:
    """Whether models of the same classes say different things."""
    if len({labels.classes for labels in batch.labels}) > 1 or batch.labels[0].task == "regression":
        return False
    return len({labels.at(said, threshold).label for labels, said in zip(batch.labels, row.said, strict=True)}) > 1


def _summary(batch: Batch, counts: Mapping[str, int], unsure: int) -> str:
    """The labels of all rows as one bar with its legend."""
    rate = f"{batch.total:,} texts in {seconds(max(batch.seconds, 0.001))}"
    if not counts and not unsure:
        return f'<p class="mp-rate">{rate}</p>'
    whole = max(1, sum(counts.values()) + unsure)
    parts = [(name, count, f"mp-k{index % 8}") for index, (name, count) in enumerate(counts.items())]
    parts += [("not sure", unsure, "mp-kn")] if unsure else []
    bars = "".join(f'<i class="{tone}" style="width:{100 * count / whole:.2f}%"></i>' for _, count, tone in parts)
    names = "".join(
        f'<li><i class="{tone}"></i>{escape(name)} <b>{count:,}</b> {_percent(count / whole)}</li>'
        for name, count, tone in parts[:12]
    )
    more = f"<li>and {len(parts) - 12} more</li>" if len(parts) > 12 else ""
    return (
        f'<div class="mp-share" role="img" aria-label="Share of each label">{bars}</div>'
        f'<ul class="mp-key">{names}{more}<li class="mp-rate">{rate}</li></ul>'
    )


def _orders(batch: Batch, order: str, whole: bool) -> str:
    known = dict(ORDERS)
    if batch.labels[0].task == "regression":
        del known["doubt"]
    if len(batch.models) > 1 and len({labels.classes for labels in batch.labels}) == 1:
        known[DIFFERENT] = "Only where they differ"
    options = "".join(
        f'<option value="{key}"{" selected" if key == order else ""}>{words}</option>' for key, words in known.items()
    )
    return f'<label class="mp-order"><span>Rows</span><select data-order aria-label="Order">{options}</select></label>'


def _part(batch: Batch, shown: int, whole: bool, order: str) -> str:
    """What is not shown, where not all is."""
    if not whole:
        what = f"Shown are {shown:,} of {batch.total:,} rows, taken from those the model doubts most."
        return f'<p class="mx-soft">{what} The file has all.</p>'
    if order == DIFFERENT:
        return f'<p class="mx-soft">They differ on {shown:,} of {batch.total:,} texts.</p>'
    return f'<p class="mx-soft">Shown are the first {shown:,} of {batch.total:,}.</p>' if shown < batch.total else ""


def _table(batch: Batch, rows: Sequence[Row], threshold: float | None) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in batch.models)
    body = "".join(_row(batch, row, threshold) for row in rows)
    if not body:
        return '<div class="mx-quiet">No row to show.</div>'
    return (
        f'<table class="mp-rows"><thead><tr><th scope="col">Row</th><th scope="col">Text</th>{heads}'
        f'<th scope="col"><span class="mp-hidden">Correct</span></th></tr></thead><tbody>{body}</tbody></table>'
    )


def _row(batch: Batch, row: Row, threshold: float | None) -> str:
    cells = "".join(
        f"<td>{_said(labels, said, threshold)}</td>" for labels, said in zip(batch.labels, row.said, strict=True)
    )
    mark = ' class="mp-differs"' if len(batch.models) > 1 and _differ(batch, row, threshold) else ""
    return (
        f'<tr data-row="{row.number}"{mark}><td>{row.number}</td><td class="mp-cell">{escape(row.text[:400])}</td>'
        f'{cells}<td><button type="button" class="mx-link" data-do="row">Correct</button></td></tr>'
    )


def _said(labels: LabelMap, said: Prediction, threshold: float | None) -> str:
    one = labels.at(said, threshold)
    if labels.task == "regression":
        return f"<b>{escape(one.label)}</b>"
    if not labels.sure(one, threshold):
        return f'<span class="mp-maybe">not sure: {escape(one.label)}</span>{_meter(one.score)}'
    name = escape(one.label) or "none"
    return f"<b>{name}</b>{_meter(one.score) if labels.task == 'single_label' else ''}"


def _meter(share: float) -> str:
    return f'<span class="mp-meter"><i style="width:{100 * share:.1f}%"></i></span><em>{_percent(share)}</em>'


# a file


def opened_html(name: str, columns: Sequence[str], chosen: str, count: int, first: Sequence[str]) -> str:
    """A file before it is predicted: which column holds the texts, and how it begins."""
    options = "".join(
        f'<option value="{escape(column)}"{" selected" if column == chosen else ""}>{escape(column)}</option>'
        for column in columns
    )
    lines = "".join(f"<li>{escape(text[:160])}</li>" for text in first)
    return (
        f'<div class="mp-file"><div class="mp-file-head"><b>{escape(name)}</b><span>{count:,} rows</span>'
        f'<label><span>Texts are in</span><select data-column aria-label="Column of the texts">{options}</select>'
        '</label><button type="button" class="mx-primary" data-do="whole">Predict all</button></div>'
        f'<ol class="mp-first" aria-label="The first texts">{lines}</ol></div>'
    )


# corrections


def corrections_html(model: str, found: Sequence[Correction], trained: bool) -> str:
    """The corrections of a model, and what can be made of them. `trained`: its training rows are still here."""
    if not found:
        return (
            '<div class="mx-quiet">Nothing corrected yet. Where a model is wrong, say what is right: '
            "the rows collect here and become training data.</div>"
        )
    rows = "".join(
        f'<tr><td class="mp-cell">{escape(one.text[:400])}</td><td>{escape(one.predicted)}</td>'
        f'<td><b>{escape(one.label)}</b></td><td><button type="button" class="mx-link" data-do="drop" '
        f'data-text="{escape(one.text)}">Remove</button></td></tr>'
        for one in reversed(found[-SHOWN:])
    )
    whole = '<label class="mx-check"><input type="checkbox" data-field="whole" checked>with its training rows</label>'
    return (
        f'<div class="mp-tools"><span>{len(found):,} corrected for <b>{escape(model)}</b></span>'
        '<button type="button" class="mx-primary" data-do="train">Train with them</button>'
        f'{whole if trained else ""}<button type="button" data-do="export">Download CSV</button>'
        '<button type="button" data-do="clear">Clear</button></div>'
        '<table class="mp-rows"><thead><tr><th scope="col">Text</th><th scope="col">It said</th>'
        f'<th scope="col">Right</th><th></th></tr></thead><tbody>{rows}</tbody></table>'
    )


# a gap


def fillings_html(found: Sequence[Filling], gaps: int) -> str:
    """The likeliest words for a gap, the first of so many, each with the text it makes."""
    most = max((one.score for one in found), default=1.0) or 1.0
    rows = "".join(
        f'<button type="button" class="mp-bar" data-take="{escape(one.text)}" title="{escape(one.text)}">'
        f'<span>{escape(one.token)}</span><i><i style="width:{100 * one.score / most:.2f}%"></i></i>'
        f"<em>{_percent(one.score)}</em></button>"
        for one in found
    )
    which = f" for the first of {gaps} gaps" if gaps > 1 else ""
    more = '<p class="mx-soft">Choose one, and the next gap is filled.</p>' if gaps > 1 else ""
    return f'<div class="mp-answer"><h4>The likeliest words{which}</h4>{more}<div class="mp-bars">{rows}</div></div>'


def _percent(share: float) -> str:
    """A probability in the digits that tell.

    >>> _percent(0.934), _percent(0.9996), _percent(0.004), _percent(1.0)
    ('93 %', '99.96 %', '0.4 %', '100 %')
    """
    if 0.995 <= share < 0.99995:
        return f"{100 * share:.2f} %"
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"
