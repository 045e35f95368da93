"""Fine-tuning from the command line: `python -m multimodel.finetune DATA --name NAME`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from ..compute import Cores
from ..errors import InvalidParameter, MultimodelError, NotEnoughMemory
from ..hardware import cores, without_gpu
from ..hub.push import push
from ..memory.estimator import Estimator, this_device
from ..memory.plan import Request, gb
from ..memory.target import target_of
from ..settings import Settings
from . import console as view
from .bases import base_folder
from .fitting import MOST, STEPS, largest_batch, rows_of_steps, training_of
from .jobs import Jobs
from .options import parser, settings_of
from .remote import repository, submit
from .report import DataReport, report
from .sources import finished, mapped
from .store import Store
from .tokens import base_in
from .types import TrainConfig, TrainUpdate

CODES = {"done": 0, "stopped": 0, "interrupted": 130}


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Do what the options say; the exit status: 0, 1 for a run that failed, 2 for what cannot be, 130 interrupted."""
    console = console or Console()
    options = parser().parse_args(argv)
    try:
        settings = Settings.load()
        with closing(Jobs(settings, Cores(settings.performance.threads or cores()))) as jobs:
            return _command(options, jobs, settings, console)
    except MultimodelError as error:
        view.failed(console, error)
        return 2
    except KeyboardInterrupt:
        return CODES["interrupted"]


def _command(options: argparse.Namespace, jobs: Jobs, settings: Settings, console: Console) -> int:
    if hasattr(options, "runs"):
        view.show_runs(console, jobs.all())
        return 0
    if hasattr(options, "resume"):
        jobs.resume(options.resume, settings_of(options))
        return _pushed(options, _watched(jobs, options.resume, console), options.resume, settings, console)
    if not hasattr(options, "data"):
        raise InvalidParameter("There is no data.", hint="Name a file or a sample set, or use --resume or --runs.")
    if not hasattr(options, "name") and not hasattr(options, "report_only"):
        raise InvalidParameter("The model has no name.", hint="Give it one: --name reviews")
    config = TrainConfig(**{"name": "report"} | settings_of(options))
    data, folder = mapped(config, settings), _base(config, settings, console)
    found = report(data, base_in(folder))
    view.show_report(console, found)
    if hasattr(options, "report_only"):
        return 0
    if hasattr(options, "largest_batch"):
        rows = len(finished(data, config).of("train"))
        config = _fitted(config, folder, found, rows, settings, console)
    if hasattr(options, "job"):
        return _remote(config, options.job, settings, console)
    name = jobs.start(config, data)
    return _pushed(options, _watched(jobs, name, console), name, settings, console)


def _base(config: TrainConfig, settings: Settings, console: Console) -> Path:
    """The folder of the base model, downloaded where it is not here yet."""
    steps = base_folder(config.base, settings)
    with console.status("finding the base model") as status:
        while True:
            try:
                detail, fraction = next(steps)
            except StopIteration as end:
                return Path(end.value)
            status.update(detail + (f", {fraction:.0%}" if fraction is not None else ""))


def _fitted(
    config: TrainConfig, folder: Path, found: DataReport, rows: int, settings: Settings, console: Console
) -> TrainConfig:
    """The config with the largest batch that fits and suits so many rows. Raises NotEnoughMemory."""
    target = target_of(without_gpu().best if config.device == "cpu" else this_device())
    length = found.recommended["max_length"][0]
    with closing(Estimator(settings)) as estimator:
        subject = estimator.read(folder)
        fit = largest_batch(
            training_of(config, length, subject),
            lambda how: estimator.plan(subject, Request(target=target, training=how)),
            target,
            _most(config, found, rows),
        )
    if not fit.batch_size:
        hint = "Close other programs, use LoRA (--lora-rank 8) or --gradient-checkpointing, or a smaller base model."
        said = f"Training takes {gb(fit.needed)} with one row a batch; {gb(fit.available)} are usable."
        raise NotEnoughMemory(said, hint=hint)
    said = f"Batch size {fit.batch_size}: training takes about {gb(fit.needed)} of {gb(fit.available)} usable."
    console.print(f"{said} {_steps_said(config, rows, fit.batch_size)}", highlight=False)
    return config.merge({"batch_size": fit.batch_size})


def _most(config: TrainConfig, found: DataReport, rows: int) -> int:
    """The largest batch that leaves an epoch of so many rows enough steps; not less than what is recommended."""
    recommended: int = found.recommended["batch_size"][0]
    return min(MOST, max(rows_of_steps(rows, config.gradient_accumulation), recommended))


def _steps_said(config: TrainConfig, rows: int, batch: int) -> str:
    steps, larger = (math.ceil(rows / (size * config.gradient_accumulation)) for size in (batch, 2 * batch))
    said = f"An epoch has {steps:,} step{'' if steps == 1 else 's'}"
    if larger >= STEPS:
        return f"{said}."
    return f"{said}; a larger batch would leave it {'even fewer' if steps < STEPS else f'fewer than {STEPS}'}."


def _remote(config: TrainConfig, flavor: str, settings: Settings, console: Console) -> int:
    """Train on a machine of the Hub."""
    with console.status("bringing rows, base model and program to the Hub"):
        job = submit(config, settings, flavor=flavor)
    console.print(f"The job runs at {job.url}", markup=False, highlight=False, soft_wrap=True)
    said = f"Its model will be OWNER/{repository(config.name)} on the Hub, and can be used by that name."
    console.print(said, markup=False, highlight=False)
    return 0


def _pushed(options: argparse.Namespace, code: int, name: str, settings: Settings, console: Console) -> int:
    """Bring the model of a run that has ended well to the Hub, where that was asked for."""
    if code == 0 and hasattr(options, "push"):
        with console.status("bringing the model to the Hub"):
            address = push(Store(settings).get(name).path, options.push, settings, update=True)
        console.print(f"It is at {address}", markup=False, highlight=False, soft_wrap=True)
    return code


def _watched(jobs: Jobs, name: str, console: Console) -> int:
    """Follow a run to its end; the exit status."""
    with view.View(console) as shown:
        try:
            update = _followed(jobs, name, shown)
        except KeyboardInterrupt:
            shown.say("Stopping after this step; the best model so far is kept. Ctrl+C again leaves at once.")
            jobs.stop(name)
            try:
                update = _followed(jobs, name, shown)
            except KeyboardInterrupt:
                jobs.close()  # it saves itself
                update = jobs.get(name)
    view.end(console, update)
    return CODES.get(update.phase, 1)


def _followed(jobs: Jobs, name: str, shown: view.View) -> TrainUpdate:
    update = jobs.get(name)
    for update in jobs.follow(name):
        shown.show(update)
    return update


if __name__ == "__main__":
    sys.exit(main())
