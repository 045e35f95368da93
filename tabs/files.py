"""Files on their way from and to the page: only what was uploaded is read, only what was made for it is served."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from gradio.utils import get_upload_folder

from multimodel.errors import BadRequest, DataError, DiskFull, MultimodelError, Unexpected
from multimodel.jobs import Job, spawn

KEPT_FOR = 24 * 3600.0  # seconds that a file lies ready to be downloaded


def uploaded(path: object) -> Path:
    """A file that the page has uploaded. Raises DataError for any other."""
    try:
        found = Path(str(path)).resolve()
        inside = found.is_relative_to(Path(get_upload_folder()).resolve()) and found.is_file()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise DataError("The file is not there any more.", hint="Choose it again.")
    return found


def download_place(name: str) -> Path:
    """Where a file can be written so that the page can fetch it; what is older than a day is removed.

    Raises DiskFull.
    """
    home = Path(get_upload_folder()) / "multimodel"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        folder = home / secrets.token_urlsafe(16)
        folder.mkdir()
    except OSError as error:
        raise DiskFull(f"{name} cannot be written: {error}", hint="Free some space and try again.") from error
    return folder / name


def _sweep(home: Path) -> None:
    oldest = datetime.now(UTC).timestamp() - KEPT_FOR
    for old in home.iterdir():
        with suppress(OSError):
            if old.stat().st_mtime < oldest:
                shutil.rmtree(old)


def url_of(path: Path) -> str:
    """The address of a file that lies ready, as seen from the page."""
    return f"gradio_api/file={quote(str(path))}"


def link_html(path: Path, words: str) -> str:
    """A button that downloads a file."""
    return f'<a class="mp-button" href="{escape(url_of(path))}" download="{escape(path.name)}">{escape(words)}</a>'


class Background:
    """Work that takes longer than a page wants to wait: begun by one request, its answer fetched by later ones."""

    MOST = 32  # pieces of work that are remembered

    def __init__(self) -> None:
        self._lock = Lock()  # between the requests of all visitors
        self._all: dict[str, Any] = {}
        self._jobs: dict[str, Job] = {}

    def start(self, work: Callable[[], dict[str, Any]], wait: float = 0.4, *, job: Job | None = None) -> dict[str, Any]:
        """Begin; its answer where it comes within `wait` seconds, else {task, running}. Raises what the work raises.

        `job`: how far the work is, and how it is stopped; work without one runs to its end.
        """
        id = secrets.token_urlsafe(16)
        with self._lock:
            self._all[id] = spawn(work)
            if job:
                self._jobs[id] = job
            for old in list(self._all)[: -self.MOST]:
                del self._all[old]
                self._jobs.pop(old, None)
        return self.answer(id, wait)

    def job(self, id: str) -> Job | None:
        """The job of a piece of work that has one."""
        with self._lock:
            return self._jobs.get(id)

    def answer(self, id: str, wait: float = 0.0) -> dict[str, Any]:
        """The answer of a piece of work, or {task, running}. Raises what the work raised, or BadRequest."""
        with self._lock:
            future = self._all.get(id)
        if future is None:
            raise BadRequest("This is not known any more.", hint="Start it again.")
        try:
            found: dict[str, Any] = future.result(wait)
        except TimeoutError:
            if not future.done():
                return {"task": id, "running": True}
            raise
        except MultimodelError:
            raise
        except Exception as error:  # a bug of ours is shown where the work was begun
            raise Unexpected(f"{type(error).__name__}: {error}", hint="Try again; if it stays, report it.") from error
        return {**found, "running": False}
