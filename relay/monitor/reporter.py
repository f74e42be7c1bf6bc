"""Whatever happens to a message, once for the metrics and once for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.monitor.logs import MessageLog, log

if TYPE_CHECKING:
    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.monitor.metrics import Metrics


class LogAndMetricsReporter:
    """The witness of all transactions."""

    def __init__(self, metrics: Metrics, messages: MessageLog) -> None:
        self._metrics = metrics
        self._messages = messages

    def message(self, report: Report) -> None:
        """Note a message that is over."""
        self._metrics.message(report)
        self._messages.message(report)

    def aborted(self, transaction_id: str, peer: str) -> None:
        """Note that a client left between DATA and its final dot."""
        self._metrics.aborted()
        self._messages.event("client left before the final dot", {"record": transaction_id, "peer": peer})

    def recipient_refused(self, transaction_id: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Note a recipient that was refused at RCPT time: where all are, the message has no line of its own."""
        self._metrics.rcpt_refused.inc()
        self._messages.recipient_refused(transaction_id, peer, recipient, reply)

    def fault(self, transaction_id: str, where: str, error: Exception) -> None:
        """Note a fault of ours, with its traceback."""
        self._metrics.faults.inc()
        log.error("fault", exc_info=error, extra={"fields": {"record": transaction_id, "where": where}})
