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
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but listed in a way mypy does not see
    build_hf_headers,
    hf_raise_for_status,
)

from .errors import BrokenFile, DownloadFailed
from .hub import RemoteFile, Repository
from .hub.faults import TIMEOUT, own_errors, token, unreachable
from .hub.straight import client
from .jobs import HEARTBEAT, Cancelled, Job, Meter, spawn
from .settings import Settings

CONNECTIONS = 4
PIECE = 1 << 20  # bytes of a read from the disk, or a write to it: larger ones take ext4 five times longer a byte
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
    digest = _hashed(file, part, meter)
    with client() as session, part.open("ab") as out:
        origin = Origin(repo, file, settings, session)
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


def _append(pieces: Generator[bytes] | Generator[memoryview], out: BinaryIO, digest: Any) -> None:
    with closing(pieces):
        for piece in pieces:
            for at in range(0, len(piece), PIECE):
                fresh = piece[at : at + PIECE]
                out.write(fresh)
                digest.update(fresh)


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

    def __init__(self, repo: Repository, file: RemoteFile, settings: Settings, session: httpx2.Client) -> None:
        self.repo = repo
        self.file = file
        self.settings = settings
        self._session = session
        self._hub = hf_hub_url(repo.name, file.name, revision=repo.commit, endpoint=settings.models.hub_url)
        self._url = self._hub

    def ask(self, start: int = 0, end: int | None = None) -> AbstractContextManager[httpx2.Response]:
        """A request for the bytes from `start` to before `end`, or for all; the token goes to the Hub alone."""
        url = self._url
        secret = token(self.settings) if _site(url) == _site(self._hub) else False
        headers = build_hf_headers(token=secret) | {"Accept-Encoding": "identity"}
        if end is not None:
            headers["Range"] = f"bytes={start}-{end - 1}"
        return self._session.stream("GET", url, headers=headers, timeout=TIMEOUT)

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


def _pieces(origin: Origin, start: int, meter: Meter) -> Generator[memoryview]:
    """The file from `start` on, in order. Raises NoRanges before the first piece.

    A piece holds until the next is asked for; then its place is used again.
    """
    total, length, stop = origin.file.size, SEGMENT, Event()
    if start == 0 and total <= SEGMENT:
        raise NoRanges  # not worth asking for parts
    pending: deque[Segment] = deque()
    free: list[bytearray] = []
    try:
        while start < total or pending:
            while start < total and len(pending) < CONNECTIONS:
                end = min(total, start + length)
                room = free.pop() if free else bytearray(min(total, LARGEST_SEGMENT))
                pending.append(Segment(start, end, room))
                pending[-1].fetch(origin, meter, stop)
                start = end
            segment = pending.popleft()
            segment.wait(meter.job)
            yield segment.arrived
            meter.job.pause()
            free.append(segment.room)
            if segment.seconds < FAST:
                length = min(2 * length, LARGEST_SEGMENT)
    finally:
        stop.set()


class Segment:
    """A part of the file, from `start` to before `end`, in the making."""

    def __init__(self, start: int, end: int, room: bytearray) -> None:
        self.room = room
        self.end = end
        self.next = start  # where the first byte belongs that has not come
        self.seconds = 0.0
        self._start = start
        self._fetched: Future[None]

    @property
    def arrived(self) -> memoryview:
        """What has come, as long as `room` is not used again."""
        return memoryview(self.room)[: self.next - self._start]

    @property
    def whole(self) -> bool:
        return self.next == self.end

    def add(self, piece: bytes) -> int:
        """What came next; the bytes of it that belong here."""
        count = min(len(piece), self.end - self.next)
        at = self.next - self._start
        self.room[at : at + count] = memoryview(piece)[:count]
        self.next += count
        return count

    def fetch(self, origin: Origin, meter: Meter, stop: Event) -> None:
        """Begin to ask for it, in a thread of its own."""
        self._fetched = spawn(partial(_fetch, self, origin, meter, stop))

    def wait(self, job: Job) -> None:
        """Until it is there, or nobody waits for it any more. Raises what went wrong."""
        with suppress(Cancelled):
            while True:
                with suppress(TimeoutError):
                    return self._fetched.result(HEARTBEAT)
                job.pause()


def _fetch(segment: Segment, origin: Origin, meter: Meter, stop: Event) -> None:
    """All of a segment; less once nobody waits for it."""
    began, failures = time.perf_counter(), 0
    with suppress(Cancelled):
        while not segment.whole:
            before = segment.next
            try:
                _receive(origin, segment, meter, stop)
            except httpx2.TransportError as error:
                failures = 0 if segment.next > before else failures + 1
                if failures >= ATTEMPTS:
                    raise origin.broken_off(error) from error
                origin.forget()
                meter.job.pause(HEARTBEAT * 2**failures)
    segment.seconds = time.perf_counter() - began


def _receive(origin: Origin, segment: Segment, meter: Meter, stop: Event) -> None:
    """One request for what is missing of a segment. Raises Cancelled, with what came kept."""
    with origin.ask(segment.next, segment.end) as response:
        origin.accept(response, segment.next)
        for piece in response.iter_raw():
            meter.add(segment.add(piece))
            if stop.is_set():
                raise Cancelled
    if not segment.whole:
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
