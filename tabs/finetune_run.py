"""A run as it stands: its bars and words while it goes, its figures when it is over. Values to HTML; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any, TypeGuard

from multimodel.errors import Diverged, NotEnoughMemory
from multimodel.finetune.types import TrainConfig, TrainUpdate

from .explorer_list import error_html
from .format import counted, seconds

STATES = {
    "queued": "Waiting",
    "preparing": "Preparing",
    "training": "Training",
    "evaluating": "Judging",
    "saving": "Saving",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
METRICS = {
    "accuracy": "Accuracy",
    "f1": "Macro F1",
    "micro_f1": "Micro F1",
    "rmse": "RMSE",
    "mae": "Mean error",
    "r2": "R²",
}
SHARES = frozenset({"accuracy", "f1", "micro_f1"})  # read as per cent
RETRIES = {
    "batch_size": "batches of {}",
    "gradient_accumulation": "gradient accumulation {}",
    "gradient_checkpointing": "gradient checkpointing",
    "learning_rate": "a learning rate of {:g}",
    "precision": "{}",
}
MATRIX = 12  # classes up to which the confusion matrix is shown
CLASSES, ERRORS = 30, 30  # rows of the tables
ERROR_TEXT = 300  # characters


@dataclass(frozen=True, slots=True)
class Shown:
    """A run and what is known beside its events."""

    update: TrainUpdate
    config: TrainConfig
    created: datetime | None = None
    stopping: bool = False  # a person has asked it to
    resumable: bool = False  # it has a checkpoint to go on from
    saved: bool = False  # there is a model of its name
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of its saved model
    errors: Sequence[Mapping[str, Any]] = ()

    @property
    def active(self) -> bool:
        return not self.update.ended


def metric_text(name: str, value: float) -> str:
    """A figure as it is read.

    >>> metric_text("f1", 0.9127), metric_text("rmse", 0.41234)
    ('91.3 %', '0.412')
    """
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.3g}"


def best_text(update: TrainUpdate) -> str:
    """The figure by which a run is known: of its saved model, else the best so far; empty where there is none."""
    best = update.best
    if update.ended and update.model:
        known = [name for name in METRICS if is_number(update.metrics.get(name))]
        name = best.metric if best and best.metric in known else next(iter(known), "")
        return f"{METRICS[name]} {metric_text(name, update.metrics[name])}" if name else ""
    if not best or not is_number(best.value):
        return ""
    return f"{METRICS.get(best.metric, 'Loss')} {metric_text(best.metric, best.value)}"


def _kept_text(update: TrainUpdate) -> str:
    """What the figure of a run that goes on is.

    >>> from multimodel.finetune.types import Best
    >>> [_kept_text(TrainUpdate("a", best=Best(9, "f1", value, 0.8))) for value in (0.8, 0.79)]
    ['is the best so far', 'is kept, trained longer than the best of 80.0 %']
    """
    best = update.best
    if not best or not is_number(best.highest) or best.highest == best.value:
        return "is the best so far"
    return f"is kept, trained longer than the best of {metric_text(best.metric, best.highest)}"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a figure is known: what was no number when it was written down came back as None."""
    return isinstance(value, int | float)


# --- above the curves ---


def head_html(shown: Shown) -> str:
    """Name, state and what can be done."""
    update, config = shown.update, shown.config
    return (
        f'<div class="mf-title"><h2>{escape(update.run)}</h2>{state_html(update)}'
        f'<span class="mx-soft">{escape(short(config.base))} on {escape(short(config.data))}</span>'
        f'<span class="mx-grow"></span>{_acts(shown)}</div>{_said(shown)}'
    )


def state_html(update: TrainUpdate) -> str:
    """The state as a sign and a word."""
    return f'<span class="mf-state mf-is-{update.phase}">{STATES[update.phase]}</span>'


def short(source: str) -> str:
    """A source without its path.

    >>> short("/tmp/data/reviews.csv"), short("owner/name")
    ('reviews.csv', 'owner/name')
    """
    return source.rpartition("/")[2] if source.count("/") != 1 else source


def _acts(shown: Shown) -> str:
    update = shown.update
    name = escape(update.run)
    if shown.active:
        stop, off = ("Stopping", " disabled") if shown.stopping else ("Stop", "")
        why = "Ends after the step it is at. The best model so far is kept"
        return f'<button type="button" data-act="stop" title="{why}"{off}>{stop}</button>'
    acts = []
    if update.model:
        acts.append(f'<button type="button" class="mx-primary" data-try="{name}">Try it</button>')
    if update.phase != "done":
        acts += _resumes(shown)
        if shown.resumable and not shown.saved:
            acts.append('<button type="button" data-act="anew" data-ask="Lose its steps">Start anew</button>')
    acts.append('<button type="button" data-do="again">New run with these settings</button>')
    acts.append('<button type="button" data-act="discard" data-ask="Discard the run">Discard</button>')
    return "".join(acts)


def _resumes(shown: Shown) -> list[str]:
    """The ways to go on, the likeliest to succeed first: with other settings where these are what failed."""
    update = shown.update
    changed = isinstance(update.error, NotEnoughMemory | Diverged)
    plain = "" if changed or update.model else ' class="mx-primary"'
    ways = [f'<button type="button"{plain} data-act="resume">Resume</button>']
    if update.retry:
        how, kind = escape(json.dumps(dict(update.retry))), ' class="mx-primary"' if changed else ""
        ways.append(
            f'<button type="button"{kind} data-act="resume" data-changes="{how}">'
            f"Resume with {escape(retry_text(update.retry))}</button>"
        )
    return ways[::-1] if changed else ways


def retry_text(changes: Mapping[str, Any]) -> str:
    """Settings with which another try may succeed, in words.

    >>> retry_text({"batch_size": 8, "gradient_accumulation": 4})
    'batches of 8 and gradient accumulation 4'
    """
    return " and ".join(RETRIES.get(name, name).format(value) for name, value in changes.items())


def _said(shown: Shown) -> str:
    update = shown.update
    if update.error:
        return error_html(update.error)
    if update.ended:
        return f'<p class="mf-said" role="status">{escape(update.detail)}</p>' if update.detail else ""
    return ""


# --- bars ---


def bars_html(shown: Shown) -> str:
    """Run, epoch and evaluation as nested bars; speed and time left."""
    update = shown.update
    if update.ended and update.phase == "done":
        return ""
    epoch = min(update.epochs, int(update.epoch) + 1) if update.epochs else 0
    whole = f"{update.step:,} of {counted(update.total_steps, 'step')}" if update.total_steps else ""
    part = f"{epoch} of {update.epochs}" if update.epochs else ""
    name, third = ("Preparing", update.prepared) if update.phase == "preparing" else ("Evaluation", update.evaluated)
    share = "" if third is None else f"{third:.0%}"
    bars = (
        _bar("Run", update.fraction, whole, f"{update.fraction:.0%}")
        + _bar("Epoch", update.epoch_fraction if update.step else 0.0, part, "")
        + _bar(name, third or 0.0, share, "")
    )
    return f'<div class="mf-bars">{bars}</div><div class="mf-now" aria-live="off">{_now(shown)}</div>'


def _bar(name: str, fraction: float, says: str, percent: str) -> str:
    share = max(0.0, min(1.0, fraction))
    value = f'aria-valuenow="{round(100 * share)}" aria-valuemin="0" aria-valuemax="100"'
    return (
        f'<div class="mf-bar" data-bar="{name.lower()}" role="progressbar" aria-label="{name}" {value}>'
        f'<span>{name}</span><i><b style="width:{100 * share:.2f}%"></b></i>'
        f"<span>{escape(says or percent)}</span></div>"
    )


def phase_text(shown: Shown) -> str:
    """What goes on, in words."""
    update = shown.update
    if shown.stopping and not update.ended:
        return "Stopping: the best model so far is being kept"
    if update.phase == "queued":
        ahead = update.position
        return f"Waiting for the device: {counted(ahead, 'run')} before this one" if ahead else "About to begin"
    if update.phase == "preparing":
        share = f", {update.prepared:.0%}" if update.prepared is not None else ""
        return f"Preparing: {update.detail}{share}" if update.detail else "Preparing"
    if update.phase == "training":
        return f"Training, epoch {min(update.epochs, int(update.epoch) + 1)}" if update.epochs else "Training"
    if update.phase == "evaluating":
        over = update.total_steps and update.step >= update.total_steps
        return "Judging the best model" if over else "Judging it on the validation rows"
    return {"saving": "Saving the model"}.get(update.phase, STATES[update.phase])


def _now(shown: Shown) -> str:
    update = shown.update
    facts = [f"<b>{escape(phase_text(shown))}</b>"]
    if update.phase in ("training", "evaluating"):
        if update.steps_per_second:
            facts.append(f"{rate(update.steps_per_second)} steps/s")
        if update.samples_per_second:
            facts.append(f"{rate(update.samples_per_second)} samples/s")
    if update.seconds_left is not None and not update.ended:
        part = " of this part" if update.phase == "preparing" else ""
        facts.append(f"{time_left(update.seconds_left)} left{part}")
    if update.loss is not None:
        facts.append(f"loss {update.loss:.3g}")
    if best := best_text(update):
        facts.append(escape(best) if update.model else f"{escape(best)} {_kept_text(update)}")
    return "".join(f"<span>{fact}</span>" for fact in facts)


def time_left(value: float) -> str:
    """
    >>> time_left(0.4), time_left(47.6), time_left(75), time_left(8000)
    ('under 1 s', '48 s', '1 min 15 s', '2 h 13 min')
    """
    if value < 1:
        return "under 1 s"
    if value < 3600:
        return f"{value:.0f} s" if value < 59.5 else seconds(round(value)).removesuffix(" 0 s")
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


def rate(value: float) -> str:
    """
    >>> rate(0.5234), rate(12.6), rate(1312.2)
    ('0.52', '12.6', '1,312')
    """
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def plan_html(update: TrainUpdate) -> str:
    """What was chosen for the data and the machine, and why."""
    plan = update.plan
    facts = []
    if rows := plan.get("rows"):
        facts.append(("Rows", ", ".join(f"{n:,} {name}" for name, n in rows.items()), ""))
    if plan.get("precision"):
        facts.append(("Precision", str(plan["precision"]), str(plan.get("precision_reason", ""))))
    if plan.get("learning_rate"):
        facts.append(("Learning rate", f"{plan['learning_rate']:g}", str(plan.get("learning_rate_reason", ""))))
    if plan.get("adaptation"):
        rounds = counted(plan["adaptation"], "epoch")
        facts.append(("Adaptive pretraining", rounds, str(plan.get("adaptation_reason", ""))))
    if plan.get("max_length"):
        facts.append(("Max length", f"{plan['max_length']} tokens", str(plan.get("max_length_reason", ""))))
    if plan.get("trained_parameters"):
        millions = f"{plan['trained_parameters'] / 1e6:.1f} of {plan['parameters'] / 1e6:.1f} million"
        facts.append(("Weights trained", millions, ""))
    cells = "".join(
        f'<div title="{escape(why)}"><dt>{name}</dt><dd>{escape(said)}</dd></div>' for name, said, why in facts
    )
    return f'<dl class="mf-plan">{cells}</dl>' if cells else ""


def log_html(update: TrainUpdate) -> str:
    """The last lines."""
    return escape("\n".join(update.log[-60:]))


# --- when it is over ---


def result_html(shown: Shown) -> str:
    """How good the model is: figures beside the baseline, per class, what was taken for what."""
    found = shown.metrics
    if not found:
        return ""
    rows = int(found.get("rows", 0))
    split = {"test": "test rows", "validation": "validation rows"}.get(str(found.get("split")), "rows")
    judged = f"Judged on {rows:,} {split}{known_text(found)}." if rows else ""
    return (
        f'{_tiles(found)}<p class="mx-soft">{judged}</p>'
        f'<div class="mf-charts2">{_per_class(found)}{_matrix(found)}</div>'
    )


def known_text(found: Mapping[str, Any]) -> str:
    """How many of the rows that judged the model had a text that it was trained on; nothing where nobody counted.

    >>> known_text({"trained_on": 2}), known_text({"trained_on": 0}), known_text({})
    ('; it was trained on the texts of 2 of them', ', none of which it was trained on', '')
    """
    count = found.get("trained_on")
    if count is None:
        return ""
    return f"; it was trained on the texts of {count:,} of them" if count else ", none of which it was trained on"


def _tiles(found: Mapping[str, Any]) -> str:
    baseline = found.get("baseline") or {}
    tiles = []
    for name, label in METRICS.items():
        value = found.get(name)
        if not is_number(value):
            continue
        beside = ""
        if is_number(baseline.get(name)):
            beside = f"{beside_text(name, value, baseline[name])} TF-IDF: {metric_text(name, baseline[name])}"
        tone = {"better": "good", "worse ": "caution"}.get(beside[:6], "")
        tiles.append(_tile(label, metric_text(name, value), beside, tone))
    calibration = found.get("calibration")
    if isinstance(calibration, Mapping) and is_number(calibration.get("ece")):
        before = calibration.get("ece_before")
        beside = f"{100 * before:.1f} % before calibration" if is_number(before) else ""
        tiles.append(_tile("Calibration error", f"{100 * calibration['ece']:.1f} %", beside, ""))
    return f'<div class="mf-tiles">{"".join(tiles)}</div>'


def beside_text(name: str, value: float, baseline: float) -> str:
    """How a figure compares with the baseline's, as far as both are shown.

    >>> beside_text("f1", 0.91, 0.88), beside_text("rmse", 0.5, 0.4), beside_text("f1", 0.6522, 0.6521)
    ('better than', 'worse than', 'level with')
    """
    if metric_text(name, value) == metric_text(name, baseline):
        return "level with"
    larger = name in SHARES or name == "r2"
    return "better than" if (value > baseline) == larger else "worse than"


def _tile(label: str, value: str, beside: str, tone: str) -> str:
    return (
        f'<div class="mf-tile" data-tone="{tone}"><span>{label}</span><b>{value}</b>'
        f"<small>{escape(beside) or '&nbsp;'}</small></div>"
    )


def _per_class(found: Mapping[str, Any]) -> str:
    rows = list(found.get("per_class") or ())
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th scope="row" title="{escape(row["label"])}">{escape(row["label"][:40])}</th>'
        + "".join(f"<td>{row[name]:.2f}</td>" for name in ("precision", "recall", "f1"))
        + f"<td>{row['support']:,}</td></tr>"
        for row in rows[:CLASSES]
    )
    more = f'<p class="mx-soft">and {len(rows) - CLASSES} more classes</p>' if len(rows) > CLASSES else ""
    return (
        '<section class="mf-chart"><h3>By class</h3><div class="mf-scroll"><table class="mf-table"><thead><tr>'
        '<th scope="col">Class</th><th scope="col">Precision</th><th scope="col">Recall</th><th scope="col">F1</th>'
        f'<th scope="col">Rows</th></tr></thead><tbody>{cells}</tbody></table></div>{more}</section>'
    )


def _matrix(found: Mapping[str, Any]) -> str:
    """The confusion matrix as a heat map with counts; for many classes the pairs most often confused."""
    matrix, names = found.get("confusion"), [str(row["label"]) for row in found.get("per_class") or ()]
    if not matrix:
        return ""
    if len(names) > MATRIX:
        return _confused(matrix, names)
    head = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name[:16])}</span></th>' for name in names)
    body = "".join(
        f'<tr><th scope="row" title="{escape(name)}">{escape(name[:18])}</th>'
        + "".join(_heat(n, sum(row), i == j, name, names[j]) for j, n in enumerate(row))
        + "</tr>"
        for i, (name, row) in enumerate(zip(names, matrix, strict=True))
    )
    return (
        '<section class="mf-chart"><h3>What was taken for what</h3><div class="mf-scroll"><table class="mf-heat"'
        f"{' data-many' if len(names) > 4 else ''}>"
        f'<thead><tr><td class="mf-corner">is / said</td>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div></section>"
    )


def _heat(count: int, of: int, right: bool, truth: str, said: str) -> str:
    share = count / of if of else 0.0
    tone = "--mm-good" if right else "--mm-bad"
    strong = " data-strong" if share > 0.6 else ""
    return (
        f'<td{strong} style="background:color-mix(in srgb, var({tone}) {round(70 * share)}%, transparent)" '
        f'title="{escape(truth)} taken for {escape(said)}: {count:,}, {share:.0%}">{count or "·"}</td>'
    )


def _confused(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    rows = "".join(
        f"<tr><td>{escape(names[i][:40])}</td><td>{escape(names[j][:40])}</td><td>{n:,}</td></tr>"
        for n, i, j in sorted(pairs, reverse=True)[:20]
    )
    return (
        '<section class="mf-chart"><h3>Most often confused</h3><div class="mf-scroll"><table class="mf-table">'
        '<thead><tr><th scope="col">Is</th><th scope="col">Said</th><th scope="col">Rows</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def errors_html(errors: Sequence[Mapping[str, Any]], numbers: bool = False) -> str:
    """The rows that the model gets wrong; of `numbers` those farthest off."""
    if not errors:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(row['text'])[:ERROR_TEXT])}</td><td>{escape(_label(row['label']))}</td>"
        f"<td>{escape(str(row['predicted']))}</td><td>{row['score']:.2f}</td><td>{row['row']}</td></tr>"
        for row in errors[:ERRORS]
    )
    title, order, score = ("Farthest off", "farthest", "Off by") if numbers else ("Misclassified", "surest", "Sure")
    shown = f", the {order} {ERRORS} shown" if len(errors) > ERRORS else f", the {order} first"
    return (
        f'<section class="mf-chart"><h3>{title}<small>{len(errors):,}{shown}</small></h3><div class="mf-scroll">'
        '<table class="mf-table mf-errors"><thead><tr><th scope="col">Text</th><th scope="col">Is</th>'
        f'<th scope="col">Said</th><th scope="col">{score}</th><th scope="col">Line</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _label(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
