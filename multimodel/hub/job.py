"""A command on a machine of the Hub (Hugging Face Jobs), with the files of a folder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, JobInfo, Volume
from huggingface_hub import errors as hub

from ..errors import MissingKey, QuotaExceeded
from ..settings import Settings
from . import faults
from .push import own_errors, push

FILES = "/bundle"  # where the job finds the files
OVER = frozenset({"COMPLETED", "CANCELED", "ERROR", "DELETED"})


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    id: str
    url: str
    stage: str  # SCHEDULING, RUNNING, COMPLETED, CANCELED, ERROR, DELETED
    message: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.stage in OVER


def submit(
    folder: Path, name: str, command: Sequence[str], settings: Settings, *, image: str, flavor: str, timeout: str
) -> Job:
    """Bring the files of a folder into a private repository, and run a command beside them, under FILES.

    `name`: of the repository. `flavor`: the machine, as the Hub calls it: cpu-basic, t4-small, a10g-large.
    `timeout`: after which the job is ended, such as "2h". The access token goes along as the secret HF_TOKEN. Raises
    MissingKey, AuthenticationFailure, InvalidName, DownloadFailed, QuotaExceeded where the account may not run jobs.
    """
    api = _api(settings)
    repository = push(folder, name, settings, private=True, update=True).removeprefix(f"{settings.models.hub_url}/")
    files = Volume(type="model", source=repository, mount_path=FILES, read_only=True)
    with own_errors(name, settings):
        try:
            found = api.run_job(
                image=image,
                command=list(command),
                secrets={"HF_TOKEN": api.token},
                flavor=flavor,
                timeout=timeout,
                volumes=[files],
                namespace=repository.partition("/")[0],
            )
        except hub.HfHubHTTPError as error:
            if error.response.status_code == 402:
                hint = "Add credit or a subscription to the account, or train here."
                raise QuotaExceeded(
                    f"The Hub runs no job for this account: {error.server_message}", hint=hint
                ) from error
            raise
    return _job(found)


def look(id: str, settings: Settings) -> Job:
    """A job as it stands now. Raises MissingKey, AuthenticationFailure, InvalidName, DownloadFailed."""
    with own_errors(id, settings):
        return _job(_api(settings).inspect_job(job_id=id))


def cancel(id: str, settings: Settings) -> None:
    """End a job. Raises as `look`."""
    with own_errors(id, settings):
        _api(settings).cancel_job(job_id=id)


def _api(settings: Settings) -> HfApi:
    access = faults.token(settings)
    if not access:
        hint = f"Make one that may write at {settings.models.hub_url}/settings/tokens, and set HF_TOKEN."
        raise MissingKey("A job on the Hub needs an access token.", hint=hint)
    if settings.models.offline:
        raise faults.offline(settings)
    return HfApi(endpoint=settings.models.hub_url, token=str(access))


def _job(found: JobInfo) -> Job:
    status = found.status
    return Job(found.id, str(found.url), str(status.stage if status else ""), (status and status.message) or "")
