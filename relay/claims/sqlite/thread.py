"""The only thread that uses a connection to an SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from relay.core.errors import StoreBusyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.claims.sqlite.file import SqliteFile

_T = TypeVar("_T")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.003
"""Seconds between two attempts to lock the file, at random. SQLite's own pauses grow to 0.1 s: of four processes that
write all the time, one then finds the lock taken at each of its few attempts, and works without the store."""


class SqliteThread:
    """Runs work on a file, one piece at a time. It waits `busy_timeout` seconds for the lock of another process."""

    def __init__(self, file: SqliteFile, busy_timeout: float, name: str) -> None:
        self._file = file
        self._busy_timeout = busy_timeout
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Runs work in the thread. Raises `StoreError`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._until_not_busy, work)

    async def run_or_replace_file(self, work: Callable[[], _T]) -> _T:
        """Runs work that writes to the file, in a new file if this one is damaged. Raises `StoreError`.

        Only this method sets a damaged file aside: a command that only reads it may run as another user.
        """
        return await self.run(lambda: self._or_replace_file(work))

    async def close(self) -> None:
        """Closes the file and ends the thread."""
        with contextlib.suppress(StoreError, RuntimeError):  # RuntimeError: the thread has ended already
            await self.run(self._file.close)
        self._thread.shutdown(wait=False)

    def _or_replace_file(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not self._file.set_aside(error):
                raise
            return work()

    def _until_not_busy(self, work: Callable[[], _T]) -> _T:
        """Repeats `work`, which changes everything or nothing, while another process locks the file or replaces it."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                return work()
            except (sqlite3.Error, OSError) as error:
                if not _is_busy(error) and not self._was_replaced():
                    self._file.close()
                    raise StoreError(self._file.describe(error)) from error
                if time.monotonic() >= deadline:
                    raise StoreBusyError(self._file.describe(error)) from error
            time.sleep(random.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE))  # noqa: S311 - not for security

    def _was_replaced(self) -> bool:
        with contextlib.suppress(OSError):
            return self._file.is_replaced()
        return False


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
