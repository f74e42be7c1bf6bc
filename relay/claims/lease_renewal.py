"""Renews the leases of this process's claims."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.claim import Answer, Claim, Done, Free, Held, Renew, Sent, Won
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from relay.claims.local_table import LocalTable, OwnClaim
    from relay.core.store import StoreClient


class LeaseRenewal:
    """Renews all leases every third of `lease` seconds."""

    def __init__(self, table: LocalTable, store: StoreClient, lease: float) -> None:
        self._table = table
        self._store = store
        self._lease = lease
        self._tasks = Tasks()

    def start(self) -> None:
        """Starts the background loop."""
        self._tasks.start_loop(self._step, "renew leases")

    def renew_soon(self) -> None:
        """Renews all leases in the background, without waiting for the next turn of the loop."""
        self._tasks.start(self.renew(), "renew leases at once")

    async def close(self) -> None:
        """Ends the background loop."""
        await self._tasks.cancel()

    async def _step(self) -> None:
        await asyncio.sleep(self._lease / 3)
        await self.renew()

    async def renew(self) -> None:
        """Renews the lease of each claim in delivery. Claims again those that had expired or that the store lost."""
        now = self._table.clock()
        claims = self._table.own_claims
        if not claims:
            return
        answers = await self._store.ask([Renew(key, claim.token, self._lease) for key, claim in claims.items()])
        expired = {
            key: claim
            for (key, claim), answer in zip(claims.items(), answers, strict=True)
            if self._table.claims.get(key) is claim and not self._update(claim, answer, now)
        }
        # The content may already be sent, so that no transaction looks for lost claims any more: claim again now. A
        # Release that follows arrives later, because the store is asked in order.
        commands = [Claim(key, claim.token, self._lease, claim.window) for key, claim in expired.items()]
        for claim, answer in zip(expired.values(), await self._store.ask(commands) if commands else [], strict=True):
            self._update(claim, answer, now)

    def _update(self, claim: OwnClaim, answer: Answer, now: float) -> bool:
        """Sets the end of the lease by the store's answer. Returns False if the store holds nothing for the key."""
        match answer:
            case Done() | Won():
                claim.lease_end, claim.lost = now + self._lease, False
            case Held() | Sent():
                claim.lease_end, claim.lost = now, True
            case Free():
                claim.lease_end = now
                return False
        return True
