"""The listening socket and the drain. `relay.service` starts and ends it.

A message begins here: each accepted connection gets a `relay.smtp.protocol.RelaySMTP`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from relay.smtp.protocol import RelaySMTP
from relay.smtp.session import SessionLimits, SessionTable

if TYPE_CHECKING:
    from relay.transaction import Dependencies

_BACKLOG = 512
_FINAL_REPLIES = 1.0
"""Seconds at the end of a drain in which messages that wait for claims of others receive their 451."""


class Listener:
    """Accepts clients on one address."""

    def __init__(self, dependencies: Dependencies, limits: SessionLimits) -> None:
        self.table = SessionTable(limits)
        self._dependencies = dependencies
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens and returns the port. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        address: dict[str, Any] = {"sock": _all_addresses(port)} if host == "::" else {"host": host, "port": port}
        self._server = await loop.create_server(
            lambda: RelaySMTP(self.table, self._dependencies), **address, backlog=_BACKLOG
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    @property
    def sessions(self) -> int:
        """The number of connected clients."""
        return len(self.table)

    @property
    def draining(self) -> bool:
        """Whether new sessions and transactions are refused."""
        return self.table.draining

    async def drain(self, limit: float) -> bool:
        """Refuses new sessions and transactions with 421, and waits until those in progress have ended.

        Returns False if that takes longer than `limit` seconds.
        """
        self.table.start_drain()
        final_replies = min(_FINAL_REPLIES, limit / 4)
        if await self._transactions_end(limit - final_replies):
            return True
        self._dependencies.claims.end_waits()
        return await self._transactions_end(final_replies)

    async def close(self) -> None:
        """Stops listening and ends all sessions."""
        if self._server is not None:
            self._server.close()
        self.table.close_all()
        await self.table.handlers.cancel()
        await self.table.messages.cancel()

    async def _transactions_end(self, limit: float) -> bool:
        try:
            async with asyncio.timeout(limit):
                await self.table.drained.wait()
                await self.table.messages.finished()
        except TimeoutError:
            return False
        return True


def _all_addresses(port: int) -> socket.socket:
    """Returns a socket for IPv6 and, where the system allows it, IPv4. asyncio would listen on `::` for IPv6 only."""
    return socket.create_server(
        ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=socket.has_dualstack_ipv6()
    )
