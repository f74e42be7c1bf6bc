"""Connections, kept and reused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamBusy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.upstream.connect import Connection

LONGEST_IDLE = 30.0
"""Seconds. Each connection keeps a server process of the upstream busy, idle or not."""
LONGEST_WAIT = 120.0
"""Seconds that a transaction waits for a connection while all are in use."""
LONGEST_SILENCE = 2.0
"""Seconds. A transaction whose client has said nothing for so long gives its connection to those who wait for one."""


class Pool:
    """At most `size` connections in use at a time; the one that was used last is used first, if it is `wanted`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        size: int,
        *,
        longest_wait: float = LONGEST_WAIT,
        longest_idle: float = LONGEST_IDLE,
        longest_silence: float = LONGEST_SILENCE,
        wanted: Callable[[Connection], bool] = lambda connection: True,  # noqa: ARG005 - all are
    ) -> None:
        self._connect = connect
        self._wanted = wanted
        self._longest_wait = longest_wait
        self._longest_idle = longest_idle
        self._longest_silence = longest_silence
        self._places = asyncio.Semaphore(size)
        self._waiting = 0
        self._silent: dict[Callable[[], None], float] = {}
        self._recalling: asyncio.TimerHandle | None = None
        self._idle: list[tuple[float, Connection]] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False
        self.offered: dict[int, Mapping[str, str]] = {}
        """What each upstream offered last, by rank: keyword in lower case to parameters."""

    async def wait_for_place(self) -> None:
        """Wait until one more connection may be in use. Then call `connection`. Raises `UpstreamBusy`."""
        if not self._places.locked():
            await self._places.acquire()  # at once, and without the price of a timer
            return
        self._waiting += 1
        self._recall_later()
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._places.acquire()
        except TimeoutError:
            raise UpstreamBusy(f"all connections were in use for {self._longest_wait:g} s") from None
        finally:
            self._waiting -= 1

    def is_silent(self, give_back: Callable[[], None]) -> None:
        """Note that whoever has a connection does nothing with it now; `give_back` is called if others need it."""
        self._silent[give_back] = asyncio.get_running_loop().time()
        self._recall_later()

    def speaks(self, give_back: Callable[[], None]) -> None:
        """Note that it uses its connection again, or has none."""
        self._silent.pop(give_back, None)

    async def connection(self, *, fresh: bool = False) -> Connection:
        """Give a connection, a new one if `fresh`. Raises `UpstreamError`, and then the place is free again."""
        try:
            if not fresh and (kept := self._pop()):
                return kept
            if self._idle:
                # The new one takes the place of the one that was idle longest.
                self._idle.pop(0)[1].wire.quit()
            return await self._open()
        except BaseException:
            self._places.release()
            raise

    async def exchange(self, connection: Connection, *, fresh: bool = False) -> Connection:
        """Retire a connection and give another in its place. Raises `UpstreamError`, and then the place is free."""
        connection.wire.quit()
        return await self.connection(fresh=fresh)

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next transaction, or retire it."""
        self._places.release()
        now = asyncio.get_running_loop().time()
        if self._closed or not connection.reusable(now):
            connection.wire.quit()
            return
        self._idle.append((now, connection))
        self._tidy_later()

    def close(self) -> None:
        """Retire all idle connections, and those in use when they come back."""
        self._closed = True
        if self._tidying:
            self._tidying.cancel()
        for _, connection in self._idle:
            connection.wire.quit()
        self._idle.clear()

    def _pop(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.reusable(now) and self._wanted(connection):
                return connection
            connection.wire.quit()
        return None

    async def _open(self) -> Connection:
        connection = await self._connect()
        self.offered[connection.rank] = dict(connection.extensions)
        return connection

    def _recall_later(self) -> None:
        if self._recalling is None and self._waiting and self._silent:
            longest = next(iter(self._silent.values()))
            self._recalling = asyncio.get_running_loop().call_at(longest + self._longest_silence, self._recall)

    def _recall(self) -> None:
        """Take the connection of the one that has been silent longest. Another round, if need be, takes the next."""
        self._recalling = None
        if self._waiting and self._silent:
            give_back, since = next(iter(self._silent.items()))
            if since + self._longest_silence <= asyncio.get_running_loop().time():
                del self._silent[give_back]
                give_back()
        self._recall_later()

    def _tidy_later(self) -> None:
        if self._tidying is None and self._idle:
            longest = self._idle[0][0]
            self._tidying = asyncio.get_running_loop().call_at(longest + self._longest_idle, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        now = asyncio.get_running_loop().time()
        while self._idle and self._idle[0][0] + self._longest_idle <= now:
            self._idle.pop(0)[1].wire.quit()
        self._tidy_later()
