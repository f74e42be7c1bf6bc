"""The claims of this process, as a transaction sees them: claim, assure, settle, wait.

Twins inside the process meet in the table and wake each other by event; the store arbitrates between processes and
remembers over restarts. While the store is away the table goes on alone: that is all the degraded mode there is.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from relay.claims.table import Known, Own, Table, Verdict
from relay.claims.upkeep import POLL_EVERY, Upkeep
from relay.core.claim import Claim, Command, Confirm, Fingerprint, Held, Original, Release, Sent, Token, Won

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from relay.claims.upkeep import Arbiter

_log = logging.getLogger("relay.store")

REMEMBERED = 200_000
"""Sent fingerprints that the process keeps; beyond that the oldest are left to the store alone."""


class Book:
    """All claims of a process. Times in seconds, by a monotonic clock.

    `on_lost(count)` hears of claims that another process took while their owner here delivered: a lease had run out, or
    the store had lost it. Those that `assure` gives are not among them, their owner knows.
    """

    def __init__(
        self,
        store: Arbiter,
        *,
        lease: float,
        clock: Callable[[], float],
        remembered: int = REMEMBERED,
        poll_every: float = POLL_EVERY,
        on_lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._table = Table(clock, remembered)
        self._upkeep = Upkeep(self._table, store, lease, poll_every)
        self._on_lost = on_lost
        self._closing = False
        self.renew = self._upkeep.renew
        self.store_returned = self._upkeep.store_returned

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
        return len(self._table.owned)

    async def claim(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        """Claim all keys at once, without waiting for anybody. In doubt a key is won."""
        until = self._clock() + self._lease
        verdicts: dict[Fingerprint, Verdict] = {}
        asked: list[Fingerprint] = []
        for key in keys:
            verdict = self._table.look_up(key, token, window)
            if verdict is None:
                self._table.hold(key, Own(window, until, token))
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
        return {key: verdict for key, verdict in verdicts.items() if not isinstance(verdict, Won)}

    async def settle(
        self,
        token: Token,
        accepted: Mapping[Fingerprint, Original],
        released: Iterable[Fingerprint],
        window: float,
    ) -> None:
        """Record what the upstream accepted, free what it did not, and wake whoever waits for either."""
        now = self._clock()
        released = list(released)
        self._note_taken(token, accepted, released)
        commands: list[Command] = []
        for key, original in accepted.items():
            self._table.know(key, Known(original, now, window, ours=True))
            self._table.unwritten[key] = None
            commands.append(Confirm(key, original, window))
        for key in released:
            self._table.release(key, token)
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
            self._upkeep.release(keys, token)  # the store may have given them, or yet give them, to nobody
            for key in keys:
                self._table.release(key, token)
            raise
        verdicts: dict[Fingerprint, Verdict] = {}
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Held | Sent):
                self._table.hear(key, answer, window, asked_at)
                verdicts[key] = answer
            else:
                verdicts[key] = Won()  # what the store does not know, this process decides alone
        if any(isinstance(verdict, Held) for verdict in verdicts.values()):
            self._upkeep.poll()  # twins here that waited for the first of them wait for the owner elsewhere from now on
        return verdicts

    def _note_taken(self, token: Token, accepted: Iterable[Fingerprint], released: Iterable[Fingerprint]) -> None:
        """Say which claims turned out, too late for `assure`, to have been taken by another process."""
        taken = [
            [key for key in keys if (own := self._table.own(key, token)) and own.taken] for keys in (accepted, released)
        ]
        count = sum(map(len, taken))
        if count:
            self._on_lost(count)
            _log.warning(
                "another process took %d claims while we delivered; %d recipients may have got a second copy",
                count,
                len(taken[0]),
            )
