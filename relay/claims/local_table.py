"""What one process holds and knows: a table without I/O. Times in seconds, by the clock it is given."""

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
class Hold:
    """A claim that somebody holds, and who waits for its end."""

    window: float
    until: float
    """When the lease in the store ends, as far as we heard."""
    waiters: set[asyncio.Future[None]] = field(default_factory=set, kw_only=True)


@dataclass(slots=True, eq=False)
class OwnHold(Hold):
    """Held by a transaction of this process. It outlives its lease here: its owner is alive."""

    token: Token
    taken: bool = False
    """Whether another process has taken it since: our lease had run out."""


@dataclass(slots=True, eq=False)
class RemoteHold(Hold):
    """Held by another process."""


@dataclass(slots=True)
class Acceptance:
    """An acceptance: when by our clock, and whether this process was the one that delivered it, to whom."""

    original: Original
    at: float
    window: float
    ours: bool
    recipient: str = ""


class LocalTable:
    """Holds and acceptances. Whoever waits for a hold is woken when it ends."""

    def __init__(self, clock: Callable[[], float], remembered: int) -> None:
        self.clock = clock
        self.holds: dict[Fingerprint, Hold] = {}
        self.known: OrderedDict[Fingerprint, Acceptance] = OrderedDict()
        self.unwritten: dict[Fingerprint, None] = {}
        """Acceptances that the store has not confirmed, oldest first; what was tried in vain is behind the rest."""
        self.voided = 0
        """How often all acceptances became void: whoever has looked one up before such a moment looks again."""
        self._generation: str | None = None
        self._remembered = remembered

    def look_up(self, key: Fingerprint, token: Token, window: float) -> Verdict | None:
        """Give what the table says of a key to the owner of `token`, or None where the store must be asked."""
        now = self.clock()
        hold = self.holds.get(key)
        if isinstance(hold, OwnHold) and hold.token == token:
            return Won() if hold.until > now else None
        if hold and (isinstance(hold, OwnHold) or hold.until > now):
            return Held(hold.until - now)
        known = self.known.get(key)
        if known and now - known.at < min(window, known.window):
            return Sent(known.original, now - known.at)
        return None

    def own(self, key: Fingerprint, token: Token) -> OwnHold | None:
        """Give the hold of this transaction, if it has one."""
        hold = self.holds.get(key)
        return hold if isinstance(hold, OwnHold) and hold.token == token else None

    @property
    def owned(self) -> dict[Fingerprint, OwnHold]:
        """All holds of this process."""
        return {key: hold for key, hold in self.holds.items() if isinstance(hold, OwnHold)}

    @property
    def awaited(self) -> dict[Fingerprint, RemoteHold]:
        """All holds of other processes that somebody here waits for."""
        return {key: hold for key, hold in self.holds.items() if isinstance(hold, RemoteHold) and hold.waiters}

    def hold(self, key: Fingerprint, hold: Hold) -> None:
        """Note who holds it. Whoever waited for the one before waits for this one."""
        before = self.holds.get(key)
        if before:
            hold.waiters = before.waiters
        self.holds[key] = hold

    def hear(self, key: Fingerprint, answer: Held | Sent, window: float, asked_at: float) -> None:
        """Note what the store says another process does, or did, with a key."""
        match answer:
            case Sent(original, age):
                self.know(key, Acceptance(original, asked_at - age, min(window, answer.window), ours=False))
            case Held(remaining):
                self.hold(key, RemoteHold(window, asked_at + remaining))

    def hear_generation(self, answer: Answer) -> None:
        """Give up all acceptances when something was forgotten in the store since it last told its generation.

        Also those that the store has yet to hear of: a duplicate is better than a copy withheld that an operator freed.
        A store that names none was wiped, or never forgot: it is to hear of everything.
        """
        if not isinstance(answer, Generation):
            return
        before = self._generation
        if before is None or answer.name:
            self._generation = answer.name
        if before is not None and self._generation != before:
            self.known.clear()
            self.unwritten.clear()
            self.voided += 1

    def free(self, key: Fingerprint) -> None:
        """End a hold."""
        hold = self.holds.pop(key, None)
        if hold:
            _wake(hold)

    def release(self, key: Fingerprint, token: Token) -> None:
        """End the hold of this transaction, if it has one."""
        if self.own(key, token):
            self.free(key)

    def know(self, key: Fingerprint, known: Acceptance) -> None:
        """Note an acceptance; it ends the hold. The oldest entries go when they are over or too many."""
        self.known[key] = known
        self.known.move_to_end(key)
        self.free(key)
        while self.known:
            oldest, entry = next(iter(self.known.items()))
            if len(self.known) <= self._remembered and self.clock() - entry.at < entry.window:
                break
            del self.known[oldest]
            self.unwritten.pop(oldest, None)

    def drop_lapsed(self) -> None:
        """Forget claims of other processes whose lease has ended, as far as we heard."""
        now = self.clock()
        for key, hold in list(self.holds.items()):
            if isinstance(hold, RemoteHold) and hold.until <= now:
                self.free(key)

    def wake_all(self) -> None:
        """Wake everybody."""
        for hold in self.holds.values():
            _wake(hold)


def _wake(hold: Hold) -> None:
    """Let all who wait for a hold look again."""
    for waiter in hold.waiters:
        if not waiter.done():
            waiter.set_result(None)
