"""A run in a terminal: nested bars, figures, log lines, and the tables before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from ..errors import MultimodelError
from .options import option
from .report import DataReport, Finding
from .types import TrainUpdate

COLORS = {"error": "bold red", "warning": "yellow", "note": "dim"}
FIGURES = ("validation_loss", "accuracy", "f1", "rmse", "r2")
SHOWN = 12  # classes of the report


class View:
    """A run as it goes: one bar for the run, one for its epoch, one for an evaluation while it lasts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description:<11}"),
            BarColumn(None),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self._progress = Progress(*columns, console=console, expand=True)
        self._run, self._epoch, self._other = (
            self._progress.add_task(name, total=1.0, visible=False, said="") for name in ("run", "epoch", "evaluation")
        )
        self._figures = Text()
        self._live = Live(Group(self._progress, self._figures), console=console, refresh_per_second=5)
        self._log: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def show(self, update: TrainUpdate) -> None:
        """The run as it stands."""
        for line in added(self._log, update.log):
            self.say(line)
        self._log = update.log
        self._bar(self._run, update.fraction, _run_text(update), shown=True)
        epoch = min(update.epochs, int(update.epoch) + 1)
        self._bar(self._epoch, update.epoch_fraction, f"{epoch} of {update.epochs}", shown=update.epochs > 0)
        waiting = update.prepared if update.phase == "preparing" else update.evaluated
        name = "preparing" if update.phase == "preparing" else "evaluation"
        self._progress.update(self._other, description=name)
        self._bar(self._other, waiting or 0.0, update.detail, shown=waiting is not None)
        self._figures.plain = figures(update)

    def _bar(self, task: Any, fraction: float, said: str, *, shown: bool) -> None:
        self._progress.update(task, completed=fraction, said=said, visible=shown)


def added(before: Sequence[str], after: Sequence[str]) -> Sequence[str]:
    """The lines that came after those seen before, where the oldest may have left.

    >>> added(["a", "b"], ["b", "c"])
    ['c']
    """
    for start in range(len(before) + 1):
        rest = before[start:]
        if list(after[: len(rest)]) == list(rest):
            return after[len(rest) :]
    return after


def figures(update: TrainUpdate) -> str:
    """The figures of a run in one line.

    >>> figures(TrainUpdate("a", samples_per_second=12.34, metrics={"f1": 0.5}))
    'f1 0.5 · 12.3 samples/s'
    """
    parts = [f"loss {update.loss:.4g}"] if update.loss is not None else []
    parts += [f"{name.replace('_', ' ')} {update.metrics[name]:.4g}" for name in FIGURES if name in update.metrics]
    if update.best:
        parts.append(f"best {update.best.metric} {update.best.value:.4g} at step {update.best.step:,}")
    if update.samples_per_second:
        parts.append(f"{update.samples_per_second:.1f} samples/s")
    if update.steps_per_second:
        parts.append(f"{update.steps_per_second:.2f} steps/s")
    return " · ".join(parts)


def _run_text(update: TrainUpdate) -> str:
    if update.phase == "queued":
        return f"waiting, {update.position} before it" if update.position else "starting"
    if update.phase in ("preparing", "saving"):
        return update.detail
    left = ""
    if update.seconds_left is not None and not update.ended:
        left = f", {timedelta(seconds=round(update.seconds_left))} left"
    return f"step {update.step:,} of {update.total_steps:,}{left}"


def end(console: Console, update: TrainUpdate) -> None:
    """How a run ended: figures beside the baseline, where the model is, or what to do."""
    color = {"done": "green", "stopped": "yellow", "interrupted": "yellow"}.get(update.phase, "red")
    console.print(f"[bold {color}]{update.phase}[/] {escape(update.detail)}", highlight=False)
    if update.error:
        failed(console, update.error)
    if update.retry:
        options = " ".join(option(name, value) for name, value in update.retry.items())
        console.print(f"Try: python -m multimodel.finetune --resume {update.run} {options}", markup=False)
    elif update.phase in ("stopped", "interrupted"):
        console.print(f"Go on with: python -m multimodel.finetune --resume {update.run}", markup=False)
    if update.model:
        baseline: Mapping[str, float] = update.plan.get("baseline", {})
        table = Table("", "this model", "TF-IDF and regression")
        for name in ("accuracy", "f1", "rmse", "r2"):
            if name in update.metrics:
                known = f"{baseline[name]:.4f}" if name in baseline else ""
                table.add_row(name, f"{update.metrics[name]:.4f}", known)
        if table.row_count:
            console.print(table)
        console.print(f"Saved in {update.model}", markup=False, highlight=False, soft_wrap=True)


def failed(console: Console, error: MultimodelError) -> None:
    """An error and what to do."""
    console.print(f"[bold red]{escape(str(error))}[/] {escape(error.hint)}", highlight=False)


def show_report(console: Console, report: DataReport) -> None:
    """What there is to know of the data."""
    splits = ", ".join(f"{count:,} {name}" for name, count in report.splits.items())
    console.print(f"[bold]{report.rows:,} rows[/]{f' ({splits})' if splits else ''}", highlight=False)
    for note in report.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    lengths = report.lengths
    about = "about " if lengths.estimated else ""
    console.print(
        f"Tokens a text: {about}{lengths.median} (median), {lengths.p95} (95 %), {lengths.longest} (longest); "
        f"the model reads {lengths.limit}.",
        highlight=False,
    )
    if report.languages:
        shown = ", ".join(f"{name} {share:.0%}" for name, share in report.languages.items())
        console.print(f"Languages (guessed): {shown}", markup=False, highlight=False)
    _classes(console, report.classes)
    for finding in report.findings:
        console.print(_found(finding), highlight=False)
    _recommended(console, report.recommended)


def _found(finding: Finding) -> str:
    """A finding and the options that answer it, as markup."""
    answers = [f"Repair: --fixes {finding.fix}"] if finding.fix else []
    answers += [f"Setting: {option(name, value)}" for name, value in finding.settings.items()]
    said = escape(" ".join(filter(None, (finding.title, finding.detail, *answers))))
    return f"[{COLORS[finding.severity]}]{finding.severity}[/] {said}"


def _recommended(console: Console, settings: Mapping[str, tuple[Any, str]]) -> None:
    table = Table("recommended", "because")
    for name, (value, reason) in settings.items():
        table.add_row(option(name, value), escape(reason))
    console.print(table)


def _classes(console: Console, classes: Mapping[str, int]) -> None:
    if not classes:
        return
    table = Table("class", "rows", "share")
    total = sum(classes.values())
    for name, count in sorted(classes.items(), key=lambda row: -row[1])[:SHOWN]:
        table.add_row(escape(name[:60]), f"{count:,}", f"{count / total:.1%}")
    if len(classes) > SHOWN:
        table.add_row(f"… and {len(classes) - SHOWN:,} more", "", "")
    console.print(table)


def show_runs(console: Console, runs: Sequence[TrainUpdate]) -> None:
    """All runs, the newest first."""
    if not runs:
        console.print("There is no run yet: python -m multimodel.finetune DATA --name NAME", markup=False)
        return
    table = Table("run", "state", "step", "best")
    for run in runs:
        best = f"{run.best.metric} {run.best.value:.4g}" if run.best else ""
        table.add_row(escape(run.run), run.phase, f"{run.step:,} of {run.total_steps:,}", best)
    console.print(table)
