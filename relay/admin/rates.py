"""What was counted in the last minutes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Totals: TypeAlias = "Mapping[str, Mapping[str, int]]"
"""Counts since the start, by kind and label, such as `{"messages": {"2xx": 3}}`."""

_EVERY = 5.0
LONGEST = 300.0
"""Seconds between two samples, and seconds for which samples are kept."""


class Rates:
    """Samples of growing totals. `sample` is the step of a background loop."""

    def __init__(self, totals: Callable[[], Totals], clock: Callable[[], float] = time.monotonic) -> None:
        self._totals = totals
        self._clock = clock
        self._samples = deque([(clock(), totals())], maxlen=int(LONGEST / _EVERY) + 1)

    async def sample(self) -> None:
        """Waits for the time of the next sample, and takes it."""
        await asyncio.sleep(_EVERY)
        self.take()

    def take(self) -> None:
        """Takes a sample."""
        self._samples.append((self._clock(), self._totals()))

    def within(self, seconds: float) -> Totals:
        """Returns what was counted in about the last `seconds`, or since the start if that is later."""
        since = self._clock() - seconds - _EVERY / 2
        _, before = next((sample for sample in self._samples if sample[0] >= since), self._samples[-1])
        return {
            kind: {label: count - before[kind][label] for label, count in counts.items()}
            for kind, counts in self._totals().items()
        }
