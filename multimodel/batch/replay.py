"""A batch that was asked before, asked again: same prompts, parameters, seeds, models and revisions.

The report of a batch, as JSON, holds what this takes. It may come from anybody: what is no report is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ..errors import BatchError, ForeignFile, MultimodelError
from ..finetune.checkpoints import write_last
from ..registry import source
from ..settings import Settings
from ..store.forms import Form, complaint
from ..types import Sent, Snapshot
from .plan import Batch, BatchForm, Item
from .run import Answered, Line, answers

FORMAT = "multimodel-batch"
VERSION = 1
ORIGINAL = "original.json"
LARGEST = 100_000_000  # characters of a report to replay
AROUND = 60  # characters of both texts that are shown around the place where they part
HINT = "Choose a report.json that this app made, or the folder of a batch."

Kind = Literal["identical", "diverged", "changed", "incomparable", "error"]
KINDS: dict[Kind, str] = {
    "identical": "identical",
    "diverged": "diverged",
    "changed": "provider changed",
    "incomparable": "not comparable",
    "error": "error",
}


@dataclass(frozen=True, slots=True)
class Original:
    """A batch as it was asked before."""

    batch: Batch
    answered: tuple[Answered, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer beside the one before. `before` and `after` are what both say around the place where they part."""

    item: Item
    kind: Kind
    why: str = ""
    token: int | None = None  # the first that differs, counted from one; None: the texts are the same, or not known
    about: bool = False  # whether `token` is an estimate
    before: tuple[str, str] = ("", "")  # what both begin with, and how the earlier one goes on
    after: tuple[str, str] = ("", "")

    @property
    def words(self) -> str:
        """The verdict in a line."""
        place = f"at token {'about ' * self.about}{self.token}" if self.token is not None else ""
        if self.kind == "changed" and place:
            place = f", diverged {place}"
        return f"{KINDS[self.kind]} {place}".strip().replace(" ,", ",") + (f": {self.why}" if self.why else "")


class ReportFile(Form):
    """What of a report is read back."""

    format: Literal["multimodel-batch"]
    version: Literal[1]
    batch: BatchForm
    answers: tuple[Line, ...]


def original(where: Path, settings: Settings) -> Original:
    """The batch of a report.json or of a folder. Raises ForeignFile, BatchError."""
    if where.is_dir():
        batch = Batch.load(where)
        return Original(batch, tuple(answers(where, batch)))
    try:
        text = where.read_text("utf-8-sig")
    except FileNotFoundError:
        raise BatchError(f"There is no file {str(where)!r}.", hint="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ForeignFile(f"{where.name} cannot be read: {error}", hint=HINT) from error
    return parsed(text, settings)


def parsed(text: str, settings: Settings) -> Original:
    """The batch of a report's text. Raises ForeignFile, which says what is wrong and where."""
    if len(text) > LARGEST:
        raise ForeignFile(f"The file is larger than {LARGEST // 1_000_000} MB.", hint=HINT)
    try:
        found = ReportFile.model_validate_json(json.dumps(_read_back(text)))
        batch = found.batch.batch()
        for model in batch.models:
            source(model.backend, settings)
        return Original(batch, _once([line.answered(batch) for line in found.answers]))
    except ForeignFile:
        raise
    except ValidationError as error:
        raise ForeignFile(f"This is no report of a batch. {complaint(error)}.", hint=HINT) from None
    except IndexError:
        raise ForeignFile("The report is damaged: an answer belongs to no prompt of it.", hint=HINT) from None
    except MultimodelError as error:  # a model or parameter that there is not
        raise ForeignFile(f"The report cannot be replayed: {error}", hint=error.hint or HINT) from error
    except (ValueError, RecursionError) as error:
        raise ForeignFile(f"The file is not JSON: {str(error)[:200]}", hint=HINT) from None


def _read_back(text: str) -> dict[str, Any]:
    """The fields that are read, without those that are there for programs of others."""
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ForeignFile("This is no report of a batch.", hint=HINT)
    if value.get("version") != VERSION:
        hint = "Replay it with the version of the app that made it."
        raise ForeignFile(f"The report has the version {str(value.get('version'))[:20]!r}, not {VERSION}.", hint=hint)
    rows = value.get("answers")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ForeignFile("The report is damaged: it has no list of answers.", hint=HINT)
    kept = [{name: row[name] for name in Line.model_fields if name in row} for row in rows]
    return {"format": FORMAT, "version": VERSION, "batch": value.get("batch"), "answers": kept}


def _once(found: Sequence[Answered]) -> tuple[Answered, ...]:
    return tuple({one.item: one for one in found}.values())


def pinned(before: Original) -> Batch:
    """The batch to ask again: every model at the revision that answered."""
    known = {one.item.model: one.source.revision for one in before.answered if one.source.revision}
    revisions = tuple(known.get(model, "") for model in range(len(before.batch.models)))
    given = before.batch.revisions
    return replace(before.batch, revisions=given if any(given) else revisions if any(revisions) else ())


def keep(before: Original, folder: Path, text: str) -> None:
    """Make a folder in which the batch can be asked again, and write down what it is compared with. Raises BatchError.

    `text`: the report.
    """
    pinned(before).save(folder)
    path = folder / ORIGINAL
    try:
        if path.exists() and path.read_text("utf-8") != text:
            raise BatchError(f"{folder} replays another report.", hint="Choose another folder.")
        write_last(path, text)
    except OSError as error:
        raise BatchError(f"{folder} cannot be written: {error}", hint="Free some space.") from error


def replayed(folder: Path, settings: Settings) -> Original | None:
    """What a folder is compared with; None where it replays nothing. Raises ForeignFile."""
    path = folder / ORIGINAL
    return original(path, settings) if path.exists() else None


class Before:
    """The earlier answers, to tell how far a new one says the same."""

    def __init__(self, before: Original) -> None:
        self._answers = {one.item: one.answer for one in before.answered}

    def prefix(self, item: Item, now: Snapshot) -> str:
        """What both texts begin with, where they part."""
        earlier = self._answers.get(item)
        return "" if not earlier or said(earlier) == said(now) else said(now)[: common(said(earlier), said(now))]


def said(answer: Snapshot) -> str:
    """All that a model said, thoughts first."""
    return f"{answer.reasoning}\n{answer.text}" if answer.reasoning else answer.text


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike.

    >>> common("a cat", "a car"), common("a", "a"), common("", "a")
    (4, 1, 0)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def verdicts(before: Original, after: Sequence[Answered]) -> tuple[Verdict, ...]:
    """One for each new answer that was asked before too."""
    earlier = {one.item: one for one in before.answered}
    return tuple(verdict(earlier[one.item], one) for one in after if one.item in earlier)


def verdict(before: Answered, after: Answered) -> Verdict:
    """How an answer compares with the earlier one."""
    item, one, other = after.item, before.answer, after.answer
    if one.error or other.error:
        return Verdict(item, "error", _failure(one, other))
    changed = _changed(before, after)
    if said(one) == said(other):
        return Verdict(item, "identical", f"though {changed}" if changed else "")
    if changed:
        return _parted(Verdict(item, "changed", changed), before, after)
    if _by_chance(one):
        return _parted(Verdict(item, "incomparable", "sampled without a seed"), before, after)
    return _parted(Verdict(item, "diverged"), before, after)


def _failure(before: Snapshot, after: Snapshot) -> str:
    if before.error and after.error:
        return f"failed both times, now: {after.error}"
    return f"now: {after.error}" if after.error else f"answered now, failed before: {before.error}"


def _changed(before: Answered, after: Answered) -> str:
    """In what the model is another one than before; empty where nothing shows that it is."""
    if before.source.same_files(after.source) is False:
        of = "file_hash" if before.source.file_hash and after.source.file_hash else "revision"
        mine, theirs = getattr(before.source, of), getattr(after.source, of)
        return f"the {of.replace('_', ' ')} was {mine[:12]}, now {theirs[:12]}"
    then, now = (one.answer.sent or Sent() for one in (before, after))
    for mine, theirs, what in (
        (then.model, now.model, "the service's model"),
        (then.fingerprint, now.fingerprint, "the service's fingerprint"),
        (before.answer.provider, after.answer.provider, "the provider"),
        (then.prompt, now.prompt, "the digest of the prompt's tokens"),
    ):
        if mine and theirs and mine != theirs:
            return f"{what} was {mine[:60]}, now {theirs[:60]}"
    return ""


def _by_chance(answer: Snapshot) -> bool:
    """Whether the same model may well answer otherwise: by the parameters that it was really sent."""
    params = answer.params
    return params is not None and params.temperature != 0 and params.seed is None


def _parted(made: Verdict, before: Answered, after: Answered) -> Verdict:
    """With the place where the texts part."""
    one, other = said(before.answer), said(after.answer)
    at = common(one, other)
    token, about = _token(at, after)
    lead = one[max(0, at - AROUND) : at]
    ends = [(lead, text[at : at + AROUND]) for text in (one, other)]
    return replace(made, token=token, about=about, before=ends[0], after=ends[1])


def _token(at: int, after: Answered) -> tuple[int | None, bool]:
    """The first token that differs, and whether that is an estimate: by the share of the text, where nobody counted."""
    if not at:
        return 1, False
    if after.prefix is not None:
        return after.prefix + 1, False
    usage, length = after.answer.usage, len(said(after.answer))
    if not (usage and usage.output_tokens and length):
        return None, True
    return round(usage.output_tokens * at / length) + 1, True
