"""Reports the events of transactions to the log and the metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from relay.core.login import LoginOutcome
from relay.core.session_refusal import SessionRefusal
from relay.monitor.logs import MessageLog, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.monitor.metrics import Metrics

_LOG_REFUSALS_EVERY = 60.0
"""Seconds between two log lines about refused sessions of one reason."""
_ORDINARY = {SessionRefusal.IDLE, SessionRefusal.SESSION_TIME}
"""Ordinary ends of sessions: no warning."""


class LogAndMetricsReporter:
    """The reporter of all transactions of a process."""

    def __init__(self, metrics: Metrics, messages: MessageLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._messages = messages
        self._clock = clock
        self._unlogged: Counter[SessionRefusal] = Counter()
        """The refused sessions that no log line has reported."""
        self._log_again_at: dict[SessionRefusal, float] = {}

    def message(self, report: Report) -> None:
        """Reports a finished message."""
        self._metrics.message(report)
        self._messages.message(report)

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Reports that the client disconnected between DATA and the final dot."""
        self._metrics.aborted()
        self._messages.event("client left before the final dot", {"record": transaction_id, "peer": peer})

    def memory_refused(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that was refused because the memory budget was used up."""
        self._metrics.memory_refused.inc()
        self._messages.event("no memory for a message", {"record": transaction_id, "peer": peer, "size": size})

    def judgement_timed_out(self, transaction_id: str, peer: str, size: int) -> None:
        """Reports a message that is forwarded without a fingerprint."""
        self._metrics.judgements_timed_out.inc()
        self._messages.event("judgement took too long", {"record": transaction_id, "peer": peer, "size": size})

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Reports a recipient that was refused at RCPT. If all are refused, this is the only trace of the message."""
        self._metrics.recipient_refused(reply)
        self._messages.recipient_refused(transaction_id, peer, recipient, reply)

    def session_refused(self, peer: str, refusal: SessionRefusal) -> None:
        """Counts a session that was refused, or ended by a limit.

        Logs the first one of each reason, and then at most one line a minute.
        """
        self._metrics.sessions_refused[refusal].inc()
        self._unlogged[refusal] += 1
        now = self._clock()
        if now < self._log_again_at.get(refusal, now):
            return
        fields = {
            "peer": peer,
            "reason": refusal.reason,
            "key": refusal.key,
            "reply": refusal.reply.code,
            "sessions": self._unlogged.pop(refusal),
        }
        self._log_again_at[refusal] = now + _LOG_REFUSALS_EVERY
        self._messages.event("session refused", fields, logging.INFO if refusal in _ORDINARY else logging.WARNING)

    def login(self, peer: str, name: str, outcome: LoginOutcome) -> None:
        """Reports the end of a login. Accepted ones are in the line of each message."""
        self._metrics.logins[outcome].inc()
        if outcome is not LoginOutcome.ACCEPTED:
            self._messages.login_event("login refused", peer, name, outcome.value)

    def sender_refused(self, peer: str, login: str, reason: str) -> None:
        """Reports a sender that was refused at MAIL."""
        self._metrics.senders_refused[reason].inc()
        self._messages.login_event("sender refused", peer, login, reason)

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Reports an internal fault, with its traceback."""
        self._metrics.faults.inc()
        log.error("fault", exc_info=error, extra={"fields": {"record": transaction_id, "where": where}})
