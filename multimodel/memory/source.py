"""Where the bytes of a header come from: a file here, or one on the Hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import BrokenFile

CHUNK = 1 << 19  # bytes of the first read of a header: the whole of one without a vocabulary
LARGEST_CHUNK = 8 << 20


class Source(Protocol):
    """A file that can be read in parts."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from `start`, fewer only at the end of the file. Raises LoadError."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on this machine."""

    path: Path

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path.name

    @property
    def size(self) -> int:
        """Its length in bytes; raises BrokenFile where it cannot be read."""
        try:
            return os.stat(self.path).st_size
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def read(self, start: int, length: int) -> bytes:
        """See `Source`."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise _unreadable(self.path, error) from error


class Reader:
    """The beginning of a source, read in growing pieces as far as it is asked for, up to a limit."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source = source
        self.at = 0
        self._limit = min(limit, source.size)
        self._bytes = bytearray()
        self._chunk = CHUNK

    def need(self, count: int) -> bytearray:
        """All bytes so far, with at least `count` more after `at`. Raises ValueError at the end."""
        end = self.at + count
        if count < 0 or end > self._limit:
            raise ValueError("its header does not end")
        while len(self._bytes) < end:
            wanted = min(max(self._chunk, end - len(self._bytes)), self._limit - len(self._bytes))
            piece = self.source.read(len(self._bytes), wanted)
            if not piece:
                raise ValueError("it ends inside its header")
            self._bytes += piece
            self._chunk = min(2 * self._chunk, LARGEST_CHUNK)
        return self._bytes

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        found = bytes(self.need(count)[self.at : self.at + count])
        self.at += count
        return found

    def skip(self, count: int) -> None:
        """Go on without looking; what is skipped must exist."""
        self.need(count)
        self.at += count


def _unreadable(path: Path, error: OSError) -> BrokenFile:
    return BrokenFile(f"{path.name} cannot be read: {error}", hint="Check the path and its permissions.")
