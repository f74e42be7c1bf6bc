"""The claims of this process, as a transaction sees them: claim, assure, settle, wait.

Twins inside the process meet in the table and wake each other by event; the store arbitrates between processes and
remembers over restarts. While the store is away the table goes on alone: that is all the degraded mode there is.
While it answers, the table says "sent" only after a look at the store's generation: what an operator has forgotten is
free at once, here too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from relay.claims.local_table import Acceptance, LocalTable, OwnHold, Verdict
from relay.claims.maintenance import POLL_EVERY, ClaimMaintenance
from relay.core.claim import AskGeneration, Claim, Command, Confirm, Done, Held, Release, Sent, Won

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from relay.core.claim import ClaimTerms, Fingerprint, Original, Token
    from relay.core.store import StoreClient

_log = logging.getLogger("relay.store")

REMEMBERED = 200_000
"""Sent fingerprints that the process keeps; beyond that the oldest are left to the store alone."""


class ClaimManager:
    """All claims of a process. Times in seconds, by a monotonic clock.

    `on_lost(count)` hears of claims that another process took while their owner here delivered: a lease had run out, or
    the store had lost it. Each is counted once.
    """

    def __init__(
        self,
        store: StoreClient,
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
        self._table = LocalTable(clock, remembered)
        self._upkeep = ClaimMaintenance(self._table, store, lease, poll_every)
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

    async def claim(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        """Claim all keys at once, without waiting for anybody. In doubt a key is won."""
        verdicts = self._take(terms, token)
        asked = {key: terms[key] for key in terms if key not in verdicts}
        known = {key: terms[key] for key, verdict in verdicts.items() if isinstance(verdict, Sent)}
        if not asked and not known:
            return verdicts
        voided = self._table.voided
        try:
            verdicts |= await self._ask_store(asked, token)
            if known and self._table.voided != voided:
                verdicts |= await self.claim(known, token)  # forgotten, perhaps: what we knew of them is worth nothing
        except asyncio.CancelledError:
            self._give_back(list(asked), token)
            raise
        return verdicts

    async def assure(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Held | Sent]:
        """Claim again what our own lease no longer covers; give the keys that somebody else has taken meanwhile.

        To be asked right before content goes out. Without delay as long as all leases run.
        """
        verdicts = await self.claim(terms, token)
        lost = {key: verdict for key, verdict in verdicts.items() if not isinstance(verdict, Won)}
        if lost:
            self._on_lost(len(lost))
            _log.warning("another process took %d claims before the content was sent", len(lost))
        return lost

    async def settle(
        self,
        token: Token,
        accepted: Mapping[Fingerprint, Original],
        released: Iterable[Fingerprint],
        terms: Mapping[Fingerprint, ClaimTerms],
    ) -> None:
        """Record what the upstream accepted, free what it did not, and wake whoever waits for either.

        `terms` names every accepted key, and may name more.
        """
        now = self._clock()
        released = list(released)
        ours = {key: own for key in (*accepted, *released) if (own := self._table.own(key, token))}
        commands: list[Command] = []
        for key, original in accepted.items():
            window, recipient = terms[key].window, terms[key].recipient
            self._table.know(key, Acceptance(original, now, window, ours=True, recipient=recipient))
            self._table.unwritten[key] = None
            commands.append(Confirm(key, original, window, recipient=recipient, token=token))
        for key in released:
            self._table.release(key, token)
            commands.append(Release(key, token))
        answers = await self._store.ask(commands)
        self._upkeep.note_written(commands, answers)
        for key, answer in zip([*accepted, *released], answers, strict=True):
            if key in ours and answer == Done(taken=True):
                ours[key].taken = True  # a renewal would have told, had we not stood still
        self._note_taken([key for key, own in ours.items() if own.taken], accepted)

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

    def _take(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        """Give what the table says, and hold the rest in the same breath: twins in this process meet here."""
        until = self._clock() + self._lease
        verdicts: dict[Fingerprint, Verdict] = {}
        for key, its in terms.items():
            verdict = self._table.look_up(key, token, its.window)
            if verdict is None:
                self._table.hold(key, OwnHold(its.window, until, token))
            else:
                verdicts[key] = verdict
        return verdicts

    async def _ask_store(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        asked_at = self._clock()
        claims = [Claim(key, token, self._lease, its.window) for key, its in terms.items()]
        told, *answers = await self._store.ask([AskGeneration(), *claims])
        self._table.hear_generation(told)  # before the answers, which are as new as it is, or newer
        verdicts: dict[Fingerprint, Verdict] = {}
        for (key, its), answer in zip(terms.items(), answers, strict=True):
            if isinstance(answer, Held | Sent):
                self._table.hear(key, answer, its.window, asked_at)
                verdicts[key] = answer
            else:
                verdicts[key] = Won()  # what the store does not know, this process decides alone
        if any(isinstance(verdict, Held) for verdict in verdicts.values()):
            self._upkeep.poll()  # twins here that waited for the first of them wait for the owner elsewhere from now on
        return verdicts

    def _give_back(self, keys: Sequence[Fingerprint], token: Token) -> None:
        """Free what was claimed for somebody who is gone: the store may have given it, or yet give it, to nobody."""
        if keys:
            self._upkeep.release(keys, token)
        for key in keys:
            self._table.release(key, token)

    def _note_taken(self, taken: Sequence[Fingerprint], accepted: Container[Fingerprint]) -> None:
        """Say which claims turned out, too late for `assure`, to have been taken by another process."""
        if taken:
            self._on_lost(len(taken))
            _log.warning(
                "another process took %d claims while we delivered; %d recipients may have got a second copy",
                len(taken),
                sum(key in accepted for key in taken),
            )
