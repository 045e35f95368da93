"""The bytes of one file of the Hub: over several connections, hashed as they come, resumed where they stopped.

The connections fetch segments side by side, but the file grows in order: what has arrived is always a beginning of it,
so a later transfer, in this process or another, only needs its length. Segments begin small and grow with the speed,
so that little is lost when the process is killed.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but listed in a way mypy does not see
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from .errors import BrokenFile, DownloadFailed
from .hub import RemoteFile, Repository
from .hub.faults import TIMEOUT, own_errors, token, unreachable
from .jobs import HEARTBEAT, Cancelled, Meter, spawn
from .settings import Settings

CONNECTIONS = 4
PIECE = 1 << 20  # bytes of a read from the disk
SEGMENT = 1 << 20  # bytes of a first segment
LARGEST_SEGMENT = 16 << 20
FAST = 1.0  # seconds: segments that take less are doubled
ATTEMPTS = 4  # broken connections in a row without a byte of progress
EXPIRED = (401, 403, 404, 410)  # what the address that the Hub redirected to says when its time is over
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class NoRanges(Exception):
    """The server sends the whole file whatever part is asked for. Never leaves this module."""


def transfer(repo: Repository, file: RemoteFile, part: Path, settings: Settings, meter: Meter) -> None:
    """Bring `part` to the whole file, going on where an earlier transfer stopped, and check its hash.

    Raises LoadError, Cancelled, OSError. A file whose hash is wrong is deleted.
    """
    origin = Origin(repo, file, settings)
    digest = _hashed(file, part, meter)
    with part.open("ab") as out:
        try:
            _append(_pieces(origin, out.tell(), meter), out, digest)
        except NoRanges:
            meter.add(-out.tell())
            out.truncate(0)
            digest = file.digest()
            _append(_whole(origin, meter), out, digest)
    if digest.hexdigest() != file.hash:
        part.unlink()
        raise BrokenFile(f"{file.name} arrived damaged: its hash is not the Hub's.", hint="Download it again.")


def _append(pieces: Generator[bytes], out: BinaryIO, digest: Any) -> None:
    with closing(pieces):
        for piece in pieces:
            out.write(piece)
            digest.update(piece)


def _hashed(file: RemoteFile, part: Path, meter: Meter) -> Any:
    """The hash of what is already there; what is longer than the file is no beginning of it."""
    digest = file.digest()
    part.touch()
    if (held := part.stat().st_size) > file.size:
        os.truncate(part, 0)
        meter.add(-held)
    with part.open("rb") as content:
        while piece := content.read(PIECE):
            digest.update(piece)
            meter.add(0)
    return digest


class Origin:
    """Where the bytes of a file come from: the Hub's address, or the one it redirects to as long as that is good."""

    def __init__(self, repo: Repository, file: RemoteFile, settings: Settings) -> None:
        self.repo = repo
        self.file = file
        self.settings = settings
        self._hub = hf_hub_url(repo.name, file.name, revision=repo.commit, endpoint=settings.models.hub_url)
        self._url = self._hub

    def ask(self, start: int = 0, end: int | None = None) -> AbstractContextManager[httpx2.Response]:
        """A request for the bytes from `start` to before `end`, or for all; the token goes to the Hub alone."""
        url = self._url
        secret = token(self.settings) if _site(url) == _site(self._hub) else False
        headers = build_hf_headers(token=secret) | {"Accept-Encoding": "identity"}
        if end is not None:
            headers["Range"] = f"bytes={start}-{end - 1}"
        return get_session().stream("GET", url, headers=headers, timeout=TIMEOUT)

    def accept(self, response: httpx2.Response, start: int) -> None:
        """Make sure that this answer is the bytes from `start`. Raises LoadError, NoRanges."""
        if response.status_code in EXPIRED and _site(str(response.url)) != _site(self._hub):
            raise httpx2.ReadError("the address the Hub redirected to is no longer good")
        if response.is_error:
            response.read()
        with own_errors(self.repo.name, self.repo.commit, self.settings):
            hf_raise_for_status(response)
        if response.status_code != 206:
            raise NoRanges
        self._check(response.headers.get("content-range", ""), start)
        self._url = str(response.url)

    def forget(self) -> None:
        """Ask the Hub again where the file lies."""
        self._url = self._hub

    def broken_off(self, error: httpx2.TransportError) -> DownloadFailed:
        """The error of a connection that brought nothing, again and again."""
        hint = unreachable(error, self.settings).hint
        return DownloadFailed(f"The download of {self.file.name} broke off: {error}.", hint=hint)

    def _check(self, said: str, start: int) -> None:
        found = RANGE.fullmatch(said)
        if not found or int(found[1]) != start:
            raise NoRanges
        if found[3] not in ("*", str(self.file.size)):
            message = f"{self.file.name} has {int(found[3]):,} bytes instead of the {self.file.size:,} the Hub lists."
            raise BrokenFile(message, hint="Try again later: the repository may be changing.")


def _site(url: str) -> tuple[str, str, int | None]:
    parts = httpx2.URL(url)
    return parts.scheme, parts.host, parts.port


def _pieces(origin: Origin, start: int, meter: Meter) -> Generator[bytes]:
    """The file from `start` on, in order. Raises NoRanges before the first piece."""
    total, length, stop = origin.file.size, SEGMENT, Event()
    if start == 0 and total <= SEGMENT:
        raise NoRanges  # not worth asking for parts
    pending: deque[tuple[int, Future[Segment]]] = deque()
    try:
        while start < total or pending:
            while start < total and len(pending) < CONNECTIONS:
                end = min(total, start + length)
                pending.append((end - start, spawn(partial(_segment, origin, start, end, meter, stop))))
                start = end
            wanted, future = pending.popleft()
            segment = future.result()
            yield from segment.pieces
            if segment.length < wanted:
                raise Cancelled
            if segment.seconds < FAST:
                length = min(2 * length, LARGEST_SEGMENT)
    finally:
        stop.set()


@dataclass(slots=True)
class Segment:
    """What has arrived of a part of the file, in the pieces it came in, and the seconds that took."""

    pieces: list[bytes] = field(default_factory=list)
    length: int = 0
    seconds: float = 0.0

    def add(self, piece: bytes) -> None:
        """What came next."""
        self.pieces.append(piece)
        self.length += len(piece)


def _segment(origin: Origin, start: int, end: int, meter: Meter, stop: Event) -> Segment:
    """The bytes from `start` to before `end`; fewer once nobody waits for them."""
    began, segment, failures = time.perf_counter(), Segment(), 0
    try:
        while start + segment.length < end:
            before = segment.length
            try:
                _receive(origin, start, end, segment, meter, stop)
            except httpx2.TransportError as error:
                failures = 0 if segment.length > before else failures + 1
                if failures >= ATTEMPTS:
                    raise origin.broken_off(error) from error
                origin.forget()
                meter.job.pause(HEARTBEAT * 2**failures)
    except Cancelled:
        pass
    segment.seconds = time.perf_counter() - began
    return segment


def _receive(origin: Origin, start: int, end: int, segment: Segment, meter: Meter, stop: Event) -> None:
    """One request for what is missing of a segment. Raises Cancelled, with what came kept."""
    with origin.ask(start + segment.length, end) as response:
        origin.accept(response, start + segment.length)
        for piece in response.iter_raw():
            fresh = piece[: end - start - segment.length]
            segment.add(fresh)
            meter.add(len(fresh))
            if stop.is_set():
                raise Cancelled
    if start + segment.length < end:
        raise httpx2.ReadError("the connection was closed early")


def _whole(origin: Origin, meter: Meter) -> Generator[bytes]:
    """The file by one request, for a server that knows no ranges."""
    failures, received = 0, 0
    while True:
        try:
            for piece in _stream(origin, received):
                received += len(piece)
                yield piece
                meter.add(len(piece))
            return
        except httpx2.TransportError as error:
            failures += 1
            if failures >= ATTEMPTS:
                raise origin.broken_off(error) from error
            meter.job.pause(HEARTBEAT * 2**failures)


def _stream(origin: Origin, skip: int) -> Iterator[bytes]:
    """The file from `skip` on, where all of it must be fetched for that."""
    seen = 0
    with origin.ask() as response:
        if response.is_error:
            response.read()
        with own_errors(origin.repo.name, origin.repo.commit, origin.settings):
            hf_raise_for_status(response)
        for piece in response.iter_raw():
            fresh = piece[max(0, skip - seen) : max(0, origin.file.size - seen)]
            seen += len(piece)
            if fresh:
                yield fresh
    if seen < origin.file.size:
        raise httpx2.ReadError("the connection was closed early")
