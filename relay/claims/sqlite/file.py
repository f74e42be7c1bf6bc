"""An SQLite file of the relay: its schema, its permissions, and what happens when it is damaged."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sqlite3
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from relay.core.errors import StoreError
from relay.events.store import FILE_SET_ASIDE
from relay.runtime.files import locked_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.events.event import Event

_CLAIMS = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    token TEXT,             -- of the holder; NULL once sent
    original TEXT,          -- what was accepted, as JSON; NULL while held
    since REAL NOT NULL,    -- when it was claimed, renewed or accepted
    until REAL NOT NULL     -- when the lease or the window ends
) WITHOUT ROWID;
CREATE INDEX claims_until ON claims (until);
"""
# Version 0.1 wrote records. Later versions read them, and keep the table so that version 0.1 can use the file again.
_RECORDS = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, -- counts up, by the weight of the record
    record TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,     -- JSON
    at REAL NOT NULL,       -- when it was noted
    until REAL NOT NULL     -- how long it is kept
);
CREATE INDEX records_at ON records (at);
CREATE INDEX records_until ON records (until);
"""
_SEQUENCES = """
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,    -- the epoch and the latest fingerprints, separated by spaces
    until REAL NOT NULL     -- how long it is kept
) WITHOUT ROWID;
CREATE INDEX sequences_until ON sequences (until);
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file contains."""

    steps: tuple[str, ...]
    """What each version of the schema adds to the previous one."""
    mark: bytes
    """A statement by which such a file is recognised although it is damaged."""
    set_aside: Event
    """What the log says when a damaged file is replaced."""

    @property
    def version(self) -> int:
        """The version that this relay knows."""
        return len(self.steps)


CLAIMS = Schema((_CLAIMS, _RECORDS, _SEQUENCES), b"CREATE TABLE claims", FILE_SET_ASIDE)

_HINTS = {
    "SQLITE_BUSY": "another process keeps it locked",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_CORRUPT": "it is damaged",
    "SQLITE_NOTADB": "it is not a database",
    "SQLITE_IOERR": "reading or writing it fails",
}
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_BESIDE = ("-wal", "-shm", "")
"""The suffixes of the files that SQLite keeps beside the database, and of the database."""
_MAGIC = b"SQLite format 3\0"
_PAGE, _LONGEST_PAGE = 4_096, 65_536
_MODE = 0o600
_SET_ASIDE_INTERVAL = 3600.0
"""Seconds in which at most one damaged file is set aside: a second one means a broken disk."""


class SqliteFile:
    """One connection to the file, for one thread. It does not wait for the lock of another process.

    `clock` returns seconds and is never set back.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float], schema: Schema = CLAIMS) -> None:
        self._path = Path(path)
        self._schema = schema
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._is_prepared = False
        self._opened: tuple[int, int] | None = None
        self._used: tuple[int, int] | None = None
        """Device and inode of the file that was last found to be a database."""
        self._set_aside_at = -math.inf
        self.changes = 0
        """How often another file than before was found."""

    def open(self) -> sqlite3.Connection:
        """Returns the connection. Creates the file if there is none, and updates an older schema."""
        if self._connection and self.is_replaced():
            self.close()  # another process has set the file aside: no relay would read what is written to it
        if self._connection is None:
            if not self._path.parent.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(self._path)
            before, self._opened = self._opened, _device_and_inode(self._path)
            self.changes += before not in (None, self._opened)
            self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            self._is_prepared = False
        if not self._is_prepared:
            self._prepare(self._connection)
            self._is_prepared, self._used = True, self._opened
        return self._connection

    def is_replaced(self) -> bool:
        """Returns whether another process has set aside the file that was opened last. Raises `OSError`.

        An error of that file says nothing about the one in its place.
        """
        return self._opened is not None and _device_and_inode(self._path) != self._opened

    def close(self) -> None:
        """Closes the connection. `open` connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def set_aside(self, error: sqlite3.Error) -> bool:
        """Renames and closes the file if the error means that it is damaged. Returns whether it did.

        Of several processes one renames the file. Nothing is deleted or overwritten. Raises `StoreError` for a file
        that must stay in its place: one that is not a relay's, or a second one within an hour.
        """
        if not getattr(error, "sqlite_errorname", "").startswith(_DAMAGE):
            return False
        path = self._path.resolve()  # SQLite keeps its other files beside the target of a link
        # Not a lock on the file: closing it would end all locks that SQLite has on it in this process.
        with locked_folder(path.parent):
            if _device_and_inode(self._path) == self._opened:
                self._check_may_be_renamed(path, error)
                self._schema.set_aside.log(error=self.describe(error), path=str(_rename(path)))
                self._set_aside_at = self._clock()
        # Only now: the last process that closes a file deletes its -wal, unless the file has been renamed.
        self.close()
        return True

    def _check_may_be_renamed(self, path: Path, error: sqlite3.Error) -> None:
        if self._clock() - self._set_aside_at < _SET_ASIDE_INTERVAL:
            problem = "a second damaged file within an hour; it stays where it is. Look at the disk"
        elif error.sqlite_errorname == "SQLITE_NOTADB" and self._opened != self._used and not self._was_ours(path):
            problem = (
                "and it is not a relay's database; it is left unchanged. "
                "Name another file in store.url, or move this one away"
            )
        else:
            return
        self.close()
        raise StoreError(f"{self.describe(error)}, {problem}.")

    def _was_ours(self, path: Path) -> bool:
        """Returns whether the file is the rest of a relay's database, and not a file that was named by mistake."""
        if any(path.with_name(path.name + end).exists() for end in _BESIDE if end):
            return True
        found = path.stat()
        if stat.S_IMODE(found.st_mode) == _MODE and found.st_size % _PAGE == 0:
            return True  # as a relay creates it and SQLite extends it, whatever its content is now
        with path.open("rb") as file:
            head = file.read(_LONGEST_PAGE)
        # A first page that a crash left empty, or of which only the header or only the schema can be read.
        return not head[: len(_MAGIC)].strip(b"\0") or head.startswith(_MAGIC) or self._schema.mark in head

    def describe(self, error: sqlite3.Error | OSError) -> str:
        """Returns an error text that names the file."""
        name = getattr(error, "sqlite_errorname", "")
        hint = next((hint for prefix, hint in _HINTS.items() if name.startswith(prefix)), "")
        return f"{self._path}: {hint} ({error})" if hint else f"{self._path}: {error}"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # With WAL, NORMAL loses at most the last transactions in a power failure, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        known = self._schema.version
        with transaction(connection):
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            for step in self._schema.steps[version:]:
                for statement in step.split(";\n"):
                    connection.execute(statement)
            if version < known:
                connection.execute(f"PRAGMA user_version = {known}")
        if version > known:
            self.close()
            raise StoreError(
                f"{self._path}: written by a newer relay (schema {version}; this one knows {known}). "
                "Start that version, or give this one another file."
            )


def _create(path: Path) -> None:
    """Creates an empty file if there is none.

    SQLite would create it with the umask's permissions. The -wal and -shm files get those of the file. An existing
    file is not opened: to close it would end all locks that other connections of this process have on it. Then a
    process that closes the file last deletes the -wal that this process goes on to use, and what it writes is lost.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))


def _device_and_inode(path: Path) -> tuple[int, int] | None:
    """Returns what distinguishes the file from another one of the same name; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _rename(path: Path) -> Path:
    """Renames the database and the files beside it to a free name. Returns the new path of the database."""
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    free = next(
        path.with_name(name) for name in names if not any(path.with_name(name + end).exists() for end in _BESIDE)
    )
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{end}", f"{free}{end}")  # noqa: PTH104
    return free


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Carries out all statements of the block or none. No other process can write meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
