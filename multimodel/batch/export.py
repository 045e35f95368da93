"""The report as files: JSON that replays, Markdown to read, and a page of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..finetune.checkpoints import write_last
from ..settings import Settings
from .charts import letter
from .page import columns, to_html
from .plan import BatchForm
from .replay import FORMAT, VERSION
from .report import Lane, Report, report
from .run import Answered, Line

HEAD = ("", "model", "setting", "answered", "TTFT", "p95", "tok/s", "tokens", "cut", "ready after", "memory", "cost")


def write(folder: Path, settings: Settings | None = None) -> list[Path]:
    """Write report.json, report.md and report.html into a folder; returns their paths. Raises BatchError."""
    found = report(folder, settings)
    paths = [folder / f"report.{suffix}" for suffix in FORMS]
    for path, form in zip(paths, FORMS.values(), strict=True):
        write_last(path, form(found))
    return paths


def to_json(found: Report) -> str:
    """Everything, for programs and for a replay: `batch` is what was asked, `answers` what came of it."""
    values = {
        "format": FORMAT,
        "version": VERSION,
        "batch": BatchForm.of(found.batch).model_dump(mode="json", exclude_defaults=True),
        "machine": found.machine.model_dump(),
        "lanes": [asdict(lane) for lane in found.lanes],
        "agreement": [asdict(pair) for pair in found.agreements],
        "replay": [_verdict(found, i) for i in range(len(found.verdicts))],
        "answers": [_row(found, one) for one in found.answered],
    }
    return json.dumps(values, ensure_ascii=False, indent=1)


def _row(found: Report, one: Answered) -> dict[str, Any]:
    """What is written of an answer, and the same in words that need no key."""
    answer, setting = one.answer, found.batch.settings[one.item.setting]
    said = {
        "model": str(found.batch.models[one.item.model]),
        "setting": setting.name,
        "prompt": found.batch.prompts[one.item.prompt],
        "repeat": one.item.repeat,
        "finish_reason": answer.finish_reason,
        "ttft": answer.timing.ttft,
        "tokens_per_second": answer.rate,
        "loading": answer.timing.loading,
        "usage": asdict(answer.usage) if answer.usage else None,
        "error": str(answer.error) if answer.error else None,
        "memory": one.memory,
    }
    return said | Line.of(one).model_dump(mode="json", exclude_defaults=True)


def _verdict(found: Report, place: int) -> dict[str, Any]:
    verdict = found.verdicts[place]
    return asdict(verdict) | {"words": verdict.words}


def cells(lane: Lane, place: int) -> tuple[str, ...]:
    """A row of the table under HEAD."""
    return (letter(place), lane.model, lane.setting, *(column.text for column in columns(lane)))


def to_markdown(found: Report) -> str:
    """Tables, then every prompt with its answers."""
    batch = found.batch
    lines = [f"# {found.title}, {found.tally}", ""]
    lines += _table(HEAD, [cells(lane, i) for i, lane in enumerate(found.lanes)])
    lines += ["Times are medians. Models were asked alone, one answer after another. A dash is not known.", ""]
    if found.before:
        rows = [(*_where(found, v.item), v.words) for v in found.verdicts]
        lines += ["## Replay", "", *_table(("model and setting", "prompt", "answer", "verdict"), rows)]
    if found.agreements:
        pairs = [(a.one, a.other, f"{a.equal:.0%}", f"{a.alike:.0%}") for a in found.agreements]
        lines += ["## Agreement", "", *_table(("one", "other", "same text", "words alike"), pairs)]
    for number, prompt in enumerate(batch.prompts):
        lines += [f"## {number + 1}. {' '.join(prompt.split())[:200]}", ""]
        for one in found.answered:
            if one.item.prompt == number:
                lines += [
                    f"**{_lane(found, one)}**",
                    "",
                    *(f"> {line}" for line in _text(one).splitlines() or [""]),
                    "",
                ]
    return "\n".join(lines)


def _lane(found: Report, one: Answered) -> str:
    place = found.lane_of(one)
    return f"{letter(place)} {found.lanes[place].name}"


def _where(found: Report, item: Any) -> tuple[str, str, str]:
    return letter(item.model * len(found.batch.settings) + item.setting), str(item.prompt + 1), str(item.repeat + 1)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), [":--"] * len(head), *written]] + [""]


def _text(one: Answered) -> str:
    return f"Error: {why(one)}" if one.answer.error else one.answer.text


def why(one: Answered) -> str:
    """Why there is no answer and what to do; empty where there is one."""
    error = one.answer.error
    return f"{error} {error.hint}".rstrip() if error else ""


FORMS: dict[str, Callable[[Report], str]] = {"json": to_json, "md": to_markdown, "html": to_html}
"""The forms of a report by the endings of their files."""
