"""Roughly how many claims and sequences this process has in Redis, which cannot count the keys of one relay."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from relay.core.claim import Confirm, Done, Follow
from relay.core.sequence import SequenceState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.claim import Answer, Command

_STEP = 10.0
"""Seconds. Acceptances whose windows end within the same step are counted together."""


class ClaimCount:
    """Counts acceptances until their windows end. Claims that are only held are few: each has a transaction."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._total = 0
        self._ending: Counter[int] = Counter()
        """The number of acceptances by the step in which their windows end."""

    @property
    def is_full(self) -> bool:
        """Whether no further claim may be written."""
        if self._total >= self._most:
            now = self._clock() // _STEP
            self._ending = Counter({step: count for step, count in self._ending.items() if step >= now})
            self._total = self._ending.total()
        return self._total >= self._most

    def add(self, commands: Sequence[Command], answers: Sequence[Answer]) -> None:
        """Counts the acceptances and sequences that were written. One that is written again counts again."""
        now = self._clock()
        for command, answer in zip(commands, answers, strict=True):
            match command, answer:
                case Confirm(window=window, age=age), Done():
                    left = window - age
                case Follow(epoch=epoch, keep_for=left), SequenceState(epoch=in_force) if in_force == epoch:
                    pass
                case _:
                    continue
            self._ending[int((now + left) // _STEP)] += 1
            self._total += 1
