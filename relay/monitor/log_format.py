"""Formats log records as JSON or for people, without mail addresses unless the operator wants them."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from relay.core.redact import LONGEST, without_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PLAIN_KEY = re.compile(r"[\w@./+<>=-]+")
_PLAIN = re.compile(r"[\w@.:/+<>=-]+")
_LONGEST_ERROR = 1000
"""Characters of another program's words in a line."""
_encode_json = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""Built once: `json.dumps` with these arguments builds an encoder for each call."""


class _Formatter(logging.Formatter):
    """Removes mail addresses from free text unless `addresses` is set.

    The field `error` may quote an upstream, and tracebacks may quote anything.
    """

    def __init__(self, *, addresses: bool) -> None:
        super().__init__()
        self._addresses = addresses

    def redacted(self, text: str) -> str:
        """Returns the text as it may be logged."""
        return text[:LONGEST] if self._addresses else without_addresses(text)

    def fields_of(self, record: logging.LogRecord) -> Mapping[str, Any]:
        """Returns the fields of a log record. The field `error` becomes one short line."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        if "error" not in fields:
            return fields
        return fields | {"error": " ".join(self.redacted(_cause(fields["error"])).split())[:_LONGEST_ERROR]}


class JsonFormatter(_Formatter):
    """Formats a log record as one JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns an object with time, level, event and the fields of the record."""
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": self.redacted(record.getMessage()),
            **self.fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.redacted(self.formatException(record.exc_info))
        return _escaped(_encode_json(line), _json_escape)


class HumanFormatter(_Formatter):
    """Formats a log record for people: the event, then the fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns time, level (unless info), event and fields."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = " ".join(f"{key}={_plain(value)}" for key, value in self.fields_of(record).items())
        text = _escaped(self.redacted(record.getMessage()), _escape)
        line = f"{_timestamp(record.created)} {level}{text} {fields}".rstrip()
        if not record.exc_info:
            return line
        traceback = self.redacted(self.formatException(record.exc_info)).split("\n")
        return "\n".join([line, *(_escaped(part, _escape) for part in traceback)])


def _cause(error: object) -> str:
    """Returns the words of an exception, without the error number; of an empty one its name."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or repr(error)


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
