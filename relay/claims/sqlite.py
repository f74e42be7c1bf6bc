"""Claims in one SQLite file, shared by the processes of one host.

A batch is one IMMEDIATE transaction in the one thread of this process that touches the file. Ages are differences of
one clock that all processes share: the wall clock, except that inside one boot of the host it never goes back
(docs/adr/0009).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from relay.claims.clocks import Boot, this_boot
from relay.claims.codec import decode, encode
from relay.core.claim import Claim, Confirm, Done, Free, Held, Peek, Release, Renew, Sent, Unknown, Won
from relay.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from relay.core.claim import Answer, Command, Fingerprint

_T = TypeVar("_T")

SCHEMA_VERSION = 1
_SCHEMA = """
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

_CLOCK_SLACK = 1.0
"""Seconds that an entry may be ahead of the clock, for small corrections of it. More, and the clock was set back before
this boot: such an entry would suppress for longer than its window, so it counts as free."""
_STEP = 0.01
"""Seconds by which the wall clock gains on the boot's without having been set: the two are read one after the other."""

_TAKE = """
INSERT INTO claims (key, token, original, since, until) VALUES (:key, :token, NULL, :now, :now + :lease)
ON CONFLICT (key) DO UPDATE
SET token = excluded.token, original = NULL, since = excluded.since, until = excluded.until
WHERE until <= :now OR since > :latest OR token = :token
   OR (original IS NOT NULL AND :now - since >= :window)
"""
_CONFIRM = "INSERT OR REPLACE INTO claims (key, token, original, since, until) VALUES (?, NULL, ?, ?, ?)"
_RENEW = """
UPDATE claims SET since = :now, until = :now + :lease
WHERE key = :key AND token = :token AND until > :now AND since <= :latest
"""
_RELEASE = "DELETE FROM claims WHERE key = ? AND token = ?"
_LOOK = "SELECT token, original, since, until FROM claims WHERE key = ?"
_SWEEP = "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until <= ? LIMIT ?)"

_SWEEP_AFTER = 500
"""Commands between two sweeps."""
_SWEEP_ROWS = 1_000
"""Expired rows deleted in one sweep: bounded, and still twice of what can have been added since the last one."""

_HINTS = {
    "SQLITE_BUSY": "another process keeps it locked",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_CORRUPT": "it is damaged",
    "SQLITE_NOTADB": "it is not a database",
    "SQLITE_IOERR": "reading or writing it fails",
}


class SqliteStore:
    """The default store."""

    def __init__(
        self,
        path: str | Path,
        clock: Callable[[], float] = time.time,
        busy_timeout: float = 1.0,
        boot: Boot | None = None,
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._boot = boot or this_boot()
        self._busy_timeout = busy_timeout
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
        self._connection: sqlite3.Connection | None = None
        self._unswept = _SWEEP_AFTER  # what an earlier process left behind goes with the first batch

    async def open(self) -> None:
        """Create the file if there is none, and see that it is ours."""
        await self._in_thread(self._open)

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands in one transaction."""
        asked_at = self._boot.clock()
        return await self._in_thread(lambda: self._execute(commands, asked_at))

    async def identity(self) -> str:
        """Give the id that stands in the file."""
        return await self._in_thread(self._identity)

    async def close(self) -> None:
        """Close the file and end the thread."""
        with contextlib.suppress(StoreError, RuntimeError):  # the latter from a thread that has ended already
            await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        def reporting() -> _T:
            try:
                return work()
            except (sqlite3.Error, OSError) as error:
                self._close()
                raise StoreError(_describe(self._path, error)) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, reporting)

    # From here on: in the thread.

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self._path.parent.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would create it with the umask's rights; its -wal and -shm files take over those of the file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)
            self._prepare(self._connection)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._use_wal(connection)
        # With WAL, NORMAL loses at most the last transactions at a power cut, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        with _transaction(connection):
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            self._close()
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
                time.sleep(0.01)  # in our own thread
            else:
                return

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _execute(self, commands: Sequence[Command], asked_at: float) -> list[Answer]:
        connection = self._open()
        with _transaction(connection):
            now = self._now(connection)
            late = self._boot.clock() - asked_at  # the disk, or this process, may have stood still meanwhile
            answers = [_carry_out(connection, command, now, late) for command in commands]
            self._unswept += len(commands)
            if self._unswept >= _SWEEP_AFTER:
                self._unswept = 0
                connection.execute(_SWEEP, (now, _SWEEP_ROWS))
        return answers

    def _now(self, connection: sqlite3.Connection) -> float:
        """Give the time by the clock that all processes share: the boot's, and how far ahead of it the wall clock was.

        The farthest in this boot counts: set forward it ages all entries, the safe side; set back it changes nothing.
        """
        ahead = self._clock() - self._boot.clock()
        row = connection.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone()
        boot, _, known = str(row[0]).partition(" ") if row else ("", "", "")
        with contextlib.suppress(ValueError):
            if boot == self._boot.id and ahead < float(known) + _STEP < math.inf:
                return self._boot.clock() + float(known)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (f"{self._boot.id} {ahead!r}",))
        return self._boot.clock() + ahead

    def _identity(self) -> str:
        connection = self._open()
        with _transaction(connection):
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (secrets.token_hex(8),))
            return str(connection.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()[0])


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _carry_out(connection: sqlite3.Connection, command: Command, now: float, late: float) -> Answer:
    """Carry out a command that was given `late` seconds ago."""
    match command:
        case Claim(key, token, lease, window):
            given = {"key": key, "token": token, "lease": lease, "window": window, **_now(now)}
            return Won() if connection.execute(_TAKE, given).rowcount else _look(connection, key, window, now)
        case Peek(key, window):
            return _look(connection, key, window, now)
        case Confirm(key, original, window, age):
            since = now - late - age
            if now < since + window:
                connection.execute(_CONFIRM, (key, encode(original), since, since + window))
            return Done()
        case Renew(key, token, lease):
            given = {"key": key, "token": token, "lease": lease, **_now(now)}
            return Done() if connection.execute(_RENEW, given).rowcount else _look(connection, key, float("inf"), now)
        case Release(key, token):
            connection.execute(_RELEASE, (key, token))
            return Done()


def _now(now: float) -> dict[str, float]:
    return {"now": now, "latest": now + _CLOCK_SLACK}


def _look(connection: sqlite3.Connection, key: Fingerprint, window: float, now: float) -> Answer:
    row = connection.execute(_LOOK, (key,)).fetchone()
    if row is None:
        return Free()
    token, text, since, until = row
    if not isinstance(since, float) or not isinstance(until, float):
        return Unknown("the entry is damaged")
    if until <= now or since > now + _CLOCK_SLACK:
        return Free()
    if text is None:
        return Held(until - now) if token is not None else Unknown("the entry is damaged")
    age = max(0.0, now - since)
    if age >= window:
        return Free()
    original = decode(text) if isinstance(text, str | bytes) else None
    return Sent(original, age) if original else Unknown("the entry is damaged")


def _describe(path: Path, error: sqlite3.Error | OSError) -> str:
    name = getattr(error, "sqlite_errorname", "")
    hint = next((hint for prefix, hint in _HINTS.items() if name.startswith(prefix)), "")
    return f"{path}: {hint} ({error})" if hint else f"{path}: {error}"
