"""The record of a suppression: which earlier message it repeats, by which rule and by which normalised form.

No content, no subject; addresses as the caller names them, which by default is a keyed hash. It is kept in the store
as one line of JSON.
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
    """What was decided for one recipient, and why."""

    recipient: str
    outcome: Outcome
    """`SUPPRESSED` or `WOULD_SUPPRESS`."""
    rule: str
    fingerprint: str
    age: float
    """Seconds from the acceptance of the original to the end of this message; 0 where it was still under delivery."""
    original: Original | None
    """None where it was still under delivery, which only observing does not wait for."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message of which at least one recipient got nothing, or would have got nothing."""

    id: str
    """The id that stands in the 250 reply and in the log."""
    at: float
    """Seconds since the Unix epoch, by the clock of the relay's host."""
    message_id: str
    sender: str
    """The reverse-path."""
    repeats: tuple[Repeat, ...]
    forms: Mapping[str, tuple[str, ...]]
    """By rule: the fields that counted and a digest of each, such as `Subject 1c9f03a2`."""
    ignored: Mapping[str, tuple[str, ...]]
    """By rule: the names of what did not count."""
    kept: str = ""
    """The name of the kept copy, or empty."""


@dataclass(frozen=True, slots=True)
class SuppressedCopy:
    """A copy that somebody got nothing of, and what it takes to send it after all."""

    reverse_path: bytes
    paths: tuple[bytes, ...]
    """Forward-paths that it was suppressed for, as the client wrote them."""
    content: Content
    parameters: tuple[bytes, ...] = ()
    """Of MAIL, such as `BODY=8BITMIME`."""
