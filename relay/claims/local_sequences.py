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
        self.unwritten: dict[SequenceName, tuple[Follow, ...]] = {}
        """The latest changes that the store has not confirmed, two at most: the second one begins a new epoch then,
        whatever the store holds."""

    def knows_sender(self, sender: bytes) -> bool:
        """Returns whether there is a sequence of this sender."""
        return sender in self._senders

    def knows(self, name: SequenceName) -> bool:
        """Returns whether the sequence is known."""
        known = self._known.get(name)
        return known is not None and self._clock() < known.until

    def begin(self, arrival: Arrival) -> tuple[Follow, ...]:
        """Makes the sequence known. Returns the changes that the store must hear of before this one."""
        now, name = self._clock(), arrival.sequence
        changes = self.unwritten.get(name, ())
        if not self.knows(name) and now < self._dropped_until:
            # What came between was perhaps not followed, so the mail is no repeat.
            changes = (Follow(name, Fingerprint(secrets.token_hex(20)), secrets.token_hex(8), arrival.keep_for),)
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _Known(arrival.sender, arrival.keep_for, now)
            self._senders[arrival.sender] += 1
        elif now >= known.until:
            known.state = None
        known.until, known.keep_for = now + arrival.keep_for, arrival.keep_for
        self._known.move_to_end(name)
        self._drop()
        return changes

    def apply(self, command: Follow, answer: Answer, before: tuple[Follow, ...], *, alone: bool) -> SequenceState:
        """Returns the state after a mail, by the answer of the store to `command`, which followed `before`.

        Without an answer the table decides if the process works `alone`. Otherwise another process may have delivered
        something else, so a new epoch begins.
        """
        name = command.sequence
        known = self._known.get(name) or _Known(b"", command.keep_for, self._clock())
        unwritten = self.unwritten.get(name, ())
        if isinstance(answer, SequenceState) and (unwritten is before or not unwritten):
            self.unwritten.pop(name, None)
            known.state = answer
            return answer
        state = place(known.state, command.fingerprint, command.epoch)
        if state is known.state and not alone and not unwritten:
            state = replace(state, epoch=command.epoch)
        if state is not known.state and name in self._known and not isinstance(answer, Full):
            self.unwritten[name] = (*unwritten, command)[-2:]
        known.state = state
        return state

    def confirm(self, changes: Sequence[tuple[Follow, ...]]) -> None:
        """Notes that the store has confirmed these changes."""
        for each in changes:
            if self.unwritten.get(each[0].sequence) is each:
                del self.unwritten[each[0].sequence]

    def mark_unwritten(self) -> None:
        """Marks all sequences as unwritten: the store may have lost their latest changes."""
        for name, known in self._known.items():
            if known.state:
                latest, *earlier = known.state.fingerprints
                changes = [Follow(name, each, secrets.token_hex(8), known.keep_for) for each in earlier[:1]]
                self.unwritten[name] = (*changes, Follow(name, latest, known.state.epoch, known.keep_for))

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
