"""What happens between the steps of training: reporting, judging, saving, stopping."""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import DiskFull, Diverged
from . import checkpoints
from .classifier import set_threads
from .control import Control
from .events import Reader, Writer

BEAT = 0.25  # seconds between two reports of progress
MINUTE = 60.0  # seconds between two checkpoints
SHARE = 20  # times as long as a checkpoint takes, between two of them
WINDOW = 50  # steps over which a speed is taken

LOWER_IS_BETTER = frozenset({"loss", "rmse"})


@dataclass(frozen=True, slots=True)
class Rules:
    """When to judge, to save and to stop."""

    evaluate_at: frozenset[int]  # steps
    metric: str  # which figure says what is best
    judged_on: int  # validation rows
    patience: int  # evaluations without a better one; 0: never stop early
    samples: int  # rows per step
    checkpoint_steps: int | None
    room: int  # bytes that a checkpoint takes


@dataclass(frozen=True, slots=True)
class Judged:
    """What the evaluations so far say."""

    step: int | None = None  # of the best
    value: float = math.nan
    loss: float = math.inf
    highest: float = math.nan  # figure of all; `value` may be lower by chance
    stale: int = 0  # evaluations since the highest


def judge(history: Sequence[dict[str, Any]], metric: str, rows: int) -> Judged:
    """The best evaluation in a Trainer's log; the same log gives the same answer, so it survives a resume.

    Of shares like F1 it is the last one that is less than a standard error below the highest, as many `rows` give them:
    what is higher by less is so by chance, and the learning rate falls to the end (the one-standard-error rule of
    Breiman et al. 1984, "Classification and Regression Trees", for the more trained instead of the simpler model).
    Where the figure is the same, the lower loss is the higher: a model that has just begun to learn often says one
    answer to everything, and its F1 stands still while its loss falls.

    >>> log = [{"eval_f1": 0.5, "step": 1}, {"loss": 1, "step": 2}, {"eval_f1": 0.4, "step": 2}]
    >>> judge(log, "f1", rows=1000)
    Judged(step=1, value=0.5, loss=inf, highest=0.5, stale=1)
    >>> judge(log, "f1", rows=20)
    Judged(step=2, value=0.4, loss=inf, highest=0.5, stale=1)
    """
    best = highest = Judged()
    for row in history:
        value = row.get(f"eval_{metric}")
        if value is None:
            continue
        found = Judged(row["step"], value, row.get("eval_loss", math.inf), value)
        if _better(found, highest, metric):
            best = highest = found
        else:
            highest = replace(highest, stale=highest.stale + 1)
            chosen = found if _as_good(value, highest.value, metric, rows) else best
            best = replace(chosen, highest=highest.value, stale=highest.stale)
    return best


def _better(found: Judged, highest: Judged, metric: str) -> bool:
    if highest.step is None:
        return math.isfinite(found.value)
    if found.value == highest.value:
        return found.loss < highest.loss
    return found.value < highest.value if metric in LOWER_IS_BETTER else found.value > highest.value


def _as_good(value: float, highest: float, metric: str, rows: int) -> bool:
    """Whether a share may be lower by chance alone. The error of F1 is taken for that of a share."""
    if metric in LOWER_IS_BETTER or not rows or not 0 <= highest <= 1:
        return False
    return highest - value < math.sqrt(highest * (1 - highest) / rows)


class Reporter(TrainerCallback):
    """Reports what happens and decides what happens next; every process of a run decides the same."""

    def __init__(self, folder: Path, writer: Writer, control: Control, rules: Rules) -> None:
        self.stopped_early = False
        self._folder, self._writer, self._asked, self._rules = folder, writer, control, rules
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._judging: deque[float] = deque(maxlen=5)
        self._mark = self._reported = self._saved = time.perf_counter()
        self._interval = MINUTE
        self._threads = 0
        self._evaluated = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Training starts, or goes on."""
        self._mark = self._saved = time.perf_counter()
        if state.is_world_process_zero:
            self._writer.write("plan", values={"total_steps": state.max_steps, "epochs": args.num_train_epochs})
            if state.global_step or any(event["kind"] == "points" for event in Reader(self._folder).read()):
                self._writer.write("resumed", step=state.global_step)
            self._writer.phase("training")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The share of the cores may have changed."""
        if (count := self._asked.threads) and count != self._threads:
            self._threads = count
            set_threads(count)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report, and decide whether to judge, save or stop now."""
        now = time.perf_counter()
        self._steps.append(now - self._mark)
        self._mark = now
        last = state.global_step >= state.max_steps
        if state.is_world_process_zero and (now - self._reported >= BEAT or last):
            self._reported = now
            self._progress(state)
        stop, save = agreed(bool(self._asked.stopping), self._due(state, now), world=args.world_size)
        if stop:
            control.should_training_stop = True
        if state.global_step in self._rules.evaluate_at:
            control.should_evaluate = True
        if stop or save or last:
            control.should_save = True
        if control.should_save or control.should_evaluate:
            control.should_log = True  # what is not a number must be seen before it is saved

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """A point of the curves."""
        values = {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
        if not math.isfinite(values.get("loss", 0.0)):
            raise Diverged(
                f"The loss is no number any more at step {state.global_step:,}.",
                hint="Lower the learning rate, to a third for example, or use float32; then resume or start anew.",
            )
        if values and state.is_world_process_zero:
            self._writer.write("points", step=state.global_step, values=values)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """How far an evaluation is."""
        now = time.perf_counter()
        self._evaluated += 1
        if state.is_world_process_zero and now - self._reported >= BEAT:
            self._reported = now
            self._writer.write("evaluating", fraction=min(1.0, self._evaluated / max(1, len(eval_dataloader))))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """A judgement: is it the best, and is it time to stop?"""
        self._judging.append(time.perf_counter() - self._mark)
        self._mark = time.perf_counter()
        self._evaluated = 0
        found = self._judge(state)
        if found.step == state.global_step:
            control.should_save = True
        if self._rules.patience and found.stale >= self._rules.patience:
            control.should_training_stop = control.should_save = True
            self.stopped_early = True
        if state.is_world_process_zero:
            self._report_evaluation(state, metrics, found)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint is written: seal it, and remove what is older."""
        if args.world_size > 1:
            distributed.barrier()
        if state.is_world_process_zero:
            checkpoints.seal(self._folder / f"checkpoint-{state.global_step}")
            checkpoints.prune(self._folder, self._judge(state).step)
        now = time.perf_counter()
        self._interval = max(MINUTE, SHARE * (now - self._mark))
        self._mark = self._saved = now

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """However it ended, where it stands is told."""
        if state.is_world_process_zero and self._steps:
            self._progress(state)

    def _judge(self, state: TrainerState) -> Judged:
        return judge(state.log_history, self._rules.metric, self._rules.judged_on)

    def _due(self, state: TrainerState, now: float) -> bool:
        """Whether a checkpoint is due; raises DiskFull before there is no room for it."""
        every = self._rules.checkpoint_steps
        due = state.global_step % every == 0 if every else now - self._saved >= self._interval
        if due:
            check_room(self._folder, self._rules.room)
        return due

    def _progress(self, state: TrainerState) -> None:
        speed = self._speed()
        ahead = sum(step > state.global_step for step in self._rules.evaluate_at)
        judging = ahead * sum(self._judging) / len(self._judging) if self._judging else 0.0
        self._writer.write(
            "progress",
            step=state.global_step,
            epoch=round(state.epoch or 0.0, 4),
            steps_per_second=round(speed, 4),
            samples_per_second=round(speed * self._rules.samples, 2),
            seconds_left=self._left(state) + round(judging, 1),
        )

    def _speed(self) -> float:
        """Steps a second."""
        return len(self._steps) / max(1e-9, sum(self._steps))

    def _left(self, state: TrainerState) -> float:
        """Seconds that the other steps will take."""
        return round((state.max_steps - state.global_step) / self._speed(), 1)

    def _report_evaluation(self, state: TrainerState, metrics: dict[str, float], found: Judged) -> None:
        names = {"eval_loss": "validation_loss"}
        skipped = ("runtime", "per_second", "preparation_time", "epoch")
        values = {
            names.get(name, name.removeprefix("eval_")): value
            for name, value in metrics.items()
            if not name.endswith(skipped)
        }
        figures = {"metric": self._rules.metric, "value": found.value, "highest": found.highest}
        best = {"step": found.step, **figures} if found.step else None
        self._writer.write("evaluation", step=state.global_step, metrics=values, best=best)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        mark = (" (best so far)" if found.stale == 0 else " (kept: as good, and trained longer)") * (
            found.step == state.global_step
        )
        self._writer.log(f"Step {state.global_step:,}: {shown}{mark}")


def check_room(folder: Path, needed: int, what: str = "The next checkpoint takes") -> None:
    """Raise DiskFull unless `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{what} {needed / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB free.",
            hint="Free some space and resume: nothing before the last checkpoint is lost.",
        )


def agreed(*decided: bool, world: int) -> list[bool]:
    """What the first of `world` processes decided: all have to take the same turn at the same step."""
    if world == 1:
        return list(decided)
    flags = torch.tensor(decided, dtype=torch.int32)
    flags = flags.cuda() if distributed.get_backend() == "nccl" else flags
    distributed.broadcast(flags, 0)
    return [bool(flag) for flag in flags.tolist()]
