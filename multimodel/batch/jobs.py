"""Batches that belong to the server: started by a visitor, asked one after another, found again after any end.

    DATA/batches/OWNER/ID/batch.json      what is asked
                          answers.jsonl   what came of it, written as each answer ends
                          job.json        its title, when it was made, and how far its last try came
                          original.json   the report that it replays, if it does

A batch that was being asked when the app ended is `interrupted`; it waits for a person, who goes on with one click.
"""

from __future__ import annotations

import re
import secrets
import shutil
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Literal

from pydantic import Field, ValidationError

from ..conversation import now
from ..engine import Engine
from ..errors import BadRequest, BatchError, MultimodelError, Unexpected
from ..finetune.checkpoints import write_last
from ..store.forms import LATEST, Form
from ..types import ModelId
from .plan import CONFIG, Batch
from .replay import ORIGINAL, Before, Original, keep, replayed
from .run import ANSWERS, BatchUpdate, Pace, answers, run

JOB = "job.json"
ID = re.compile(r"[0-9a-f]{16}")
OWNER = re.compile(r"[0-9a-f]{64}")
MOST_KEPT = 200  # batches of one visitor
PATIENCE = 20.0  # seconds that the answer under way may take to end when the app does

State = Literal["waiting", "running", "stopping", "stopped", "interrupted", "failed", "done"]
ACTIVE = frozenset({"waiting", "running", "stopping"})


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch of a visitor as it stands."""

    id: str
    title: str
    created: float  # seconds since 1970
    state: State
    update: BatchUpdate
    trouble: str = ""  # why it failed
    replays: bool = False

    @property
    def active(self) -> bool:
        """Whether it is being asked, or in line."""
        return self.state in ACTIVE


class JobForm(Form):
    """What is kept of a batch beside its answers."""

    title: str = Field(max_length=200)
    created: float = Field(ge=0, le=LATEST)
    state: Literal["waiting", "running", "stopped", "failed", "done"]
    trouble: str = ""


@dataclass(slots=True)
class _Work:
    """A batch in line or being asked."""

    folder: Path
    retry: bool
    update: BatchUpdate
    state: State = "waiting"


class Batches:
    """The batches of all visitors. One is asked at a time: figures are those of a model that runs alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._root = engine.settings.chat.data_dir / "batches"
        self._changed = Condition()  # the line: between the pages and the thread that asks
        self._line: list[_Work] = []
        self._worker: Thread | None = None
        self._closed = False
        self._seen: dict[
            Path, tuple[int, BatchUpdate, tuple[ModelId, ...]]
        ] = {}  # how far a batch is, by its file of answers
        engine.before_close(self.close)

    def start(self, owner: str, title: str, batch: Batch) -> str:
        """Put a batch in line; its id. Raises BatchError."""
        folder = self._new(owner)
        batch.save(folder)
        self._begin(folder, title or _title(batch))
        return folder.name

    def replay(self, owner: str, title: str, before: Original, text: str) -> str:
        """Ask a batch again and compare; the id of the new one. `text`: the report. Raises BatchError."""
        folder = self._new(owner)
        keep(before, folder, text)
        self._begin(folder, title)
        return folder.name

    def resume(self, owner: str, id: str, *, retry: bool = False) -> None:
        """Go on with what was not asked yet; with `retry`, ask again what ended in an error. Raises BadRequest."""
        folder = self.folder(owner, id)
        with self._changed:
            if self._work_of(folder):
                raise BadRequest("This batch is being asked already.", hint="Wait for it, or stop it.")
            self._enqueue(folder, retry)

    def stop(self, owner: str, id: str) -> None:
        """Stop asking; the answer under way is given up, what was answered is kept."""
        folder = self.folder(owner, id)
        with self._changed:
            work = self._work_of(folder)
            if work and work.state == "waiting":
                self._line.remove(work)
                self._note(folder, "stopped")
            elif work:
                work.state = "stopping"

    def rename(self, owner: str, id: str, title: str) -> None:
        """Call a batch otherwise; an empty title changes nothing."""
        folder = self.folder(owner, id)
        if title.strip():
            self._write(folder, _read(folder).model_copy(update={"title": title.strip()[:200]}))

    def delete(self, owner: str, id: str) -> None:
        """Remove a batch and its answers. Raises BadRequest while it is being asked."""
        folder = self.folder(owner, id)
        with self._changed:
            if self._work_of(folder):
                raise BadRequest("This batch is being asked.", hint="Stop it first.")
            (folder / JOB).unlink(missing_ok=True)  # half removed it is not listed any more
            self._seen.pop(folder, None)
            shutil.rmtree(folder, ignore_errors=True)

    def give(self, owner: str, other: str) -> None:
        """All batches of a visitor that nobody is asking become another one's."""
        with self._changed:
            for job in self.all(owner):
                folder = self.folder(owner, job.id)
                if not self._work_of(folder):
                    with suppress(OSError):  # then it stays where it is
                        self._home(other).mkdir(parents=True, exist_ok=True)
                        folder.rename(self._home(other) / job.id)

    def all(self, owner: str) -> list[BatchJob]:
        """The batches of a visitor, the newest first."""
        home = self._home(owner)
        found = [path.parent for path in home.glob(f"*/{JOB}") if ID.fullmatch(path.parent.name)]
        jobs = [job for folder in found if (job := self._shown(folder))]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def get(self, owner: str, id: str) -> BatchJob:
        """One of them. Raises BadRequest where there is none of that name."""
        if job := self._shown(self.folder(owner, id)):
            return job
        raise BadRequest("This batch cannot be read any more.", hint="Delete its folder under user_data.")

    def seconds(self, owner: str, batch: Batch) -> float | None:
        """How long a batch will take, by the visitor's earlier ones; None where one of its models was not asked yet."""
        self.all(owner)  # has every folder looked at
        home, known = self._home(owner), dict[ModelId, float]()
        for folder, (_, update, models) in tuple(self._seen.items()):
            if folder.parent == home:
                counts = zip(models, update.counts, strict=True)
                known |= {model: count.seconds for model, count in counts if count.seconds is not None}
        if not known.keys() >= set(batch.models):
            return None
        return sum(known[model] for model in batch.models) * len(batch) / len(batch.models)

    def folder(self, owner: str, id: str) -> Path:
        """Where a batch of a visitor is kept. Raises BadRequest."""
        folder = self._home(owner) / id
        if not (ID.fullmatch(id) and (folder / JOB).exists()):
            raise BadRequest("There is no such batch.", hint="It may have been deleted in another tab.")
        return folder

    def close(self) -> None:
        """The app ends: the answer under way is given up, and its batch interrupted. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            worker = self._worker
        if worker:
            worker.join(PATIENCE)

    def stamp(self, folder: Path) -> int:
        """The same as long as nothing more was answered."""
        return hash((_stamp(folder / CONFIG), _stamp(folder / ANSWERS)))

    # --- inside ---

    def _home(self, owner: str) -> Path:
        if not OWNER.fullmatch(owner):
            raise BadRequest("The page does not say whose batches these are.", hint="Load it again.")
        return self._root / owner

    def _new(self, owner: str) -> Path:
        if len(self.all(owner)) >= MOST_KEPT:
            raise BatchError(f"There are {MOST_KEPT} batches already.", hint="Delete some that you do not need.")
        return self._home(owner) / secrets.token_hex(8)

    def _begin(self, folder: Path, title: str) -> None:
        self._write(folder, JobForm(title=title.strip()[:200], created=now(), state="waiting"))
        with self._changed:
            self._enqueue(folder, retry=False)

    def _enqueue(self, folder: Path, retry: bool) -> None:
        """The caller holds the condition."""
        if self._closed:
            raise BatchError("The app is ending.", hint="Start it again, and go on with the batch.")
        self._note(folder, "waiting")
        self._line.append(_Work(folder, retry, self._so_far(folder)))
        if not self._worker:
            self._worker = Thread(target=self._ask_all, name="batches", daemon=True)
            self._worker.start()

    def _work_of(self, folder: Path) -> _Work | None:
        return next((work for work in self._line if work.folder == folder), None)

    def _ask_all(self) -> None:
        """The thread: one batch after another, until none is in line."""
        while True:
            with self._changed:
                if self._closed or not self._line:
                    self._worker = None
                    return
                work = self._line[0]
                work.state = "running"
            try:
                self._ask(work)
            except MultimodelError as error:
                self._note(work.folder, "failed", f"{error} {error.hint}")
            except Exception as error:  # a bug of ours is shown where the batch is
                own = Unexpected(f"{type(error).__name__}: {error}", hint="Try again; if it stays, report it.")
                self._note(work.folder, "failed", f"{own} {own.hint}")
            finally:
                with self._changed:
                    self._line.remove(work)

    def _ask(self, work: _Work) -> None:
        self._note(work.folder, "running")
        settings = self._engine.settings
        before = replayed(work.folder, settings)
        prefix = Before(before).prefix if before else None
        batch = Batch.load(work.folder)
        with closing(run(batch, work.folder, self._engine, retry=work.retry, prefix=prefix)) as updates:
            for update in updates:
                work.update = update
                if self._closed:
                    return  # job.json says that it was running: the next app calls it interrupted
                if work.state == "stopping":
                    self._note(work.folder, "stopped")
                    return
        self._note(work.folder, "done")

    def _note(
        self, folder: Path, state: Literal["waiting", "running", "stopped", "failed", "done"], why: str = ""
    ) -> None:
        with suppress(BatchError, BadRequest):  # a full disk must not end the thread; the answers say how far it came
            self._write(folder, _read(folder).model_copy(update={"state": state, "trouble": why[:2000]}))

    def _write(self, folder: Path, form: JobForm) -> None:
        try:
            write_last(folder / JOB, form.model_dump_json(indent=1))
        except OSError as error:
            raise BatchError(f"{folder} cannot be written: {error}", hint="Free some space.") from error

    def _shown(self, folder: Path) -> BatchJob | None:
        """None for a folder that cannot be read."""
        try:
            kept = _read(folder)
            with self._changed:
                work = self._work_of(folder)
                state: State = work.state if work else kept.state
            if not work and state in ACTIVE:
                state = "interrupted"
            update = work.update if work else self._so_far(folder)
        except MultimodelError:
            return None
        replays = (folder / ORIGINAL).exists()
        return BatchJob(folder.name, kept.title, kept.created, state, update, kept.trouble, replays)

    def _so_far(self, folder: Path) -> BatchUpdate:
        """How far a batch is that nobody is asking. Raises BatchError."""
        stamp = self.stamp(folder)
        if (known := self._seen.get(folder)) and known[0] == stamp:
            return known[1]
        batch = Batch.load(folder)
        update = Pace(batch, answers(folder, batch)).update()
        self._seen[folder] = (stamp, update, batch.models)
        return update


def _stamp(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return 0
    return hash((found.st_mtime_ns, found.st_size))


def _read(folder: Path) -> JobForm:
    try:
        return JobForm.model_validate_json((folder / JOB).read_bytes())
    except (OSError, ValidationError) as error:
        raise BadRequest("This batch cannot be read.", hint=str(error)[:200]) from error


def _title(batch: Batch) -> str:
    first = " ".join(batch.prompts[0].split())[:60]
    return f"{first} and {len(batch.prompts) - 1} more" if len(batch.prompts) > 1 else first
