"""The runs in a list, and two or more of them side by side. Values to HTML; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from multimodel.finetune.types import TrainConfig, TrainUpdate

from .finetune_run import METRICS, SHARES, STATES, Shown, best_text, metric_text, short, state_html
from .finetune_settings import DEFAULTS, LABELS

MOST = 6  # runs that are compared
FIGURES = {"total_steps": "Steps", "max_length": "Tokens read", "precision": "Number format"}


def runs_html(runs: Sequence[Shown], now: datetime) -> str:
    """The list, the newest first; a tick chooses a run for comparison."""
    if not runs:
        return '<li class="mf-none">No runs so far.</li>'
    return "".join(_row(run, now) for run in runs)


def _row(run: Shown, now: datetime) -> str:
    update = run.update
    name = escape(update.run)
    when = ago(run.created, now) if run.created else ""
    best = best_text(update).removeprefix("Macro ")
    facts = ", ".join(part for part in (best, short(run.config.base), when) if part)
    done = f'<i class="mf-mini"><b style="width:{100 * update.fraction:.1f}%"></b></i>' if run.active else ""
    ticked = "" if run.update.curves else " disabled"
    return (
        f'<li class="mf-run"><input type="checkbox" data-pick="{name}" aria-label="Compare {name}"{ticked}>'
        f'<button type="button" data-run="{name}"><span><b>{name}</b>{state_html(update)}</span>'
        f"<small>{escape(facts)}</small>{done}</button></li>"
    )


def ago(then: datetime, now: datetime) -> str:
    """When a run was begun.

    >>> noon = datetime(2026, 11, 22, 12)
    >>> ago(noon, noon), ago(datetime(2026, 11, 22, 9), noon), ago(datetime(2026, 11, 13), noon)
    ('just now', '3 h ago', '13 Nov 2026')
    """
    passed = (now - then).total_seconds()
    if passed < 60:
        return "just now"
    if passed < 3600:
        return f"{passed // 60:.0f} min ago"
    if passed < 48 * 3600:
        return f"{passed // 3600:.0f} h ago"
    return f"{then.day} {then:%b %Y}"


# --- side by side ---


def compare_html(runs: Sequence[Shown]) -> str:
    """Figures, and the settings in which the runs differ."""
    names = "".join(
        f'<th scope="col"><i class="mx-dot" style="background:var(--mf-r{i})"></i>{escape(run.update.run)}</th>'
        for i, run in enumerate(runs)
    )
    body = _group("Figures", figures(runs)) + _group("Settings that differ", differing([run.config for run in runs]))
    return (
        '<div class="mf-scroll"><table class="mf-table mf-versus"><thead><tr><td></td>'
        f"{names}</tr></thead>{body}</table></div>"
    )


def _group(title: str, rows: Sequence[tuple[str, Sequence[str], int]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(f"<td{' data-best' if i == best else ''}>{escape(cell)}</td>" for i, cell in enumerate(cells))
        + "</tr>"
        for label, cells, best in rows
    )
    return f'<tbody><tr class="mf-group"><th scope="rowgroup" colspan="99">{title}</th></tr>{lines}</tbody>'


def figures(runs: Sequence[Shown]) -> list[tuple[str, list[str], int]]:
    """(figure, its value for each run, which is best or -1)."""
    updates = [run.update for run in runs]
    rows: list[tuple[str, list[str], int]] = [("State", [STATES[update.phase] for update in updates], -1)]
    for name, label in METRICS.items():
        values = [_metric(update, name) for update in updates]
        known = [value for value in values if value is not None]
        if known:
            best = max(known) if name in SHARES or name == "r2" else min(known)
            cells = ["–" if value is None else metric_text(name, value) for value in values]
            rows.append((label, cells, _leading(cells, values.index(best))))
    losses = [_last(update, "validation_loss") for update in updates]
    if any(value is not None for value in losses):
        lowest = min(value for value in losses if value is not None)
        cells = ["–" if value is None else f"{value:.3f}" for value in losses]
        rows.append(("Validation loss", cells, _leading(cells, losses.index(lowest))))
    for name, label in FIGURES.items():
        cells = [str(_known(update, name)) for update in updates]
        rows.append((label, cells, -1))
    return rows


def _leading(cells: Sequence[str], best: int) -> int:
    """The best of them, where it can be seen to be."""
    return best if cells.count(cells[best]) == 1 else -1


def _metric(update: TrainUpdate, name: str) -> float | None:
    value = update.metrics.get(name)
    return float(value) if isinstance(value, int | float) else None


def _last(update: TrainUpdate, name: str) -> float | None:
    points = update.curves.get(name)
    return points[-1].value if points else None


def _known(update: TrainUpdate, name: str) -> Any:
    value = update.total_steps if name == "total_steps" else update.plan.get(name)
    return "–" if value in (None, 0) else f"{value:,}" if isinstance(value, int) else value


def differing(configs: Sequence[TrainConfig]) -> list[tuple[str, list[str], int]]:
    """(setting, its value for each run, -1) where they are not the same."""
    words = {"base": "Base model", "data": "Data", **LABELS}
    found = []
    for name, label in words.items():
        cells = [_setting(name, getattr(config, name)) for config in configs]
        if len(set(cells)) > 1:
            found.append((label, cells, -1))
    fixes = [", ".join(config.fixes) or "none" for config in configs]
    return [*found, ("Repairs", fixes, -1)] if len(set(fixes)) > 1 else found


def _setting(name: str, value: Any) -> str:
    if isinstance(DEFAULTS.get(name), bool):
        return "on" if value else "off"
    if value is None:
        return "auto"
    return f"{value:g}" if isinstance(value, float) else short(value) if name == "data" else str(value)


def curves_of(update: TrainUpdate) -> Mapping[str, list[list[float]]]:
    """The points of every curve as JSON: [step, value]."""
    return {name: [[p.step, p.value] for p in points] for name, points in update.curves.items()}
