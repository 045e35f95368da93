"""One request to the Hub, with an end in time and in bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx2
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but listed in a way mypy does not see
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from ..errors import DownloadFailed
from ..settings import Settings
from .faults import TIMEOUT, not_data, offline, own_errors, token, unreachable

DEADLINE = 30.0  # seconds for a whole answer: one that drips a byte now and then would never time out
LIMIT = 16 << 20  # bytes of an answer; a page of 30 results takes about 200 kB


@dataclass(frozen=True, slots=True)
class Answer:
    """What came."""

    body: bytes
    headers: Mapping[str, str]  # names in lower case


def get(
    path: str,
    settings: Settings,
    *,
    about: str = "",
    revision: str = "main",
    params: Sequence[tuple[str, str]] = (),
    limit: int = LIMIT,
) -> Answer:
    """The answer to a GET request. `about`: the repository asked for, "" for a search. Raises LoadError."""
    with _asked(path, settings, about, revision, params) as response:
        body = _read(response, limit)
        return Answer(body, {name.lower(): value for name, value in response.headers.items()})


def check(path: str, settings: Settings, *, about: str, revision: str = "main") -> None:
    """Ask for a file without taking it. Raises LoadError where it may not be had."""
    with _asked(path, settings, about, revision, ()):
        pass


def part(path: str, settings: Settings, start: int, length: int, *, about: str, revision: str = "main") -> bytes:
    """So many bytes of a file from `start` on, fewer only at its end. Raises LoadError.

    A server that knows no ranges sends the file from its beginning; no more of it is taken than is wanted.
    """
    wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    with _asked(path, settings, about, revision, (), wanted) as response:
        if response.status_code == 200:
            return _read(response, start + length, cut=True)[start:]
        if not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
            message = f"The Hub's answer is another part of {path.rpartition('/')[2]} than was asked for."
            raise DownloadFailed(message, hint="Try again; a proxy between here and the Hub may be at fault.")
        return _read(response, length)


def get_json(path: str, settings: Settings, **options: Any) -> tuple[Any, Mapping[str, str]]:
    """The JSON at a path, and the headers that came with it; options as for `get`. Raises LoadError."""
    answer = get(path, settings, **options)
    try:
        return json.loads(answer.body), answer.headers
    except (ValueError, RecursionError) as error:
        page = "html" in answer.headers.get("content-type", "") or answer.body.lstrip()[:1] == b"<"
        raise not_data(settings, "a web page" if page else "something unreadable") from error


@contextmanager
def _asked(
    path: str,
    settings: Settings,
    about: str,
    revision: str,
    params: Sequence[tuple[str, str]],
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[httpx2.Response]:
    """An answer that is no refusal, its body not yet read."""
    if settings.models.offline:
        raise offline(settings)
    url = f"{settings.models.hub_url}{path}"
    headers = build_hf_headers(token=token(settings)) | dict(more)
    try:
        with (
            own_errors(about, revision, settings),
            get_session().stream("GET", url, params=list(params), headers=headers, timeout=TIMEOUT) as response,
        ):
            if response.is_error:
                hf_raise_for_status(_plain(response, _read(response, LIMIT)))
            yield response
    except httpx2.TransportError as error:
        raise unreachable(error, settings) from error


def _read(response: httpx2.Response, limit: int, *, cut: bool = False) -> bytes:
    """The body. Raises DownloadFailed where it is longer than `limit` bytes, unless it may be cut there."""
    body, deadline = bytearray(), time.perf_counter() + DEADLINE
    for piece in response.iter_bytes():
        body += piece
        if len(body) >= limit and cut:
            return bytes(body[:limit])
        if len(body) > limit:
            message = f"The Hub's answer is larger than {limit >> 20} MB."
            raise DownloadFailed(message, hint="Narrow the search, or choose another repository.")
        if time.perf_counter() > deadline:
            raise httpx2.ReadTimeout("the answer took too long")
    return bytes(body)


def _plain(response: httpx2.Response, body: bytes) -> httpx2.Response:
    """The same answer with its body in it, decoded: what the library looks into for the reason of a refusal."""
    headers = {n: v for n, v in response.headers.items() if n.lower() not in ("content-encoding", "content-length")}
    return httpx2.Response(response.status_code, headers=headers, content=body, request=response.request)
