"""The time for which one transaction tries to reach the upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
"""Seconds."""


class Patience:
    """A budget of seconds for failed attempts and the pauses between them, spent once per transaction."""

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
        """Begins a series of attempts."""
        self._pause = 0.0
        self.overlook()

    def overlook(self) -> None:
        """Does not count the time since the attempt began: it passed through no fault of the upstream."""
        self._since = self._clock()

    async def pause(self) -> bool:
        """Pauses before the next attempt, longer each time. Returns False if the budget is spent.

        The first retry follows without a pause: most failures are pooled connections that died while idle.
        """
        self._spend()
        if self._left <= self._pause:
            return False
        await self._sleep(self._pause)
        self._spend()  # now, because `overlook` may follow before the next attempt
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True

    def _spend(self) -> None:
        now = self._clock()
        self._left -= now - self._since
        self._since = now
