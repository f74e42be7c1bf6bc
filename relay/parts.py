"""What every transaction works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.claims.book import Book
    from relay.core.delivery import Upstream
    from relay.core.fingerprint import Judged
    from relay.core.record import Ledger, Naming
    from relay.core.report import Witness


@dataclass(frozen=True)
class Policy:
    """What the operator decided. Times in seconds."""

    wait: float
    keep_uncertain: bool
    recipients: int
    hostname: str
    received_field: bool


@dataclass(frozen=True)
class Parts:
    """One of each, for all transactions of a process."""

    policy: Policy
    upstream: Upstream
    book: Book
    witness: Witness
    judge: Callable[[bytes, bytes], Judged]
    """Looks at content, sent with this reverse-path, by the operator's rules."""
    ledger: Ledger
    names: Naming
    marks: Sequence[str]
    """Random ids that our `Received` fields have carried, the one in use last: this process's own until the store has
    told its."""
    new_id: Callable[[], str]
    clock: Callable[[], float]
    """Monotonic seconds."""
    now: Callable[[], float]
    """Seconds since the Unix epoch, for people."""
