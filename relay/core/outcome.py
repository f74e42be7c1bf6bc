"""The outcome of one message for one recipient."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.core.claim import Original
    from relay.core.reply import Reply


class Outcome(enum.StrEnum):
    """What became of a message for one recipient. The values are the labels of `smtp_dedup_recipients_total`."""

    FORWARDED = "forwarded"
    """The upstream took it."""
    SUPPRESSED = "suppressed"
    """A repeat of a copy that the upstream took inside the window."""
    WOULD_SUPPRESS = "would_suppress"
    """A repeat, forwarded all the same because the relay only observes."""
    REFUSED = "refused"
    """The upstream said 5yz after it had taken the recipient."""
    DEFERRED = "deferred"
    """The client was told to try again: 4yz, unreachable, or a wait that ended."""
    UNCERTAIN = "uncertain"
    """The upstream connection ended between the final dot and its reply (RFC 1047)."""


DONE = frozenset({Outcome.FORWARDED, Outcome.SUPPRESSED, Outcome.WOULD_SUPPRESS})
"""The outcomes after which the client may forget the message."""


REPEATS = frozenset({Outcome.SUPPRESSED, Outcome.WOULD_SUPPRESS})
"""The outcomes of a repeat: each leaves a record."""


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome and its reply; for a repeat also the earlier message it equals, which is `age` seconds old."""

    outcome: Outcome
    reply: Reply
    original: Original | None = None
    age: float = 0.0
