"""Clocks that nobody can set back: a server's as we know it, and the one that this host counts since it booted."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Boot:
    """One run of this host: its id, and the seconds since it began, asleep or awake, by a clock that nobody can set."""

    id: str
    clock: Callable[[], float]


def this_boot() -> Boot:
    """Give this host's. Where it tells none, every process has one of its own, and only the wall clock is shared."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        number = time.CLOCK_BOOTTIME
    except (OSError, AttributeError):
        return Boot(secrets.token_hex(8), time.monotonic)
    return Boot(boot_id, lambda: time.clock_gettime(number))
