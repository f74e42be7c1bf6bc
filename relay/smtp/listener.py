"""The listening socket, the sessions behind it, and how they end."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from relay.core import reply as replies
from relay.runtime.tasks import Tasks
from relay.smtp.protocol import RelaySMTP
from relay.smtp.session import Session, SessionLimits

if TYPE_CHECKING:
    from relay.transaction import Dependencies

_BACKLOG = 512
_LAST_WORDS = 1.0
"""Seconds that those who waited for others have to hear 451 when the drain's time is over."""


class Listener:
    """Takes clients in, and knows which of them are in the middle of a message."""

    def __init__(self, dependencies: Dependencies, limits: SessionLimits) -> None:
        self.limits = limits
        self.draining = False
        self.handlers = Tasks()
        self.messages = Tasks()
        self._relay = dependencies
        self._sessions: set[Session] = set()
        self._server: asyncio.Server | None = None
        self._quiet = asyncio.Event()

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port. Raises `OSError`."""
        model = RelaySMTP.prepare(self._relay.policy.hostname, "smtp-dedup-relay")
        loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"sock": _all_addresses(port)} if host == "::" else {"host": host, "port": port}
        self._server = await loop.create_server(
            lambda: model.connection(Session(self, self._relay)), **where, backlog=_BACKLOG
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def enter(self, session: Session) -> bool:
        """Take a session in; False when there are too many."""
        if len(self._sessions) >= self.limits.sessions:
            return False
        self._sessions.add(session)
        return True

    def leave(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.discard(session)
        self.settled()

    def settled(self) -> None:
        """Look whether the drain is over."""
        if self.draining and not self._busy():
            self._quiet.set()

    @property
    def sessions(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    async def drain(self, limit: float) -> bool:
        """Begin nothing new, and let what has begun finish. False when that took longer than `limit` seconds.

        New sessions and MAIL hear 421 until `close`.
        """
        self.draining = True
        for session in list(self._sessions):
            if not session.in_transaction:
                session.hang_up(replies.DRAINING)
        self.settled()
        last_words = min(_LAST_WORDS, limit / 4)
        if await self._wait_quiet(limit - last_words):
            return True
        self._relay.claims.end_waits()
        return await self._wait_quiet(last_words)

    async def close(self) -> None:
        """Stop listening and end every session."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.hang_up(replies.DRAINING)
        await self.handlers.cancel()
        await self.messages.cancel()

    async def _wait_quiet(self, limit: float) -> bool:
        try:
            async with asyncio.timeout(limit):
                await self._quiet.wait()
                await self.messages.finished()
        except TimeoutError:
            return False
        return True

    def _busy(self) -> bool:
        return any(session.in_transaction for session in self._sessions)


def _all_addresses(port: int) -> socket.socket:
    """Listen on IPv4 too where the system can; asyncio would take `::` for IPv6 alone."""
    return socket.create_server(
        ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=socket.has_dualstack_ipv6()
    )
