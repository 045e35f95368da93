"""What lies in the cache: models with their sizes and last use, leftovers of broken downloads; and its deletion.

The layout is the Hub's own, so models that other programs brought are shown too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but listed in a way mypy does not see
    CachedFileInfo,
    CachedRepoInfo,
)

from .errors import BadRequest
from .folder import WEIGHTS, complete, repository_of
from .quants import gather, missing, quant_of
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Stored:
    """One thing that can be deleted: a model, one quantisation of a repository, or what is left of a download."""

    key: str
    name: str  # of the repository, or of a file that lies in the cache folder by itself
    detail: str  # which of its models: a quantisation, "safetensors" ...
    model: str  # the id under which it can be opened; "" where it is not whole
    size: int  # bytes that deleting it frees
    revisions: tuple[str, ...]  # commits it belongs to
    used: datetime | None  # when it was last read
    paths: tuple[Path, ...]  # what is deleted


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of it, the largest first. `free`: bytes left on the disk."""

    models: tuple[Stored, ...]
    leftovers: tuple[Stored, ...]
    free: int

    @property
    def size(self) -> int:
        """Bytes of everything."""
        return sum(item.size for item in (*self.models, *self.leftovers))


def inventory(settings: Settings, claimed: Collection[Path] = ()) -> Inventory:
    """What is in the cache. `claimed`: partial files of downloads that can still go on, which are no leftovers."""
    cache = settings.models.cache_dir.resolve()
    try:
        found = scan_cache_dir(cache)
    except (CacheNotFound, ValueError, OSError):
        return Inventory((), (), _free(cache))
    repos = sorted((r for r in found.repos if r.repo_type == "model"), key=lambda r: r.repo_id)
    models = [item for repo in repos for item in _of_repo(repo, settings)]
    models += [_loose(path) for path in sorted(cache.glob("*.gguf"))]
    spared = {path.resolve() for path in claimed}
    parts = [path for path in sorted(cache.glob("models--*/blobs/*.incomplete")) if path.resolve() not in spared]
    leftovers = [_leftover(path) for path in parts]
    by_size = sorted(models, key=lambda item: (-item.size, item.key))
    return Inventory(tuple(by_size), tuple(leftovers), _free(cache))


def delete(keys: Iterable[str], settings: Settings, claimed: Collection[Path] = ()) -> int:
    """Delete what has these keys in an inventory; the bytes that freed. Raises BadRequest for an unknown key."""
    shelf = inventory(settings, claimed)
    known = {item.key: item for item in (*shelf.models, *shelf.leftovers)}
    chosen = [known.get(key) for key in dict.fromkeys(keys)]
    if None in chosen:
        raise BadRequest("What was to be deleted is no longer there.", hint="Look at the list again.")
    freed = 0
    for item in chosen:
        if item:
            freed += _remove(item.paths)
            _clean(item, settings)
    return freed


def _of_repo(repo: CachedRepoInfo, settings: Settings) -> Iterator[Stored]:
    """The models of a repository: each quantisation, and the safetensors files with all that goes with them."""
    files: dict[str, list[CachedFileInfo]] = {}
    revisions: dict[str, set[str]] = {}
    for revision in repo.revisions:
        for file in revision.files:
            name = str(file.file_path.relative_to(revision.snapshot_path))
            files.setdefault(name, []).append(file)
            revisions.setdefault(name, set()).add(revision.commit_hash)
    groups = gather(files)
    inside = {name for names in groups.values() for name in names}
    rest = [name for name in files if name not in inside]
    labels = [quant_of(model) for model in groups]
    parts: list[tuple[str, str, list[str]]] = []
    for model, names in groups.items():
        label = quant_of(model) or model.removesuffix(".gguf")
        wanted = label if labels.count(label) == 1 else names[0]
        parts.append((label, "" if missing(names) else f"gguf:{repo.repo_id}:{wanted}", names))
    weights = any(WEIGHTS.fullmatch(name) for name in rest)
    if rest and (weights or not groups):
        whole = any(complete(revision.snapshot_path) for revision in repo.revisions)
        parts.append(
            (
                "safetensors" if weights else "other files",
                f"transformers:{repo.repo_id}" if whole else "",
                rest,
            )
        )
    for label, id, names in parts:
        others = {file.blob_path for name, found in files.items() if name not in names for file in found}
        commits = {commit for name in names for commit in revisions[name]}
        yield _stored(repo, label, id, [file for name in names for file in files[name]], commits, others)


def _stored(
    repo: CachedRepoInfo,
    detail: str,
    model: str,
    files: list[CachedFileInfo],
    commits: Collection[str],
    others: Collection[Path],
) -> Stored:
    """`others`: contents that something else shows too, and which therefore stay."""
    blobs = {file.blob_path: file.size_on_disk for file in files if file.blob_path not in others}
    used = max((file.blob_last_accessed for file in files), default=0.0)
    paths = (*(file.file_path for file in files), *blobs)
    when = datetime.fromtimestamp(used, UTC) if used else None
    key = f"{repo.repo_id}:{detail}"
    return Stored(key, repo.repo_id, detail, model, sum(blobs.values()), tuple(sorted(commits)), when, paths)


def _loose(path: Path) -> Stored:
    about = path.stat()
    used = datetime.fromtimestamp(about.st_atime, UTC)
    return Stored(path.name, path.name, quant_of(path.name), f"gguf:{path}", about.st_size, (), used, (path,))


def _leftover(path: Path) -> Stored:
    folder = path.parents[1].name
    name = repository_of(folder)
    about = path.stat()
    written = datetime.fromtimestamp(about.st_mtime, UTC)
    return Stored(f"{folder}/{path.name}", name, "part of a download", "", about.st_size, (), written, (path,))


def _remove(paths: Iterable[Path]) -> int:
    """Unlink these; the bytes of those that were files of their own."""
    freed = 0
    for path in paths:
        with suppress(FileNotFoundError):
            freed += 0 if path.is_symlink() else path.stat().st_size
            path.unlink()
    return freed


def _clean(item: Stored, settings: Settings) -> None:
    """Remove what is empty now: folders of snapshots, and a repository that shows nothing any more."""
    cache = settings.models.cache_dir.resolve()
    folder = cache / f"models--{item.name.replace('/', '--')}"
    snapshots = folder / "snapshots"
    for path, _, _ in os.walk(snapshots, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()  # only where nothing is in it
    models = [p for p in snapshots.rglob("*") if p.suffix == ".gguf" or WEIGHTS.fullmatch(p.name)]
    if folder.is_dir() and not models and not any((folder / "blobs").glob("*.incomplete")):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache / ".locks" / folder.name, ignore_errors=True)


def _free(cache: Path) -> int:
    place = next((path for path in (cache, *cache.parents) if path.exists()), Path("/"))
    return shutil.disk_usage(place).free
