"""Reports the events of transactions to the log and the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.core.login import LoginOutcome
from relay.core.session_refusal import SessionRefusal
from relay.events.limit import LogLimit
from relay.events.mail import (
    CLIENT_LEFT,
    FAULT,
    JUDGEMENT_TIMED_OUT,
    LOGIN_REFUSED,
    NO_MEMORY,
    SENDER_REFUSED,
    SESSION_ENDED,
    SESSION_REFUSED,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.monitor.logs import MessageLog
    from relay.monitor.metrics import Metrics

_ORDINARY = {SessionRefusal.IDLE, SessionRefusal.SESSION_TIME}
"""Ordinary ends of sessions: no warning."""


class LogAndMetricsReporter:
    """The reporter of all transactions of a process."""

    def __init__(self, metrics: Metrics, messages: MessageLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._messages = messages
        self._refusals_log_limit = LogLimit(clock)

    def message(self, report: Report) -> None:
        """Reports a finished message."""
        self._metrics.message(report)
        self._messages.message(report)

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Reports that the client disconnected between DATA and the final dot."""
        self._metrics.aborted()
        CLIENT_LEFT.log(record=transaction_id, peer=peer)

    def memory_refused(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that was refused because the memory budget was used up."""
        self._metrics.memory_refused.inc()
        NO_MEMORY.log(record=transaction_id, peer=peer, size=size)

    def judgement_timed_out(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that is forwarded without a fingerprint."""
        self._metrics.judgements_timed_out.inc()
        JUDGEMENT_TIMED_OUT.log(record=transaction_id, peer=peer, size=size)

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Reports a recipient that was refused at RCPT. If all are refused, this is the only trace of the message."""
        self._metrics.recipient_refused(reply)
        self._messages.recipient_refused(transaction_id, peer, recipient, reply)

    def session_refused(self, peer: str, refusal: SessionRefusal) -> None:
        """Counts a session that was refused, or ended by a limit.

        Logs the first one of each reason, and then at most one line a minute.
        """
        self._metrics.sessions_refused[refusal].inc()
        if sessions := self._refusals_log_limit.count(refusal):
            event = SESSION_ENDED if refusal in _ORDINARY else SESSION_REFUSED
            event.log(peer=peer, reason=refusal.reason, key=refusal.key, reply=refusal.reply.code, sessions=sessions)

    def login(self, peer: str, name: str, outcome: LoginOutcome) -> None:
        """Reports the end of a login. Accepted ones are in the line of each message."""
        self._metrics.logins[outcome].inc()
        if outcome is not LoginOutcome.ACCEPTED:
            self._messages.login_event(LOGIN_REFUSED, peer, name, outcome.value)

    def sender_refused(self, peer: str, login: str, reason: str) -> None:
        """Reports a sender that was refused at MAIL."""
        self._metrics.senders_refused[reason].inc()
        self._messages.login_event(SENDER_REFUSED, peer, login, reason)

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Reports an internal fault, with its traceback."""
        self._metrics.faults.inc()
        FAULT.log(error, record=transaction_id, where=where)
