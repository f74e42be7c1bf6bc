"""How long one transaction goes on trying to reach the upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Patience:
    """A budget of seconds that failed attempts and the pauses between them use up, once per transaction."""

    def __init__(
        self,
        budget: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._left = budget
        self._clock = clock
        self._sleep = sleep
        self._pause = 0.0
        self._since = clock()

    def begin(self) -> None:
        """Start an attempt, or a row of them."""
        self._pause = 0.0
        self.overlook()

    def overlook(self) -> None:
        """Do not count what has passed since the attempt began: it was no fault of the upstream's."""
        self._since = self._clock()

    async def pause(self) -> bool:
        """Wait a little before the next attempt, longer each time. False when the budget is used up.

        The first retry comes at once: most failures are a pooled connection that died while idle.
        """
        now = self._clock()
        self._left -= now - self._since
        self._since = now
        if self._left <= self._pause:
            return False
        await self._sleep(self._pause)
        # Counted here, since `overlook` may follow before the next attempt.
        now = self._clock()
        self._left -= now - self._since
        self._since = now
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True
