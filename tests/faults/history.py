"""What happened in a run, as the clients, the receiver and the one who breaks things wrote it down.

The relay's own word stands apart, in `Account`: it is checked against the rest, and nothing is excused by it.
Times are seconds by the monotonic clock of this process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Attempt:
    """One try of one client to hand in a message. Its id is the Message-ID, so every copy tells which try it was."""

    id: str
    message: int
    relay: int
    begun: float
    recipients: tuple[str, ...] = ()
    """Those that were told yes at RCPT."""
    dot_at: float | None = None
    code: int = 0
    """Of the last reply that was heard; 0 when the connection ended instead, or the client did not listen."""
    text: str = ""
    ended: float = 0.0

    @property
    def sent(self) -> bool:
        """Whether the content went out with its final dot."""
        return self.dot_at is not None

    @property
    def promised(self) -> bool:
        """Whether its client may forget the message: PHPMailer takes exactly 250 for success."""
        return self.sent and self.code == 250


@dataclass
class Copy:
    """One message that the receiver took."""

    message: int
    attempt: str
    record: str
    """The id in the relay's Received field."""
    recipients: tuple[str, ...]
    came: float
    """When its final dot came."""
    taken: float
    told: bool
    """Whether the receiver's yes went out on a connection that still stood. Written down by the receiver."""


@dataclass(frozen=True)
class Death:
    """A relay that was ended by SIGKILL."""

    relay: int
    at: float


@dataclass(frozen=True)
class Stall:
    """A process that stood still: a relay by its number, or the store."""

    who: int | str
    begun: float
    ended: float


@dataclass(frozen=True)
class Outage:
    """A time in which the store could not be asked, or lost what it had."""

    begun: float
    ended: float


@dataclass(frozen=True)
class Suppression:
    """A line of the relay's log: this attempt repeats these earlier records."""

    record: str
    attempt: str
    count: int
    originals: tuple[str, ...]


@dataclass
class Account:
    """What one relay says of itself, at rest at the end of the run."""

    relay: int
    log: Counter[str] = field(default_factory=Counter)
    """Recipients by outcome, over all its lives."""
    metrics: Counter[str] | None = None
    """The same by `/metrics`; None where it did not live through the whole run."""
    records: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    """What else its log says, by kind."""
    suppressions: list[Suppression] = field(default_factory=list)


@dataclass
class History:
    """A whole run."""

    relays: int = 1
    lease: float = 30.0
    keep_uncertain: bool = False
    messages: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    exempt: set[int] = field(default_factory=set)
    """Messages that are never suppressed, such as one that comes round again."""
    given_up: list[str] = field(default_factory=list)
    """Messages that a client tried in vain until its patience ended."""
    accounts: list[Account] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    """What was found where nothing should be: keys, claims, descriptors, tracebacks."""
