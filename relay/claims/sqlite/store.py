"""Claims in one SQLite file, shared by the processes of one host.

A batch is one IMMEDIATE transaction in the only thread that uses the file. Ages are differences of one clock that all
processes share: the wall clock, except that it never goes back within one boot of the host (docs/adr/0009).
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING

from relay.claims.sqlite import commands as sql
from relay.claims.sqlite.boot import Boot, this_boot
from relay.claims.sqlite.file import SqliteFile, transaction
from relay.claims.sqlite.thread import SqliteThread
from relay.core.claim import MOST_CLAIMS, Full

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from relay.core.claim import Answer, Command, Entry, Fingerprint

_STEP = 0.01
"""Seconds by which the wall clock may gain on the boot clock without being set: they are read one after the other."""

_SWEEP_AFTER = 500
"""Commands between two sweeps."""

_BYTES_PER_CLAIM = 500
"""Bytes in the file, with indexes. To count the rows of a large table would take longer than a batch."""


class SqliteStore:
    """The default store. It waits `busy_timeout` seconds for the lock of another process."""

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_timeout: float = 1.0,
        boot: Boot | None = None,
        most_claims: int = MOST_CLAIMS,
    ) -> None:
        self._clock = clock
        self._boot = boot or this_boot()
        self._file = SqliteFile(path, self._boot.clock)
        self._thread = SqliteThread(self._file, busy_timeout, "sqlite-store")
        self._most_bytes = most_claims * _BYTES_PER_CLAIM
        self._unswept = _SWEEP_AFTER  # sweep what an earlier process left with the first batch

    @property
    def restarts(self) -> int:
        """How often another file than before was found in its place."""
        return self._file.changes

    async def open(self) -> None:
        """Creates the file if there is none, and checks that it is a relay's."""
        await self._thread.run(self._file.open)

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carries out all commands in one transaction, in a new file if this one is damaged."""
        asked_at = self._boot.clock()
        return await self._thread.run_or_replace_file(lambda: self._execute(commands, asked_at))

    async def identity(self) -> str:
        """Returns the random id of the file."""
        return await self._thread.run(self._identity)

    async def records(self, age: float) -> AsyncIterator[str]:
        """Yields the records of the last `age` seconds that version 0.1 wrote, newest first. Locks nothing."""
        now = await self._thread.run(self._moment)
        at, number = math.inf, 0
        while page := await self._thread.run(partial(self._read_records, now, age, at, number)):
            for _, _, text in page:
                yield text
            at, number, _ = page[-1]

    async def sent(self) -> AsyncIterator[Entry]:
        """Yields all acceptances, in the order of their keys."""
        now = await self._thread.run(self._moment)
        async for page in self._pages(now):
            for entry in page:
                yield entry

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Frees what matches. Relays that write to the file wait at most for the deletion of one page."""
        now = await self._thread.run(self._moment)
        await self._thread.run(self._begin_generation)
        freed = 0
        # Twice: what a relay was writing back as this began may arrive behind the first read.
        for _ in range(2):
            async for page in self._pages(now):
                if chosen := [entry.key for entry in page if matches(entry)]:
                    freed += await self._thread.run(partial(self._free, now, chosen))
        await self._thread.run(self._begin_generation)
        return freed

    async def _pages(self, now: float) -> AsyncIterator[list[Entry]]:
        after = ""
        while page := await self._thread.run(partial(self._read_sent, now, after)):
            yield [entry for entry in page.values() if entry]
            after = max(page)

    async def close(self) -> None:
        """Closes the file and ends the thread."""
        await self._thread.close()

    # The methods below run in the thread.

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Yields the connection and the time."""
        connection = self._file.open()
        with transaction(connection):
            yield connection, self._now(connection)

    def _execute(self, commands: Sequence[Command], asked_at: float) -> list[Answer]:
        with self._transaction() as (connection, now):
            late = self._boot.clock() - asked_at  # the disk or this process may have stopped meanwhile
            is_full = sql.used_bytes(connection) >= self._most_bytes
            answers = [
                Full()
                if is_full and sql.adds_claim(connection, command)
                else sql.carry_out(connection, command, now, late)
                for command in commands
            ]
            self._unswept += len(commands)
            if self._unswept >= _SWEEP_AFTER:
                self._unswept = 0
                sql.sweep(connection, now)
        return answers

    def _identity(self) -> str:
        with self._transaction() as (connection, _):
            return sql.identity(connection)

    def _moment(self) -> float:
        with self._transaction() as (_, now):
            return now

    def _read_records(self, now: float, age: float, at: float, number: int) -> list[tuple[float, int, str]]:
        return sql.read_records(self._file.open(), now, age, at, number)

    def _read_sent(self, now: float, after: str) -> dict[str, Entry | None]:
        return sql.read_sent(self._file.open(), now, after)

    def _free(self, now: float, keys: Sequence[Fingerprint]) -> int:
        with self._transaction() as (connection, _):
            return sql.free(connection, now, keys)

    def _begin_generation(self) -> None:
        with self._transaction() as (connection, _):
            sql.set_meta(connection, "generation", secrets.token_hex(8))

    def _now(self, connection: sqlite3.Connection) -> float:
        """Returns the time by the shared clock: the boot clock plus the largest lead of the wall clock in this boot.

        If the wall clock is set forward, all entries age, which is safe. If it is set back, nothing changes.
        """
        ahead = self._clock() - self._boot.clock()
        boot, _, known = sql.meta(connection, "clock").partition(" ")
        with contextlib.suppress(ValueError):
            if boot == self._boot.id and ahead < float(known) + _STEP < math.inf:
                return self._boot.clock() + float(known)
        sql.set_meta(connection, "clock", f"{self._boot.id} {ahead!r}")
        return self._boot.clock() + ahead
