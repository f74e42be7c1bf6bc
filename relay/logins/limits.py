"""Limits of failed logins: how long the reply to one is delayed, and how many logins one client may try at a time."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY = 1.0
LONGEST_DELAY = 10.0
"""Seconds; the delay doubles with each failed login of a client. So long a session is held at most."""
FORGET_AFTER = 600.0
"""Seconds after the last failed login of a client."""
MOST_CLIENTS = 10_000
"""Clients whose failures are remembered. Then the one that failed longest ago is forgotten."""
MOST_AT_A_TIME = 4
"""Logins of one client in progress, the delays included. With the longest delay that is one guess in 2.5 s."""
MOST_IN_SESSION = 3
"""Failed logins in one session; the last ends it."""


class LoginLimits:
    """The failed logins of all clients. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """The number of failures of a client, and when they are forgotten. The latest comes last."""
        self._in_progress: Counter[str] = Counter()

    def begin(self, client: str, *, trusted: bool) -> bool:
        """Notes that a login begins. Returns False if the client has too many already; trusted ones never have."""
        if not trusted and self._in_progress[client] >= MOST_AT_A_TIME:
            return False
        self._in_progress[client] += 1
        return True

    def end(self, client: str) -> None:
        """Notes the end of a login, its delay included."""
        self._in_progress[client] -= 1
        if not self._in_progress[client]:
            del self._in_progress[client]

    def fail(self, client: str) -> float:
        """Notes a failed login. Returns the seconds by which its reply is delayed."""
        now = self._clock()
        count, until = self._failures.pop(client, (0, now))
        count = count + 1 if now < until else 1
        self._failures[client] = (count, now + FORGET_AFTER)
        if len(self._failures) > MOST_CLIENTS:
            self._failures.popitem(last=False)
        return float(min(FIRST_DELAY * 2 ** min(count - 1, 10), LONGEST_DELAY))
