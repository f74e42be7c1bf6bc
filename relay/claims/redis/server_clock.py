"""A Redis server's clock as this process knows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 0.05
"""Seconds by which two clocks may drift apart, or an answer may be slow, before somebody must have set one."""


class ServerClock:
    """A server's clock, told by our own monotonic one, and never ahead of it: what we let end there ends no later."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._ahead = -math.inf

    def learn(self, asked_at: float, told: float) -> bool:
        """Take in what the server told between `asked_at` and now. True when what we knew before was wrong."""
        least, most = told - self.clock(), told - asked_at
        before = self._ahead
        if not least <= before <= most:
            self._ahead = least
        return abs(self._ahead - before) > _STEP

    def at(self, moment: float) -> float:
        """Give the server's time at a moment of ours."""
        return moment + self._ahead
