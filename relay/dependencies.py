"""What the transactions of a process share: settings, and one of each part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.claims.manager import ClaimManager
    from relay.core.delivery import Upstream
    from relay.core.login import Authenticator
    from relay.core.report import Reporter
    from relay.judge.judge import Judge
    from relay.records.copy_keeper import CopyKeeper
    from relay.records.pseudonyms import Pseudonyms
    from relay.runtime.executor import Executor
    from relay.runtime.memory import MemoryBudget
    from relay.trace.writer import TraceWriter


@dataclass(frozen=True)
class Policy:
    """The settings that a transaction needs."""

    wait: float
    """Seconds from the final dot for which a message waits for claims that others hold."""
    keep_uncertain: bool
    """Whether an unclear outcome counts as sent."""
    explain_repeats: bool
    """Whether the reply to a repeat names its record and the age of the first copy."""
    recipients: int
    """The largest number of recipients of one message."""
    hostname: str
    received_field: bool
    """Whether to add a `Received` field."""
    traces_all: bool = True
    """Whether messages leave a trace that are no repeats."""
    traces_subjects: bool = False
    """Whether traces contain subjects."""


@dataclass(frozen=True)
class Executors:
    """The threads for work that would hold up the event loop. Records and stores have their own."""

    judging: Executor
    """For judgements. Its limit is the longest time that a message waits for its judgement."""
    content: Executor
    """For work that every message needs. It takes linear time, so there is no limit."""

    def close(self) -> None:
        """Ends the threads."""
        self.judging.close()
        self.content.close()


@dataclass(frozen=True)
class Dependencies:
    """What the transactions of a process share."""

    policy: Policy
    upstream: Upstream
    claims: ClaimManager
    authenticator: Authenticator | None
    """Verifies logins; None if AUTH is off."""
    reporter: Reporter
    judge: Judge
    """Analyses content and reverse-path of a message. Pure, and safe to call in a thread."""
    executors: Executors
    memory: MemoryBudget
    """Shared by the content of all messages."""
    traces: TraceWriter | None
    """None if no traces are kept."""
    copies: CopyKeeper | None
    """None if suppressed copies are not kept."""
    pseudonyms: Pseudonyms
    loop_ids: Sequence[str]
    """Random ids that our `Received` fields have carried, by which mail loops are recognised; the last is in use."""
    new_id: Callable[[], str]
    clock: Callable[[], float]
    """Monotonic seconds."""
    now: Callable[[], float]
    """Seconds since the Unix epoch."""
