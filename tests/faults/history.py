"""What happened in a run, as recorded by the clients, the receiver and the scenario.

`Account` has what the relay reports: the checker compares it with the rest, and it excuses nothing.
Times are seconds by the monotonic clock of this process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Attempt:
    """One attempt of a client to send a message. Its id is the Message-ID, so each copy names its attempt."""

    id: str
    message: int
    relay: int
    begun: float
    recipients: tuple[str, ...] = ()
    """The recipients with a positive reply to RCPT."""
    dot_at: float | None = None
    code: int = 0
    """The code of the last reply; 0 if the connection ended first or the client did not read."""
    text: str = ""
    ended: float = 0.0

    @property
    def sent(self) -> bool:
        """Whether the client sent the content with its final dot."""
        return self.dot_at is not None

    @property
    def promised(self) -> bool:
        """Whether the client may drop the message. PHPMailer treats only 250 as success."""
        return self.sent and self.code == 250


@dataclass
class Copy:
    """One message that the receiver accepted."""

    message: int
    attempt: str
    record: str
    """The id in the Received field of the relay."""
    recipients: tuple[str, ...]
    came: float
    """The time of its final dot."""
    taken: float
    confirmed: bool
    """Whether the receiver sent its 250 while the connection was open, as recorded by the receiver."""


@dataclass(frozen=True)
class Death:
    """The end of a relay by SIGKILL."""

    relay: int
    at: float


@dataclass(frozen=True)
class Stall:
    """A time in which a process was stopped: a relay by its number, or the store."""

    who: int | str
    begun: float
    ended: float


@dataclass(frozen=True)
class Outage:
    """A time in which the store was unavailable or lost data."""

    begun: float
    ended: float


@dataclass(frozen=True)
class Suppression:
    """An entry of the relay's log: this attempt repeats these earlier records."""

    record: str
    attempt: str
    count: int
    originals: tuple[str, ...]


@dataclass
class Account:
    """What one relay reports when it is idle at the end of the run."""

    relay: int
    log: Counter[str] = field(default_factory=Counter)
    """Recipients by outcome, summed over all its processes."""
    metrics: Counter[str] | None = None
    """The same from `/metrics`; None if the process was restarted."""
    records: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    """Other log entries, by kind."""
    suppressions: list[Suppression] = field(default_factory=list)
    log_is_complete: bool = True
    """Whether all log lines were read. If not, `log` is from `/metrics` too."""


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
    """Messages that are never suppressed, such as one in a loop."""
    given_up: list[str] = field(default_factory=list)
    """Messages that a client gave up after many attempts."""
    accounts: list[Account] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    """What must not exist at the end: keys, claims, descriptors, tracebacks."""
