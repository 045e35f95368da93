"""Downloads that belong to the server: several at once, paused and resumed, remembered when the program ends.

A download is named by the model it brings: `gguf:OWNER/REPO:QUANT` or `transformers:OWNER/REPO`. Its record lies in the
cache folder from its start to its end, so one that a crash or a restart broke off is found again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Thread
from typing import Literal

from .errors import BadRequest, InvalidModelId, MultimodelError, Unexpected
from .jobs import NOTHING, Cancelled, Job, Progress
from .locate import download
from .settings import Settings
from .types import ON_HUB, ModelId, ModelSpec

RECORDS = ".multimodel/downloads"  # in the cache folder
AT_ONCE = 3  # the others wait their turn
SAVED_EVERY = 2.0  # seconds
STOPPING = 3.0  # seconds that one which is being stopped may take before it can be started again
DOWNLOADABLE = ("gguf", "transformers")

State = Literal["queued", "running", "paused", "interrupted", "failed", "done"]
"""`interrupted`: the program ended in the middle. Paused, interrupted and failed ones go on with `start`."""


@dataclass(frozen=True, slots=True)
class Download:
    """A download as it stands; each replaces the one before."""

    model: ModelId
    state: State
    progress: Progress = NOTHING
    error: MultimodelError | None = None
    parts: tuple[Path, ...] = ()  # the files of what is not yet whole

    @property
    def active(self) -> bool:
        return self.state in ("queued", "running")


class Downloads:
    """The downloads of this server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.models.cache_dir / RECORDS
        self._changed = Condition()  # between the threads of the downloads and those who ask
        self._all = {found.model: found for found in self._recorded()}
        self._jobs: dict[ModelId, Job] = {}
        self._threads: dict[ModelId, Thread] = {}
        self._discarded: set[ModelId] = set()

    def all(self) -> tuple[Download, ...]:
        """Every download, the newest last."""
        with self._changed:
            return tuple(self._now(found) for found in self._all.values())

    def start(self, model: ModelId) -> Download:
        """Begin a download, or go on with one; one that runs stays as it is. Raises BadRequest, InvalidModelId."""
        _check(model)
        with self._changed:
            found = self._all.get(model)
            if found and found.active:
                return found
            if not self._changed.wait_for(lambda: model not in self._threads, STOPPING):
                raise BadRequest(f"{model} is just being stopped.", hint="Try again in a moment.")
            held = replace(found.progress, rate=0.0) if found else NOTHING
            self._set(Download(model, "queued", held))
            job = self._jobs[model] = Job(held)
            job.reserved = lambda: self._reserved(model)
            self._threads[model] = Thread(target=self._work, args=(model, job), name="download", daemon=True)
            self._threads[model].start()
            return self._all[model]

    def pause(self, model: ModelId) -> None:
        """Stop a download; what it has brought is kept."""
        with self._changed:
            if (found := self._all.get(model)) and found.active:
                self._stop(model, "paused")

    def cancel(self, model: ModelId) -> None:
        """Stop a download and delete what it has brought, or take a finished one off the list."""
        with self._changed:
            if model in self._threads:
                self._discarded.add(model)
                self._stop(model, "paused")
            elif model in self._all:
                self._discard(model)

    def wait(self, model: ModelId, timeout: float) -> Download | None:
        """The download once it has stopped, or as it stands after `timeout` seconds; None for an unknown one."""
        with self._changed:
            self._changed.wait_for(lambda: model not in self._threads, timeout)
            found = self._all.get(model)
            return self._now(found) if found else None

    def close(self) -> None:
        """Stop all; those that ran are found again as interrupted. Safe to call twice."""
        with self._changed:
            for model, found in tuple(self._all.items()):
                if found.active:
                    self._stop(model, "interrupted")
            threads = tuple(self._threads.values())
        for thread in threads:
            thread.join(2.0)

    # in the thread of a download

    def _work(self, model: ModelId, job: Job) -> None:
        try:
            self._await_turn(model, job)
            saver = Thread(target=self._save_now_and_then, args=(model, job), daemon=True)
            saver.start()
            download(ModelSpec(model), self._settings, job)
            self._end(model, "done")
        except Cancelled:
            self._end(model, None)
        except MultimodelError as error:
            self._end(model, "failed", error)
        except Exception as error:
            hint = "Try again; report it if it stays."
            self._end(model, "failed", Unexpected(f"{type(error).__name__}: {error}", hint=hint))

    def _await_turn(self, model: ModelId, job: Job) -> None:
        """Wait until fewer than AT_ONCE run. Raises Cancelled."""
        with self._changed:
            while sum(found.state == "running" for found in self._all.values()) >= AT_ONCE:
                self._changed.wait(0.5)
                job.pause()
            job.pause()
            self._set(replace(self._all[model], state="running"))

    def _save_now_and_then(self, model: ModelId, job: Job) -> None:
        """Keep the record near the truth: after a crash it says how far the download was."""
        with self._changed:
            while model in self._threads and self._jobs.get(model) is job:
                if self._all[model].state == "running":
                    self._save(self._now(self._all[model]))
                self._changed.wait(SAVED_EVERY)

    def _end(self, model: ModelId, state: State | None, error: MultimodelError | None = None) -> None:
        """The thread is over. No state: it was stopped, and `_stop` has said how."""
        with self._changed:
            found = self._now(self._all[model])
            del self._threads[model]
            found = replace(found, state=state or found.state, error=error, progress=replace(found.progress, rate=0.0))
            self._set(found)
            if model in self._discarded:
                self._discarded.remove(model)
                self._discard(model)

    # the caller holds the condition

    def _now(self, found: Download) -> Download:
        job = self._jobs.get(found.model) if found.model in self._threads else None
        return replace(found, progress=job.progress, parts=job.parts) if job else found

    def _stop(self, model: ModelId, state: State) -> None:
        self._jobs[model].cancel()
        self._set(replace(self._now(self._all[model]), state=state))

    def _set(self, download: Download) -> None:
        self._all[download.model] = download
        if download.state == "done":
            self._path(download.model).unlink(missing_ok=True)
        else:
            self._save(download)
        self._changed.notify_all()

    def _discard(self, model: ModelId) -> None:
        for part in self._all.pop(model).parts:
            part.unlink(missing_ok=True)
        self._path(model).unlink(missing_ok=True)
        self._changed.notify_all()

    def _reserved(self, model: ModelId) -> int:
        """Bytes that the other running downloads will still take."""
        with self._changed:
            others = [self._now(found) for found in self._all.values() if found.model != model]
        return sum(max(0, o.progress.total - o.progress.done) for o in others if o.state == "running")

    # the records

    def _path(self, model: ModelId) -> Path:
        return self._folder / f"{hashlib.sha256(str(model).encode()).hexdigest()[:24]}.json"

    def _save(self, download: Download) -> None:
        parts = [str(part.relative_to(self._settings.models.cache_dir)) for part in download.parts]
        done, total = download.progress.done, download.progress.total
        row = {"model": str(download.model), "state": download.state, "done": done, "total": total, "parts": parts}
        with suppress(OSError):  # a record that cannot be written must not end the download
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._path(download.model).with_suffix(".part")
            part.write_text(json.dumps(row), encoding="utf-8")
            os.replace(part, self._path(download.model))

    def _recorded(self) -> Iterator[Download]:
        """Downloads that an earlier process left, the oldest first."""
        paths = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in paths:
            with suppress(OSError, ValueError, TypeError, KeyError, InvalidModelId):
                row = json.loads(path.read_text("utf-8"))
                state: State = "paused" if row["state"] == "paused" else "interrupted"
                progress = Progress(int(row["done"]), int(row["total"]))
                yield Download(ModelId.parse(row["model"]), state, progress, parts=self._parts(row["parts"]))

    def _parts(self, names: list[str]) -> tuple[Path, ...]:
        """The partial files that a record names; nothing else of the cache."""
        cache = self._settings.models.cache_dir
        paths = [cache / name for name in names]
        return tuple(path for path in paths if path.suffix == ".incomplete" and ".." not in path.parts)


def _check(model: ModelId) -> None:
    """Only models of the Hub can be downloaded. Raises InvalidModelId."""
    name = model.name.partition(":")[0]
    if model.backend not in DOWNLOADABLE or not ON_HUB.fullmatch(name):
        hint = "Write gguf:OWNER/REPO:QUANT or transformers:OWNER/REPO."
        raise InvalidModelId(f"{model} is no model of the Hub that can be downloaded.", hint=hint)
