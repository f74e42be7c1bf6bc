"""The trace of a message: what happened to it from MAIL to its reply, for each recipient. Stores keep it for searches.

A trace holds no content, and a subject only with `record.subjects`. Addresses are pseudonyms unless `record.addresses`
is on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.claim import Original


class TraceOutcome(enum.StrEnum):
    """What happened to a message for one recipient. The first six are those of `relay.core.outcome.Outcome`."""

    FORWARDED = "forwarded"
    SUPPRESSED = "suppressed"
    WOULD_SUPPRESS = "would_suppress"
    REFUSED = "refused"
    DEFERRED = "deferred"
    UNCERTAIN = "uncertain"
    RCPT_REFUSED = "rcpt_refused"
    """The recipient was refused at RCPT, so that it was never part of the message."""
    ABORTED = "aborted"
    """The client ended the transaction before its final dot, or disconnected."""

    __hash__ = str.__hash__  # that of `Enum` is ten times slower


REPEATS = frozenset({TraceOutcome.SUPPRESSED, TraceOutcome.WOULD_SUPPRESS})
"""The outcomes of a repeat."""


class Step(enum.StrEnum):
    """A step of a transaction whose time a trace holds."""

    UPLOAD = "upload"
    """From MAIL to the final dot: the client's commands and content, and the upstream's replies at RCPT."""
    JUDGE = "judge"
    """The analysis of the content."""
    CLAIM = "claim"
    """The answers of the store."""
    WAIT = "wait"
    """Waits for equal messages that others were delivering."""
    DELIVER = "deliver"
    """The upstream, from the transaction to the reply after the final dot."""

    __hash__ = str.__hash__


_NOTHING: Mapping[Any, Any] = {}


class RecipientTrace(NamedTuple):
    """What happened to a message for one recipient, and why. A tuple, which is made in a third of the time."""

    recipient: str
    """A pseudonym, or with `record.addresses` the address."""
    outcome: TraceOutcome
    reply: str
    """The reply that decided the outcome, without addresses, such as `250 2.0.0 Ok: queued as 4XYZ12`.

    For a repeat it is the reply that the earlier message received."""
    rule: str = ""
    """The rule that won, or the reason for an exemption; empty if the message was not judged."""
    fingerprint: str = ""
    """For a repeat: by which `relay forget` finds the acceptance of the original."""
    age: float = 0.0
    """For a repeat: seconds from the acceptance of the original; 0 while the original was in delivery."""
    original: Original | None = None
    """For a repeat: the earlier message; None while it was in delivery."""


class Trace(NamedTuple):
    """One message, or one transaction that ended before its message."""

    id: str
    """The transaction id, which the log, the `Received` field and replies of the relay show: 12 hexadecimal digits."""
    at: float
    """When MAIL arrived, in seconds since the Unix epoch, by the clock of the relay's host."""
    seconds: float
    """From the final dot to the reply; 0 if there was no final dot."""
    host: str
    """The name of the relay's host."""
    peer: str
    """The client's IP address, or empty."""
    helo: str
    login: str
    """The name with which the client logged in, or empty."""
    sender: str
    """The reverse-path: a pseudonym or an address; empty for `<>`."""
    message_id: str
    """The Message-ID field, or empty."""
    subject: str
    """Empty unless `record.subjects` is on."""
    size: int
    """Bytes of the content."""
    upstream: str
    """The upstream that received the content, as in `upstream_used`; empty if none did."""
    reply: str
    """The reply after the final dot, without addresses; empty if there was none."""
    recipients: tuple[RecipientTrace, ...]
    """A store keeps those together that have the same outcome, reply and rule."""
    steps: Mapping[Step, float] = _NOTHING
    """Seconds. A store drops steps that took no time."""
    forms: Mapping[str, tuple[str, ...]] = _NOTHING
    """For repeats: the fields that were compared, by rule name, each with a digest: `("Subject 1c9f03a2", …)`."""
    ignored: Mapping[str, tuple[str, ...]] = _NOTHING
    """For repeats: the names of the ignores that applied, by rule name."""
    kept: str = ""
    """The file name of the kept copy, or empty."""

    @property
    def repeats(self) -> tuple[RecipientTrace, ...]:
        """The recipients for whom the message was suppressed, or would have been."""
        return tuple(to for to in self.recipients if to.outcome in REPEATS)


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Selects traces. All criteria that are given must match."""

    names: frozenset[str] = frozenset()
    """One of these must be a name of the message: its id, Message-ID without angle brackets, a queue id in a reply, a
    recipient or the sender as traces hold them, or the id or Message-ID of a message that it repeats."""
    ids: frozenset[str] = frozenset()
    """One of these is the id of the message itself; empty selects all."""
    outcomes: frozenset[TraceOutcome] = frozenset()
    """At least one recipient has one of these; empty selects all."""
    rule: str = ""
    """At least one recipient has this rule; empty selects all."""
    since: float = 0.0
    """Not before this time, in seconds since the Unix epoch."""
    until: float = float("inf")
    """Before this time."""


@dataclass(frozen=True, slots=True)
class TracePage:
    """Traces, newest first, and where the next page begins."""

    traces: tuple[Trace, ...]
    next: str = ""
    """A position for `TraceStore.find`; empty if there are no more."""
    damaged: int = 0
    """Traces that could not be read, and are left out."""


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """The recipients of an interval, by outcome."""

    start: float
    """Seconds since the Unix epoch."""
    counts: Mapping[TraceOutcome, int]


class TraceStore(Protocol):
    """Keeps traces for a time and within a number of bytes. The claim store never waits for it.

    Its methods raise `StoreError`.
    """

    async def open(self) -> None:
        """Prepares the store and checks that it answers. May be called again at any time."""

    async def append(self, traces: Sequence[Trace]) -> None:
        """Stores traces in one transaction. A batch that is repeated after an error may be stored once or twice.

        Deletes some of what is too old or too much. Without traces it does only that.
        """

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """Returns at most `limit` traces, newest first, from a position on that an earlier page gave."""

    async def counts(self, since: float, step: float) -> Sequence[TraceCounts]:
        """Returns the recipients by outcome of each `step` seconds since a time; `step` is a multiple of 60.

        Intervals without messages may be absent. Counts survive the traces that the bound deleted.
        """

    async def close(self) -> None:
        """Closes all connections and files. Never raises."""
