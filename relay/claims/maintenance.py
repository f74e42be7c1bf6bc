"""What goes on beside the messages: leases are renewed, other processes' claims watched, acceptances written back."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from relay.core.claim import (
    Answer,
    AskGeneration,
    Claim,
    Command,
    Confirm,
    Done,
    Fingerprint,
    Free,
    Held,
    Peek,
    Release,
    Renew,
    Sent,
    Unknown,
    Won,
)
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.local_table import LocalTable, OwnHold, RemoteHold
    from relay.core.claim import Token
    from relay.core.store import StoreClient

POLL_EVERY = 0.1
"""Seconds between two looks at claims that other processes hold and somebody here waits for."""
WRITE_BACK = 500
"""Confirmations in one batch when the store has returned."""
WRITE_EVERY = 1.0
"""Seconds before acceptances that the store has not confirmed are written again, the first time."""
LONGEST_PAUSE = 5.0
"""Seconds between later times: each looks at all of them, and a node that is away may have many."""


class ClaimMaintenance:
    """Keeps a table and the store in step. `lease` and `poll_every` in seconds."""

    def __init__(self, table: LocalTable, store: StoreClient, lease: float, poll_every: float) -> None:
        self._table = table
        self._poll_every = poll_every
        self._store = store
        self._lease = lease
        self._tasks = Tasks()
        self._releases = Tasks()
        self._poller: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._ending = False

    def start(self) -> None:
        """Begin to renew leases."""
        self._tasks.start(self._renew_for_ever(), "renew leases")

    def end(self) -> None:
        """Begin nothing more."""
        self._ending = True

    async def close(self) -> None:
        """End everything, and write what can still be written."""
        self.end()
        await self._releases.finished()
        await self._tasks.cancel()
        await self._write_while_possible()

    # Leases

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases of all claims that are being delivered; take back those that had run out or were wiped."""
        now = self._table.clock()
        ours = self._table.owned
        if not ours:
            return
        answers = await self._store.ask([Renew(key, own.token, self._lease) for key, own in ours.items()])
        lapsed = {
            key: own
            for (key, own), answer in zip(ours.items(), answers, strict=True)
            if self._table.holds.get(key) is own and not self._renewed(own, answer, now)
        }
        # The content may be out already, so that nobody asks `assure` any more: claim again now. A release that
        # follows comes after it, for the store is asked in order.
        claims = [Claim(key, own.token, self._lease, own.window) for key, own in lapsed.items()]
        for own, answer in zip(lapsed.values(), await self._store.ask(claims) if claims else [], strict=True):
            self._renewed(own, answer, now)

    def _renewed(self, own: OwnHold, answer: Answer, now: float) -> bool:
        """Note how long the lease runs now. False where the store holds nothing for anybody."""
        match answer:
            case Done() | Won():
                own.until, own.taken = now + self._lease, False
            case Held() | Sent():
                own.until, own.taken = now, True
            case Free():
                own.until = now
                return False
        return True

    def release(self, keys: Sequence[Fingerprint], token: Token) -> None:
        """Have the store free keys of somebody who does not wait for it."""
        self._releases.start(self._store.ask([Release(key, token) for key in keys]), "release claims")

    # Claims of other processes

    def poll(self) -> None:
        """See to it that whoever waits for another process hears of its outcome."""
        if not self._ending and (self._poller is None or self._poller.done()):
            self._poller = self._tasks.start(self._poll_others(), "poll claims of other processes")

    async def _poll_others(self) -> None:
        while awaited := self._table.awaited:
            await asyncio.sleep(self._poll_every)
            asked_at = self._table.clock()
            answers = await self._store.ask([Peek(key, hold.window) for key, hold in awaited.items()])
            for (key, hold), answer in zip(awaited.items(), answers, strict=True):
                if self._table.holds.get(key) is hold:
                    self._take_look(key, hold, answer, asked_at)
        self._table.drop_lapsed()

    def _take_look(self, key: Fingerprint, hold: RemoteHold, answer: Answer, asked_at: float) -> None:
        match answer:
            case Sent() | Held():
                self._table.hear(key, answer, hold.window, asked_at)
            case Unknown() if hold.until > asked_at:
                pass  # its owner may still be at work: his lease, as last heard of, goes on
            case _:
                self._table.free(key)

    # Acceptances that the store has yet to hear of

    def note_written(self, commands: Sequence[Command], answers: Sequence[Answer]) -> None:
        """Strike off what the store has confirmed, and go on with the rest."""
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(command, Confirm) and isinstance(answer, Done):
                self._table.unwritten.pop(command.key, None)
        if self._table.unwritten and not self._ending and (self._writer is None or self._writer.done()):
            self._writer = self._tasks.start(self._write_until_done(), "write back")

    def store_returned(self) -> None:
        """Renew and write back all that is ours: the store may have come back empty, or after many a lease."""
        if not self._ending:
            self._tasks.start(self.renew(), "renew leases at once")
        self._table.unwritten |= dict.fromkeys(key for key, known in self._table.known.items() if known.ours)
        if self._writer:
            self._writer.cancel()  # it may be asleep
            self._writer = None
        self.note_written([], [])

    async def _write_until_done(self) -> None:
        await self._write_while_possible()
        pause = WRITE_EVERY
        while self._table.unwritten:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            await self._write_while_possible()

    async def _write_while_possible(self) -> None:
        """Write batch by batch, until nothing is left or a whole round was in vain."""
        in_vain = 0
        while in_vain < len(self._table.unwritten) and self._store.up:
            in_vain = 0 if await self._write_some() else in_vain + WRITE_BACK

    async def _write_some(self) -> bool:
        """Write a batch, unless it was forgotten meanwhile. False when none of it was confirmed.

        What is left of it goes to the end: a node of a Cluster that is away holds up nobody else's.
        """
        [told] = await self._store.ask([AskGeneration()])
        self._table.hear_generation(told)
        now = self._table.clock()
        commands: list[Confirm] = []
        for key in list(islice(self._table.unwritten, WRITE_BACK)):
            known = self._table.known.get(key)
            if known is None or now - known.at >= known.window:
                del self._table.unwritten[key]
            else:
                commands.append(Confirm(key, known.original, known.window, now - known.at, known.recipient))
        answers = await self._store.ask(commands)
        self.note_written(commands, answers)
        for command in commands:
            if command.key in self._table.unwritten:
                self._table.unwritten[command.key] = self._table.unwritten.pop(command.key)
        return not commands or any(isinstance(answer, Done) for answer in answers)
