"""Pooled connections to the upstream. A delivery checks one out for each transaction and checks it in afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamBusy
from relay.upstream.checkout import Checkout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.upstream.connect import Connection

LONGEST_IDLE = 30.0
"""Seconds for which a free connection is kept. Each one occupies a server process of the upstream, used or not."""
LONGEST_WAIT = 120.0
"""Seconds for which a transaction waits for a connection while all are in use."""
LONGEST_IDLE_IN_TRANSACTION = 2.0
"""Seconds. A transaction that sent no command for so long loses its connection if others wait for one."""


class Pool:
    """At most `size` connections in use at a time. Of the free ones the last used is reused first, if `prefers` it.

    Times in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        size: int,
        *,
        longest_wait: float = LONGEST_WAIT,
        longest_idle: float = LONGEST_IDLE,
        longest_idle_in_transaction: float = LONGEST_IDLE_IN_TRANSACTION,
        prefers: Callable[[Connection], bool] = lambda connection: True,  # noqa: ARG005
    ) -> None:
        self._connect = connect
        self._prefers = prefers
        self._longest_wait = longest_wait
        self._longest_idle = longest_idle
        self._longest_idle_in_transaction = longest_idle_in_transaction
        self._slots = asyncio.Semaphore(size)
        self._waiting = 0
        self._idle_in_transaction: dict[Checkout, float] = {}
        """Since when, by the loop's clock. The longest idle comes first."""
        self._reclaim_timer: asyncio.TimerHandle | None = None
        self._free: list[tuple[float, Connection]] = []
        """Since when, by the loop's clock, and the connection. The longest free comes first."""
        self._retire_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.extensions: dict[int, Mapping[str, str]] = {}
        """What each upstream offered last, by rank: keyword in lower case to parameters."""

    async def wait_for_slot(self) -> None:
        """Waits until one more connection may be in use. Then call `check_out`. Raises `UpstreamBusy`."""
        if not self._slots.locked():
            await self._slots.acquire()  # returns at once; saves the cost of a timer
            return
        self._waiting += 1
        self._schedule_reclaim()
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamBusy(f"all connections were in use for {self._longest_wait:g} s") from None
        finally:
            self._waiting -= 1

    async def check_out(self, *, new: bool = False) -> Checkout:
        """Returns a free connection or opens one; always opens one if `new`.

        Raises `UpstreamError`; then the slot is free again.
        """
        try:
            connection = None if new else self._take_free()
            if connection is None:
                if self._free:
                    # The new connection replaces the one that was free longest.
                    self._free.pop(0)[1].wire.quit()
                connection = await self._connect()
                self.extensions[connection.rank] = dict(connection.extensions)
            return Checkout(connection)
        except BaseException:
            self._slots.release()
            raise

    async def exchange(self, checkout: Checkout, *, new: bool = False) -> Checkout:
        """Retires a connection and checks out another one in its slot. Raises `UpstreamError`; see `check_out`."""
        checkout.connection.wire.quit()
        return await self.check_out(new=new)

    def check_in(self, checkout: Checkout) -> None:
        """Leaves the transaction and keeps or retires the connection. May be called repeatedly."""
        self.set_active(checkout)
        if checkout.checked_in:
            return
        connection, now = checkout.connection, asyncio.get_running_loop().time()
        checkout.leave_transaction(now)
        checkout.checked_in = True
        self._slots.release()
        if self._closed or not connection.reusable(now):
            connection.wire.quit()
            return
        self._free.append((now, connection))
        self._schedule_retirement()

    def discard(self, checkout: Checkout) -> None:
        """Closes a connection that failed and frees its slot."""
        checkout.connection.wire.abort("given up")
        self.check_in(checkout)

    def set_idle(self, checkout: Checkout) -> None:
        """Notes that no command is in progress. The pool may check the connection in if others wait for one."""
        self._idle_in_transaction[checkout] = asyncio.get_running_loop().time()
        self._schedule_reclaim()

    def set_active(self, checkout: Checkout) -> None:
        """Notes that the delivery uses its connection again."""
        self._idle_in_transaction.pop(checkout, None)

    def close(self) -> None:
        """Retires all free connections now, and those in use when they are checked in."""
        self._closed = True
        if self._retire_timer:
            self._retire_timer.cancel()
        for _, connection in self._free:
            connection.wire.quit()
        self._free.clear()

    def _take_free(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._free:
            _, connection = self._free.pop()
            if connection.reusable(now) and self._prefers(connection):
                return connection
            connection.wire.quit()
        return None

    def _schedule_reclaim(self) -> None:
        if self._reclaim_timer is None and self._waiting and self._idle_in_transaction:
            since = next(iter(self._idle_in_transaction.values()))
            due = since + self._longest_idle_in_transaction
            self._reclaim_timer = asyncio.get_running_loop().call_at(due, self._reclaim)

    def _reclaim(self) -> None:
        """Checks in the connection that was idle in its transaction longest. Each timer reclaims one at most."""
        self._reclaim_timer = None
        if self._waiting and self._idle_in_transaction:
            checkout, since = next(iter(self._idle_in_transaction.items()))
            if since + self._longest_idle_in_transaction <= asyncio.get_running_loop().time():
                self.check_in(checkout)
        self._schedule_reclaim()

    def _schedule_retirement(self) -> None:
        if self._retire_timer is None and self._free:
            due = self._free[0][0] + self._longest_idle
            self._retire_timer = asyncio.get_running_loop().call_at(due, self._retire_free)

    def _retire_free(self) -> None:
        self._retire_timer = None
        now = asyncio.get_running_loop().time()
        while self._free and self._free[0][0] + self._longest_idle <= now:
            self._free.pop(0)[1].wire.quit()
        self._schedule_retirement()
