"""The report of a finished message, from which the log line, the metrics and the record are made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from relay.core.outcome import REPEATS
from relay.core.ruling import Action

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from relay.core.envelope import Envelope, Recipient
    from relay.core.login import LoginOutcome
    from relay.core.outcome import Outcome, Result
    from relay.core.reply import Reply
    from relay.core.ruling import Ruling
    from relay.core.session_refusal import SessionRefusal


@dataclass(frozen=True, slots=True)
class Report:
    """One message from its final dot to its reply."""

    id: str
    """The transaction id. The `Received` field, replies of the relay and the log show it."""
    peer: str
    """The client's IP address."""
    envelope: Envelope
    message_id: str
    size: int
    """Bytes."""
    results: Mapping[Recipient, Result]
    reply: Reply
    seconds: float
    """The time from the final dot to the reply."""
    rulings: Mapping[Recipient, Ruling] = field(default_factory=dict)
    """The ruling for each recipient; empty if the message was refused without judging it."""
    interrupted: Collection[Recipient] = ()
    """The recipients that had an equal mail, and another one of the same sender since."""

    login: str = ""
    """The name with which the client logged in; empty if it did not."""

    @property
    def exempt(self) -> str:
        """The rule or reason that exempted all recipients, or empty."""
        rulings = set(self.rulings.values())
        return rulings.pop().rule if {ruling.action for ruling in rulings} == {Action.EXEMPT} else ""

    @property
    def not_suppressed(self) -> list[Recipient]:
        """The recipients for which the message is no repeat because another mail of its sender came in between."""
        return [to for to in self.interrupted if self.results[to].outcome not in REPEATS]

    @property
    def has_repeats(self) -> bool:
        """Whether the message is a repeat for some recipient."""
        return any(result.outcome in REPEATS for result in self.results.values())

    def counts(self) -> Counter[Outcome]:
        """Returns the number of recipients by outcome."""
        return Counter(result.outcome for result in self.results.values())


class Reporter(Protocol):
    """Receives the events of transactions, for the log and the metrics."""

    def message(self, report: Report) -> None:
        """Reports a finished message."""

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Reports that the client disconnected between DATA and the final dot."""

    def memory_refused(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that was refused because the memory budget was used up. `size` in bytes, if known."""

    def judgement_timed_out(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that is forwarded without a fingerprint. `size` in bytes."""

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Reports a recipient that was refused at RCPT."""

    def session_refused(self, peer: str, refusal: SessionRefusal) -> None:
        """Reports a session that was refused, or ended by a limit."""

    def login(self, peer: str, name: str, outcome: LoginOutcome) -> None:
        """Reports the end of a login. `name` is empty if the client gave none."""

    def sender_refused(self, peer: str, login: str, reason: str) -> None:
        """Reports a sender that was refused at MAIL.

        `reason` is "no_login" (then `login` is empty), "not_allowed" for the login, or "rate".
        """

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Reports an internal fault in the named step."""
