"""Bringing a fine-tuned model to the Hub as a repository of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub import errors as hub
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, but not seen by mypy

from ..errors import AuthenticationFailure, DownloadFailed, InvalidName, MissingKey, MultimodelError
from ..jobs import Cancelled, Job, Meter
from ..settings import Settings
from . import faults

NAME = re.compile(r"(?:[\w][\w.-]{0,95}/)?[\w][\w.-]{0,95}", re.ASCII)
KEPT_HERE = frozenset({"manifest.json", "misclassified.json", "training_metadata.json"})
"""Files that stay on this machine: they hold texts of the data, and paths."""


def has_token(settings: Settings) -> bool:
    """Whether an access token is set, so that none must be asked for."""
    return bool(faults.token(settings))


def push(
    folder: Path,
    name: str,
    settings: Settings,
    *,
    token: str = "",
    private: bool = True,
    update: bool = False,
    job: Job | None = None,
) -> str:
    """Make a repository of the files of a folder, but for KEPT_HERE; returns its address.

    `name`: OWNER/NAME, or NAME for the account of the token. `token`: instead of the one that is set. `update`: a
    repository of that name gets the files as a new commit. `job` shows how far it is; cancelled before the commit, it
    leaves a repository without these files. Raises MissingKey without a token, AuthenticationFailure where it is
    refused or may not write there, InvalidName for a name that is none or taken, DownloadFailed, Cancelled.
    """
    job = job or Job()
    access = token or faults.token(settings)
    if not access:
        hint = f"Make one that may write at {settings.models.hub_url}/settings/tokens, and give it here or in HF_TOKEN."
        raise MissingKey("Pushing to the Hub needs an access token.", hint=hint)
    if not NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
        raise InvalidName(f"{name[:100]!r} cannot be the name of a repository.", hint="Write OWNER/NAME, or NAME.")
    if settings.models.offline:
        raise faults.offline(settings)
    disable_progress_bars()  # they would be drawn into the log of the server
    api = HfApi(endpoint=settings.models.hub_url, token=str(access))
    with own_errors(name, settings), ExitStack() as opened:
        whole = name if "/" in name else f"{api.whoami()['name']}/{name}"
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in KEPT_HERE]
        files = [opened.enter_context(_Watched(path)) for path in paths]
        names = [path.relative_to(folder).as_posix() for path in paths]
        operations = [CommitOperationAdd(name, file) for name, file in zip(names, files, strict=True)]
        meter = Meter(whole, sum(path.stat().st_size for path in paths), 0, job)
        for file in files:
            file.meter = meter
        job.pause()
        api.create_repo(whole, private=private, exist_ok=update)
        api.create_commit(whole, operations, commit_message=f"Upload {folder.name}")
    return f"{settings.models.hub_url}/{whole}"


class _Watched(io.BufferedReader):
    """A file that counts what is read of it the first time, and refuses to be read once nobody waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.meter: Meter | None = None  # from when it is sent: before that it is read for its hash
        self._furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if self.meter:
            fresh = max(0, self.tell() - self._furthest)
            self._furthest += fresh
            self.meter.add(fresh)
        return content


@contextmanager
def own_errors(name: str, settings: Settings) -> Iterator[None]:
    """What the Hub's library raises where it was to write, as ours."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of a large file
        if isinstance(cause, Cancelled):
            raise cause from None
        if found := _meaning(cause, name, settings):
            raise found from error
        raise


def _meaning(error: BaseException, name: str, settings: Settings) -> MultimodelError | None:
    match error:
        case hub.OfflineModeIsEnabled():
            return faults.offline(settings)
        case hub.HfHubHTTPError():
            return _refused(error, name, settings)
        case hub.HFValidationError():
            return InvalidName(f"{name!r} cannot be the name of a repository.", hint="Write OWNER/NAME, or NAME.")
        case httpx2.TransportError():
            return faults.unreachable(error, settings)
        case ValueError():
            return DownloadFailed(f"The Hub does not accept the files: {error}", hint="Try again in a minute.")
    return None


def _refused(error: hub.HfHubHTTPError, name: str, settings: Settings) -> MultimodelError:
    """By status: no such token, no right to write there, a name that is taken, or the Hub's own trouble."""
    status, tokens = error.response.status_code, f"{settings.models.hub_url}/settings/tokens"
    said = error.server_message or f"HTTP {status}"
    if status == 401:
        return AuthenticationFailure(f"The Hub does not accept the access token: {said}", hint=f"Make one at {tokens}.")
    if status == 403:
        hint = f"Use a token with the right to write ({tokens}), or a name of your own account."
        return AuthenticationFailure(f"This token may not write to {name}: {said}", hint=hint)
    if status == 409:
        hint = "Choose another name, or have the repository updated."
        return InvalidName(f"There is already a repository {name}.", hint=hint)
    if status == 404:
        hint = "Check the owner's name; the token must belong to it."
        return InvalidName(f"The Hub has no place {name}.", hint=hint)
    if status == 429:
        return DownloadFailed("The Hub asks to slow down: too many requests.", hint="Wait a minute, then try again.")
    return DownloadFailed(f"The Hub could not take the files: {said}", hint="Try again in a minute.")
