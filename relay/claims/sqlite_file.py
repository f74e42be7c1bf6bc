"""The SQLite file that claims and records are kept in: its schema, its rights, and what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from relay.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_RECORDS = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, -- counts up
    record TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,     -- JSON
    at REAL NOT NULL,       -- when it was noted
    until REAL NOT NULL     -- how long it is kept
);
CREATE INDEX records_at ON records (at);
CREATE INDEX records_until ON records (until);
"""
_STEPS = (_CLAIMS, _RECORDS)
"""What each version of the schema adds to the one before."""
SCHEMA_VERSION = len(_STEPS)

_HINTS = {
    "SQLITE_BUSY": "another process keeps it locked",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_CORRUPT": "it is damaged",
    "SQLITE_NOTADB": "it is not a database",
    "SQLITE_IOERR": "reading or writing it fails",
}


class SqliteFile:
    """One connection to it, for one thread. Another process's lock is waited for `busy_timeout` seconds."""

    def __init__(self, path: str | Path, busy_timeout: float) -> None:
        self._path = Path(path)
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Give the connection. Creates the file if there is none, and brings an older one up to date."""
        if self._connection is None:
            if not self._path.parent.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would create it with the umask's rights; its -wal and -shm files take over those of the file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)
            self._prepare(self._connection)
        return self._connection

    def close(self) -> None:
        """Let go of it; `open` begins anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def describe(self, error: sqlite3.Error | OSError) -> str:
        """Say what is wrong, in words that name the file."""
        name = getattr(error, "sqlite_errorname", "")
        hint = next((hint for prefix, hint in _HINTS.items() if name.startswith(prefix)), "")
        return f"{self._path}: {hint} ({error})" if hint else f"{self._path}: {error}"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._use_wal(connection)
        # With WAL, NORMAL loses at most the last transactions at a power cut, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        with transaction(connection):
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            for step in _STEPS[version:]:
                for statement in step.split(";\n"):
                    connection.execute(statement)
            if version < SCHEMA_VERSION:
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            self.close()
            raise StoreError(
                f"{self._path}: written by a newer relay (schema {version}; this one knows {SCHEMA_VERSION}). "
                "Start that version, or give this one another file."
            )

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch the file to WAL. SQLite does not wait by itself when several processes begin with this together."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # in the caller's own thread
            else:
                return


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Carry out all inside or nothing, and let nobody else write meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
