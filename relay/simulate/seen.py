"""Which message a recipient had before: a number per message and recipient, as far back as is asked for."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from relay.core.claim import Fingerprint


class EarlierCopy(NamedTuple):
    """A recipient has had this message before: which was the last, and seconds between them."""

    earlier: int
    gap: float
    repeats: tuple[bool, ...]
    """By window that was asked for: whether the copy accepted last was younger than that."""


class SeenMessages:
    """Remembers the last copy of each fingerprint for `horizon` seconds. `dates` gives the time of a message."""

    def __init__(self, dates: array[float], horizon: float) -> None:
        self._dates = dates
        self._horizon = horizon
        self._last: OrderedDict[Fingerprint, int] = OrderedDict()
        self._accepted: dict[Fingerprint, list[float]] = {}
        """Of what came more than once: when a copy was last accepted, by window."""

    def copy(self, key: Fingerprint, number: int, windows: Sequence[float]) -> EarlierCopy | None:
        """Give the copy before this message, and remember this one. Messages come by date.

        A window begins with the copy that was accepted and does not slide, as in the relay.
        """
        at = self._dates[number]
        self._forget(at - self._horizon)
        earlier = self._last.pop(key, None)
        self._last[key] = number
        if earlier is None:
            return None
        before = self._dates[earlier]
        accepted = self._accepted.setdefault(key, [before] * len(windows))
        repeats = tuple(at - since < window for since, window in zip(accepted, windows, strict=True))
        accepted[:] = [since if repeat else at for since, repeat in zip(accepted, repeats, strict=True)]
        return EarlierCopy(earlier, at - before, repeats)

    def _forget(self, until: float) -> None:
        while self._last:
            key, number = next(iter(self._last.items()))
            if self._dates[number] > until:
                return
            del self._last[key]
            self._accepted.pop(key, None)
