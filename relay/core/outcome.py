"""The outcome of one message for one recipient."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.core.claim import Original
    from relay.core.reply import Reply


class Outcome(enum.StrEnum):
    """The outcome of a message for one recipient. The values are labels of `smtp_dedup_recipients_total`."""

    FORWARDED = "forwarded"
    """The upstream accepted the message."""
    SUPPRESSED = "suppressed"
    """A repeat of a copy that the upstream accepted within the window."""
    WOULD_SUPPRESS = "would_suppress"
    """A repeat that was forwarded, because the relay only observes."""
    REFUSED = "refused"
    """The upstream accepted the recipient and later replied 5yz."""
    DEFERRED = "deferred"
    """The client is asked to try again: 4yz, upstream unreachable, or a wait that ended."""
    UNCERTAIN = "uncertain"
    """The upstream connection ended between the final dot and its reply (RFC 1047)."""

    __hash__ = str.__hash__  # that of `Enum` is ten times slower


DONE = frozenset({Outcome.FORWARDED, Outcome.SUPPRESSED, Outcome.WOULD_SUPPRESS})
"""The outcomes after which the client need not retry."""

DELIVERED = frozenset({Outcome.FORWARDED, Outcome.WOULD_SUPPRESS, Outcome.UNCERTAIN})
"""The outcomes after which the recipient has the message, or may have it."""

REPEATS = frozenset({Outcome.SUPPRESSED, Outcome.WOULD_SUPPRESS})
"""The outcomes of a repeat: each leaves a record."""


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome and its reply. For a repeat: the earlier message too, accepted `age` seconds ago."""

    outcome: Outcome
    reply: Reply
    original: Original | None = None
    age: float = 0.0
