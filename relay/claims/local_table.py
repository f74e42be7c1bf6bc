"""The claims and acceptances that one process knows: a table without I/O. Times in seconds, by the clock passed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from relay.core.claim import Answer, Fingerprint, Generation, Held, Original, Sent, Token, Won

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

Verdict: TypeAlias = Won | Held | Sent


@dataclass(slots=True, eq=False)
class HeldClaim:
    """A claim that is held, and the transactions that wait for its end."""

    window: float
    lease_end: float
    """When the lease in the store ends, as last reported."""
    waiters: set[asyncio.Future[None]] = field(default_factory=set, kw_only=True)


@dataclass(slots=True, eq=False)
class OwnClaim(HeldClaim):
    """A claim of a transaction of this process. It does not end with its lease: its owner is alive."""

    token: Token
    lost: bool = False
    """Whether another process took the claim after our lease had ended."""


@dataclass(slots=True, eq=False)
class RemoteClaim(HeldClaim):
    """A claim of another process."""


@dataclass(slots=True)
class Acceptance:
    """A message that the upstream has accepted for a recipient."""

    original: Original
    at: float
    window: float
    delivered_here: bool
    """Whether this process delivered it."""
    recipient: str = ""


class LocalTable:
    """Held claims and acceptances by fingerprint. The end of a claim wakes its waiters.

    Of the acceptances, at most `remembered` stay; the oldest are dropped, and are then known to the store only. The
    claims are bounded by the transactions that hold them or asked for them.
    """

    def __init__(self, clock: Callable[[], float], remembered: int) -> None:
        self.clock = clock
        self.claims: dict[Fingerprint, HeldClaim] = {}
        self.acceptances: OrderedDict[Fingerprint, Acceptance] = OrderedDict()
        self.unwritten: dict[Fingerprint, None] = {}
        """Acceptances that the store has not confirmed, oldest first; those that failed are at the end."""
        self.unwritten_dropped = 0
        """How many unwritten acceptances were dropped within their windows, because the table was full."""
        self.generation_changes = 0
        """How often all acceptances were dropped. A caller that looked one up before such a change looks again."""
        self._generation: str | None = None
        self._remembered = remembered

    def look_up(self, key: Fingerprint, token: Token, window: float) -> Verdict | None:
        """Returns the verdict for the owner of `token`. None if only the store can decide."""
        now = self.clock()
        claim = self.claims.get(key)
        if isinstance(claim, OwnClaim) and claim.token == token:
            return Won() if claim.lease_end > now else None
        if claim and (isinstance(claim, OwnClaim) or claim.lease_end > now):
            return Held(claim.lease_end - now)
        acceptance = self.acceptances.get(key)
        if acceptance and now - acceptance.at < min(window, acceptance.window):
            return Sent(acceptance.original, now - acceptance.at)
        return None

    def own_claim(self, key: Fingerprint, token: Token) -> OwnClaim | None:
        """Returns the claim if the transaction with this token holds it."""
        claim = self.claims.get(key)
        return claim if isinstance(claim, OwnClaim) and claim.token == token else None

    @property
    def own_claims(self) -> dict[Fingerprint, OwnClaim]:
        """All claims of this process."""
        return {key: claim for key, claim in self.claims.items() if isinstance(claim, OwnClaim)}

    @property
    def awaited_claims(self) -> dict[Fingerprint, RemoteClaim]:
        """The claims of other processes for which transactions of this process wait."""
        return {key: claim for key, claim in self.claims.items() if isinstance(claim, RemoteClaim) and claim.waiters}

    def set_claim(self, key: Fingerprint, claim: HeldClaim) -> None:
        """Stores a claim. The waiters of an earlier claim of this key wait for the new one."""
        before = self.claims.get(key)
        if before:
            claim.waiters = before.waiters
        self.claims[key] = claim

    def apply_answer(self, key: Fingerprint, answer: Held | Sent, window: float, asked_at: float) -> None:
        """Stores what the store answered about a key of another process."""
        match answer:
            case Sent(original, age):
                acceptance = Acceptance(original, asked_at - age, min(window, answer.window), delivered_here=False)
                self.add_acceptance(key, acceptance)
            case Held(remaining):
                self.set_claim(key, RemoteClaim(window, asked_at + remaining))

    def apply_generation(self, answer: Answer) -> None:
        """Drops all acceptances if the store's generation has changed: an operator has forgotten some of them.

        Those that are not yet in the store are dropped too: a duplicate is better than suppressing a copy that an
        operator freed. A store without a generation was wiped, or has never forgotten anything: nothing is dropped.
        """
        if not isinstance(answer, Generation):
            return
        before = self._generation
        if before is None or answer.name:
            self._generation = answer.name
        if before is not None and self._generation != before:
            self.acceptances.clear()
            self.unwritten.clear()
            self.generation_changes += 1

    def end_claim(self, key: Fingerprint) -> None:
        """Removes a claim and wakes its waiters."""
        claim = self.claims.pop(key, None)
        if claim:
            _wake(claim)

    def release(self, key: Fingerprint, token: Token) -> None:
        """Ends the claim if the transaction with this token holds it."""
        if self.own_claim(key, token):
            self.end_claim(key)

    def add_acceptance(self, key: Fingerprint, acceptance: Acceptance) -> None:
        """Stores an acceptance and ends the claim. Drops the oldest acceptances that have expired or are too many."""
        self.acceptances[key] = acceptance
        self.acceptances.move_to_end(key)
        self.end_claim(key)
        while self.acceptances:
            oldest, entry = next(iter(self.acceptances.items()))
            if len(self.acceptances) <= self._remembered and self.clock() - entry.at < entry.window:
                break
            del self.acceptances[oldest]
            is_in_window = self.clock() - entry.at < entry.window
            self.unwritten_dropped += oldest in self.unwritten and is_in_window
            self.unwritten.pop(oldest, None)

    def drop_expired_claims(self) -> None:
        """Ends the claims of other processes for which no transaction waits and whose lease has ended."""
        now = self.clock()
        for key, claim in list(self.claims.items()):
            if isinstance(claim, RemoteClaim) and not claim.waiters and claim.lease_end <= now:
                self.end_claim(key)

    def wake_all(self) -> None:
        """Wakes all waiters."""
        for claim in self.claims.values():
            _wake(claim)


def _wake(claim: HeldClaim) -> None:
    for waiter in claim.waiters:
        if not waiter.done():
            waiter.set_result(None)
