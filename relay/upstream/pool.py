"""Pooled connections to the upstream. A delivery checks one out for each transaction and checks it in afterwards."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from relay.core.errors import LoginDeferred, LoginRefused, UpstreamError, UpstreamFull
from relay.upstream.checkout import Checkout
from relay.upstream.idle_transactions import IdleTransactions
from relay.upstream.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.core.login import Credentials
    from relay.upstream.connection import Connection

LONGEST_IDLE = 30.0
"""Seconds for which a free connection is kept. Each one occupies a server process of the upstream, used or not."""
LONGEST_WAIT = 120.0
"""Seconds for which a transaction waits for a connection while all are in use."""
LONGEST_IDLE_IN_TRANSACTION = 2.0
"""Seconds. A transaction that sent no command for so long loses its connection if others wait for one."""
LONGEST_LOAN = 10.0
"""Seconds. A transaction that keeps a connection for so long before DATA loses it between two commands if others wait
for one. A client that names a recipient every 1.5 s is never idle, and would keep its connection for ever."""
_LONGEST_QUIT = 1.0
"""Seconds to wait for the end of a connection before another one is opened in its place. So long the upstream may still
count a connection after QUIT."""


class Pool:
    """At most `size` connections in use at a time. Of the free ones the last used is reused first, if `prefers` it.

    A connection that is logged in with a client's credentials (its `identity`) serves this identity only. All
    identities share the `size`. Times in seconds.
    """

    def __init__(
        self,
        connect: Callable[[Credentials | None], Awaitable[Connection]],
        size: int,
        *,
        longest_wait: float = LONGEST_WAIT,
        longest_idle: float = LONGEST_IDLE,
        longest_idle_in_transaction: float = LONGEST_IDLE_IN_TRANSACTION,
        longest_loan: float = LONGEST_LOAN,
        most_idle_of_client: int = 0,
        prefers: Callable[[Connection], bool] = lambda connection: True,  # noqa: ARG005
        observe: Callable[[str, float], None] = lambda step, seconds: None,  # noqa: ARG005
    ) -> None:
        self._connect = connect
        self._prefers = prefers
        self._observe = observe
        self.longest_wait = longest_wait
        self._longest_idle = longest_idle
        self._longest_loan = longest_loan
        self._slots = Slots(size, asyncio.get_running_loop().time, lambda: self._idle.schedule())  # noqa: PLW0108
        self._idle = IdleTransactions(
            self._reclaim, lambda: self._slots.waiting, longest_idle_in_transaction, most_idle_of_client
        )
        self._established: set[Connection] = set()
        self._left: deque[float] = deque(maxlen=size)
        """When the last connections were left, by the loop's clock."""
        self._opening = 0
        self._refusals_allowed: dict[int, int] = {}
        """The number of refusals on a connection before an upstream was seen to delay its replies, by rank."""
        self._free: list[tuple[float, Connection]] = []
        """Since when, by the loop's clock, and the connection. The longest free comes first."""
        self._retire_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.extensions: dict[int, Mapping[str, str]] = {}
        """What each upstream offered last, by rank: keyword in lower case to parameters."""

    @property
    def in_use(self) -> int:
        """The number of connections in use, those that are being opened included."""
        return self._slots.in_use

    def has_others(self, rank: int) -> bool:
        """Returns whether the upstream of that rank serves a connection, or another one is being opened."""
        return self._opening > 1 or any(connection.rank == rank for connection in self._working())

    def delays_replies(self, connection: Connection) -> bool:
        """Returns whether the upstream delays its replies on the connection from now on, because of refusals."""
        if connection.penalty_at is not None:
            # Less one for the reply that was seen late, and one because QUIT would be delayed too.
            self._refusals_allowed[connection.rank] = connection.penalty_at - 2
        allowed = self._refusals_allowed.get(connection.rank)
        return allowed is not None and connection.refusals >= allowed

    async def wait_for_slot(self, client: str = "", *, first: bool = False) -> None:
        """Waits until one more connection may be in use. Then call `check_out`. Clients take turns.

        Raises `UpstreamBusy`, or another `UpstreamError` if the upstream is found unreachable meanwhile.
        """
        if not self._slots.acquire_now():  # saves the cost of a timer
            await self._slots.acquire(client, self.longest_wait, first=first)

    async def check_out(self, client: str = "", *, new: bool = False, identity: Credentials | None = None) -> Checkout:
        """Returns a free connection of the identity or opens one; always opens one if `new`.

        Raises `UpstreamError`; then the slot is free again.
        """
        try:
            connection = None if new else self._take_free(identity)
            if connection is None:
                if self._free and (new or len(self._free) + self._slots.in_use > self._slots.limit):
                    # The new connection replaces the one that was free longest.
                    await self._free.pop(0)[1].wire.leave(_LONGEST_QUIT)
                connection = await self._open(identity)
            loan_ends = asyncio.get_running_loop().time() + self._longest_loan
            return Checkout(connection, loan_ends, self._observe, client)
        except BaseException:
            self._slots.release()
            raise

    async def _open(self, identity: Credentials | None) -> Connection:
        self._opening += 1
        try:
            connection = await self._connect(identity)
        except UpstreamFull:
            now = asyncio.get_running_loop().time()
            leaving = sum(now - left < _LONGEST_QUIT for left in self._left)
            self._slots.learn_limit(len(self._working()) + leaving)
            raise
        except UpstreamError as error:
            # A client's login that fails concerns no other client.
            if not self._working() and not (identity and isinstance(error, LoginRefused | LoginDeferred)):
                self._slots.fail(error)
            raise
        finally:
            self._opening -= 1
        self.extensions[connection.rank] = dict(connection.extensions)
        self._established.add(connection)
        self._slots.note_connected(len(self._working()))
        return connection

    def _quit(self, connection: Connection) -> None:
        self._left.append(asyncio.get_running_loop().time())
        connection.wire.quit()

    def _working(self) -> set[Connection]:
        self._established = {connection for connection in self._established if not connection.wire.ended}
        return self._established

    async def exchange(self, checkout: Checkout) -> Checkout:
        """Retires a connection and opens another one in its slot. Raises `UpstreamError`; see `check_out`."""
        try:
            self.set_active(checkout)
            if checkout.awaits_content:
                checkout.connection.wire.abort("given up")
            await checkout.connection.wire.leave(_LONGEST_QUIT)
        except BaseException:
            self._slots.release()
            raise
        checkout.checked_in = True
        return await self.check_out(checkout.client, new=True, identity=checkout.connection.identity)

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
            self._quit(connection)
            return
        self._free.append((now, connection))
        self._schedule_retirement()

    def discard(self, checkout: Checkout) -> None:
        """Closes a connection that failed and frees its slot."""
        checkout.connection.wire.abort("given up")
        self.check_in(checkout)

    def set_idle(self, checkout: Checkout) -> None:
        """Notes that no command is in progress. The pool may check the connection in if others wait for one."""
        now = asyncio.get_running_loop().time()
        if self._slots.waiting and checkout.loan_ends <= now:
            self.check_in(checkout)
            return
        self._idle.add(checkout)

    def set_active(self, checkout: Checkout) -> None:
        """Notes that the delivery uses its connection again."""
        self._idle.remove(checkout)

    def close(self) -> None:
        """Retires all free connections now, and those in use when they are checked in."""
        self._closed = True
        if self._retire_timer:
            self._retire_timer.cancel()
        for _, connection in self._free:
            self._quit(connection)
        self._free.clear()

    def _take_free(self, identity: Credentials | None) -> Connection | None:
        now = asyncio.get_running_loop().time()
        for position in range(len(self._free) - 1, -1, -1):
            connection = self._free[position][1]
            if connection.identity != identity:
                continue
            del self._free[position]
            if connection.reusable(now) and self._prefers(connection):
                return connection
            self._quit(connection)
        return None

    def _reclaim(self, checkout: Checkout, idle: float) -> None:
        self._observe("reclaimed", idle)
        self.check_in(checkout)

    def _schedule_retirement(self) -> None:
        if self._retire_timer is None and self._free:
            due = self._free[0][0] + self._longest_idle
            self._retire_timer = asyncio.get_running_loop().call_at(due, self._retire_free)

    def _retire_free(self) -> None:
        self._retire_timer = None
        now = asyncio.get_running_loop().time()
        while self._free and self._free[0][0] + self._longest_idle <= now:
            self._quit(self._free.pop(0)[1])
        self._schedule_retirement()
