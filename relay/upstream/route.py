"""Which of several upstreams a connection goes to: the first in order of preference that is not known to be away.

    closed ──a failure──▶ open, for a pause ──the pause ends──▶ on trial ──a transaction begins──▶ closed
                            ▲                                      │ a failure: a longer pause
                            └──────────────────────────────────────┘

Health is known by real transactions only. While an upstream is on trial one connection tries it; the others go on
with the next one. Pauses grow until a final dot was answered.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay.errors import UpstreamDown, UpstreamError, UpstreamRefused

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
        self._pause = 0.0
        self._until = 0.0
        self._on_trial = False

    def would_take(self, now: float) -> bool:
        """Say whether a connection should try it now."""
        return not self.open or (now >= self._until and not self._on_trial)

    def begin(self) -> None:
        """Note that somebody connects: nobody else tries it meanwhile if it is on trial."""
        self._on_trial = self.open

    def end(self) -> None:
        """Note that he has done so. Whether it takes mail only a transaction tells."""
        self._on_trial = False

    def fail(self, now: float) -> None:
        """Note that it did not do what an upstream does."""
        if not self.would_take(now):
            return  # it is known: this was under way when it went
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self.open, self._on_trial, self._until = True, False, now + self._pause

    def close(self) -> None:
        """Note that it begins transactions."""
        self.open = self._on_trial = False

    def forgive(self) -> None:
        """Note that it ends them too."""
        self._pause = 0.0


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
        # When all are known to be away each is tried all the same: the mail is here now.
        for rank in ranks or range(len(self._breakers)):
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

    def works(self, connection: Connection) -> None:
        """Note that a transaction has begun on it."""
        breaker = self._breakers[connection.rank]
        if breaker.open:
            breaker.close()
            if len(self._breakers) > 1:
                log.info("upstream %s is used again", breaker.target)

    def delivers(self, connection: Connection) -> None:
        """Note that a final dot was answered on it, whatever the answer was."""
        self._breakers[connection.rank].forgive()

    def fails(self, connection: Connection, reason: str) -> str:
        """Note that it ended, or hung, before its transaction did. Gives the reason with the name of the upstream."""
        self._fail(connection.rank, reason)
        return f"{self._breakers[connection.rank].target}: {reason}"

    def states(self) -> Mapping[str, bool]:
        """Say of each upstream whether it is used, as far as is known."""
        return {str(breaker.target): not breaker.open for breaker in self._breakers}

    async def _try(self, rank: int) -> Connection:
        breaker = self._breakers[rank]
        breaker.begin()
        try:
            connection = await self._connect(breaker.target)
        finally:
            breaker.end()
        connection.rank = rank
        return connection

    def _fail(self, rank: int, reason: str) -> None:
        breaker = self._breakers[rank]
        if not breaker.open and len(self._breakers) > 1:
            log.warning("upstream %s is left alone for a while: %s", breaker.target, reason)
        breaker.fail(self._clock())
