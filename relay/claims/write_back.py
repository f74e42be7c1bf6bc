"""Writes acceptances and changes of sequences that the store has not confirmed."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from relay.core.claim import Answer, AskGeneration, Command, Confirm, Done, Full
from relay.core.sequence import SequenceState
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.local_sequences import LocalSequences
    from relay.claims.local_table import LocalTable
    from relay.core.store import StoreClient

WRITE_BACK_BATCH = 500
"""Acceptances written at once."""
FIRST_PAUSE = 1.0
"""Seconds between the first failed attempt and the second. The pause doubles with each attempt."""
LONGEST_PAUSE = 5.0
"""Seconds between later attempts. Each attempt asks for all acceptances, and a node that is down may have many."""


class WriteBack:
    """Repeats in the background until the store has confirmed everything, or its time is over."""

    def __init__(self, table: LocalTable, sequences: LocalSequences, store: StoreClient) -> None:
        self._table = table
        self._sequences = sequences
        self._store = store
        self._tasks = Tasks()
        self._loop: asyncio.Task[None] | None = None
        self._pause = 0.0

    def start(self) -> None:
        """Starts to write, unless writing is under way or nothing is left to write."""
        if not self._is_done and (self._loop is None or self._loop.done()):
            self._pause = 0.0
            self._loop = self._tasks.start_loop(self._step, "write back")

    def restart(self) -> None:
        """Starts to write at once, also if the background loop is in a pause."""
        if self._loop:
            self._loop.cancel()
            self._loop = None
        self.start()

    async def close(self) -> None:
        """Ends the background loop and writes what can still be written."""
        await self._tasks.cancel()
        await self._write_all()

    def add_own_acceptances(self) -> None:
        """Marks all acceptances of this process as unwritten: the store may have lost them."""
        acceptances = self._table.acceptances
        self._table.unwritten |= dict.fromkeys(key for key, known in acceptances.items() if known.delivered_here)

    def remove_confirmed(self, commands: Sequence[Command], answers: Sequence[Answer]) -> None:
        """Removes from the unwritten acceptances what the store has confirmed, or has no room for."""
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(command, Confirm) and isinstance(answer, Done | Full):
                self._table.unwritten.pop(command.key, None)

    async def _step(self) -> bool:
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        await self._write_all()
        return self._is_done

    @property
    def _is_done(self) -> bool:
        return not self._table.unwritten and not self._sequences.unwritten

    async def _write_all(self) -> None:
        await self._write_sequences()
        await self._write_acceptances()

    async def _write_sequences(self) -> None:
        commands = list(self._sequences.unwritten.values())
        answers = await self._store.ask(commands)
        self._sequences.confirm(
            [
                command
                for command, answer in zip(commands, answers, strict=True)
                if isinstance(answer, SequenceState | Full)
            ]
        )

    async def _write_acceptances(self) -> None:
        """Writes batch by batch, until nothing is left or each acceptance was tried in vain."""
        failed = 0
        while failed < len(self._table.unwritten) and self._store.up:
            failed = 0 if await self._write_batch() else failed + WRITE_BACK_BATCH

    async def _write_batch(self) -> bool:
        """Writes a batch, unless it was forgotten meanwhile. Returns False if none of it was confirmed.

        What fails goes to the end: a Cluster node that is down does not hold up the acceptances of other nodes.
        """
        [generation] = await self._store.ask([AskGeneration()])
        self._table.apply_generation(generation)
        now = self._table.clock()
        commands: list[Confirm] = []
        for key in list(islice(self._table.unwritten, WRITE_BACK_BATCH)):
            known = self._table.acceptances.get(key)
            if known is None or now - known.at >= known.window:
                del self._table.unwritten[key]
            else:
                commands.append(Confirm(key, known.original, known.window, now - known.at, known.recipient))
        answers = await self._store.ask(commands)
        self.remove_confirmed(commands, answers)
        for command in commands:
            if command.key in self._table.unwritten:
                self._table.unwritten[command.key] = self._table.unwritten.pop(command.key)
        return not commands or any(isinstance(answer, Done | Full) for answer in answers)
