"""Writes down what was suppressed, before the client hears of it; never a fault for the mail.

What the store could not take waits here, bounded, and is written when the store has returned.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from relay.core.claim import Done, Note
from relay.records.codec import encode
from relay.records.kept_copies import MOST_CLEARED
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.record import Record, SuppressedCopy
    from relay.core.store import StoreClient
    from relay.records.kept_copies import KeptCopies

_log = logging.getLogger("relay.records")

MOST_WAITING = 10_000
"""Records that wait for the store at most, by their weight: some 10 MB."""
_BATCH = 200
"""Records in one round trip when the store has returned."""
LONGEST_SAVE = 10.0
"""Seconds that a client waits for the disk; its copy is lost then, or there later and unnamed in the record."""
SWEEP_EVERY = 3600.0
"""Seconds between two looks for kept copies whose time is over."""


class RecordWriter:
    """Records go to the store through its guard, copies to `keep` where copies are kept.

    `keep_for` in seconds; 0 records nothing.
    `on_lost` is called for each record, or copy, that could not be kept.
    """

    def __init__(
        self,
        store: StoreClient,
        keep_for: float,
        keep: KeptCopies | None = None,
        *,
        on_lost: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._store = store
        self._keep_for = keep_for
        self._keep = keep
        self._on_lost = on_lost
        self._now = now
        self._most_waiting = most_waiting
        self._waiting: deque[Note] = deque()
        self._weight = 0
        self._tasks = Tasks()
        self._writing: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    @property
    def waiting(self) -> int:
        """Records that the store has not taken yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to clear kept copies whose time is over."""
        if self._keep and self._keep_for:
            self._tasks.start(self._sweep_for_ever(self._keep), "sweep kept copies")

    def store_returned(self) -> None:
        """Write what waits, in a task of its own."""
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = self._tasks.start(self._write_waiting(), "write records")

    async def close(self) -> None:
        """Write what waits, if the store still takes it, and end."""
        await self._tasks.cancel()
        await self._write_waiting()
        if self._waiting:
            _log.warning("records of suppressions that could not be written: %d", len(self._waiting))
        while self._waiting:
            self._drop()

    async def note(self, record: Record, copy: SuppressedCopy | None) -> None:
        """Keep a record, and the copy if copies are kept. One round trip at most; never raises."""
        if not self._keep_for:
            return
        try:
            name = await self._save(record, copy) if copy else ""
            text = encode(dataclasses.replace(record, kept=name))
            if await self._write([Note(record.id, text, self._keep_for)]):
                self._told.discard("record")
                self.store_returned()
            self._bound()
        except Exception as error:  # noqa: BLE001 - a record less is better than a mail less
            self._lose("record", error)

    async def _save(self, record: Record, copy: SuppressedCopy) -> str:
        if self._keep is None:
            return ""
        try:
            async with asyncio.timeout(LONGEST_SAVE):
                name = await asyncio.to_thread(self._keep.save, record.id, copy)
        except (OSError, ValueError) as error:
            self._lose("copy", error)
            return ""
        self._told.discard("copy")
        return name

    async def _write(self, notes: Sequence[Note]) -> bool:
        """Ask the store to keep them; what it does not take waits. Says whether it took any."""
        left: Sequence[Note] = notes
        try:
            answers = await self._store.ask(notes)
            left = [note for note, answer in zip(notes, answers, strict=True) if not isinstance(answer, Done)]
        finally:
            self._waiting.extend(left)
            self._weight += sum(note.weight for note in left)
        return len(left) < len(notes)

    async def _write_waiting(self) -> None:
        # What fails goes to the end, behind what came in meanwhile, so that one bad record holds up no other.
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
        if self._weight > self._most_waiting:
            self._tell("record", f"over {self._most_waiting} records wait for the store; the oldest are dropped")
        while self._weight > self._most_waiting and len(self._waiting) > 1:
            self._drop()

    def _drop(self) -> None:
        self._take()
        self._on_lost()

    def _lose(self, what: str, error: Exception) -> None:
        self._on_lost()
        reason = str(error) or repr(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.strerror}: {error.filename}"
        self._tell(what, f"a {what} could not be kept: {reason}")

    def _tell(self, what: str, text: str) -> None:
        """Say it once, until it is well again."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", text)

    async def _sweep_for_ever(self, keep: KeptCopies) -> None:
        while True:
            try:
                while await asyncio.to_thread(keep.sweep, self._now() - self._keep_for) == MOST_CLEARED:
                    pass
            except OSError as error:
                _log.warning("kept copies whose time is over cannot be cleared: %s", error)
            await asyncio.sleep(SWEEP_EVERY)
