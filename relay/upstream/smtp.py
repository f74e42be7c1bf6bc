"""An MTA as upstream: how it is reached, and what it was heard to offer."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from relay.errors import UpstreamDown, UpstreamRefused
from relay.upstream.connect import connect
from relay.upstream.delivery import SmtpDelivery, Terms
from relay.upstream.pool import LONGEST_SILENCE, LONGEST_WAIT, Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.envelope import Envelope
    from relay.upstream.connect import Connection, Target

log = logging.getLogger("relay.upstream")

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 section 3


class SmtpUpstream:
    """An MTA that is spoken to in SMTP. `report` hears whether it could be reached, whenever that is tried."""

    def __init__(
        self,
        target: Target,
        *,
        connections: int,
        reply_timeout: float,
        dot_timeout: float,
        patience: float,
        longest_wait: float = LONGEST_WAIT,
        longest_silence: float = LONGEST_SILENCE,
        report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self._target = target
        self._pool = Pool(self._connect, connections, longest_wait=longest_wait, longest_silence=longest_silence)
        self._terms = Terms(target, self._pool, reply_timeout, dot_timeout, patience)
        self._report = report

    def begin(self, envelope: Envelope) -> SmtpDelivery:
        """Make a transaction. Nothing is sent before its first recipient."""
        return SmtpDelivery(self._terms, envelope)

    def size_limit(self) -> int | None:
        """Give the upstream's SIZE in bytes; 0 stands for no limit (RFC 1870 section 4)."""
        size = self._pool.extensions.get("size", "")
        return int(size) or None if _SIZE.fullmatch(size) else None

    def offers(self, keyword: str) -> bool:
        """Say whether the last connection was offered an extension."""
        return keyword.lower() in self._pool.extensions

    async def probe(self) -> None:
        """Reach the upstream once. Raises `UpstreamError`."""
        await self._pool.wait_for_place()
        self._pool.give_back(await self._pool.connection(fresh=True))

    async def close(self) -> None:
        """Retire all connections."""
        self._pool.close()

    async def _connect(self) -> Connection:
        try:
            connection = await connect(self._target)
        except (UpstreamDown, UpstreamRefused) as error:
            self._report(False)
            log.debug("no connection to %s: %s", self._target, error)
            raise
        self._report(True)
        return connection
