"""Replays the newest kept copies under two judges, to show what further ignores would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.records.copy_format import DamagedError, decode
from relay.simulate.archive import Archive, ArchivedMessage
from relay.simulate.delivery_fields import DeliveryFields
from relay.simulate.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.judge.judge import Judge
    from relay.records.kept_copies import KeptCopies

MOST_COPIES = 300
LONGEST_REPLAY = 3.0
"""Seconds for each judge."""
_LARGEST = 1024 * 1024
"""Bytes. Larger copies are left out."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What two judges make of the same copies."""

    copies: int
    repeats_before: int
    repeats_after: int
    """Recipients of copies that repeat another one of these copies."""


class KeptArchive(Archive):
    """The newest kept copies as an archive. They stay in memory."""

    def __init__(self, copies: KeptCopies) -> None:
        super().__init__()
        self._messages: list[ArchivedMessage] = []
        for found in copies.newest(MOST_COPIES):
            try:
                octets = found.path.read_bytes() if found.path.stat().st_size <= _LARGEST else b""
                copy = decode(octets, found.record)
            except (OSError, DamagedError):  # swept or released meanwhile
                continue
            self.dates.append(found.at)
            self._messages.append(ArchivedMessage(DeliveryFields(octets), copy.content.plain))

    def read(self, number: int) -> ArchivedMessage | None:
        """Returns a copy."""
        return self._messages[number]


def try_on_kept_copies(
    copies: KeptCopies, before: Judge, after: Judge, window: float, clock: Callable[[], float]
) -> Tried:
    """Replays the newest kept copies under both judges, as many as the time allows. Raises `OSError`.

    `window` is `dedup.window` in seconds. `clock` gives monotonic seconds.
    """
    archive = KeptArchive(copies)
    old, new = (Replay(judge, archive, window) for judge in (before, after))
    ends = clock() + 2 * LONGEST_REPLAY
    for number in archive.in_order():
        if clock() > ends:
            break
        old.play(number)
        new.play(number)
    return Tried(new.totals.messages, *(each.totals.suppressed + each.totals.observed for each in (old, new)))
