"""How many messages and recipients a client, and a user, may send per minute."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_KEYS = 10_000
"""Clients and users that are remembered. Then the one that sent longest ago is forgotten."""
_MINUTE = 60.0


class RateLimit:
    """A number per minute for each client and user; 0 means any number. `clock` gives monotonic seconds.

    A full number may come at once. Then they come back evenly: of 600 per minute one each 0.1 s.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._counted: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What counts of each key, and when that was so. The key that was counted last comes last."""

    def admit(self, keys: Iterable[str]) -> bool:
        """Counts one for each of the keys. Returns False, and counts nothing, if one of them has had too many."""
        if not self.per_minute:
            return True
        now = self._clock()
        counts = {key: self._count(key, now) + 1 for key in keys}
        if max(counts.values()) > self.per_minute:
            return False
        for key, count in counts.items():
            self._counted[key] = (count, now)
            self._counted.move_to_end(key)
        while len(self._counted) > MOST_KEYS:
            self._counted.popitem(last=False)
        return True

    def _count(self, key: str, now: float) -> float:
        count, then = self._counted.get(key, (0.0, now))
        return max(0.0, count - (now - then) / _MINUTE * self.per_minute)
