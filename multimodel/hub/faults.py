"""What the Hub's refusals and failures mean to a person: each a LoadError with a sentence and what to do next."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

import httpx2
from huggingface_hub import HfApi
from huggingface_hub import errors as hub

from ..errors import DownloadFailed, GatedModel, LoadError, ModelNotFound
from ..retry import retry_after
from ..settings import Settings

TIMEOUT = 15.0  # seconds for the next byte, not for the whole
EXHAUSTED = re.compile(r"\br=0\b.*\bt=(\d{1,6})\b")  # in a RateLimit header: nothing remains, seconds until it does
REFUSALS = ("reject", "await", "fine-grained", "token settings")  # the words of a request that is not granted


def token(settings: Settings) -> str | bool:
    """The access token; False, which the Hub's library takes for none, where none is set."""
    found = settings.api.hf_token
    return found.get_secret_value() if found and found.get_secret_value() else False


def api(settings: Settings) -> HfApi:
    """The library's client, with our address and token."""
    return HfApi(endpoint=settings.models.hub_url, token=token(settings))


@contextmanager
def own_errors(name: str, revision: str, settings: Settings) -> Iterator[None]:
    """The library's errors as ours. `name`: the repository, "" for a search. Broken connections pass through, for
    whoever may try them again; `unreachable` has their words."""
    try:
        yield
    except (hub.HfHubHTTPError, hub.HFValidationError) as error:
        raise _meaning(error, name, revision, settings) from error
    except hub.OfflineModeIsEnabled as error:
        raise offline(settings) from error
    except httpx2.TooManyRedirects as error:
        message = "The Hub's answer leads in a circle of redirects."
        raise DownloadFailed(message, hint=_check_address(settings)) from error
    except httpx2.DecodingError as error:
        raise DownloadFailed(f"The Hub's answer is damaged: {error}.", hint="Try again in a minute.") from error
    except OSError as error:
        raise _of_this_machine(name, error) from error


def unreachable(error: httpx2.TransportError, settings: Settings) -> DownloadFailed:
    """A connection that did not come about, or broke off, or was silent for too long."""
    if isinstance(error, httpx2.TimeoutException):
        message = f"The Hub did not answer within {TIMEOUT:.0f} s."
    elif isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        message = f"The Hub cannot be reached: {error}."
    else:
        message = f"The Hub's answer broke off: {error}."
    return DownloadFailed(message, hint=_check_connection(settings))


def offline(settings: Settings) -> DownloadFailed:
    """The Hub is not to be asked here."""
    kept = settings.models.cache_dir
    hint = f"Unset HF_HUB_OFFLINE to ask it; models already in {kept} work."
    return DownloadFailed("The Hub is switched off here (HF_HUB_OFFLINE).", hint=hint)


def disk_full(message: str) -> DownloadFailed:
    """No room, now or in a moment."""
    return DownloadFailed(message, hint="Free some space, or set MODEL_CACHE_DIR to a folder on another disk.")


def not_data(settings: Settings, what: str) -> DownloadFailed:
    """An answer that is no JSON of the expected kind: a sign-in page of the network, or another server altogether."""
    hint = (
        f"Open {settings.models.hub_url} in a browser: perhaps this network wants a sign-in. {_check_address(settings)}"
    )
    return DownloadFailed(f"{settings.models.hub_url} answers with {what} instead of data.", hint=hint)


def wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait that a refusal names, in either of the two headers; None where it names none.

    >>> wait({"ratelimit": '"api";r=0;t=55'}), wait({"retry-after": "2"}), wait({"ratelimit": '"api";r=7;t=55'})
    (55.0, 2.0, None)
    """
    exhausted = EXHAUSTED.search(headers.get("ratelimit", ""))
    return float(exhausted[1]) if exhausted else retry_after(headers)


def _meaning(error: Exception, name: str, revision: str, settings: Settings) -> LoadError:
    match error:
        case hub.GatedRepoError():  # a subclass of the next
            return _gated(name, settings, error)
        case hub.RepositoryNotFoundError():
            return _no_repository(name, settings, error)
        case hub.RevisionNotFoundError():
            return ModelNotFound(f"{name} has no revision {revision!r}.", hint="Use main, a tag or a commit.")
        case hub.EntryNotFoundError():
            return ModelNotFound(f"A file of {name} is gone from the Hub.", hint="Try again.")
        case hub.HfHubHTTPError():
            return _refused(name, settings, error)
    return ModelNotFound(f"{name!r} is no repository name.", hint="Write OWNER/REPO.")


def _of_this_machine(name: str, error: OSError) -> DownloadFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(f"The disk is full: {error}")
    return DownloadFailed(f"The download of {name} failed: {error}", hint="Try again.")


def _gated(name: str, settings: Settings, error: hub.HfHubHTTPError) -> GatedModel:
    """No token, a licence not accepted, or a request that is not granted: each needs another step."""
    page = f"{settings.models.hub_url}/{name}"
    if not token(settings):
        return GatedModel(
            f"{name} asks for a licence agreement, and no access token is set.",
            hint=f"Accept the licence at {page}, then set HUGGINGFACE_API_TOKEN to a token from "
            f"{settings.models.hub_url}/settings/tokens.",
        )
    if any(word in (error.server_message or "").lower() for word in REFUSALS):
        return GatedModel(
            f"Access to {name} is denied: {error.server_message}",
            hint=f"See {page}; the request is decided there, for the account of the token in HUGGINGFACE_API_TOKEN.",
        )
    return GatedModel(
        f"The licence of {name} is not accepted by the account of this token.",
        hint=f"Accept it at {page}, signed in as the account of HUGGINGFACE_API_TOKEN, then try again.",
    )


def _no_repository(name: str, settings: Settings, error: hub.HfHubHTTPError) -> LoadError:
    """The Hub does not tell a private repository from one that is not there."""
    if not name:
        return _refused(name, settings, error)
    if near := _similar(name, settings):
        hint = f"Did you mean {' or '.join(near)}?"
    elif token(settings):
        hint = f"Check the name at {settings.models.hub_url}/models; a private one needs a token that may read it."
    else:
        hint = f"Check the name at {settings.models.hub_url}/models; for a private one set HUGGINGFACE_API_TOKEN."
    return ModelNotFound(f"The Hub has no model {name}.", hint=hint)


def _similar(name: str, settings: Settings) -> list[str]:
    """Names on the Hub that come near."""
    try:
        found = api(settings).list_models(search=name.rpartition("/")[2], limit=30)
        return get_close_matches(name, [model.id for model in found], n=2, cutoff=0.6)
    except (OSError, ValueError, hub.HfHubHTTPError, httpx2.HTTPError):
        return []


def _refused(name: str, settings: Settings, error: hub.HfHubHTTPError) -> LoadError:
    status = error.response.status_code
    said = error.server_message or f"HTTP {status}"
    if status in (401, 403):
        hint = f"Make a new one at {settings.models.hub_url}/settings/tokens and set HUGGINGFACE_API_TOKEN."
        return GatedModel(f"The Hub does not accept the access token: {said}", hint=hint)
    if status == 429:
        seconds = wait(error.response.headers)
        when = f"Wait {seconds:.0f} s" if seconds else "Wait a minute"
        more = "" if token(settings) else " An access token in HUGGINGFACE_API_TOKEN raises the limit."
        return DownloadFailed("The Hub asks to slow down: too many requests.", hint=f"{when}, then try again.{more}")
    if status >= 500:
        what = f"deliver {name}" if name else "search"
        return DownloadFailed(f"The Hub could not {what}: {said}", hint="Try again in a minute.")
    return DownloadFailed(f"The Hub does not accept the request: {said}", hint=_check_address(settings))


def _check_connection(settings: Settings) -> str:
    where = settings.models.hub_url
    return f"Check the connection to {where}; models already in {settings.models.cache_dir} work."


def _check_address(settings: Settings) -> str:
    return f"Check that HF_ENDPOINT, now {settings.models.hub_url}, is the address of a Hub."
