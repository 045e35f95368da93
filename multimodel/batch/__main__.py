"""A batch from the command line: `python -m multimodel.batch PROMPTS --models MODEL MODEL --out FOLDER`.

`--out FOLDER` alone goes on with one; `--replay report.json --out FOLDER` asks one again and compares.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from ..engine import Engine
from ..errors import BatchError, MultimodelError
from ..registry import source
from ..settings import Settings
from ..types import ModelId, SamplingParams
from . import replay
from .export import HEAD, cells, to_json, why, write
from .page import where_of
from .plan import Batch, Setting, prompts_of, setting_of
from .report import Report, counted, report
from .run import BatchUpdate, run

WIDE = 120  # characters of a line that hold all figures
NARROW = ("answered", "TTFT", "tok/s", "cost")
SET = "a setting, of sampling and loading: small:temperature=0.7,dtype=int4,chat_template=@FILE; repeatable"
SHOWN = 20  # answers of a replay that are not as they were, and kinds of errors


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m multimodel.batch", description=__doc__)
    made.add_argument("prompts", type=Path, nargs="?", help="lines of a .txt file, or CSV, JSONL, Excel ...")
    made.add_argument("--models", nargs="+", default=[], metavar="ID", help="gguf:guide openai:gpt-5-mini ...")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where answers and report are kept")
    made.add_argument("--set", action="append", default=[], metavar="NAME:key=value,...", help=SET)
    made.add_argument("--system", default="", help="the system prompt")
    made.add_argument("--repeats", type=int, default=1, help="answers to each prompt (default: %(default)s)")
    made.add_argument("--temperature", type=float, default=0.0, help="default: %(default)s")
    made.add_argument("--max-tokens", type=int, default=512, help="default: %(default)s")
    made.add_argument("--replay", type=Path, metavar="REPORT", help="ask a report.json, or a folder, again and compare")
    made.add_argument("--retry", action="store_true", help="ask again what ended in an error")
    return made


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Ask, or go on with, a batch; the exit status: 0, 1 where answers ended in errors, 2 for what cannot be, 130."""
    console = console or Console()
    options = parser().parse_args(argv)
    try:
        settings = Settings.load()
        batch = _batch(options, settings)
        with Engine(settings) as engine:
            last = _watched(batch, options.out, engine, console, retry=options.retry)
        found = report(options.out, settings)
        console.print(_table(found, console.width))
        if found.before:
            console.print(_verdicts(found))
        for path in write(options.out, settings):
            console.print(f"{path}", highlight=False, soft_wrap=True)
        _complain(found)
        return 1 if last.errors else 0
    except MultimodelError as error:
        console.print(f"[red]{escape(str(error))}[/red] {escape(error.hint)}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on from here.")
        return 130


def _batch(options: argparse.Namespace, settings: Settings) -> Batch:
    """What the options say; without prompts the batch of the folder. Raises BatchError and what its parts raise."""
    if options.replay:
        before = replay.original(options.replay, settings)
        text = (
            options.replay.read_text("utf-8-sig") if options.replay.is_file() else _report_of(options.replay, settings)
        )
        replay.keep(before, options.out, text)
        return replay.pinned(before)
    if not options.prompts:
        return Batch.load(options.out)
    usual = SamplingParams(temperature=options.temperature, max_tokens=options.max_tokens)
    named = [setting_of(text, options.system) for text in options.set]
    made = [replace(setting, params=usual.merge(setting.params)) for setting in named]
    models = tuple(map(ModelId.parse, options.models))
    for model in models:
        source(model.backend, settings)
    if not models:
        raise BatchError("There are no models.", hint="Name them: --models gguf:guide transformers:guide")
    return Batch(
        prompts=prompts_of(options.prompts),
        models=models,
        settings=tuple(made) or (Setting("default", usual, options.system),),
        repeats=options.repeats,
    )


def _report_of(folder: Path, settings: Settings) -> str:
    return to_json(report(folder, settings))


def _watched(batch: Batch, folder: Path, engine: Engine, console: Console, *, retry: bool) -> BatchUpdate:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    update = BatchUpdate(0, len(batch))
    before = replay.replayed(folder, engine.settings)
    asking = run(batch, folder, engine, retry=retry, prefix=replay.Before(before).prefix if before else None)
    with Progress(*columns, console=console) as progress, closing(asking) as updates:
        bar = progress.add_task("", total=len(batch), left="")
        for update in updates:
            model = str(batch.models[update.item.model]) if update.item else ""
            left = (
                "" if update.seconds_left is None else f"{'perhaps ' * update.guessed}{update.seconds_left:.0f} s left"
            )
            errors = f", {counted(update.errors, 'error')}" if update.errors else ""
            progress.update(bar, completed=update.done, description=model, left=left + errors)
    return update


def _table(found: Report, width: int) -> Table:
    """All figures where there is room for them; the first ones where there is not."""
    shown = [i for i, name in enumerate(HEAD) if width >= WIDE or name in ("", "model", "setting", *NARROW)]
    texts = [Column(HEAD[i], overflow="fold", min_width=12 if HEAD[i] == "model" else 1) for i in shown if i < 3]
    figures = [Column(HEAD[i], no_wrap=True, justify="right") for i in shown if i >= 3]
    table = Table(*texts, *figures, box=None)
    for place, lane in enumerate(found.lanes):
        row = cells(lane, place)
        table.add_row(*(escape(row[i]) for i in shown))
    return table


def _complain(found: Report) -> None:
    """What went wrong, each once with what to do, where errors belong."""
    console, told = Console(stderr=True), Counter(filter(None, map(why, found.answered)))
    for said, count in told.most_common(SHOWN):
        console.print(f"[red]{counted(count, 'answer')} failed:[/red] {escape(said)}", highlight=False, soft_wrap=True)


def _verdicts(found: Report) -> Table:
    """How many answers are as they were, and the first that are not."""
    table = Table("replay", "model and setting", "where", box=None)
    for kind, words in replay.KINDS.items():
        if count := sum(verdict.kind == kind for verdict in found.verdicts):
            table.add_row(f"{count:,} {words}", "", "")
    for same in found.parted()[:SHOWN]:
        item = same[0].item
        lane = found.lanes[item.model * len(found.batch.settings) + item.setting]
        table.add_row(escape(same[0].words), escape(lane.name), where_of(same))
    return table


if __name__ == "__main__":
    sys.exit(main())
