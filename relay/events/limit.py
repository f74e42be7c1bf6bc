"""Keeps events rare that a client or a broken server could repeat without end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

LOG_EVERY = 60.0
"""Seconds between two lines of one kind."""


class LogLimit:
    """Allows one line in `LOG_EVERY` seconds for each kind. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._unlogged: Counter[Hashable] = Counter()
        self._log_again_at: dict[Hashable, float] = {}

    def count(self, kind: Hashable, number: int = 1) -> int:
        """Counts occurrences. Returns how many a line is to report now; 0 if the last line is too recent."""
        self._unlogged[kind] += number
        now = self._clock()
        if now < self._log_again_at.get(kind, now):
            return 0
        self._log_again_at[kind] = now + LOG_EVERY
        return self._unlogged.pop(kind)
