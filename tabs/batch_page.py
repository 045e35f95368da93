"""The Runs tab: values to HTML. Pure; every text of a model or person is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from multimodel.batch.jobs import BatchJob, State
from multimodel.batch.plan import Batch
from multimodel.batch.run import BatchUpdate

from .finetune_runs import ago
from .format import called, counted, seconds, stage_text

WORDS: dict[State, str] = {
    "waiting": "in line",
    "running": "asking",
    "stopping": "stopping",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
    "done": "done",
}
TONES: dict[State, str] = {"running": "training", "waiting": "queued", "stopping": "training"}
"""States as Fine-tune's list calls them, which has their colours."""
FILES = {"html": "Page", "md": "Markdown", "json": "JSON"}
TAIL = 600  # characters of the answer under way that are shown


def jobs_html(jobs: Sequence[BatchJob], now: datetime) -> str:
    """The list, the newest first."""
    if not jobs:
        return '<li class="mf-none">No runs so far.</li>'
    return "".join(_job_row(job, now) for job in jobs)


def _job_row(job: BatchJob, now: datetime) -> str:
    update = job.update
    when = ago(datetime.fromtimestamp(job.created, UTC), now)
    facts = ", ".join(filter(None, (f"{update.done:,} of {update.total:,}", "replay" if job.replays else "", when)))
    done = f'<i class="mf-mini"><b style="width:{_share(update)}%"></b></i>' if job.active else ""
    return (
        f'<li class="mf-run"><button type="button" data-run="{job.id}"><span><b>{escape(job.title)}</b>'
        f"{_state(job.state)}</span><small>{escape(facts)}</small>{done}</button></li>"
    )


def _state(state: State) -> str:
    return f'<i class="mf-state mf-is-{TONES.get(state, state)}">{WORDS[state]}</i>'


def _share(update: BatchUpdate) -> str:
    return f"{100 * update.done / update.total:.1f}"


def head_html(job: BatchJob) -> str:
    """Title, state, and what can be done now."""
    acts = "".join(f'<button type="button" data-act="{act}"{more}>{words}</button>' for act, words, more in _acts(job))
    forms = "".join(f'<button type="button" data-file="{kind}">{words}</button>' for kind, words in FILES.items())
    files = f'<span class="mr-files">Report {forms}</span>' if job.update.done else ""
    trouble = f'<div class="mm-error" role="alert"><strong>{escape(job.trouble)}</strong></div>' if job.trouble else ""
    note = NOTES.get(job.state, "")
    said = f'<p class="mx-soft">{note}</p>' if note and not job.trouble else ""
    return (
        f'<div class="mr-title"><h2>{escape(job.title)}</h2>{_state(job.state)}</div>'
        f'<div class="mr-acts">{acts}{files}</div>{said}{trouble}'
    )


NOTES: dict[State, str] = {
    "interrupted": "The app ended while this was being asked. What was answered is kept; nothing is asked twice.",
    "waiting": "One run is asked at a time, so that figures are those of a model alone.",
}


def _acts(job: BatchJob) -> list[tuple[str, str, str]]:
    if job.active:
        return [("stop", "Stop", ' class="mx-primary"')]
    update = job.update
    found = []
    if not update.finished:
        found.append(("resume", "Go on", ' class="mx-primary"'))
    if update.errors:
        what = counted(update.errors, "failed answer")
        found.append(("retry", f"Ask {what} again", ""))
    if update.done:
        why = "The same prompts, parameters, seeds and models again, compared answer by answer"
        found.append(("replay", "Replay", f' title="{why}"'))
    found.append(("rename", "Rename", ""))
    found.append(("delete", "Delete", ' data-ask="Delete it and its answers?"'))
    return found


SAME = ", if the models not asked yet are as fast"


def progress_html(job: BatchJob, batch: Batch) -> str:
    """How far it is: the whole, and each model."""
    update = job.update
    if update.finished and not job.active:
        return ""
    parts = [
        f"<b>{update.done:,}</b> of {update.total:,} answers",
        counted(update.errors, "error") if update.errors else "",
        f"about {seconds(max(1.0, update.seconds_left))} left{SAME * update.guessed}"
        if update.seconds_left is not None and job.active
        else "",
    ]
    if job.state == "running" and update.seconds_left is None:
        parts.append("the time left is told after the first answer")
    rows = "".join(_model_row(i, str(model), update) for i, model in enumerate(batch.models))
    whole = f"<span>{' · '.join(filter(None, parts))}</span>{_bar(update.done, update.total)}"
    return f'<div class="mr-whole">{whole}</div><div class="mr-models">{rows}</div>'


def _model_row(place: int, name: str, update: BatchUpdate) -> str:
    if place >= len(update.counts):
        return ""
    count = update.counts[place]
    errors = f", {counted(count.errors, 'error')}" if count.errors else ""
    now = " mr-now" if update.item and update.item.model == place else ""
    return (
        f'<div><span class="mr-model{now}">{escape(name)}</span>'
        f"{_bar(count.done, count.total)}"
        f"<span>{count.done:,} of {count.total:,}{errors}</span></div>"
    )


def _bar(done: int, total: int) -> str:
    share = f"{100 * done / total:.1f}"
    told = f'role="progressbar" aria-valuenow="{share}" aria-label="Answers"'
    return f'<i class="mr-bar" {told}><i style="width:{share}%"></i></i>'


def live_html(job: BatchJob, batch: Batch) -> str:
    """The answer under way: what was asked, and the end of what was said."""
    update = job.update
    if job.state != "running" or not update.item:
        return ""
    item, answer = update.item, update.answer
    asked = escape(" ".join(batch.prompts[item.prompt].split())[:200])
    who = f"{escape(called(batch.models[item.model]))} · {escape(batch.settings[item.setting].name)}"
    if update.waiting:
        said = f'<p class="mx-soft" role="status">{escape(update.waiting)}</p>'
    elif answer and (text := answer.text or answer.reasoning):
        said = f"<p><span>{'…' * (len(text) > TAIL)}{escape(text[-TAIL:])}</span></p>"
    else:
        stage = stage_text(answer.stage) if answer and answer.stage else "Asking the model"
        said = f'<p class="mx-soft">{escape(stage)}</p>'
    return f'<div class="mr-by">{who}</div><div class="mr-asked">{asked}</div>{said}'


def plan_html(batch: Batch, takes: float | None) -> str:
    """How many answers a batch makes, and the seconds that this takes where earlier runs say it."""
    parts = [
        counted(len(batch.prompts), "prompt"),
        counted(len(batch.models), "model"),
        counted(len(batch.settings), "parameter set"),
        f"{batch.repeats} each" if batch.repeats > 1 else "",
    ]
    time = f", about {seconds(max(1.0, takes))} by earlier runs" if takes is not None else ""
    return f"<b>{counted(len(batch), 'answer')}</b> <span>{' × '.join(filter(None, parts))}{time}</span>"
