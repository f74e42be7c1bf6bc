"""The record of a suppression: which earlier message was repeated, by which rule, and what was compared.

A record holds no content and no subject. Addresses are pseudonyms unless `record.addresses` is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.core.claim import Original
    from relay.core.content import Content
    from relay.core.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Repeat:
    """A repeat for one recipient, and why it is one."""

    recipient: str
    outcome: Outcome
    """`SUPPRESSED` or `WOULD_SUPPRESS`."""
    rule: str
    fingerprint: str
    age: float
    """Seconds from the acceptance of the original to the end of this message; 0 while the original was in delivery."""
    original: Original | None
    """None while the original was in delivery. Only observe mode does not wait for its outcome."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message that was suppressed, or would have been, for at least one recipient."""

    id: str
    """The transaction id that the 250 reply and the log show."""
    at: float
    """Seconds since the Unix epoch, by the clock of the relay's host."""
    message_id: str
    sender: str
    """The reverse-path."""
    repeats: tuple[Repeat, ...]
    forms: Mapping[str, tuple[str, ...]]
    """The fields that were compared, by rule name, each with a digest: `{"default": ("Subject 1c9f03a2", …)}`."""
    ignored: Mapping[str, tuple[str, ...]]
    """The names of the ignores that applied, by rule name: `{"default": ("avideo: image cache",)}`."""
    kept: str = ""
    """The file name of the kept copy, or empty."""


@dataclass(frozen=True, slots=True)
class SuppressedCopy:
    """A suppressed copy with the envelope that is needed to send it later."""

    reverse_path: bytes
    paths: tuple[bytes, ...]
    """The forward-paths that it was suppressed for, as the client wrote them, without brackets."""
    content: Content
    parameters: tuple[bytes, ...] = ()
    """Parameters of MAIL, such as `BODY=8BITMIME`."""
