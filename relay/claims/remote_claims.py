"""Polls the store for claims of other processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.claim import Answer, Fingerprint, Held, Peek, Sent, Unknown
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from relay.claims.local_table import LocalTable, RemoteClaim
    from relay.core.store import StoreClient

POLL_EVERY = 0.1
"""Seconds between two polls."""


class RemoteClaims:
    """Watches the claims of other processes for which transactions of this process wait. `poll_every` in seconds."""

    def __init__(self, table: LocalTable, store: StoreClient, poll_every: float) -> None:
        self._table = table
        self._store = store
        self._poll_every = poll_every
        self._tasks = Tasks()
        self._loop: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Starts to poll, unless polling is under way. Polling ends when no transaction waits any more."""
        if self._loop is None or self._loop.done():
            self._loop = self._tasks.start_loop(self._poll, "poll claims of other processes")

    async def close(self) -> None:
        """Ends polling."""
        await self._tasks.cancel()

    async def _poll(self) -> bool:
        """Polls once. Returns True if no transaction waits."""
        awaited = self._table.awaited_claims
        self._table.drop_expired_claims()
        if not awaited:
            return True
        await asyncio.sleep(self._poll_every)
        asked_at = self._table.clock()
        answers = await self._store.ask([Peek(key, claim.window) for key, claim in awaited.items()])
        for (key, claim), answer in zip(awaited.items(), answers, strict=True):
            if self._table.claims.get(key) is claim:
                self._update(key, claim, answer, asked_at)
        return False

    def _update(self, key: Fingerprint, claim: RemoteClaim, answer: Answer, asked_at: float) -> None:
        match answer:
            case Sent() | Held():
                self._table.apply_answer(key, answer, claim.window, asked_at)
            case Unknown() if claim.lease_end > asked_at:
                pass  # the owner may still be at work: its lease, as last reported, goes on
            case _:
                self._table.end_claim(key)
