"""Which files a model is, to the bit: what makes it possible to say later that it was the same one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .errors import LoadError
from .folder import needed
from .locate import files_of, stamp
from .memory.subject import at_hand
from .settings import Settings
from .types import Loaded, ModelId, ModelSpec
from .versions import versions


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from. Empty fields are not known, as those of models that run elsewhere."""

    revision: str = ""  # the commit on the Hub
    file_hash: str = ""  # SHA-256 in hex, of a GGUF file or of the list of hashes of several files
    versions: tuple[tuple[str, str], ...] = ()  # (package, version) of what runs it

    def same_files(self, other: Provenance) -> bool | None:
        """Whether both are the same weights; None where that is not known."""
        for mine, theirs in ((self.file_hash, other.file_hash), (self.revision, other.revision)):
            if mine and theirs:
                return mine == theirs
        return None


def provenance(model: ModelId | ModelSpec, settings: Settings) -> Provenance:
    """The provenance of a model; reads its files, which takes seconds for large ones, once. Raises nothing."""
    spec = model if isinstance(model, ModelSpec) else ModelSpec(model)
    known = versions(spec.id.backend)
    if spec.id.backend not in ("gguf", "transformers"):
        return Provenance(versions=known)
    try:
        path = at_hand(spec.id, settings, spec.load.revision)
        return Provenance(revision_of(path), hash_of(path), known) if path else Provenance(versions=known)
    except (LoadError, OSError):  # asking the model will say what is wrong with it
        return Provenance(versions=known)


def still(spec: ModelSpec, settings: Settings, loaded: Loaded) -> Provenance | None:
    """The provenance of a model whose files are still those that it was loaded from; None where they are not."""
    try:
        path = at_hand(spec.id, settings, spec.load.revision)
    except (LoadError, OSError):
        return None
    here = stamp(path) if path else Loaded()
    if not here.changed or (here.file, here.size, here.changed) != (loaded.file, loaded.size, loaded.changed):
        return None
    return provenance(spec, settings)


def revision_of(path: Path) -> str:
    """The commit whose snapshot in the cache of the Hub a file or folder belongs to; "" for any other.

    >>> revision_of(Path("cache/models--o--r/snapshots/0123abcd/m.gguf")), revision_of(Path("m.gguf"))
    ('0123abcd', '')
    """
    parts = path.parts
    at = next((i for i, part in enumerate(parts[:-1]) if part == "snapshots"), None)
    return "" if at is None else parts[at + 1]


def hash_of(path: Path) -> str:
    """SHA-256 of a GGUF file, or of the names and hashes of all files of a model in several. Raises OSError."""
    if path.is_dir():
        files = [path / name for name in needed(file.name for file in path.iterdir())]
    else:
        files = sorted(files_of(path))
    hashes = {file.name: _file_hash(file) for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("".join(f"{name} {hash}\n" for name, hash in hashes.items()).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    found = path.stat()
    return _read_hash(path.resolve(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_hash(path: Path, size: int, changed: int) -> str:
    """A file that has another size or date is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
