"""Chooses the upstream for a connection: the first in order of preference whose circuit breaker allows it.

    closed ──a failure──▶ open, for a pause ──the pause ends──▶ half-open: one trial, then a longer pause
      ▲                                                            │
      └────────────────── a final dot is answered ─────────────────┘

Only real transactions change a breaker. A trial is one connection; meanwhile the others use the next upstream. A trial
counts as failed until a final dot is answered, because an upstream may begin transactions and never end one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.errors import (
    LoginDeferred,
    LoginRefused,
    UpstreamDown,
    UpstreamError,
    UpstreamFull,
    UpstreamRefused,
)
from relay.events.upstream import UPSTREAM_SKIPPED, UPSTREAM_USED_AGAIN
from relay.upstream.login import LoginGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.login import Credentials
    from relay.upstream.connect import Target
    from relay.upstream.connection import Connection

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds for which a breaker stays open; the pause doubles with each failure in a row."""


class _Breaker:
    """The circuit breaker of one upstream. Times in seconds of the route's clock."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.login = LoginGuard()
        self.is_open = False
        self.retry_at = 0.0
        """When a trial is allowed, if the breaker is open."""
        self._pause = 0.0

    def allows(self, now: float) -> bool:
        """Returns whether a connection should try the upstream now."""
        return not self.is_open or now >= self.retry_at

    def begin(self, now: float) -> None:
        """Notes that a connection is being opened. If it is a trial, no other connection tries meanwhile."""
        if self.is_open:
            self._open(now)

    def fail(self, now: float) -> None:
        """Notes a failure. Failures while the breaker is open change nothing: they belong to earlier connections."""
        if self.allows(now):
            self._open(now)

    def close(self) -> None:
        """Notes that the upstream has answered a final dot."""
        self.is_open, self._pause = False, 0.0

    def _open(self, now: float) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self.is_open, self.retry_at = True, now + self._pause


class Route:
    """Upstreams in order of preference. `clock` gives monotonic seconds.

    `has_others` returns whether the upstream of a rank serves other connections: then it is full, not down.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        connect: Callable[[Target], Awaitable[Connection]],
        clock: Callable[[], float],
        has_others: Callable[[int], bool] = lambda rank: False,  # noqa: ARG005
    ) -> None:
        self._breakers = [_Breaker(target) for target in targets]
        self._connect = connect
        self._clock = clock
        self._has_others = has_others

    async def connection(self, identity: Credentials | None = None) -> Connection:
        """Connects to the first upstream that can be reached, and logs in with a client's credentials if given.

        What an upstream says about these does not change its breaker; the first one that verifies them decides.
        Raises `UpstreamError`: `UpstreamFull` if an upstream takes no further connection while others to it work,
        `UpstreamDown` if a later try may succeed with one of them.
        """
        now = self._clock()
        ranks = [rank for rank, breaker in enumerate(self._breakers) if breaker.allows(now)]
        errors: list[UpstreamError] = []
        # If all breakers are open each upstream is tried all the same, because the mail is here now. The one whose
        # pause ends first comes first.
        for rank in ranks or sorted(range(len(self._breakers)), key=lambda rank: self._breakers[rank].retry_at):
            try:
                return await self._try(rank, identity)
            except UpstreamFull as error:
                if self._has_others(rank):
                    raise
                errors.append(UpstreamDown(*error.args))
                self._fail(rank, str(error))
            except (UpstreamDown, UpstreamRefused) as error:
                errors.append(error)
                if identity is None or not isinstance(error, LoginRefused | LoginDeferred):
                    self._fail(rank, str(error))
                elif isinstance(error, LoginRefused):
                    raise
        raise next((error for error in errors if isinstance(error, UpstreamDown)), errors[0])

    def prefers(self, connection: Connection) -> bool:
        """Returns whether a pooled connection is still the best choice.

        It is not if its breaker has opened since, or if a preferred upstream may be tried again.
        """
        now = self._clock()
        *preferred, own = self._breakers[: connection.rank + 1]
        return own.allows(now) and not any(breaker.allows(now) for breaker in preferred)

    def note_success(self, connection: Connection) -> None:
        """Notes that the upstream answered a final dot, with whatever reply."""
        breaker = self._breakers[connection.rank]
        if breaker.is_open and len(self._breakers) > 1:
            UPSTREAM_USED_AGAIN.log(upstream=str(breaker.target))
        breaker.close()

    def note_failure(self, connection: Connection, reason: str) -> str:
        """Notes that a connection ended or hung in a transaction. Returns the reason with the upstream's name."""
        self._fail(connection.rank, reason)
        return f"{self._breakers[connection.rank].target}: {reason}"

    def states(self) -> Mapping[str, bool]:
        """Returns for each upstream, as `host:port`, whether its breaker is closed."""
        return {str(breaker.target): not breaker.is_open for breaker in self._breakers}

    async def _try(self, rank: int, identity: Credentials | None) -> Connection:
        breaker = self._breakers[rank]
        breaker.begin(self._clock())
        if identity is not None:
            connection = await self._connect(breaker.target.with_login(identity))
        elif breaker.target.user:
            connection = await breaker.login.run(lambda: self._connect(breaker.target), self._clock)
        else:
            connection = await self._connect(breaker.target)
        connection.rank, connection.upstream = rank, str(breaker.target)
        connection.identity = identity
        return connection

    def _fail(self, rank: int, reason: str) -> None:
        breaker = self._breakers[rank]
        if not breaker.is_open and len(self._breakers) > 1:
            UPSTREAM_SKIPPED.log(upstream=str(breaker.target), error=reason)
        breaker.fail(self._clock())
