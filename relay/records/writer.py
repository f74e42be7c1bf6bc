"""Writes records of suppressions to the store, and suppressed copies to the Maildir, before the reply.

A record that the store does not take waits in a bounded queue until the store is back. No failure here affects mail.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from relay.core.claim import Done, Note
from relay.events.limit import LogLimit
from relay.events.records import COPIES_NOT_REMOVED, COPY_LOST, RECORD_LOST, RECORDS_DROPPED, RECORDS_LOST
from relay.records.codec import encode
from relay.records.kept_copies import MOST_SWEPT
from relay.runtime.executor import Executor
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.record import Record, SuppressedCopy
    from relay.core.store import StoreClient
    from relay.records.kept_copies import KeptCopies

MOST_WAITING = 10_000
"""The largest total weight of queued records: some 10 MB."""
_BATCH = 200
"""Queued records that are written in one round trip."""
LONGEST_SAVE = 10.0
"""Seconds that a client waits for the disk. After that its copy is lost, or saved later but not named in the record."""
_THREADS = 2
"""Threads that save copies. While the disk hangs, each keeps one copy in memory; the copies that wait are dropped."""
SWEEP_EVERY = 3600.0
"""Seconds between two sweeps for expired copies."""


class RecordWriter:
    """Writes records through the store client, and copies to `copies` if copies are kept.

    `keep_for` in seconds; 0 writes no records. `on_lost` is called for each record or copy that could not be written.
    """

    def __init__(
        self,
        store: StoreClient,
        keep_for: float,
        copies: KeptCopies | None = None,
        *,
        on_lost: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
        most_waiting: int = MOST_WAITING,
        longest_save: float = LONGEST_SAVE,
    ) -> None:
        self._store = store
        self._keep_for = keep_for
        self._copies = copies
        self._on_lost = on_lost
        self._now = now
        self._most_waiting = most_waiting
        self._waiting: deque[Note] = deque()
        self._weight = 0
        self._tasks = Tasks()
        self._saving = Executor("kept copies", _THREADS, longest_save)
        self._sweeping = Executor("sweep of kept copies", 1)
        self._writing: asyncio.Task[None] | None = None
        self._log_limit = LogLimit(time.monotonic)

    @property
    def waiting(self) -> int:
        """The number of records that wait for the store."""
        return len(self._waiting)

    def start(self) -> None:
        """Starts the sweep of expired copies."""
        if self._copies and self._keep_for:
            self._tasks.start_loop(partial(self._sweep, self._copies), "sweep kept copies")

    def store_returned(self) -> None:
        """Starts writing the queued records."""
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = self._tasks.start(self._write_waiting(), "write records")

    async def close(self) -> None:
        """Writes the queued records if the store answers, and ends."""
        await self._tasks.cancel()
        self._saving.close()
        self._sweeping.close()
        await self._write_waiting()
        if self._waiting:
            RECORDS_LOST.log(records=len(self._waiting))
        while self._waiting:
            self._drop()

    async def note(self, record: Record, copy: SuppressedCopy | None) -> None:
        """Writes a record, and the copy if copies are kept. Takes at most one round trip and never raises."""
        if not self._keep_for:
            return
        try:
            name = await self._save(record, copy) if copy else ""
            text = encode(dataclasses.replace(record, kept=name))
            if await self._write([Note(record.id, text, self._keep_for)]):
                self.store_returned()
            self._bound()
        except Exception as error:  # noqa: BLE001 - a record less is better than a mail less
            self._on_lost()
            if count := self._log_limit.count(RECORD_LOST):
                RECORD_LOST.log(error=error, records=count)

    async def _save(self, record: Record, copy: SuppressedCopy) -> str:
        if self._copies is None:
            return ""
        try:
            name = await self._saving.run(partial(self._copies.save, record.id, copy))
        except (OSError, ValueError) as error:
            self._on_lost()
            if count := self._log_limit.count(COPY_LOST):
                COPY_LOST.log(error=error, copies=count)
            return ""
        return name

    async def _write(self, notes: Sequence[Note]) -> bool:
        """Writes records to the store and queues those that it does not take. Returns whether it took any."""
        left: Sequence[Note] = notes
        try:
            answers = await self._store.ask(notes)
            left = [note for note, answer in zip(notes, answers, strict=True) if not isinstance(answer, Done)]
        finally:
            self._waiting.extend(left)
            self._weight += sum(note.weight for note in left)
        return len(left) < len(notes)

    async def _write_waiting(self) -> None:
        # A record that fails goes to the end of the queue, so that it does not hold up the others.
        for _ in range(0, len(self._waiting), _BATCH):
            notes = [self._take() for _ in range(min(_BATCH, len(self._waiting)))]
            if not notes or not await self._write(notes):
                break
        self._bound()

    def _take(self) -> Note:
        note = self._waiting.popleft()
        self._weight -= note.weight
        return note

    def _bound(self) -> None:
        before = len(self._waiting)
        while self._weight > self._most_waiting and len(self._waiting) > 1:
            self._drop()
        dropped = before - len(self._waiting)
        if dropped and (count := self._log_limit.count(RECORDS_DROPPED, dropped)):
            RECORDS_DROPPED.log(records=count)

    def _drop(self) -> None:
        self._take()
        self._on_lost()

    async def _sweep(self, copies: KeptCopies) -> None:
        try:
            while await self._sweeping.run(lambda: copies.sweep(self._now() - self._keep_for)) == MOST_SWEPT:
                pass
        except OSError as error:
            COPIES_NOT_REMOVED.log(error=error)
        await asyncio.sleep(SWEEP_EVERY)
