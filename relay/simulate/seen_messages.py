"""Remembers which copies a recipient has received: one number per message and recipient, for a limited time."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from relay.core.claim import Fingerprint


class EarlierCopy(NamedTuple):
    """The previous copy for the same recipient: its number, and the seconds since."""

    number: int
    gap: float
    repeats: tuple[bool, ...]
    """For each window: whether the copy accepted last is younger than the window."""


class SeenMessages:
    """Remembers the last copy of each fingerprint for `horizon` seconds. `dates` holds the time of each message."""

    def __init__(self, dates: array[float], horizon: float) -> None:
        self._dates = dates
        self._horizon = horizon
        self._last: OrderedDict[Fingerprint, int] = OrderedDict()
        self._accepted: dict[Fingerprint, list[float]] = {}
        """For messages seen more than once: when a copy was last accepted, for each window."""

    def see(self, fingerprint: Fingerprint, number: int, windows: Sequence[float]) -> EarlierCopy | None:
        """Remembers message `number`, and returns the copy before it. Call it in the order of dates.

        A window starts with the accepted copy and does not slide, as in the relay.
        """
        at = self._dates[number]
        self._forget(at - self._horizon)
        earlier = self._last.pop(fingerprint, None)
        self._last[fingerprint] = number
        if earlier is None:
            return None
        before = self._dates[earlier]
        accepted = self._accepted.setdefault(fingerprint, [before] * len(windows))
        repeats = tuple(at - since < window for since, window in zip(accepted, windows, strict=True))
        accepted[:] = [since if repeat else at for since, repeat in zip(accepted, repeats, strict=True)]
        return EarlierCopy(earlier, at - before, repeats)

    def _forget(self, until: float) -> None:
        while self._last:
            fingerprint, number = next(iter(self._last.items()))
            if self._dates[number] > until:
                return
            del self._last[fingerprint]
            self._accepted.pop(fingerprint, None)
