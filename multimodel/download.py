"""Files of a Hub repository, into the Hub's own cache layout: resumed where they stopped, checked, cancellable.

The Hub's library starts an interrupted file anew and cannot be stopped while it waits, so the transfer is ours;
addresses, headers and errors are the library's.

    CACHE/models--OWNER--REPO/refs/main                      the commit a branch stood at
                              blobs/HASH[.incomplete]        contents, named by their hash
                              snapshots/COMMIT/FILE          links to them
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import filelock
import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but listed in a way mypy does not see
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from .errors import BrokenFile, DownloadFailed
from .hub import RemoteFile, Repository
from .hub.faults import TIMEOUT, disk_full, own_errors, token, unreachable
from .settings import Settings
from .types import Chunk, Stage

T = TypeVar("T")

HEARTBEAT = 0.2  # seconds
PIECE = 1 << 18  # bytes between two looks at whether anyone still waits
ATTEMPTS = 4  # broken connections in a row without a byte of progress
MARGIN = 1.1  # of disk space


class Cancelled(Exception):
    """Nobody waits for this job any more. Never leaves its thread."""


class Job:
    """Work in a thread: where it is now, and whether anyone still waits for it."""

    def __init__(self) -> None:
        self.stage = Stage("downloading", "asking the Hub")
        self._cancelled = Event()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled.set()

    def pause(self, seconds: float = 0.0) -> None:
        """Wait a little. Raises Cancelled once nobody waits for the result."""
        if self._cancelled.wait(seconds):
            raise Cancelled


def in_background(work: Callable[[Job], T]) -> Generator[Chunk, None, T]:
    """Run `work` in a thread: its stage every HEARTBEAT, then its result or error. Closing this cancels the job."""
    job, future = Job(), Future[T]()

    def run() -> None:
        try:
            future.set_result(work(job))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        while not future.done():
            with suppress(TimeoutError):
                future.result(HEARTBEAT)
            if not future.done():
                yield Chunk(stage=job.stage)
        return future.result()
    finally:
        job.cancel()


def folder_of(name: str, settings: Settings) -> Path:
    """Where the cache keeps a repository."""
    return settings.models.cache_dir / repo_folder_name(repo_id=name, repo_type="model")


def snapshot(name: str, revision: str, settings: Settings) -> Path | None:
    """The cached files of a revision, as many as there are; no network. None where there are none."""
    folder = folder_of(name, settings)
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision  # perhaps it is a commit
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


def fetch(repo: Repository, files: Sequence[RemoteFile], revision: str, settings: Settings, job: Job) -> Path:
    """Bring `files` into the cache, in this order, and return the snapshot folder. Raises LoadError, Cancelled.

    Whoever finds the last of `files` in the snapshot may rely on those before it.
    """
    folder = folder_of(repo.name, settings)
    blobs = folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    held = sum(_held(blobs, file) for file in files)
    total = sum(file.size for file in files)
    _check_space(blobs, total - held)
    meter = Meter(repo.name, total, held, job)
    for file in files:
        with _alone(folder, file, job):
            if not (blobs / file.hash).exists():
                _transfer(repo, file, blobs, settings, meter)
        _link(folder, repo.commit, file)
    if repo.commit != revision:
        _write(folder / "refs" / revision, repo.commit)
    return folder / "snapshots" / repo.commit


class Meter:
    """How far a download is, and how long it will still take."""

    def __init__(self, name: str, total: int, held: int, job: Job) -> None:
        self.job = job
        self._name = name
        self._total = total
        self._done = held
        self._fresh = 0  # bytes that came in this session
        self._started = time.perf_counter()

    def add(self, count: int) -> None:
        """So many bytes more. Raises Cancelled."""
        self._done += count
        self._fresh += count
        passed = time.perf_counter() - self._started
        left = (self._total - self._done) * passed / self._fresh if self._fresh > 0 and passed > 1 else None
        fraction = min(1.0, self._done / self._total) if self._total else None
        self.job.stage = Stage("downloading", f"{self._name}, {_size(self._total)}", fraction, left)
        self.job.pause()

    def lose(self, count: int) -> None:
        """So many bytes that were held are of no use."""
        self._done -= count


def _size(count: float) -> str:
    """Bytes for people.

    >>> _size(999), _size(4_700_000_000)
    ('999 B', '4.7 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _held(blobs: Path, file: RemoteFile) -> int:
    if (blobs / file.hash).exists():
        return file.size
    part = _part(blobs, file)
    return part.stat().st_size if part.exists() else 0


def _part(blobs: Path, file: RemoteFile) -> Path:
    return blobs / f"{file.hash}.incomplete"


def _check_space(where: Path, needed: int) -> None:
    free = shutil.disk_usage(where).free
    if needed > 0 and needed * MARGIN > free:
        raise disk_full(f"The download needs {_size(needed * MARGIN)}, the disk has {_size(free)} free.")


@contextmanager
def _alone(folder: Path, file: RemoteFile, job: Job) -> Iterator[None]:
    """Hold the lock of a blob, the one the Hub's library takes too: another program may be fetching it now."""
    path = folder.parent / ".locks" / folder.name / f"{file.hash}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=HEARTBEAT)
            break
        except filelock.Timeout:
            job.pause()
    try:
        yield
    finally:
        lock.release()


def _transfer(repo: Repository, file: RemoteFile, blobs: Path, settings: Settings, meter: Meter) -> None:
    """Fetch a blob, going on where an earlier try stopped, and check its hash."""
    part = _part(blobs, file)
    failures = 0
    while (before := part.stat().st_size if part.exists() else 0) < file.size or not part.exists():
        try:
            _receive(repo, file, part, settings, meter)
        except httpx2.TransportError as error:
            failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
            if failures >= ATTEMPTS:
                raise _broken_off(file, error, settings) from error
            meter.job.pause(HEARTBEAT * 2**failures)
    _check_hash(file, part)
    os.replace(part, blobs / file.hash)


def _broken_off(file: RemoteFile, error: httpx2.TransportError, settings: Settings) -> DownloadFailed:
    hint = unreachable(error, settings).hint
    return DownloadFailed(f"The download of {file.name} broke off: {error}.", hint=hint)


def _receive(repo: Repository, file: RemoteFile, part: Path, settings: Settings, meter: Meter) -> None:
    """One request for what is missing of the file."""
    url = hf_hub_url(repo.name, file.name, revision=repo.commit, endpoint=settings.models.hub_url)
    start = part.stat().st_size if part.exists() else 0
    headers = build_hf_headers(token=token(settings)) | {"Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    with (
        own_errors(repo.name, repo.commit, settings),
        get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response,
    ):
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # a server that knows no ranges sends all of it again
            meter.lose(start)
            start = 0
        with part.open("ab" if start else "wb") as out:
            for piece in response.iter_bytes(PIECE):
                out.write(piece)
                meter.add(len(piece))
    if part.stat().st_size < file.size:
        raise httpx2.ReadError("the connection was closed early")


def _check_hash(file: RemoteFile, part: Path) -> None:
    digest = file.digest()
    with part.open("rb") as content:
        while piece := content.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != file.hash:
        part.unlink()
        raise BrokenFile(f"{file.name} arrived damaged: its hash is not the Hub's.", hint="Download it again.")


def _link(folder: Path, commit: str, file: RemoteFile) -> None:
    """Let the snapshot show the blob: by a link, by a copy where the file system has none."""
    pointer = folder / "snapshots" / commit / file.name
    blob = folder / "blobs" / file.hash
    if pointer.exists():
        return
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.copyfile(blob, pointer)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
