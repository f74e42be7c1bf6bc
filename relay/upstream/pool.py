"""Connections to one upstream, kept and reused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.errors import UpstreamBusy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.upstream.connect import Connection

LONGEST_IDLE = 30.0
"""Seconds. Each connection keeps a server process of the upstream busy, idle or not."""
LONGEST_WAIT = 120.0
"""Seconds that a transaction waits for a connection while all are in use."""


class Pool:
    """At most `size` connections in use at a time; the one that was used last is used first."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], size: int, longest_wait: float = LONGEST_WAIT
    ) -> None:
        self._connect = connect
        self._longest_wait = longest_wait
        self._places = asyncio.Semaphore(size)
        self._idle: list[tuple[float, Connection]] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False
        self.extensions: dict[str, str] = {}
        """What the upstream offered last, keyword in lower case to parameters."""

    async def wait_for_place(self) -> None:
        """Wait until one more connection may be in use. Then call `connection`. Raises `UpstreamBusy`."""
        if not self._places.locked():
            await self._places.acquire()  # at once, and without the price of a timer
            return
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._places.acquire()
        except TimeoutError:
            raise UpstreamBusy(f"all connections were in use for {self._longest_wait:g} s") from None

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
            if connection.reusable(now):
                return connection
            connection.wire.quit()
        return None

    async def _open(self) -> Connection:
        connection = await self._connect()
        self.extensions = dict(connection.extensions)
        return connection

    def _tidy_later(self) -> None:
        if self._tidying is None and self._idle:
            longest = self._idle[0][0]
            self._tidying = asyncio.get_running_loop().call_at(longest + LONGEST_IDLE, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        now = asyncio.get_running_loop().time()
        while self._idle and self._idle[0][0] + LONGEST_IDLE <= now:
            self._idle.pop(0)[1].wire.quit()
        self._tidy_later()
