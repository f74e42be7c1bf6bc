"""The claims of this process, as transactions use them: follow, claim, settle, wait.

Twins within the process meet in the local table and wake each other by event. The store arbitrates between processes
and survives restarts. While the store is down, the table works alone; this is the only degraded mode. While the store
answers, the table reports "sent" only after it has compared the store's generation: what an operator has forgotten is
free at once, here too.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from relay.claims.lease_renewal import LeaseRenewal
from relay.claims.local_sequences import LocalSequences
from relay.claims.local_table import Acceptance, LocalTable, OwnClaim, Verdict
from relay.claims.remote_claims import POLL_EVERY, RemoteClaims
from relay.claims.write_back import WriteBack
from relay.core.claim import AskGeneration, Claim, Command, Confirm, Done, Follow, Full, Held, Release, Sent, Won
from relay.events.limit import LogLimit
from relay.events.store import CLAIMS_TAKEN_BEFORE, CLAIMS_TAKEN_DURING, MEMORY_FULL, STORE_FULL
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from relay.core.claim import ClaimTerms, Fingerprint, Original, Token
    from relay.core.sequence import Arrival, SequenceName, SequenceState
    from relay.core.store import StoreClient

STORE, MEMORY = BOUNDS = ("store", "memory")
"""What may be full: the store, and the table of this process."""
_BOUND_EVENTS = {STORE: STORE_FULL, MEMORY: MEMORY_FULL}

REMEMBERED = 200_000
"""Acceptances that the process keeps. The oldest beyond that number are in the store only."""


class ClaimManager:
    """All claims of a process. Times in seconds, by a monotonic clock.

    `on_lost(count)` is called with the number of claims that another process took while a transaction of this process
    delivered: the lease had ended, or the store had lost it. Each is counted once. `on_beyond_bound(bound, count)` is
    called with the number of claims that a full store (`BOUNDS[0]`) did not take, and of acceptances that a full table
    (`BOUNDS[1]`) dropped before the store had them: repeats of both may be forwarded.
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
        on_beyond_bound: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._table = LocalTable(clock, remembered)
        self._sequences = LocalSequences(clock)
        self.knows_sender = self._sequences.knows_sender
        self._lease_renewal = LeaseRenewal(self._table, store, lease)
        self._remote_claims = RemoteClaims(self._table, store, poll_every)
        self._write_back = WriteBack(self._table, self._sequences, store)
        self._releases = Tasks()
        self._on_lost = on_lost
        self._on_beyond_bound = on_beyond_bound
        self._bounds_log_limit = LogLimit(clock)
        self._unwritten_dropped = 0
        self._data_losses = store.data_losses
        self._closing = False

    def start(self) -> None:
        """Starts to renew leases."""
        self._lease_renewal.start()

    async def close(self) -> None:
        """Ends the background loops and writes what can still be written."""
        self.end_waits()
        await self._releases.finished()
        await self._lease_renewal.close()
        await self._remote_claims.close()
        await self._write_back.close()

    def end_waits(self) -> None:
        """Ends all waits, now and later: the service ends. No background loop starts after this."""
        self._closing = True
        self._table.wake_all()

    def store_returned(self) -> None:
        """Renews all leases, and writes what the store has not confirmed: everything if it has lost data."""
        if self._store.data_losses != self._data_losses:
            self._data_losses = self._store.data_losses
            self._write_back.add_own_acceptances()
            self._sequences.mark_unwritten()
        if not self._closing:
            self._lease_renewal.renew_soon()
            self._write_back.restart()

    @property
    def held(self) -> int:
        """The number of claims that transactions of this process hold."""
        return len(self._table.own_claims)

    @property
    def waiting(self) -> int:
        """The number of messages that wait for claims of others."""
        return len({waiter for claim in self._table.claims.values() for waiter in claim.waiters})

    async def follow(self, arrivals: Iterable[Arrival]) -> dict[SequenceName, SequenceState]:
        """Places a message in its sequences, before it is claimed. Returns the states of those that it takes part in.

        In doubt a new epoch begins, so that the message is no repeat.
        """
        due = [each for each in arrivals if each.takes_part or self._sequences.knows(each.sequence)]
        if not due:
            return {}
        epoch, alone = secrets.token_hex(8), not self._store.up
        told_before = [self._sequences.begin(each) for each in due]
        follows = [Follow(each.sequence, each.fingerprint, epoch, each.keep_for) for each in due]
        answers = await self._store.ask([*filter(None, told_before), *follows])
        states: dict[SequenceName, SequenceState] = {}
        last_answers = answers[-len(follows) :]
        for before, command, answer in zip(told_before, follows, last_answers, strict=True):
            states[command.sequence] = self._sequences.apply(command, answer, before, alone=alone)
        full = sum(isinstance(answer, Full) for answer in last_answers)
        self._report_beyond_bound(STORE, full)
        if not self._closing:
            self._write_back.start()
        return states

    async def claim(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        """Claims all keys at once, without waiting for other owners. In doubt a key is won."""
        verdicts = self._claim_locally(terms, token)
        unknown = {key: terms[key] for key in terms if key not in verdicts}
        sent = {key: terms[key] for key, verdict in verdicts.items() if isinstance(verdict, Sent)}
        if not unknown and not sent:
            return verdicts
        generation_changes = self._table.generation_changes
        try:
            verdicts |= await self._ask_store(unknown, token)
            if sent and self._table.generation_changes != generation_changes:
                verdicts |= await self.claim(sent, token)  # an operator may have forgotten them
        except asyncio.CancelledError:
            self._release_abandoned(list(unknown), token)
            raise
        return verdicts

    async def find_lost_claims(
        self, terms: Mapping[Fingerprint, ClaimTerms], token: Token
    ) -> dict[Fingerprint, Held | Sent]:
        """Claims again what our lease no longer covers, and returns the keys that another owner has taken meanwhile.

        Called right before the content is sent. Does not ask the store while all leases run.
        """
        verdicts = await self.claim(terms, token)
        lost = {key: verdict for key, verdict in verdicts.items() if not isinstance(verdict, Won)}
        if lost:
            self._on_lost(len(lost))
            CLAIMS_TAKEN_BEFORE.log(claims=len(lost))
        return lost

    async def settle(
        self,
        token: Token,
        accepted: Mapping[Fingerprint, Original],
        released: Iterable[Fingerprint],
        terms: Mapping[Fingerprint, ClaimTerms],
    ) -> None:
        """Records what the upstream accepted, frees what it did not, and wakes the waiters of both.

        `terms` names every accepted key, and may name more.
        """
        now = self._clock()
        released = list(released)
        claims = {key: claim for key in (*accepted, *released) if (claim := self._table.own_claim(key, token))}
        commands: list[Command] = []
        for key, original in accepted.items():
            window, recipient = terms[key].window, terms[key].recipient
            acceptance = Acceptance(original, now, window, delivered_here=True, recipient=recipient)
            self._table.add_acceptance(key, acceptance)
            self._table.unwritten[key] = None
            commands.append(Confirm(key, original, window, recipient=recipient, token=token))
        for key in released:
            self._table.release(key, token)
            commands.append(Release(key, token))
        dropped = self._table.unwritten_dropped - self._unwritten_dropped
        self._unwritten_dropped += dropped
        self._report_beyond_bound(MEMORY, dropped)
        try:
            answers = await self._store.ask(commands)
        except asyncio.CancelledError:
            self._release_abandoned(released, token)  # a request that is still queued is dropped with its caller
            raise
        self._write_back.remove_confirmed(commands, answers)
        if not self._closing:
            self._write_back.start()
        for key, answer in zip([*accepted, *released], answers, strict=True):
            if key in claims and answer == Done(claim_lost=True):
                claims[key].lost = True  # no renewal has noticed it if the process was stopped for a while
        self._report_lost([key for key, claim in claims.items() if claim.lost], accepted)

    def end_claims(self, keys: Iterable[Fingerprint], token: Token) -> None:
        """Ends claims of a transaction that has ended, in this process only: in the store their leases run out.

        Only a fault leaves such claims behind. Without this their leases would be renewed for ever.
        """
        for key in keys:
            self._table.release(key, token)

    async def wait_for_change(self, keys: Sequence[Fingerprint], timeout: float) -> bool:  # noqa: ASYNC109 - ends by event too
        """Waits until one of the claims changes. Returns False after `timeout` seconds, or when the service ends."""
        if self._closing:
            return False
        claims = [claim for key in keys if (claim := self._table.claims.get(key))]
        if len(claims) < len(keys):
            return True
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for claim in claims:
            claim.waiters.add(woken)
        self._remote_claims.watch()
        try:
            async with asyncio.timeout(timeout):
                await woken
        except TimeoutError:
            return False
        finally:
            for claim in claims:
                claim.waiters.discard(woken)
        return not self._closing

    def _claim_locally(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        """Returns the verdicts of the table and claims all other keys in it, so that twins in this process wait."""
        lease_end = self._clock() + self._lease
        verdicts: dict[Fingerprint, Verdict] = {}
        for key, key_terms in terms.items():
            verdict = self._table.look_up(key, token, key_terms.window)
            if verdict is None:
                self._table.set_claim(key, OwnClaim(key_terms.window, lease_end, token))
            else:
                verdicts[key] = verdict
        return verdicts

    async def _ask_store(self, terms: Mapping[Fingerprint, ClaimTerms], token: Token) -> dict[Fingerprint, Verdict]:
        asked_at = self._clock()
        claims = [Claim(key, token, self._lease, key_terms.window) for key, key_terms in terms.items()]
        generation, *answers = await self._store.ask([AskGeneration(), *claims])
        self._table.apply_generation(generation)  # before the answers, which are at least as new
        self._report_beyond_bound(STORE, sum(isinstance(answer, Full) for answer in answers))
        verdicts: dict[Fingerprint, Verdict] = {}
        for (key, key_terms), answer in zip(terms.items(), answers, strict=True):
            if isinstance(answer, Held | Sent):
                self._table.apply_answer(key, answer, key_terms.window, asked_at)
                verdicts[key] = answer
            else:
                verdicts[key] = Won()  # if the store does not know, this process decides alone
        if not self._closing and any(isinstance(verdict, Held) for verdict in verdicts.values()):
            self._remote_claims.watch()  # twins that waited for this claim now wait for the other process
        return verdicts

    def _release_abandoned(self, keys: Sequence[Fingerprint], token: Token) -> None:
        """Releases keys whose transaction was cancelled. The store may have granted them, or may do so later."""
        if keys:
            releases = [Release(key, token) for key in keys]
            self._releases.start(self._store.ask(releases), "release abandoned claims")
        for key in keys:
            self._table.release(key, token)

    def _report_beyond_bound(self, bound: str, count: int) -> None:
        """Counts claims beyond a bound, and logs the first ones in each minute."""
        if not count:
            return
        self._on_beyond_bound(bound, count)
        if claims := self._bounds_log_limit.count(bound, count):
            _BOUND_EVENTS[bound].log(claims=claims)

    def _report_lost(self, lost: Sequence[Fingerprint], accepted: Container[Fingerprint]) -> None:
        """Reports claims that another process took, found too late for `find_lost_claims`."""
        if lost:
            self._on_lost(len(lost))
            CLAIMS_TAKEN_DURING.log(claims=len(lost), recipients=sum(key in accepted for key in lost))
