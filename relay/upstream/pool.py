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

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int, longest_wait: float = LONGEST_WAIT):
        self._connect = connect
        self._longest_wait = longest_wait
        self._places = asyncio.Semaphore(size)
        self._idle: list[tuple[float, Connection]] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False
        self.extensions: dict[str, str] = {}
        """What the upstream offered last, keyword in lower case to parameters."""

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Give a connection, a new one if `fresh`. Raises `UpstreamError`."""
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._places.acquire()
        except TimeoutError:
            raise UpstreamBusy(f"all connections were in use for {self._longest_wait:g} s") from None
        try:
            return (None if fresh else self._pop()) or await self._open()
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
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(LONGEST_IDLE, self._tidy)

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

    def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        fresh = [(since, connection) for since, connection in self._idle if now - since < LONGEST_IDLE]
        for since, connection in self._idle:
            if now - since >= LONGEST_IDLE:
                connection.wire.quit()
        self._idle = fresh
        self._tidying = loop.call_later(LONGEST_IDLE, self._tidy) if fresh else None
