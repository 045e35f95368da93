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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock
from huggingface_hub.file_download import repo_folder_name

from .hub import RemoteFile, Repository
from .hub.faults import disk_full, own_errors
from .jobs import HEARTBEAT, Job, Meter, size
from .settings import Settings
from .transfer import transfer

MARGIN = 1.1  # of disk space


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
    with own_errors(repo.name, repo.commit, settings):
        blobs = folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        held = sum(_held(blobs, file) for file in files)
        total = sum(file.size for file in files)
        job.parts = tuple(_part(blobs, file) for file in files)
        _check_space(blobs, total - held, job.reserved())
        meter = Meter(repo.name, total, held, job)
        for file in files:
            with _alone(folder, file, job):
                if not (blobs / file.hash).exists():
                    _bring(repo, file, blobs, settings, meter)
            _link(folder, repo.commit, file)
        if repo.commit != revision:
            _write(folder / "refs" / revision, repo.commit)
    return folder / "snapshots" / repo.commit


def _bring(repo: Repository, file: RemoteFile, blobs: Path, settings: Settings, meter: Meter) -> None:
    """A blob gets its name only when it is whole and its hash is right."""
    part = _part(blobs, file)
    transfer(repo, file, part, settings, meter)
    os.replace(part, blobs / file.hash)


def _held(blobs: Path, file: RemoteFile) -> int:
    if (blobs / file.hash).exists():
        return file.size
    part = _part(blobs, file)
    return part.stat().st_size if part.exists() else 0


def _part(blobs: Path, file: RemoteFile) -> Path:
    return blobs / f"{file.hash}.incomplete"


def _check_space(where: Path, needed: int, reserved: int) -> None:
    free = max(0, shutil.disk_usage(where).free - reserved)
    if needed > 0 and needed * MARGIN > free:
        others = " beside the other downloads" if reserved else ""
        raise disk_full(f"The download needs {size(needed * MARGIN)}, the disk has {size(free)} free{others}.")


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
