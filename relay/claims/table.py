"""What one process holds and knows: a table without I/O. Times in seconds, by the clock it is given."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from relay.core.claim import Fingerprint, Held, Original, Sent, Token, Won

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

Verdict: TypeAlias = Won | Held | Sent


@dataclass(slots=True, eq=False)
class Hold:
    """A claim somebody holds: a transaction here (`token`), or another process (no token)."""

    token: Token | None
    window: float
    until: float
    """When the lease in the store ends. A hold of our own outlives it here: its owner is alive."""
    waiters: set[asyncio.Future[None]] = field(default_factory=set)


@dataclass(slots=True)
class Known:
    """An acceptance: when by our clock, and whether this process was the one that delivered it."""

    original: Original
    at: float
    window: float
    ours: bool


class Table:
    """Holds and acceptances. Whoever waits for a hold is woken when it ends."""

    def __init__(self, clock: Callable[[], float], remembered: int) -> None:
        self.clock = clock
        self.holds: dict[Fingerprint, Hold] = {}
        self.known: OrderedDict[Fingerprint, Known] = OrderedDict()
        self.unwritten: dict[Fingerprint, None] = {}
        """Acceptances that the store has not confirmed, oldest first."""
        self._remembered = remembered

    def look_up(self, key: Fingerprint, token: Token, window: float) -> Verdict | None:
        """Give what the table says of a key to the owner of `token`, or None where the store must be asked."""
        now = self.clock()
        hold = self.holds.get(key)
        if hold and hold.token == token:
            return Won() if hold.until > now else None
        if hold and (hold.token is not None or hold.until > now):
            return Held(hold.until - now)
        known = self.known.get(key)
        if known and now - known.at < min(window, known.window):
            return Sent(known.original, now - known.at)
        return None

    def hold(self, key: Fingerprint, token: Token | None, window: float, until: float) -> None:
        """Note who holds it. Whoever waited for the one before waits for this one."""
        hold = self.holds.get(key)
        self.holds[key] = Hold(token, window, until, hold.waiters if hold else set())

    def free(self, key: Fingerprint) -> None:
        """End a hold."""
        hold = self.holds.pop(key, None)
        if hold:
            wake(hold)

    def know(self, key: Fingerprint, known: Known) -> None:
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
        for key in [key for key, hold in self.holds.items() if hold.token is None and hold.until <= now]:
            self.free(key)

    def wake_all(self) -> None:
        """Wake everybody."""
        for hold in self.holds.values():
            wake(hold)


def wake(hold: Hold) -> None:
    """Let all who wait for a hold look again."""
    for waiter in hold.waiters:
        if not waiter.done():
            waiter.set_result(None)
