"""The SQLite file: opened, checked, migrated, and set aside where it is broken.

One process writes it at a time, and keeps it to itself by a lock on a file beside it. In WAL mode a process that is
killed leaves everything committed behind.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ..errors import NewerDatabase, NotKept
from .schema import APPLICATION, MIGRATIONS

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = "conversations.sqlite3"
BUSY = 0.2  # seconds that another program may hold the file before we say that it is locked


class Database:
    """An open file, or where `folder` is None a database in memory."""

    def __init__(self, folder: Path | None, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Raises NotKept where the folder cannot be used, NewerDatabase for a file of a newer version."""
        self.note = ""  # what a person should know of how it was opened
        self._lock: IO[str] | None = None
        if folder is None:
            self.connection = _connect(":memory:")
            _migrate(self.connection, migrations)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _only_here(folder / "in-use.lock")
            self.connection = self._open(folder / NAME, migrations)
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            hint = f"Make {folder} writable, or choose another folder with MULTIMODEL_DATA_DIR."
            raise NotKept(f"Conversations are not kept: {error}.", hint=hint) from error
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Safe to call twice."""
        self.connection.close()
        self._unlock()

    def _open(self, path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
        try:
            return _opened(path, migrations)
        except sqlite3.OperationalError:
            raise  # locked, full, not writable: the file may be well
        except sqlite3.DatabaseError as error:
            aside = _set_aside(path)
            self.note = f"The conversations so far could not be read ({error}). Their file was kept as {aside}."
            return _opened(path, migrations)

    def _unlock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)


def _opened(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    connection = _connect(str(path))
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        _check_version(connection, path, len(migrations))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a commit survives the end of the process
        _migrate(connection, migrations, path)
        return connection
    except BaseException:
        connection.close()
        raise


def _check_version(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    if application not in (0, APPLICATION) or (version and not application):
        raise sqlite3.DatabaseError("it belongs to another program")
    if version > newest:
        hint = "Update the app, or choose another folder with MULTIMODEL_DATA_DIR. The file was not touched."
        raise NewerDatabase(f"{path} was written by a newer version of the app.", hint=hint)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path | None = None) -> None:
    """Bring the tables to the newest version, with a copy of the file as it was kept beside it."""
    version = _pragma(connection, "user_version")
    if version == len(migrations):
        return
    if path and version:
        _back_up(connection, path.with_name(f"{path.stem}-version-{version}{path.suffix}"))
    for number, script in enumerate(migrations[version:], version + 1):
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {number};"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script} {marks} COMMIT;")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as copy:
        connection.backup(copy)


def _set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, and what SQLite keeps beside it; the new path."""
    when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.stem}-broken-{when}{path.suffix}")
    path.rename(aside)
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    return aside


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _only_here(path: Path) -> IO[str]:
    """A lock that no other process has; it ends with this process, however that ends. Raises NotKept."""
    file = path.open("a", encoding="utf-8")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        hint = "Close the other one, or give this one a folder of its own with MULTIMODEL_DATA_DIR."
        raise NotKept(f"Another app that is running keeps its conversations in {path.parent}.", hint=hint) from error
    except OSError:
        pass  # a file system without locks
    return file
