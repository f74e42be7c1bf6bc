"""Reports the events of transactions to the log and the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.monitor.logs import MessageLog, log

if TYPE_CHECKING:
    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.monitor.metrics import Metrics


class LogAndMetricsReporter:
    """The reporter of all transactions of a process."""

    def __init__(self, metrics: Metrics, messages: MessageLog) -> None:
        self._metrics = metrics
        self._messages = messages

    def message(self, report: Report) -> None:
        """Reports a finished message."""
        self._metrics.message(report)
        self._messages.message(report)

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Reports that the client disconnected between DATA and the final dot."""
        self._metrics.aborted()
        self._messages.event("client left before the final dot", {"record": transaction_id, "peer": peer})

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Reports a recipient that was refused at RCPT. If all are refused, this is the only trace of the message."""
        self._metrics.recipient_refused(reply)
        self._messages.recipient_refused(transaction_id, peer, recipient, reply)

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Reports an internal fault, with its traceback."""
        self._metrics.faults.inc()
        log.error("fault", exc_info=error, extra={"fields": {"record": transaction_id, "where": where}})
