"""What is said about one message when it is over: one object for the log line and the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from relay.core.ruling import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.core.envelope import Envelope, Recipient
    from relay.core.outcome import Outcome, Result
    from relay.core.reply import Reply
    from relay.core.ruling import Ruling


@dataclass(frozen=True, slots=True)
class Report:
    """One message from its final dot to its reply."""

    id: str
    """The id of the transaction; it stands in our `Received` field, in replies of ours and in the log."""
    peer: str
    envelope: Envelope
    message_id: str
    size: int
    """Bytes."""
    results: Mapping[Recipient, Result]
    reply: Reply
    seconds: float
    """From the final dot to the reply."""
    rulings: Mapping[Recipient, Ruling] = field(default_factory=dict)
    """What the rules said; empty where the message was ended without a look at it."""

    @property
    def exempt(self) -> str:
        """The reason why nothing could be suppressed, or empty."""
        rulings = set(self.rulings.values())
        return rulings.pop().rule if {ruling.action for ruling in rulings} == {Action.EXEMPT} else ""

    def counts(self) -> Counter[Outcome]:
        """Give the number of recipients per outcome."""
        return Counter(result.outcome for result in self.results.values())


class Reporter(Protocol):
    """Who hears what happens: metrics and log."""

    def message(self, report: Report) -> None:
        """Note a message that is over."""

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Note that a client left between DATA and its final dot."""

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Note a recipient that was refused at RCPT time."""

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Note a fault of ours, with its traceback."""
