"""The data of a run before training: which column is what, what is in it, what is wrong. Values to HTML; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from multimodel.errors import MultimodelError
from multimodel.finetune import data as rows
from multimodel.finetune.data import Dataset
from multimodel.finetune.data import Mapping as Columns
from multimodel.finetune.report import FIXES, Base, DataReport, Finding, estimated_tokens, recommended, report
from multimodel.finetune.sources import finished
from multimodel.finetune.tables import Cell, Table

from .finetune_settings import config_of
from .format import counted

if TYPE_CHECKING:
    from multimodel.finetune.suspects import Suspect

SAMPLE = 20_000  # texts whose tokens are counted
SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_CLASSES, MOST_CLASSES = 4, 6, 6, 500
CELL = 140  # characters of a cell that are shown
BINS = 28  # of the histogram of lengths
TASKS = {"single_label": "One label a text", "multi_label": "Several labels a text", "regression": "A number a text"}
SEPARATORS = (",", ";", "|")
TEST_FILE = (
    '<button type="button" data-do="test" title="Its rows are kept for the final figures; its columns are those of '
    'the data">Add a test file</button>'
)
REPAIRS = {  # name of a finding: what the button says, and what is said afterwards
    "empty_texts": ("Leave them out", "Empty texts are left out"),
    "missing_labels": ("Leave them out", "Rows without a label are left out"),
    "label_twins": ("Use one spelling", "Each class has one spelling"),
    "conflicting_labels": ("Keep the majority", "Of equal texts the majority's label is kept"),
    "duplicates": ("Keep the first", "Copies are left out"),
    "leaks": ("Take them out", "Texts that judge are not trained on"),
    "rare_classes": ("Leave these classes out", "Classes of few rows are left out"),
    "unseen_classes": ("Leave them out", "Classes that training never sees are left out"),
}
SEVERITIES = {"error": "Error", "warning": "Warning", "note": "Note"}
SETTINGS = {"class_weights": "Use class weights", "max_length": "Read as much as the model can"}


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decided about the data. None: guessed."""

    text: str | None = None
    label: str | None = None
    split: str | None = None
    task: str = "auto"
    separator: str | None = None
    fixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    labels: Mapping[int, str] | None = None  # corrected labels by index of the row; "" leaves the row out

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Choices:
        """What a page sent; what is of the wrong kind is left out."""
        task, separator = asked.get("task"), asked.get("separator")
        given = asked.get("labels")
        labels = {int(k): str(v)[:1000] for k, v in given.items() if k.isdigit()} if isinstance(given, dict) else {}
        return cls(
            text=_text(asked.get("text")),
            label=_text(asked.get("label")),
            split=_text(asked.get("split")),
            task=task if task in TASKS else "auto",
            separator=separator if separator in SEPARATORS else None,
            fixes=tuple(name for name in FIXES if name in _names(asked.get("fixes"))),
            ignored=tuple(sorted(_names(asked.get("ignored")))),
            labels=labels or None,
        )

    @property
    def key(self) -> str:
        """The same for choices that give the same rows."""
        return json.dumps([self.text, self.label, self.split, self.task, self.separator, self.fixes, self.labels])


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _names(value: Any) -> set[str]:
    return {str(name)[:50] for name in value[:50]} if isinstance(value, list) else set()


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did."""

    name: str
    rows: int  # that it left out
    classes: int  # that there are less


@dataclass(frozen=True, slots=True)
class Examined:
    """A table under some choices."""

    columns: Columns
    data: Dataset  # as the choices say, repairs not yet made
    report: DataReport  # after the repairs
    tokens: Sequence[int]  # of a sample of the texts
    repairs: tuple[Repair, ...]
    splits: Mapping[str, int]  # rows as they will train and judge
    refusal: MultimodelError | None  # why nothing can be trained on it
    labels: Mapping[int, str] = field(default_factory=dict)  # corrected by hand, see Choices


def examined(
    table: Table, choices: Choices, source: str, base: Base, shares: Mapping[str, Any] | None = None
) -> Examined:
    """Look at a table; `shares`: settings that decide who trains and who judges. Raises DataError."""
    config = config_of(shares or {}, data=source, name="data", fixes=choices.fixes)
    columns = columns_of(table, choices)
    data = corrected(rows.dataset(table, columns, source), choices.labels or {})
    repaired, repairs = _repaired(data, choices.fixes)
    sample = repaired.texts[:: max(1, len(repaired) // SAMPLE)]
    tokens = list(base.count(sample) if base.count else estimated_tokens(sample))
    found = report(repaired, replace(base, count=(lambda _: tokens) if base.count else None))
    splits: Mapping[str, int] = {}
    refusal: MultimodelError | None = None
    try:
        whole = finished(data, config)
        splits = rows.in_splits(whole)
        found = replace(found, recommended=recommended(whole, found.lengths, small=base.small))
    except MultimodelError as error:
        refusal = error
    return Examined(columns, data, found, tokens, repairs, splits, refusal, choices.labels or {})


def columns_of(table: Table, choices: Choices) -> Columns:
    """Which column is what. Raises DataError."""
    chosen = choices
    return rows.guess(
        table, text=chosen.text, label=chosen.label, split=chosen.split, task=chosen.task, separator=chosen.separator
    )


def corrected(data: Dataset, labels: Mapping[int, str]) -> Dataset:
    """With the labels that a person corrected; an empty one leaves its row out."""
    if not labels or data.task != "single_label":
        return data
    changed = tuple(labels.get(i) or label for i, label in enumerate(data.labels))
    notes = (*data.notes, f"By hand: {by_hand(labels)}.")
    return replace(data, labels=changed, notes=notes).where(lambda i: labels.get(i) != "")


def by_hand(labels: Mapping[int, str]) -> str:
    """What a person did to labels.

    >>> by_hand({3: "good", 5: "", 8: "bad"})
    '2 labels changed, 1 row left out'
    """
    gone = sum(not label for label in labels.values())
    parts = ((len(labels) - gone, "label", "changed"), (gone, "row", "left out"))
    return ", ".join(f"{counted(n, what)} {done}" for n, what, done in parts if n)


def _repaired(data: Dataset, fixes: Sequence[str]) -> tuple[Dataset, tuple[Repair, ...]]:
    done = []
    for name in fixes:
        after = FIXES[name](data)
        done.append(Repair(name, len(data) - len(after), len(data.classes) - len(after.classes)))
        data = after
    return data, tuple(done)


# --- which column is what ---


def columns_html(table: Table, columns: Columns, source: str) -> str:
    """What was brought: its name, the choices of columns, and its first rows."""
    split = [("", "Split by the app"), *((name, name) for name in table.columns)]
    plain = [(name, name) for name in table.columns]
    why = " ".join(columns.reasons)
    fields = (
        _select("text", "Text", plain, columns.text)
        + _select("label", "Label", plain, columns.label)
        + _select("split", "Train or test", split, columns.split or "")
        + _select("task", "A label is", list(TASKS.items()), columns.task)
    )
    if columns.task == "multi_label":
        fields += _select("separator", "Between labels", [(s, s) for s in SEPARATORS], columns.separator)
    return (
        f'<div class="mf-source"><b>{escape(source)}</b><span>{counted(len(table.rows), "row")}, '
        f'{counted(len(table.columns), "column")}</span><div class="mx-grow"></div>'
        f'{"" if columns.split else TEST_FILE}<button type="button" data-do="other">Other data</button></div>'
        f'<div class="mf-columns" title="{escape(why)}">{fields}</div>{_preview(table, columns)}'
        f"{_notes((*table.notes, *_no_split(table, columns)))}"
    )


def _no_split(table: Table, columns: Columns) -> Iterator[str]:
    """That a column which is to say who trains says nothing."""
    if columns.split and not any(rows.dataset(table, columns).splits):
        yield f"No cell of {columns.split!r} says train, validation or test, so the app splits the rows."


def _select(name: str, label: str, options: Sequence[tuple[str, str]], chosen: str) -> str:
    rows = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(shown)}</option>'
        for value, shown in options
    )
    return f'<label class="mx-knob"><span>{label}</span><select data-choice="{name}">{rows}</select></label>'


def _preview(table: Table, columns: Columns) -> str:
    roles = {columns.text: "text", columns.label: "label", columns.split: "split"}
    named = [name for name in table.columns if name in roles]
    shown = [*named, *(name for name in table.columns if name not in roles)][:SHOWN_COLUMNS]
    order = [name for name in table.columns if name in shown]
    head = "".join(
        f'<th scope="col" data-role="{roles.get(name, "")}">{escape(name[:60])}'
        f"{f'<i>{roles[name]}</i>' if name in roles else ''}</th>"
        for name in order
    )
    places = [table.columns.index(name) for name in order]
    body = "".join(
        "<tr>" + "".join(f'<td data-role="{roles.get(table.columns[i], "")}">{_cell(row[i])}</td>' for i in places)
        + "</tr>"
        for row in table.rows[:SHOWN_ROWS]
    )  # fmt: skip
    return f'<div class="mf-preview"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    text = cell if isinstance(cell, str) else ", ".join(cell)
    shown = escape(text[:CELL]) + ("…" if len(text) > CELL else "")
    return shown or '<span class="mx-soft">empty</span>'


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<div class="mm-note">{escape(note)}</div>' for note in notes)


# --- what is in it, and what is wrong ---


def report_html(found: Examined, ignored: Sequence[str]) -> str:
    """The report: facts, classes, lengths, findings with what to do, repairs that were made."""
    facts = found.report
    charts = f'<div class="mf-charts2">{_labels_html(found)}{lengths_html(found.tokens, facts)}</div>'
    return f"{_facts(found)}{charts}{findings_html(found, ignored)}"


def _facts(found: Examined) -> str:
    parts = [f"<b>{counted(found.report.rows, 'row')}</b>"]
    if found.splits:
        names = {"train": "to train on", "validation": "to watch by", "test": "for the final figures"}
        parts += [f"<span><b>{n:,}</b> {names[name]}</span>" for name, n in found.splits.items()]
    if shares := found.report.languages:
        named = [(name, share) for name, share in shares.items() if not name.startswith("too short")]
        largest = ", ".join(f"{name} {share:.0%}" for name, share in named[:3])
        parts.append(f'<span title="Guessed from letters and common words">probably {escape(largest)}</span>')
    return f'<div class="mf-facts">{"".join(parts)}</div>'


def _labels_html(found: Examined) -> str:
    facts = found.report
    if facts.range:
        low, high = facts.range
        return (
            '<section class="mf-chart"><h3>Numbers</h3>'
            f'<p class="mx-soft">From {low:g} to {high:g}: a number is learnt.</p></section>'
        )
    return classes_html(facts.classes)


def classes_html(classes: Mapping[str, int]) -> str:
    """Class balance as bars, the largest first."""
    ranked = sorted(classes.items(), key=lambda item: -item[1])
    total, most = max(1, sum(classes.values())), max(classes.values(), default=1)
    bars = [
        f'<li><span title="{escape(name)}">{escape(name[:60])}</span><i><b style="width:{100 * n / most:.1f}%"></b></i>'
        f"<span>{n:,}</span><span>{n / total:.0%}</span></li>"
        for name, n in ranked[:MOST_CLASSES]
    ]
    first, rest = "".join(bars[:SHOWN_CLASSES]), "".join(bars[SHOWN_CLASSES:])
    count = counted(len(ranked) - SHOWN_CLASSES, "more class", "more classes")
    more = rest and f'<details><summary>{count}</summary><ul class="mf-classes">{rest}</ul></details>'
    title = counted(len(ranked), "class", "classes")
    return f'<section class="mf-chart"><h3>{title}</h3><ul class="mf-classes">{first}</ul>{more}</section>'


def lengths_html(tokens: Sequence[int], facts: DataReport) -> str:
    """How many texts have how many tokens, against what the model reads."""
    lengths = facts.lengths
    edge = max(8, min(max(tokens, default=0), max(2 * lengths.p99, 16)))
    width = max(1, math.ceil((edge + 1) / BINS))
    bins = edge // width + 1
    counts = [0] * bins
    for n in tokens:
        counts[min(bins - 1, n // width)] += 1
    most = max(counts) or 1
    bars = "".join(
        f'<i{" data-over" if i * width > lengths.limit else ""} style="height:{100 * n / most:.1f}%" '
        f'title="{i * width} to {(i + 1) * width - 1} tokens: {n:,} texts"></i>'
        for i, n in enumerate(counts)
    )
    about = "about " if lengths.estimated else ""
    over = f", {lengths.over:.1%} have more" if lengths.over else ""
    says = (
        f"Half have up to {about}{lengths.median:,}, 99 of 100 up to {about}{lengths.p99:,}, "
        f"the longest {lengths.longest:,}"
    )
    return (
        f'<section class="mf-chart"><h3>Tokens of a text</h3><div class="mf-hist" role="img" aria-label="{says}">{bars}'
        f'</div><div class="mf-axis"><span>0</span><span>{bins * width:,} tokens</span></div>'
        f"<p>{says}. The model reads {lengths.limit:,}{over}.</p></section>"
    )


def findings_html(found: Examined, ignored: Sequence[str]) -> str:
    """Every finding with its remedy; below them what was repaired and what is ignored."""
    open_ = [finding for finding in found.report.findings if finding.name not in ignored]
    quiet = [finding for finding in found.report.findings if finding.name in ignored]
    rows = "".join(_finding(finding) for finding in open_)
    if found.refusal and not any(finding.severity == "error" for finding in open_):
        rows = _refused(found.refusal) + rows
    fixable = [finding.fix for finding in open_ if finding.fix]
    every = (
        f'<button type="button" data-fix="{escape(" ".join(fixable))}">Repair all {len(fixable)}</button>'
        if len(fixable) > 1
        else ""
    )
    rows += "".join(_repair(repair) for repair in found.repairs) + _by_hand(found.labels)
    rows += "".join(_ignored(finding) for finding in quiet)
    empty = '<li class="mf-finding mf-good"><b>Nothing is wrong with it</b></li>' if not rows else ""
    doubts = '<button type="button" data-do="doubts">Look for doubtful labels</button>'
    ask = doubts if found.data.task == "single_label" else ""
    return (
        f'<section class="mf-findings"><h3>Findings<span class="mx-grow"></span>{ask}{every}</h3>'
        f"<ul>{rows}{empty}</ul></section>"
    )


def _finding(finding: Finding) -> str:
    acts = ""
    if finding.fix:
        acts += f'<button type="button" data-fix="{finding.fix}">{REPAIRS[finding.fix][0]}</button>'
    for name, value in finding.settings.items():
        said = escape(json.dumps({name: value}))
        acts += f'<button type="button" data-settings="{said}" data-name="{finding.name}">{SETTINGS[name]}</button>'
    if finding.severity != "error":
        acts += f'<button type="button" class="mf-quietly" data-ignore="{finding.name}">Ignore</button>'
    where = ""
    if finding.rows:
        lines = ", ".join(map(str, finding.rows[:8])) + (", …" if len(finding.rows) > 8 else "")
        where = f" Line{'s' if len(finding.rows) > 1 else ''} {lines}."
    return (
        f'<li class="mf-finding mf-{finding.severity}" data-finding="{finding.name}"><div>'
        f'<b><span class="mf-hidden">{SEVERITIES[finding.severity]}: </span>{escape(finding.title)}</b>'
        f'<span>{escape(finding.detail)}{where}</span></div><div class="mf-acts">{acts}</div></li>'
    )


def _refused(error: MultimodelError) -> str:
    return (
        f'<li class="mf-finding mf-error" role="alert"><div><b>{escape(str(error))}</b>'
        f"<span>{escape(error.hint)}</span></div></li>"
    )


def _repair(repair: Repair) -> str:
    left = counted(repair.rows, "row") if repair.rows else counted(repair.classes, "class", "classes")
    return (
        f'<li class="mf-finding mf-good"><div><b>{REPAIRS[repair.name][1]}</b><span>{left} less</span></div>'
        '<div class="mf-acts"><button type="button" class="mf-quietly" '
        f'data-unfix="{repair.name}">Undo</button></div></li>'
    )


def _by_hand(labels: Mapping[int, str]) -> str:
    if not labels:
        return ""
    return (
        f'<li class="mf-finding mf-good"><div><b>Corrected by hand</b><span>{by_hand(labels)}</span></div>'
        '<div class="mf-acts"><button type="button" class="mf-quietly" data-do="unlabel">Undo all</button></div></li>'
    )


def _ignored(finding: Finding) -> str:
    return (
        f'<li class="mf-finding mf-off"><div><b>{escape(finding.title)}</b><span>Ignored</span></div>'
        '<div class="mf-acts"><button type="button" class="mf-quietly" '
        f'data-heed="{finding.name}">Show again</button></div></li>'
    )


# --- labels that may be wrong ---


def doubts_html(found: Sequence[Suspect], data: Dataset, looked: int) -> str:
    """Rows whose label may be wrong, the most doubtful first; each with what can be done."""
    if not found:
        return '<p class="mx-soft" role="status">No label looks doubtful, or there are too few rows to tell.</p>'
    rows = "".join(
        f"<tr><td>{escape(data.texts[one.index][:240])}</td><td>{escape(one.label)}</td>"
        f"<td>{escape(one.suggested)}</td><td>{one.doubt:.2f}</td><td>"
        f'<button type="button" data-relabel="{one.index}" data-to="{escape(one.suggested)}">'
        f'Use {escape(one.suggested[:30])}</button><button type="button" class="mf-quietly" '
        f'data-relabel="{one.index}" data-to="">Leave out</button></td></tr>'
        for one in found
    )
    part = f" Only the first {looked:,} rows were looked at." if looked < len(data) else ""
    return (
        f'<section class="mf-chart"><h3>Doubtful labels<span class="mx-grow"></span>'
        '<button type="button" class="mf-quietly" data-do="undoubt">Close</button></h3>'
        f'<p class="mx-soft">Rows that a model which never saw them would label otherwise. A ranking, no verdict.{part}'
        '</p><div class="mf-scroll"><table class="mf-table mf-errors"><thead><tr><th scope="col">Text</th>'
        '<th scope="col">Label</th><th scope="col">Likelier</th><th scope="col">Doubt</th><td></td></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )
