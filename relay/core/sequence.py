"""The sequence of one sender's mails to one recipient, for rules with `repeats = "consecutive"` (ADR 22).

Each mail that differs from the one before begins a new epoch. Under such a rule a claim is about a fingerprint in an
epoch, so that a copy is no repeat if another mail came in between. A mail is placed in its sequence before it is
claimed, and again when the upstream has accepted it: another one may have come while it was in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from relay.core.claim import Fingerprint

SequenceName = NewType("SequenceName", str)
"""Versioned digest of a sender and a recipient, such as `q4:3f…`: printable ASCII, at most 80 characters."""

MOST_FINGERPRINTS = 8
"""Mails that a sequence remembers."""


@dataclass(frozen=True, slots=True)
class SequenceState:
    """What is known about a sequence."""

    epoch: str
    """A random name, in the form of `RANDOM_NAME`."""
    fingerprints: tuple[Fingerprint, ...]
    """The mails, the latest one first. Immediate repeats count once."""

    @property
    def interrupted(self) -> bool:
        """Whether the latest mail equals an earlier one, with another mail in between."""
        latest, *earlier = self.fingerprints
        return latest in earlier


def place(state: SequenceState | None, fingerprint: Fingerprint, epoch: str) -> SequenceState:
    """Returns the state after one more mail: the same if the mail repeats the latest one, else with the new `epoch`."""
    if state is None:
        return SequenceState(epoch, (fingerprint,))
    if state.fingerprints[0] == fingerprint:
        return state
    return SequenceState(epoch, (fingerprint, *state.fingerprints[: MOST_FINGERPRINTS - 1]))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message for one recipient, as its sequence sees it."""

    sequence: SequenceName
    sender: bytes
    """The address in From, in lower case."""
    fingerprint: Fingerprint
    keep_for: float
    """Seconds for which the sequence is remembered from now."""
    takes_part: bool
    """Whether the message takes part in any case. If False, it takes part if this process knows the sequence."""
