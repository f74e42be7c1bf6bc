"""The upstream as one or several MTAs: their connections, and the extensions that they offer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.core.client import client_of
from relay.core.envelope import Envelope
from relay.core.errors import LoginDeferred, LoginRefused, UpstreamError, UpstreamFull
from relay.core.login import Login
from relay.core.reply import LOGIN_UNAVAILABLE
from relay.events.upstream import CONNECTION_FAILED
from relay.upstream.connect import connect
from relay.upstream.delivery import DeliveryContext, SmtpDelivery
from relay.upstream.extensions import size_limit
from relay.upstream.pool import LONGEST_IDLE_IN_TRANSACTION, LONGEST_LOAN, LONGEST_WAIT, Pool
from relay.upstream.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.core.login import Credentials
    from relay.core.reply import Reply
    from relay.upstream.connect import Target
    from relay.upstream.connection import Connection

_LOGIN_SHARE = 4
"""Clients that are not trusted may log in on one of so many connections at a time."""


class SmtpUpstream:
    """MTAs in order of preference. Implements `relay.core.delivery.Upstream`. Times in seconds.

    `report` is called after each attempt to connect, with True if an upstream was reached. `observe` receives each step
    of a connection or a transaction, and its seconds.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        connections: int,
        reply_timeout: float,
        dot_timeout: float,
        patience: float,
        longest_wait: float = LONGEST_WAIT,
        longest_idle_in_transaction: float = LONGEST_IDLE_IN_TRANSACTION,
        longest_loan: float = LONGEST_LOAN,
        most_idle_of_client: int = 0,
        report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005
        observe: Callable[[str, float], None] = lambda step, seconds: None,  # noqa: ARG005
    ) -> None:
        self._targets = targets
        self._route = Route(
            targets,
            lambda target: connect(target, observe),
            time.monotonic,
            has_others=lambda rank: self._pool.has_others(rank),  # noqa: PLW0108 - the pool is made below
        )
        self._pool = Pool(
            self._connect,
            connections,
            longest_wait=longest_wait,
            longest_idle_in_transaction=longest_idle_in_transaction,
            longest_loan=longest_loan,
            most_idle_of_client=most_idle_of_client,
            observe=observe,
            prefers=self._route.prefers,
        )
        self._context = DeliveryContext(self._route, self._pool, reply_timeout, dot_timeout, patience)
        self._report = report
        self._logins_of_others = asyncio.Semaphore(max(1, connections // _LOGIN_SHARE))
        """Taken by the logins of clients that are not trusted. A flood of them leaves connections for mail."""

    def begin(self, envelope: Envelope, client: str = "", identity: Credentials | None = None) -> SmtpDelivery:
        """Returns a delivery. Nothing is sent before its first recipient. Clients take turns for connections."""
        return SmtpDelivery(self._context, envelope, client, identity)

    async def log_in(self, credentials: Credentials, peer: str, *, trusted: bool) -> Login | Reply:
        """Lets the upstream verify a client's credentials. Implements `relay.core.login.Authenticator`.

        The connection is kept for the client's transaction. While it is there, equal credentials need no further login.
        """
        if trusted:
            return await self._log_in(credentials, peer)
        try:
            async with asyncio.timeout(self._pool.longest_wait):
                await self._logins_of_others.acquire()
        except TimeoutError:
            return LOGIN_UNAVAILABLE
        try:
            return await self._log_in(credentials, peer)
        finally:
            self._logins_of_others.release()

    @property
    def is_available(self) -> bool:
        """Whether the preferred upstream offers AUTH, or was not reached yet."""
        return "auth" in self._pool.extensions.get(0, {"auth": ""})

    async def _log_in(self, credentials: Credentials, peer: str) -> Login | Reply:
        reply = await SmtpDelivery(self._context, Envelope(b""), client_of(peer), credentials).log_in()
        return Login(credentials.name, identity=credentials) if reply.positive else reply

    @property
    def connections_in_use(self) -> int:
        """The number of connections that transactions use now."""
        return self._pool.in_use

    def size_limit(self) -> int | None:
        """Returns the smallest SIZE in bytes of the upstreams that were reached, or None."""
        return min(filter(None, map(size_limit, self._pool.extensions.values())), default=None)

    def offers(self, keyword: str) -> bool:
        """Returns whether every upstream that was reached offers an extension."""
        offered = self._pool.extensions.values()
        return bool(offered) and all(keyword.lower() in extensions for extensions in offered)

    def states(self) -> Mapping[str, bool]:
        """Returns the upstreams in order of preference, as `host:port`, and whether each is used."""
        return self._route.states()

    async def probe(self) -> None:
        """Connects to an upstream once. Raises `UpstreamError`."""
        await self._pool.wait_for_slot()
        self._pool.check_in(await self._pool.check_out(new=True))

    async def learn(self) -> None:
        """Asks the fallback upstreams once what they offer, so that clients are offered what works with all.

        It does not log in, and changes no circuit breaker. An upstream that is away shows it with its first connection.
        """
        for rank, target in enumerate(self._targets[1:], 1):
            if rank not in self._pool.extensions:
                with contextlib.suppress(UpstreamError):
                    connection = await connect(replace(target, user="", token=None))
                    self._pool.extensions.setdefault(rank, dict(connection.extensions))
                    connection.wire.quit()

    async def close(self) -> None:
        """Retires all connections."""
        self._pool.close()

    async def _connect(self, identity: Credentials | None) -> Connection:
        try:
            connection = await self._route.connection(identity)
        except UpstreamFull:
            raise
        except UpstreamError as error:
            if identity and isinstance(error, LoginRefused | LoginDeferred):
                raise
            self._report(False)
            CONNECTION_FAILED.log(error=error)
            raise
        self._report(True)
        return connection
