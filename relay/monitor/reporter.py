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
        self.messages = messages
        self._log_limit = LogLimit(clock)

    def message(self, report: Report) -> None:
        """Reports a finished message."""
        self._metrics.message(report)
        self.messages.message(report)

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
        self.messages.recipient_refused(transaction_id, peer, recipient, reply)

    def session_refused(self, peer: str, refusal: SessionRefusal) -> None:
        """Counts a session that was refused, or ended by a limit.

        Logs the first one of each reason, and then at most one line a minute.
        """
        self._metrics.sessions_refused[refusal].inc()
        if sessions := self._log_limit.count(refusal):
            event = SESSION_ENDED if refusal in _ORDINARY else SESSION_REFUSED
            event.log(peer=peer, reason=refusal.reason, key=refusal.key, reply=refusal.reply.code, sessions=sessions)

    def login(self, peer: str, name: str, outcome: LoginOutcome) -> None:
        """Reports the end of a login. Accepted ones are in the line of each message.

        Each wrong password is logged: it costs its client seconds, and tools that block guessing clients count the
        lines. What costs a client nothing is logged once a minute.
        """
        self._metrics.logins[outcome].inc()
        if outcome is LoginOutcome.ACCEPTED:
            return
        if times := 1 if outcome is LoginOutcome.CREDENTIALS else self._log_limit.count(outcome):
            self.messages.login_event(LOGIN_REFUSED, peer, name, outcome.value, times)

    def sender_refused(self, peer: str, login: str, reason: str) -> None:
        """Reports a sender that was refused at MAIL. `login` is the name of a login that succeeded, or empty.

        Logs at most one line a minute for each reason and login.
        """
        self._metrics.senders_refused[reason].inc()
        if times := self._log_limit.count((reason, login)):
            self.messages.login_event(SENDER_REFUSED, peer, login, reason, times)

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Reports an internal fault. The traceback of faults that are alike is logged at most once a minute."""
        self._metrics.faults.inc()
        is_first = self._log_limit.count((where, type(error)))
        FAULT.log(error if is_first else None, record=transaction_id, where=where, error=repr(error))
