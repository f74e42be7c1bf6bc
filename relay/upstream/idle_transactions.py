"""Transactions that keep a connection without using it, and when each loses it. Part of `relay.upstream.pool`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.upstream.checkout import Checkout

LONGEST_IDLE_OF_CLIENT = 0.2
"""Seconds after which a transaction loses its connection if its client has more idle ones than it may keep. A client
that works sends its next command within milliseconds."""


class IdleTransactions:
    """A transaction that is idle between two commands loses its connection, the longest idle first:

    - after `longest_idle` seconds, or at the end of its loan, if another one waits for a connection;
    - after 0.2 s, if its client has more than `most_of_client` such transactions; 0 means any number.

    It gets another connection when it goes on. `others_wait` returns whether another transaction waits, and `reclaim`
    takes a connection back. Times by the event loop's clock.
    """

    def __init__(
        self,
        reclaim: Callable[[Checkout, float], None],
        others_wait: Callable[[], bool],
        longest_idle: float,
        most_of_client: int,
    ) -> None:
        self._reclaim = reclaim
        self._others_wait = others_wait
        self._longest_idle = longest_idle
        self._most_of_client = most_of_client
        self._since: dict[Checkout, float] = {}
        """The longest idle one comes first."""
        self._of_client: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    def add(self, checkout: Checkout) -> None:
        """Notes that no command is in progress."""
        self._since[checkout] = now = asyncio.get_running_loop().time()
        self._of_client[checkout.client] += 1
        if self._timer is not None and self._timer_due <= now + LONGEST_IDLE_OF_CLIENT:
            return  # Usual under load. To look at all of them would cost 2 % of a message.
        if self._others_wait() or self._has_too_many(self._of_client[checkout.client]):
            self.schedule()

    def remove(self, checkout: Checkout) -> None:
        """Notes that the transaction goes on or has ended. May be called repeatedly."""
        if self._since.pop(checkout, None) is not None:
            self._of_client[checkout.client] -= 1
            if not self._of_client[checkout.client]:
                del self._of_client[checkout.client]

    def schedule(self) -> None:
        """Sets the timer for the next connection to take back. Call it also when another transaction begins to wait."""
        due, checkout = self._next()
        if checkout is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        # Kept beside the timer: for a time that has passed uvloop returns a handle without `when`.
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._on_time)

    def _on_time(self) -> None:
        """Takes back the connection whose time ended first. Each timer takes back one at most."""
        self._timer = None
        due, checkout = self._next()
        now = asyncio.get_running_loop().time()
        if checkout is not None and due <= now:
            self._reclaim(checkout, now - self._since[checkout])
        self.schedule()

    def _next(self) -> tuple[float, Checkout | None]:
        return min(self._due(), key=lambda item: item[0], default=(0.0, None))

    def _due(self) -> Iterator[tuple[float, Checkout]]:
        """Yields the transactions that lose their connections if they stay idle, and when."""
        others_wait = self._others_wait()
        for checkout, since in self._since.items():
            if others_wait:
                yield min(since + self._longest_idle, checkout.loan_ends), checkout
            if self._has_too_many(self._of_client[checkout.client]):
                yield since + LONGEST_IDLE_OF_CLIENT, checkout

    def _has_too_many(self, count: int) -> bool:
        return 0 < self._most_of_client < count
