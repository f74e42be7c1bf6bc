"""A Redis server's clock as this process knows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 0.05
"""Seconds by which two clocks may drift apart or an answer may be slow. If they differ by more, a clock was set."""


class ServerClock:
    """Estimates a server's clock from this process's monotonic clock.

    The estimate is never ahead of the server's clock, so an expiry that is computed from it is never too late.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._ahead = -math.inf

    def learn(self, asked_at: float, reported: float) -> bool:
        """Updates the estimate from a time that the server reported between `asked_at` and now.

        Returns whether the earlier estimate was wrong.
        """
        least, most = reported - self.clock(), reported - asked_at
        before = self._ahead
        if not least <= before <= most:
            self._ahead = least
        return abs(self._ahead - before) > _STEP

    def at(self, moment: float) -> float:
        """Returns the server's time at a moment of the monotonic clock."""
        return moment + self._ahead
