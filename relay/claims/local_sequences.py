"""The sequences that one process knows: a table without I/O. Times in seconds, by the clock passed in."""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.core.claim import Fingerprint, Follow, Full
from relay.core.sequence import SequenceState, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.claim import Answer
    from relay.core.sequence import Arrival, SequenceName

MOST_SEQUENCES = 50_000
"""Sequences that the process knows, up to 1 KiB each."""


@dataclass(slots=True)
class _Known:
    sender: bytes
    keep_for: float
    until: float
    state: SequenceState | None = None
    """None until the first answer. The sequence counts as known already: a mail that comes meanwhile takes part."""


class LocalSequences:
    """Sequences by name, the one that a mail came for last at the end."""

    def __init__(self, clock: Callable[[], float], most: int = MOST_SEQUENCES) -> None:
        self._clock = clock
        self._most = most
        self._known: OrderedDict[SequenceName, _Known] = OrderedDict()
        self._senders: Counter[bytes] = Counter()
        self._dropped_until = float("-inf")
        """When the last sequence ends that was dropped because the table was full."""
        self.unwritten: dict[SequenceName, Follow] = {}
        """What the store must still be told of sequences that changed without it: that some mail came."""

    def knows_sender(self, sender: bytes) -> bool:
        """Returns whether there is a sequence of this sender."""
        return sender in self._senders

    def knows(self, name: SequenceName) -> bool:
        """Returns whether the sequence is known."""
        known = self._known.get(name)
        return known is not None and self._clock() < known.until

    def begin(self, arrival: Arrival) -> Follow | None:
        """Makes the sequence known. Returns what the store must be told before this mail."""
        now, name = self._clock(), arrival.sequence
        before = self.unwritten.get(name)
        known = self._known.get(name)
        if known is None or now >= known.until:
            if now < self._dropped_until:
                before = _some_mail(name, arrival.keep_for)  # one that was perhaps not followed, after the drop
            self._senders[arrival.sender] += known is None
            known = self._known[name] = _Known(arrival.sender, arrival.keep_for, now)
        known.until, known.keep_for = now + arrival.keep_for, arrival.keep_for
        self._known.move_to_end(name)
        self._drop()
        return before

    def apply(self, command: Follow, answer: Answer, before: Follow | None, *, alone: bool) -> SequenceState:
        """Returns the state after a mail, by the answer of the store to `command`, which followed `before`.

        Without an answer the table decides if the process works `alone`. Otherwise another process may have delivered
        something else, so a new epoch begins.
        """
        name = command.sequence
        known = self._known.get(name) or _Known(b"", command.keep_for, self._clock())
        unwritten = self.unwritten.get(name)
        # If something became unwritten since the command was sent, the store did not know of it.
        if (
            isinstance(answer, SequenceState)
            and unwritten in (None, before)
            and (before is None or before.fingerprint in answer.fingerprints)
        ):
            self.unwritten.pop(name, None)
            known.state = answer
            return answer
        state = place(known.state, command.fingerprint, command.epoch)
        is_full = isinstance(answer, Full)
        if state is known.state and not alone and not is_full and not unwritten:
            state = replace(state, epoch=command.epoch)
        if state is not known.state and not is_full and name in self._known:
            self.unwritten[name] = _some_mail(name, known.keep_for)
        known.state = state
        return state

    def confirm(self, told: Sequence[Follow]) -> None:
        """Notes that the store was told this."""
        for command in told:
            if self.unwritten.get(command.sequence) == command:
                del self.unwritten[command.sequence]

    def mark_unwritten(self) -> None:
        """Marks all sequences as changed: the store may have lost their latest changes."""
        self.unwritten = {name: _some_mail(name, known.keep_for) for name, known in self._known.items()}

    def _drop(self) -> None:
        """Drops the oldest sequences that have ended or are too many."""
        now = self._clock()
        while True:
            name, known = next(iter(self._known.items()))
            if len(self._known) <= self._most and now < known.until:
                return
            del self._known[name]
            self.unwritten.pop(name, None)
            self._senders[known.sender] -= 1
            if not self._senders[known.sender]:
                del self._senders[known.sender]
            if now < known.until:
                self._dropped_until = max(self._dropped_until, known.until)


def _some_mail(name: SequenceName, keep_for: float) -> Follow:
    """Returns a command that makes the next mail of the sequence no repeat, whatever it is."""
    return Follow(name, Fingerprint(secrets.token_hex(20)), secrets.token_hex(8), keep_for)
