"""The log: one line for each message and each event, as JSON or for people. A thread writes the lines."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import re
import time
from typing import IO, TYPE_CHECKING, Any

from relay.core.redact import without_addresses
from relay.core.ruling import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report

log = logging.getLogger("relay")

_MOST_ORIGINALS = 5
_PLAIN_KEY = re.compile(r"[\w@./+<>=-]+")
_PLAIN = re.compile(r"[\w@.:/+<>=-]+")


def configure(kind: str, level: str, stream: IO[str], *, addresses: bool) -> logging.handlers.QueueListener:
    """Sends all log lines through a queue to `stream`. `kind` is "auto", "json" or "human".

    Returns the listener that writes the lines; call its `stop` at the end.
    """
    human = kind == "human" or (kind == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter(addresses=addresses) if human else JsonFormatter(addresses=addresses))
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(_Enqueue(lines))
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())
    listener = logging.handlers.QueueListener(lines, handler)
    listener.start()
    return listener


class _Enqueue(logging.handlers.QueueHandler):
    """Queues log records unformatted, because the formatters need their fields."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class _Formatter(logging.Formatter):
    """Removes mail addresses from free text unless `addresses` is set.

    Events may quote an upstream, and tracebacks may quote anything.
    """

    def __init__(self, *, addresses: bool) -> None:
        super().__init__()
        self._addresses = addresses

    def redacted(self, text: str) -> str:
        """Returns the text as it may be logged."""
        return text if self._addresses else without_addresses(text)


class JsonFormatter(_Formatter):
    """Formats a log record as one JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns an object with time, level, event and the fields of the record."""
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": self.redacted(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.redacted(self.formatException(record.exc_info))
        return _escaped(json.dumps(line, ensure_ascii=False, default=str), _json_escape)


class HumanFormatter(_Formatter):
    """Formats a log record for people: the event, then the fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns time, level (unless info), event and fields."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = " ".join(f"{key}={_plain(value)}" for key, value in getattr(record, "fields", {}).items())
        text = _escaped(self.redacted(record.getMessage()), _escape)
        line = f"{_timestamp(record.created)} {level}{text} {fields}".rstrip()
        if not record.exc_info:
            return line
        traceback = self.redacted(self.formatException(record.exc_info)).split("\n")
        return "\n".join([line, *(_escaped(part, _escape) for part in traceback)])


class MessageLog:
    """Writes the line of each message. Addresses are included only if `addresses` is set."""

    def __init__(self, *, addresses: bool) -> None:
        self._addresses = addresses

    def message(self, report: Report) -> None:
        """Logs the outcome of a message and the earlier messages that it repeats."""
        if not log.isEnabledFor(logging.INFO):
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
        if self._addresses:
            fields["from"] = report.envelope.reverse_path.decode("utf-8", "backslashreplace")
            fields["to"] = {recipient: result.outcome.value for recipient, result in report.results.items()}
        log.info("message", extra={"fields": fields})

    def recipient_refused(self, record: str, peer: str, recipient: Recipient, reply: Reply) -> None:
        """Logs a recipient that was refused at RCPT, with the reply."""
        to = {"to": recipient} if self._addresses else {}
        self.event("recipient refused", {"record": record, **self._reply(reply), "peer": peer, **to})

    def _reply(self, reply: Reply) -> dict[str, object]:
        return {
            "reply": reply.code,
            "reply_text": reply.text if self._addresses else without_addresses(reply.text),
        }

    def event(self, text: str, fields: Mapping[str, object], level: int = logging.INFO) -> None:
        """Logs any other event."""
        log.log(level, text, extra={"fields": fields})


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{_quoted(str(key), _PLAIN_KEY)}:{_plain(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ";".join(map(_plain, value))
    return _quoted(str(value), _PLAIN)


def _quoted(text: str, plain: re.Pattern[str]) -> str:
    if plain.fullmatch(text):
        return text
    return _escaped(json.dumps(text, ensure_ascii=False), _json_escape)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """Escapes control characters: clients and upstreams could otherwise forge lines or move the cursor."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _json_escape(letter: str) -> str:
    return json.dumps(letter)[1:-1]
