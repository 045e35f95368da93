"""What went wrong at a remote service, in our words: one table for all of them, the most specific row first."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from .. import errors
from ..errors import BackendError, MultimodelError
from ..retry import retry_after
from .service import Service
from .wire import ErrorEvent

T = TypeVar("T")

LONGEST = 300
"""Characters of a message."""


class ParameterRefused(errors.BadRequest):
    """The service does not take one parameter of the request; without it, it might."""

    parameter: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a service said instead of an answer. status 0: in the middle of a stream."""

    status: int
    message: str
    codes: frozenset[str] = frozenset()  # what the body calls code and type, and the Hub's header
    parameter: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An error of ours, and the refusals that mean it: any of the codes, or a status with (some of) the words."""

    error: type[MultimodelError]
    says: str
    hint: str = ""
    codes: frozenset[str] = frozenset()
    statuses: Iterable[int] = ()
    words: str = ""

    def means(self, refusal: Refusal) -> bool:
        if self.codes & refusal.codes:
            return True
        return refusal.status in self.statuses and bool(re.search(self.words, refusal.message, re.IGNORECASE))


NO_CREDIT = "The account has no credit left: add some on its billing page, or choose another model."
TOO_LONG = "Clear the conversation, shorten the prompt, or choose a model with a longer context."
GATED = "Open https://huggingface.co/{repository}, accept the licence, and set HF_TOKEN to a token of that account."
WAIT = "Try again in a moment."
SET_KEY = "Set {key_var} again in .env or the environment{key_page}."

ROWS = (
    Row(
        error=errors.QuotaExceeded,
        says="{title} says there is no credit left. {detail}",
        hint=NO_CREDIT,
        codes=frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_credits"}),
        statuses=(402,),
    ),
    Row(
        error=errors.ContextLengthExceeded,
        says="The conversation is longer than the model's context. {detail}",
        hint=TOO_LONG,
        codes=frozenset({"context_length_exceeded", "exceed_context_size_error"}),
        statuses=(0, 400, 413, 422, 500),
        words=r"context (length|window|size)|maximum context|too many tokens|exceeds? the (available )?context",
    ),
    Row(
        error=ParameterRefused,
        says="{title} does not take a parameter. {detail}",
        codes=frozenset({"unsupported_parameter", "unsupported_value"}),
    ),
    Row(
        error=errors.GatedModel,
        says="{model} is gated: its licence is not accepted, or it is private.",
        hint=GATED,
        codes=frozenset({"gatedrepo"}),
        statuses=(401, 403),
        words=r"\bgated\b|must be authenticated to access|accept the (licen[cs]e|conditions)",
    ),
    Row(
        error=errors.AuthenticationFailure,
        says="{title} refused the key in {key_var}.",
        hint=SET_KEY,
        codes=frozenset({"invalid_api_key", "authentication_error"}),
        statuses=(401,),
    ),
    Row(
        error=errors.AuthenticationFailure,
        says="{title} does not let the key in {key_var} use {model}. {detail}",
        hint="Use a key that may, or choose another model.",
        codes=frozenset({"permission_error"}),
        statuses=(403,),
    ),
    Row(
        error=errors.ModelNotFound,
        says="{title} has no model called {name!r}.",
        hint="Check the name; where it is right, check the address {url}: for most servers it ends in /v1.",
        codes=frozenset({"model_not_found", "model_not_supported", "reponotfound"}),
        statuses=(404,),
    ),
    Row(
        error=errors.ModelNotFound,
        says="{title} has no model called {name!r}.",
        statuses=(0, 400, 422),
        words=r"\bmodel\b.*(not found|does not exist|not supported by any|unknown)|(unknown|invalid|no such) model",
    ),
    Row(
        error=errors.RateLimited,
        says="{title} asks to slow down: too many requests. {detail}",
        hint="Wait a little, or choose another model.",
        codes=frozenset({"rate_limit_exceeded", "rate_limit_error"}),
        statuses=(429,),
    ),
    Row(error=errors.TimedOut, says="{title} took too long. {detail}", hint=WAIT, statuses=(408, 504, 524)),
    Row(
        error=errors.ProtocolFailure,
        says="{url} sends every request on to another address, which is not followed.",
        hint="Set the address where the server really answers; https instead of http, or /v1 at its end?",
        statuses=range(300, 400),
    ),
    Row(
        error=errors.ServerFailure,
        says="{title} has a fault of its own. {detail}",
        hint=WAIT,
        statuses=(409, 425, *range(500, 600)),
    ),
    Row(
        error=errors.BadRequest,
        says="{title} did not accept the request. {detail}",
        hint="Check the parameters of this column.",
        codes=frozenset({"invalid_request_error"}),
        statuses=range(400, 500),
    ),
)
UNNAMED = Row(error=errors.ServerFailure, says="{title} broke off with an error. {detail}", hint=WAIT)

TRANSPORT: tuple[tuple[type[Exception], str, Row], ...] = (
    (httpx2.InvalidURL, "", Row(error=errors.InvalidSetting, says="{url} is not an address.", hint="Correct it.")),
    (
        httpx2.UnsupportedProtocol,
        "",
        Row(error=errors.InvalidSetting, says="{url} is not an address of the web.", hint="Begin with http or https."),
    ),
    (
        httpx2.TimeoutException,
        "",
        Row(error=errors.ConnectionFailure, says="{url} does not answer.", hint="Check the address and the network."),
    ),
    (
        httpx2.ConnectError,
        "certificate",
        Row(
            error=errors.ConnectionFailure,
            says="{url} shows a certificate that is not trusted.",
            hint="Check the address, or add the certificate to this machine; SSL_CERT_FILE names one.",
        ),
    ),
    (
        httpx2.ConnectError,
        "name|address associated|getaddrinfo",
        Row(
            error=errors.ConnectionFailure,
            says="The name in {url} is not known.",
            hint="Check the spelling of the address and the network.",
        ),
    ),
    (
        httpx2.ConnectError,
        "",
        Row(error=errors.ConnectionFailure, says="Nothing answers at {url}: is the server running?", hint="Start it."),
    ),
    (
        httpx2.HTTPError,
        "",
        Row(error=errors.ConnectionFailure, says="The connection to {title} broke off.", hint=WAIT),
    ),
)


def refused(refusal: Refusal, service: Service, name: str) -> MultimodelError:
    """Our error for what a service said about its model `name`."""
    row = next((row for row in ROWS if row.means(refusal)), UNNAMED)
    error = _made(row, service, name, clean(refusal.message, service.key), refusal.retry_after)
    if isinstance(error, ParameterRefused):
        error.parameter = refusal.parameter
    return error


def translated(error: Exception, service: Service, name: str) -> MultimodelError:
    """Our error for one of the HTTP client, or of an SDK on top of it."""
    if isinstance(error, ErrorEvent):
        return refused(refusal_from(0, error.event), service, name)
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        return refused(refusal_from(response.status_code, _body(response), response.headers), service, name)
    return _broken(error, service, name)


def _body(response: httpx2.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text
    except httpx2.StreamError:  # never read
        return ""


def _broken(error: Exception, service: Service, name: str) -> MultimodelError:
    """For an exchange that had no end. An SDK's error stands for the one of the HTTP client that caused it."""
    chain = [error, error.__cause__, error.__context__]
    for kind, words, row in TRANSPORT:
        for link in chain:
            if isinstance(link, kind) and re.search(words, str(link), re.IGNORECASE):
                return _made(row, service, name)
    text = clean(f"{type(error).__name__}: {error}", service.key)
    return errors.ProtocolFailure(f"{service.title} could not be asked. {text}", model=f"{service.backend}:{name}")


def _made(row: Row, service: Service, name: str, detail: str = "", retry_after: float | None = None) -> MultimodelError:
    words = {
        "title": service.title,
        "url": service.base_url,
        "key_var": service.key_var or "no variable",
        "key_page": f"; get one at {service.key_page}" if service.key_page else "",
        "model": f"{service.backend}:{name}",
        "name": name,
        "repository": name.partition("@")[0],
        "detail": detail,
    }
    says, hint = (cut(part.format(**words).strip()) for part in (row.says, row.hint))
    if row.error is errors.AuthenticationFailure and not service.key_var:
        says, hint = f"{service.title} asks for a key.", "Name the variable that holds it: key_var in ENDPOINTS."
    if issubclass(row.error, BackendError):
        return row.error(says, model=words["model"], retry_after=retry_after, hint=hint)
    return row.error(says, hint=hint)


def refusal_from(status: int, body: object, headers: Mapping[str, str] = {}) -> Refusal:
    """What a service said, from the JSON of its body (or its text) and its headers. Takes any shape of error.

    >>> refusal_from(503, {"error": "Model is loading", "estimated_time": 20.5}).retry_after
    20.5
    >>> refusal_from(0, {"message": "slow down", "code": 429}).status
    429
    """
    outer = body if isinstance(body, dict) else {}
    inner = outer.get("error", outer.get("detail", outer)) if outer else body
    said: dict[str, Any] = inner if isinstance(inner, dict) else {"message": inner}
    words = [said.get("code"), said.get("type"), headers.get("X-Error-Code")]
    estimate = outer.get("estimated_time")
    return Refusal(
        status=status or _status(said.get("code")),
        message=str(said.get("message") or headers.get("X-Error-Message") or inner or ""),
        codes=frozenset(word.lower() for word in words if isinstance(word, str)),
        parameter=str(said.get("param") or ""),
        retry_after=_wait(headers, estimate),
    )


def _status(code: object) -> int:
    return code if isinstance(code, int) and 400 <= code < 600 else 0


def _wait(headers: Mapping[str, str], estimate: object) -> float | None:
    asked = retry_after(headers)
    if asked is None and isinstance(estimate, int | float) and not isinstance(estimate, bool):
        return max(0.0, float(estimate))
    return asked


def guarded(read: Callable[[], Generator[T]], own: Callable[[Exception], MultimodelError]) -> Generator[T]:
    """`read()`, with its errors turned into ours by `own`.

    They are raised outside of the handler, without a chain: an SDK's error holds the request, and so the key.
    """
    try:
        yield from read()
        return
    except MultimodelError as error:
        failure = error
    except Exception as error:
        failure = own(error)
    raise failure


_TAG = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)|<[^>]*>", re.IGNORECASE | re.DOTALL)
_KEY = re.compile(r"\b(sk|hf|key|pk|gsk)[-_][A-Za-z0-9_\-*.]{6,}")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\s]+")


def clean(text: str, key: str = "") -> str:
    """A service's own words on one line, without markup, control characters or keys, and not too long.

    >>> clean("<html><b>Bad</b>  Gateway</html>"), clean("key sk-abcdef123456 is wrong")
    ('Bad Gateway', 'key *** is wrong')
    """
    text = text[: 40 * LONGEST]
    text = text.replace(key, "***") if len(key) > 3 else text
    text = _KEY.sub("***", _TAG.sub(" ", text))
    return cut(_UNPRINTED.sub(" ", text).strip())


def cut(text: str) -> str:
    """At most LONGEST characters of it."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
