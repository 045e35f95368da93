"""One repository: its files with sizes and hashes, its card, its configuration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not listed

from ..errors import BrokenFile, GatedModel
from ..quants import Quant, quants
from ..settings import Settings
from .faults import not_data, own_errors
from .listing import Listing, count, listing
from .wire import check, get, get_json

HEX = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
CARD_LIMIT = 2 << 20  # bytes
CONFIG_LIMIT = 4 << 20
OPEN = frozenset({"README.md", ".gitattributes"})
FRONT_MATTER = re.compile(r"\A\s*---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    size: int  # bytes
    hash: str  # sha256 of a large file, git's sha1 of a small one: the name of its blob
    large: bool

    def digest(self) -> Any:
        """A fresh hash of the right kind."""
        return hashlib.sha256() if self.large else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]

    def file(self, name: str) -> RemoteFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's page: what a list shows of it, and its files."""

    listing: Listing
    repository: Repository

    @property
    def quants(self) -> tuple[Quant, ...]:
        """Its GGUF models with their sizes, the smallest first."""
        return quants({file.name: file.size for file in self.repository.files})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.repository.files)


def model(name: str, settings: Settings) -> Model:
    """A repository with all that its page shows, by one request. Raises LoadError."""
    row = _about(name, "main", settings)
    found = listing(row)
    if not found:
        raise not_data(settings, "something else")
    return Model(found, _repository(name, "main", row))


def repository(name: str, revision: str, settings: Settings) -> Repository:
    """The files of a repository, by one request. Raises LoadError."""
    return _repository(name, revision, _about(name, revision, settings))


def card(repo: Repository, settings: Settings) -> str:
    """The model card as Markdown, without the fields at its top; "" where there is none. Raises LoadError."""
    text = _small("README.md", repo, settings, CARD_LIMIT).decode("utf-8", "replace")
    return FRONT_MATTER.sub("", text, count=1).strip()


def config(repo: Repository, settings: Settings) -> dict[str, Any]:
    """The configuration of a transformers model; empty where there is none. Raises LoadError."""
    body = _small("config.json", repo, settings, CONFIG_LIMIT)
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BrokenFile(f"config.json of {repo.name} is not JSON.", hint="Choose another repository.") from error
    return found if isinstance(found, dict) else {}


def access(repo: Repository, settings: Settings) -> GatedModel | None:
    """Why the files of a gated repository may not be read, if so. Raises LoadError for any other failure.

    Its card is open to everybody, so the smallest file behind the gate is asked for.
    """
    behind = [file for file in repo.files if file.name not in OPEN]
    if behind:
        smallest = min(behind, key=lambda file: file.size)
        try:
            check(f"/{repo.name}/resolve/{repo.commit}/{quote(smallest.name)}", settings, about=repo.name)
        except GatedModel as error:
            return error
    return None


def _about(name: str, revision: str, settings: Settings) -> Mapping[str, Any]:
    with own_errors(name, revision, settings):
        validate_repo_id(name)
    path = f"/api/models/{name}/revision/{quote(revision, safe='')}"
    found, _ = get_json(path, settings, about=name, revision=revision, params=[("blobs", "true")])
    if not isinstance(found, dict):
        raise not_data(settings, "something else")
    return found


def _repository(name: str, revision: str, row: Mapping[str, Any]) -> Repository:
    siblings = row.get("siblings")
    files = [_remote(s) for s in siblings if isinstance(s, dict)] if isinstance(siblings, list) else []
    commit = row.get("sha")
    sound = isinstance(commit, str) and HEX.fullmatch(commit)
    return Repository(name, str(commit) if sound else revision, tuple(file for file in files if file))


def _remote(sibling: Mapping[str, Any]) -> RemoteFile | None:
    """A file; None where its name or hash could not be a path in the cache: both come from outside."""
    lfs = sibling.get("lfs")
    large = isinstance(lfs, dict)
    name, size = sibling.get("rfilename"), count(sibling.get("size"))
    hash = lfs.get("sha256") if isinstance(lfs, dict) else sibling.get("blobId")
    if not isinstance(name, str) or not isinstance(hash, str) or size is None:
        return None
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0"}
    return RemoteFile(name, size, hash, large) if inside and path.parts and HEX.fullmatch(hash) else None


def _small(name: str, repo: Repository, settings: Settings, limit: int) -> bytes:
    """A small file of a repository; empty where it has none, or a larger one."""
    file = repo.file(name)
    if not file or file.size > limit:
        return b""
    path = f"/{repo.name}/resolve/{repo.commit}/{name}"
    return get(path, settings, about=repo.name, revision=repo.commit, limit=limit).body
