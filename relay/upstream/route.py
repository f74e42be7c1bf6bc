"""Which of several upstreams a connection goes to: the first in order of preference that is not known to be away.

    closed ──a failure──▶ open, for a pause ──the pause ends──▶ on trial, for a longer pause
      ▲                                                            │
      └────────────────── a final dot is answered ─────────────────┘

Health is known by real transactions only. A trial is one connection, while the others go on with the next upstream; it
counts as failed until a final dot was answered, for an upstream may begin transactions and never end one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamDown, UpstreamError, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.upstream.connect import Connection, Target

log = logging.getLogger("relay.upstream")

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds for which an upstream that failed is left alone while another one answers."""


class _Breaker:
    """What is known of one upstream. Times in seconds of the route's clock."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.open = False
        self.until = 0.0
        """When it may be tried again, if it is open."""
        self._pause = 0.0

    def would_take(self, now: float) -> bool:
        """Say whether a connection should try it now."""
        return not self.open or now >= self.until

    def begin(self, now: float) -> None:
        """Note that somebody connects. If that is a trial, nobody else tries it meanwhile."""
        if self.open:
            self._leave_alone(now)

    def fail(self, now: float) -> None:
        """Note that it did not do what an upstream does."""
        if self.would_take(now):  # else it is known: this was under way when it went, or the trial itself
            self._leave_alone(now)

    def close(self) -> None:
        """Note that it has answered a final dot."""
        self.open, self._pause = False, 0.0

    def _leave_alone(self, now: float) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self.open, self.until = True, now + self._pause


class Route:
    """Upstreams in order of preference. `clock` gives monotonic seconds."""

    def __init__(
        self,
        targets: Sequence[Target],
        connect: Callable[[Target], Awaitable[Connection]],
        clock: Callable[[], float],
    ) -> None:
        self._breakers = [_Breaker(target) for target in targets]
        self._connect = connect
        self._clock = clock

    async def connection(self) -> Connection:
        """Connect to the first upstream that can be had.

        Raises `UpstreamError`: `UpstreamDown` if trying again may change something with one of them.
        """
        now = self._clock()
        ranks = [rank for rank, breaker in enumerate(self._breakers) if breaker.would_take(now)]
        errors: list[UpstreamError] = []
        # When all are known to be away each is tried all the same, for the mail is here now: first the one whose pause
        # ends first.
        for rank in ranks or sorted(range(len(self._breakers)), key=lambda rank: self._breakers[rank].until):
            try:
                return await self._try(rank)
            except (UpstreamDown, UpstreamRefused) as error:
                errors.append(error)
                self._fail(rank, str(error))
        raise next((error for error in errors if isinstance(error, UpstreamDown)), errors[0])

    def wants(self, connection: Connection) -> bool:
        """Say whether a kept connection is still the best that can be had.

        Its upstream is not left alone since, and no preferred one waits for a trial.
        """
        now = self._clock()
        *preferred, own = self._breakers[: connection.rank + 1]
        return own.would_take(now) and not any(breaker.would_take(now) for breaker in preferred)

    def delivers(self, connection: Connection) -> None:
        """Note that a final dot was answered on it, whatever the answer was."""
        breaker = self._breakers[connection.rank]
        if breaker.open and len(self._breakers) > 1:
            log.info("upstream %s is used again", breaker.target)
        breaker.close()

    def fails(self, connection: Connection, reason: str) -> str:
        """Note that it ended, or hung, before its transaction did. Gives the reason with the name of the upstream."""
        self._fail(connection.rank, reason)
        return f"{self._breakers[connection.rank].target}: {reason}"

    def states(self) -> Mapping[str, bool]:
        """Say of each upstream whether it is used, as far as is known."""
        return {str(breaker.target): not breaker.open for breaker in self._breakers}

    async def _try(self, rank: int) -> Connection:
        breaker = self._breakers[rank]
        breaker.begin(self._clock())
        connection = await self._connect(breaker.target)
        connection.rank = rank
        return connection

    def _fail(self, rank: int, reason: str) -> None:
        breaker = self._breakers[rank]
        if not breaker.open and len(self._breakers) > 1:
            log.warning("upstream %s is left alone for a while: %s", breaker.target, reason)
        breaker.fail(self._clock())
