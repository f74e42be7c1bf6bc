"""One MTA or several as upstream: how they are reached, and what they were heard to offer."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamError
from relay.upstream.connect import connect
from relay.upstream.delivery import DeliveryContext, SmtpDelivery
from relay.upstream.pool import LONGEST_SILENCE, LONGEST_WAIT, Pool
from relay.upstream.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.core.envelope import Envelope
    from relay.upstream.connect import Connection, Target

log = logging.getLogger("relay.upstream")

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 section 3


class SmtpUpstream:
    """MTAs that are spoken to in SMTP, in order of preference.

    `report` hears whether one of them could be reached, whenever that is tried.
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
        longest_silence: float = LONGEST_SILENCE,
        report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self._route = Route(targets, connect, time.monotonic)
        self._pool = Pool(
            self._connect,
            connections,
            longest_wait=longest_wait,
            longest_silence=longest_silence,
            wanted=self._route.wants,
        )
        self._terms = DeliveryContext(self._route, self._pool, reply_timeout, dot_timeout, patience)
        self._report = report

    def begin(self, envelope: Envelope) -> SmtpDelivery:
        """Make a transaction. Nothing is sent before its first recipient."""
        return SmtpDelivery(self._terms, envelope)

    def size_limit(self) -> int | None:
        """Give the smallest SIZE in bytes; 0 stands for no limit (RFC 1870 section 4)."""
        told = [offered.get("size", "") for offered in self._pool.offered.values()]
        sizes = [int(size) for size in told if _SIZE.fullmatch(size) and int(size)]
        return min(sizes, default=None)

    def offers(self, keyword: str) -> bool:
        """Say whether every upstream that was reached offers an extension."""
        offered = self._pool.offered.values()
        return bool(offered) and all(keyword.lower() in extensions for extensions in offered)

    def states(self) -> Mapping[str, bool]:
        """Give the upstreams in order of preference and whether each is used, as far as is known."""
        return self._route.states()

    async def probe(self) -> None:
        """Reach the upstream once. Raises `UpstreamError`."""
        await self._pool.wait_for_place()
        self._pool.give_back(await self._pool.connection(fresh=True))

    async def close(self) -> None:
        """Retire all connections."""
        self._pool.close()

    async def _connect(self) -> Connection:
        try:
            connection = await self._route.connection()
        except UpstreamError as error:
            self._report(False)
            log.debug("%s", error)
            raise
        self._report(True)
        return connection
