"""What people say of a model's wrong answers: texts with the right label, kept beside the models as new training rows.

fine_tuned_models/.corrections/NAME.jsonl, the newest last. They stay when the model is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from ..errors import BadRequest
from ..settings import Settings
from . import data as rows
from .checkpoints import write_last
from .export import write_csv
from .runfolder import DATA
from .store import RUNS, check_name, disk_error

FOLDER = ".corrections"
SEPARATOR = "; "  # between several labels of one cell
MOST = 20_000  # corrections of one model
LONGEST = 20_000  # characters of a text


@dataclass(frozen=True, slots=True)
class Correction:
    """A text and what is right for it."""

    text: str
    label: str  # several labels joined by SEPARATOR; a number as written
    predicted: str  # what the model said
    score: float
    made: str = ""  # ISO 8601


class Corrections:
    """The corrections of all models."""

    def __init__(self, settings: Settings) -> None:
        self._models = settings.models.fine_tuned_dir
        self._lock = Lock()  # between the requests of all visitors

    def of(self, model: str) -> list[Correction]:
        """Those of one model, the newest last; a line that cannot be read is left out. Raises InvalidName."""
        try:
            lines = self._path(model).read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError, TypeError):
                found.append(Correction(**json.loads(line)))
        return found

    def add(self, model: str, correction: Correction) -> None:
        """Keep one; an earlier one of the same text is replaced. Raises InvalidName, BadRequest, TrainingError."""
        if len(correction.text) > LONGEST:
            raise BadRequest("This text is too long to be kept.", hint=f"Shorten it to {LONGEST:,} characters.")
        made = correction.made or datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            kept = [other for other in self.of(model) if other.text != correction.text]
            if len(kept) >= MOST:
                raise BadRequest(f"{model} has {MOST:,} corrections.", hint="Train with them, then clear the list.")
            new = Correction(correction.text, correction.label, correction.predicted, correction.score, made)
            self._write(model, [*kept, new])

    def remove(self, model: str, text: str | None = None) -> None:
        """Forget one, or without a text all. Raises InvalidName, TrainingError."""
        with self._lock:
            self._write(model, [other for other in self.of(model) if text is not None and other.text != text])

    def rename(self, old: str, new: str) -> None:
        """The model has another name now. Raises InvalidName, TrainingError."""
        try:
            with self._lock, suppress(FileNotFoundError):
                self._path(old).rename(self._path(new))
        except OSError as error:
            raise disk_error(error, f"The corrections of {new}") from error

    def csv(self, model: str, target: Path, *, whole: bool = False, safe: bool = True) -> Path:
        """Write them as a table with the columns text and label. Raises TrainingError, DataError.

        `whole`: together with the rows the model was trained on, which keep their splits; where a text stands in both,
        the correction counts. `safe`: to be opened in a spreadsheet; a file to train on holds the texts as they were.
        """
        found = self.of(model)
        if not whole:
            return write_csv(target, ["text", "label"], [[c.text, c.label] for c in found], safe=safe)
        known = rows.load(self._data(model))
        corrected = {c.text for c in found}
        old = [
            [known.texts[i], _cell(known.labels[i]), known.splits[i]]
            for i in range(len(known))
            if known.texts[i] not in corrected
        ]
        new = ([c.text, c.label, "train"] for c in found)
        return write_csv(target, ["text", "label", "split"], [*old, *new], safe=safe)

    def has_rows(self, model: str) -> bool:
        """Whether the rows that a model was trained on are still here."""
        return self._data(model).exists()

    def _data(self, model: str) -> Path:
        return self._models / RUNS / check_name(model) / DATA

    def _path(self, model: str) -> Path:
        return self._models / FOLDER / f"{check_name(model)}.jsonl"

    def _write(self, model: str, found: Sequence[Correction]) -> None:
        """The caller holds the lock."""
        path = self._path(model)
        try:
            if not found:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            write_last(path, "".join(json.dumps(asdict(one), ensure_ascii=True) + "\n" for one in found))
        except OSError as error:
            raise disk_error(error, "The correction") from error


def _cell(label: rows.Label) -> str:
    return SEPARATOR.join(label) if isinstance(label, tuple) else str(label)
