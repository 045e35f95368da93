"""A run from its folder to a saved model, in the process that trains."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from ..settings import ModelSettings, Settings, TrackingSettings, process_rank, splits_model
from . import checkpoints
from .adapt import adapt, give_kept
from .classifier import quiet
from .control import Control
from .events import Writer
from .judging import judged
from .order import by_length
from .prepare import Prepared, new_model, prepare
from .record import Session, build
from .reporter import Reporter, Rules, agreed, check_room, judge
from .runfolder import MODULES, Trained, forget_adaptation
from .split import Share, SplitTrainer, splitting
from .store import Store
from .tracking import tracked
from .trainer import GroupedTrainer, arguments, class_weights, collate, figures, loss_function
from .tuning import counted, load_weights, merged

LOGS = 200  # points of the loss curve


def train(folder: Path, writer: Writer, control: Control) -> None:
    """Prepare, train, judge and save, or what is left of that. Raises MultimodelError, and what the libraries raise."""
    quiet()
    session = Session(time.perf_counter())
    run = prepare(folder, writer)
    session.mark("preparing")
    if not _over(run):
        if not adapt(run, writer, control):
            return
        session.mark("adapting")
        _train(run, writer, control)
    session.mark("training")
    trained = None if process_rank() else Trained.load(folder)
    if trained:
        _finish(run, writer, trained, session)


def _over(run: Prepared) -> bool:
    """Whether training has ended and only the rest is to be done; of several processes the first one knows."""
    args = arguments(run.config, run.folder, run.plan | {"logging_steps": 1})  # the processes meet here
    (over,) = agreed(Trained.load(run.folder) is not None, world=args.world_size)
    return over


def _train(run: Prepared, writer: Writer, control: Control) -> None:
    """Train to the end, or until asked to stop; says so with `Trained`, unless the run was interrupted."""
    told = {"logging_steps": max(1, _steps(run, 1) // LOGS), "project": TrackingSettings().project}
    split = splits_model()
    args = arguments(run.config, run.folder, run.plan | told, **(splitting(run.model) if split else {}))
    rules = _rules(run, args.world_size)
    check_room(run.folder, (checkpoints.KEPT + 2) * rules.room, "The checkpoints of the run take up to")
    reporter = Reporter(run.folder, writer, control, rules)
    validation = run.sets["validation"]
    last = checkpoints.newest(run.folder, tidy=process_rank() == 0)
    if split and last:
        load_weights(run.model, last)
    trainer = (SplitTrainer if split else GroupedTrainer)(
        model=run.model,
        args=args,
        data_collator=collate(run.pad, run.labels.task),
        train_dataset=run.sets["train"],
        eval_dataset=validation.take(by_length(validation.lengths)) if len(validation) else None,
        compute_loss_func=loss_function(run.labels.task, _weights(run)),
        compute_metrics=figures(run.labels.task, run.folder / MODULES),
        callbacks=[reporter, *([Share(writer)] if split else [])],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every point
    with tracked(run.order, writer) as trackers:
        for tracker in trackers:
            trainer.add_callback(tracker)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if trainer.is_world_process_zero():
            _ended(run, trainer.state, reporter.stopped_early, writer, control)


def _weights(run: Prepared) -> list[float] | None:
    if not run.config.class_weights:
        return None
    return class_weights(run.sets["train"].truth, run.labels.task, run.labels.outputs)


def _ended(run: Prepared, state: Any, early: bool, writer: Writer, control: Control) -> None:
    over = early or state.global_step >= state.max_steps
    if not over and control.stopping == "interrupted":
        writer.end("interrupted", f"The app ended; saved at step {state.global_step:,}.")
        return
    best = judge(state.log_history, run.plan["metric"], len(run.sets["validation"])).step or state.global_step
    Trained("done" if over else "stopped", best, state.global_step, state.max_steps, early).save(run.folder)


def _steps(run: Prepared, world: int) -> int:
    """Steps of the whole run."""
    return run.config.epochs * _steps_per_epoch(run, world)


def _steps_per_epoch(run: Prepared, world: int) -> int:
    batches = math.ceil(len(run.sets["train"]) / (run.config.batch_size * world))
    return math.ceil(batches / run.config.gradient_accumulation)


def _rules(run: Prepared, world: int) -> Rules:
    each, times = _steps_per_epoch(run, world), run.config.evaluations
    steps = {max(1, round(each * k / times)) for k in range(1, run.config.epochs * times + 1)}
    every, trained = counted(run.model)
    return Rules(
        evaluate_at=frozenset(steps | {_steps(run, world)}) if len(run.sets["validation"]) else frozenset(),
        metric=run.plan["metric"],
        judged_on=len(run.sets["validation"]),
        patience=run.config.early_stopping,
        samples=run.config.batch_size * run.config.gradient_accumulation * world,
        checkpoint_steps=run.config.checkpoint_steps,
        room=4 * every + 8 * trained + 1_000_000,  # weights, two moments of the optimizer, and small files
    )


def _finish(run: Prepared, writer: Writer, trained: Trained, session: Session) -> None:
    """Judge the best weights, write the model's folder and publish it."""
    if splits_model():
        run.model = new_model(run.order, run.labels)
    give_kept(run)  # a checkpoint of LoRA has its own matrices only
    load_weights(run.model, trained.checkpoint(run.folder))
    run.model = merged(run.model)
    found = judged(run, writer)
    session.mark("judging")
    writer.phase("saving", "writing the model")
    built = build(run, found, trained, session)
    store = Store(Settings(models=ModelSettings(fine_tuned_dir=Path(run.order.models))))
    target = store.publish(built, run.config.name)
    if trained.phase == "done":  # a stopped run may go on
        forget_adaptation(run.folder)
        for path in checkpoints.all_of(run.folder):
            checkpoints.remove(path)
    shown = {name: value for name, value in found.metrics.items() if isinstance(value, int | float)}
    writer.end(trained.phase, _said(trained, bool(len(run.sets["validation"]))), model=str(target), metrics=shown)


def _said(trained: Trained, chosen: bool) -> str:
    """`chosen`: from several, by validation rows."""
    stopped = trained.phase == "stopped"
    best = f"best model{' so far' if stopped else ''}, of step {trained.step:,}," if chosen else "last model"
    said = f"The {best} is saved and ready to use."
    if stopped:
        return f"Stopped at step {trained.steps:,} of {trained.total_steps:,}. {said}"
    return f"{said} Training ended early, because nothing got better." if trained.early else said
