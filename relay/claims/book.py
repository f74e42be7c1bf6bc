"""The claims of this process, as a transaction sees them: claim, assure, settle, wait.

Twins inside the process meet in the table and wake each other by event; the store arbitrates between processes and
remembers over restarts. While the store is away the table goes on alone: that is all the degraded mode there is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.claims.table import Known, Table, Verdict
from relay.claims.upkeep import POLL_EVERY, Upkeep
from relay.core.claim import Answer, Claim, Command, Confirm, Fingerprint, Held, Original, Release, Sent, Token, Won

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from relay.claims.upkeep import Arbiter

REMEMBERED = 200_000
"""Sent fingerprints that the process keeps; beyond that the oldest are left to the store alone."""


class Book:
    """All claims of a process. Times in seconds, by a monotonic clock."""

    def __init__(
        self,
        store: Arbiter,
        *,
        lease: float,
        clock: Callable[[], float],
        remembered: int = REMEMBERED,
        poll_every: float = POLL_EVERY,
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._table = Table(clock, remembered)
        self._upkeep = Upkeep(self._table, store, lease, poll_every)
        self._closing = False
        self.renew = self._upkeep.renew
        self.store_returned = self._upkeep.store_returned
        self.lost = 0
        """Claims that another process took while their owner here still worked: a lease had run out."""

    def start(self) -> None:
        """Begin to renew leases."""
        self._upkeep.start()

    async def close(self) -> None:
        """End renewing, polling and writing back, and write what can still be written."""
        self.give_up()
        await self._upkeep.close()

    def give_up(self) -> None:
        """Let everybody who waits hear that it is over."""
        self._closing = True
        self._upkeep.end()
        self._table.wake_all()

    @property
    def held(self) -> int:
        """How many fingerprints a transaction of this process is delivering."""
        return sum(hold.token is not None for hold in self._table.holds.values())

    async def claim(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        """Claim all keys at once, without waiting for anybody. In doubt a key is won."""
        until = self._clock() + self._lease
        verdicts: dict[Fingerprint, Verdict] = {}
        asked: list[Fingerprint] = []
        for key in keys:
            verdict = self._table.look_up(key, token, window)
            if verdict is None:
                self._table.hold(key, token, window, until)
                asked.append(key)
            else:
                verdicts[key] = verdict
        if asked:
            verdicts.update(await self._ask_store(asked, token, window))
        return verdicts

    async def assure(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        """Claim again what our own lease no longer covers; give the keys that somebody else has taken meanwhile.

        To be asked right before content goes out. Without delay as long as all leases run.
        """
        verdicts = await self.claim(keys, token, window)
        lost: dict[Fingerprint, Verdict] = {
            key: verdict for key, verdict in verdicts.items() if not isinstance(verdict, Won)
        }
        self.lost += len(lost)
        return lost

    async def settle(
        self,
        token: Token,
        accepted: Mapping[Fingerprint, Original],
        released: Iterable[Fingerprint],
        window: float,
    ) -> None:
        """Record what the upstream accepted, free what it did not, and wake whoever waits for either."""
        now = self._clock()
        commands: list[Command] = []
        for key, original in accepted.items():
            self._table.know(key, Known(original, now, window, ours=True))
            self._table.unwritten[key] = None
            commands.append(Confirm(key, original, window))
        for key in released:
            hold = self._table.holds.get(key)
            if hold and hold.token == token:
                self._table.free(key)
            commands.append(Release(key, token))
        self._upkeep.note_written(commands, await self._store.ask(commands))

    async def changed(self, keys: Sequence[Fingerprint], timeout: float) -> bool:  # noqa: ASYNC109 - ends by event too
        """Wait until one of the keys that were held is not held as before. False after `timeout` s, or at the end."""
        if self._closing:
            return False
        holds = [hold for key in keys if (hold := self._table.holds.get(key))]
        if len(holds) < len(keys):
            return True
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for hold in holds:
            hold.waiters.add(woken)
        self._upkeep.poll()
        try:
            async with asyncio.timeout(timeout):
                await woken
        except TimeoutError:
            return False
        finally:
            for hold in holds:
                hold.waiters.discard(woken)
        return not self._closing

    async def _ask_store(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        asked_at = self._clock()
        try:
            answers = await self._store.ask([Claim(key, token, self._lease, window) for key in keys])
        except asyncio.CancelledError:
            for key in keys:
                self._table.free(key)
            raise
        return {
            key: self._take_answer(key, token, window, answer, asked_at)
            for key, answer in zip(keys, answers, strict=True)
        }

    def _take_answer(self, key: Fingerprint, token: Token, window: float, answer: Answer, asked_at: float) -> Verdict:
        """Make the table say what the store said; what the store does not know, this process decides alone."""
        match answer:
            case Sent(original, age):
                self._table.know(key, Known(original, asked_at - age, window, ours=False))
                return answer
            case Held(remaining):
                # Twins in this process wait for the owner elsewhere as well from now on; the poller looks for them.
                self._table.hold(key, None, window, asked_at + remaining)
                self._upkeep.poll()
                return answer
            case _:
                self._table.hold(key, token, window, asked_at + self._lease)
                return Won()
