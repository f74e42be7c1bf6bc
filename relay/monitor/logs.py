"""The log: one line for each message and each event, as JSON or for people."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TextIO

from relay.core.redact import without_addresses
from relay.core.ruling import DEFAULT
from relay.events.mail import MESSAGE, RECIPIENT_REFUSED
from relay.monitor.log_format import HumanFormatter, JsonFormatter
from relay.monitor.log_writer import LogWriter

if TYPE_CHECKING:
    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.events.event import Event

_log = logging.getLogger("relay")

INTERRUPTED = "another mail of this sender came in between"
"""Why a copy is no repeat under a consecutive rule."""
_MOST_ORIGINALS = 5
_LONGEST_REPLY = 4096
"""Characters of a reply in a line. RFC 5321 section 4.5.3.1.5 allows 512 octets in a line of a reply."""


def configure(kind: str, level: str, stream: TextIO, *, addresses: bool) -> LogWriter:
    """Sends all log lines to `stream`, which has a file descriptor. `kind` is "auto", "json" or "human".

    Returns the writer; call its `stop` at the end.
    """
    writer = LogWriter(stream)
    reconfigure(writer, kind, level, addresses=addresses)
    logging.root.handlers[:] = [writer]
    logging.root.setLevel(logging.WARNING)
    return writer


def reconfigure(writer: LogWriter, kind: str, level: str, *, addresses: bool) -> None:
    """Changes what the lines of a writer look like, and which are written."""
    human = kind == "human" or (kind == "auto" and writer.is_terminal)
    writer.setFormatter(HumanFormatter(addresses=addresses) if human else JsonFormatter(addresses=addresses))
    _log.setLevel(level.upper())


class MessageLog:
    """Writes the line of each message. Addresses are included only if `addresses` is set."""

    def __init__(self, *, addresses: bool) -> None:
        self._addresses = addresses

    def message(self, report: Report) -> None:
        """Logs the outcome of a message and the earlier messages that it repeats."""
        if not MESSAGE.is_logged:
            return
        fields: dict[str, Any] = {
            "record": report.id,
            **self._reply(report.reply),
            "recipients": {outcome.value: count for outcome, count in report.counts().items()},
            "size_bytes": report.size,
            "seconds": round(report.seconds, 4),
            "message_id": report.message_id,
            "peer": report.peer,
        }
        if report.exempt:
            fields["exempt"] = report.exempt
        elif rules := {ruling.rule for ruling in report.rulings.values()} - {DEFAULT}:
            fields["rules"] = sorted(rules)
        originals = {result.original.id: result for result in report.results.values() if result.original}
        if originals:
            fields["repeats"] = [
                {"record": record, "message_id": result.original.message_id, "age_seconds": round(result.age, 1)}
                for record, result in list(originals.items())[:_MOST_ORIGINALS]
                if result.original
            ]
        if self._addresses and report.login:
            fields["login"] = report.login
        if report.not_suppressed:
            fields["not_suppressed"] = INTERRUPTED
        if self._addresses:
            fields["from"] = report.envelope.reverse_path.decode("utf-8", "backslashreplace")
            fields["to"] = {recipient: result.outcome.value for recipient, result in report.results.items()}
        MESSAGE.log(**fields)

    def recipient_refused(self, record: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Logs a recipient that was refused at RCPT, with the reply."""
        to = {"to": recipient} if self._addresses else {}
        RECIPIENT_REFUSED.log(record=record, **self._reply(reply), peer=peer, **to)

    def login_event(self, event: Event, peer: str, login: str, reason: str, times: int) -> None:
        """Logs an event that concerns a client's login. Names of logins are often addresses, and sometimes passwords.

        They are included only if `addresses` is set.
        """
        name = {"login": login} if self._addresses and login else {}
        event.log(peer=peer, reason=reason, times=times, **name)

    def _reply(self, reply: Reply) -> dict[str, object]:
        text = reply.text
        text = text[:_LONGEST_REPLY] if self._addresses else without_addresses(text, _LONGEST_REPLY)
        return {"reply": reply.code, "reply_text": text}
