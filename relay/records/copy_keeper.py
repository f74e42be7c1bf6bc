"""Saves suppressed copies in their Maildir before the reply, and removes expired ones. No failure here affects mail."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from relay.events.limit import LogLimit
from relay.events.records import COPIES_NOT_REMOVED, COPY_LOST
from relay.records.kept_copies import MOST_SWEPT
from relay.runtime.executor import Executor
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.record import SuppressedCopy
    from relay.records.kept_copies import KeptCopies

LONGEST_SAVE = 10.0
"""Seconds that a client waits for the disk. After that its copy is lost, or saved later but not named in the trace."""
_THREADS = 2
"""Threads that save copies. While the disk hangs, each keeps one copy in memory; the copies that wait are dropped."""
SWEEP_EVERY = 3600.0
"""Seconds between two sweeps for expired copies."""


class CopyKeeper:
    """Saves copies in `copies`, for `keep_for` seconds. `on_lost` is called for each one that could not be saved."""

    def __init__(
        self,
        copies: KeptCopies,
        keep_for: float,
        *,
        on_lost: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
        longest_save: float = LONGEST_SAVE,
    ) -> None:
        self._copies = copies
        self._keep_for = keep_for
        self._on_lost = on_lost
        self._now = now
        self._log_limit = LogLimit(time.monotonic)
        self._tasks = Tasks()
        self._saving = Executor("kept copies", _THREADS, longest_save)
        self._sweeping = Executor("sweep of kept copies", 1)

    def start(self) -> None:
        """Starts the sweep of expired copies."""
        self._tasks.start_loop(self._sweep, "sweep kept copies")

    async def close(self) -> None:
        """Ends the threads."""
        await self._tasks.cancel()
        self._saving.close()
        self._sweeping.close()

    async def save(self, record: str, copy: SuppressedCopy) -> str:
        """Saves a copy and returns its file name; empty if that fails."""
        try:
            return await self._saving.run(partial(self._copies.save, record, copy))
        except (OSError, ValueError) as error:
            self._on_lost()
            if count := self._log_limit.count(COPY_LOST):
                COPY_LOST.log(error=error, copies=count)
            return ""

    async def _sweep(self) -> None:
        try:
            while await self._sweeping.run(lambda: self._copies.sweep(self._now() - self._keep_for)) == MOST_SWEPT:
                pass
        except OSError as error:
            COPIES_NOT_REMOVED.log(error=error)
        await asyncio.sleep(SWEEP_EVERY)
