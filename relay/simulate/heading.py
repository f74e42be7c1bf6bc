"""What the header section of an archived message tells of its delivery: when, to whom, from whom. Never strict.

Trace fields are read from the top: the last hop wrote its own there (RFC 5321 section 4.4).
"""

from __future__ import annotations

import datetime as dt
import re
from email.utils import parsedate_tz
from typing import TYPE_CHECKING, NamedTuple

from relay.core.envelope import fold
from relay.judge.mime.headers import unfold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.core.envelope import Recipient

UNKNOWN = "unknown"
"""The recipient of a message that names none, and the source that says so."""

_FIELD = re.compile(
    rb"(?im)^(received|delivery-date|date|return-path|x-original-to|delivered-to|envelope-to|to|cc)[ \t]*:"
    rb"(.*(?:\n[ \t].*)*)"
)
_BLANK_LINE = re.compile(rb"\n\r?\n")
_ONE_RECIPIENT = {"x-original-to": "X-Original-To", "delivered-to": "Delivered-To", "envelope-to": "Envelope-To"}
_LONGEST_DATE = 200
_EARLIEST = dt.datetime(1, 1, 1, tzinfo=dt.UTC).timestamp()
LATEST = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp()
"""Seconds since the Unix epoch. The zone may lead beyond what has a name."""

# The date of asctime, with the zone that some programs put on either side of the year.
_ASCTIME = re.compile(
    r"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) ([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?) (?:([A-Z]{1,5}|[+-][0-9]{4}) )?([0-9]{4})"
    r"(?: ([+-][0-9]{4}))?"
)
_NAMED_TIME = re.compile(rb"([0-9]{9,10})\.")

# RFC 5322 section 3.4, generously: quoted strings and comments hide what is special; then a comma ends an address.
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"(?!@)', re.DOTALL)
_COMMENT = re.compile(rb"\([^()]*\)")
_GROUP = re.compile(rb"^[^<>@]*:")
_ANGLE = re.compile(rb"<([^<>]*)>")


class Dated(NamedTuple):
    """A time in seconds since the Unix epoch, and where it stood."""

    at: float
    source: str


class Addressed(NamedTuple):
    """Recipients, and where they stood."""

    recipients: tuple[Recipient, ...]
    source: str


class Heading:
    """The fields that matter here. `from_line` is the mbox line before the message, or empty."""

    def __init__(self, head: bytes, from_line: bytes = b"") -> None:
        blank = _BLANK_LINE.search(head)
        self._from_line = from_line
        self._fields: dict[str, list[bytes]] = {}
        for found in _FIELD.finditer(head, 0, blank.start() + 1 if blank else len(head)):
            self._fields.setdefault(found[1].decode("ascii").lower(), []).append(unfold(found[2]).strip())

    def date(self) -> Dated | None:
        """Give when it was delivered, as far as the message itself tells."""
        for source, at in self._dates():
            if at is not None:
                return Dated(at, source)
        return None

    def _dates(self) -> Iterator[tuple[str, float | None]]:
        yield "Received", parse_date(self._top("received").rpartition(b";")[2])
        yield "Delivery-date", parse_date(self._top("delivery-date"))
        yield "From_ line", _from_line_date(self._from_line)
        yield "Date", parse_date(self._top("date"))

    def addressed(self) -> Addressed:
        """Give who got it: by what the delivery wrote, else all whom To and Cc name."""
        for name, source in _ONE_RECIPIENT.items():
            if recipients := _recipients(self._top(name)):
                return Addressed(recipients, source)
        written = b",".join(self._fields.get("to", []) + self._fields.get("cc", []))
        if recipients := _recipients(written):
            return Addressed(recipients, "To and Cc")
        return Addressed((fold(UNKNOWN.encode()),), UNKNOWN)

    def reverse_path(self) -> bytes | None:
        """Give the reverse-path, empty for `<>`, or None where no Return-Path tells it."""
        if "return-path" not in self._fields:
            return None
        value = self._top("return-path")
        angle = _ANGLE.search(value)
        return angle[1].strip() if angle else value

    def _top(self, name: str) -> bytes:
        return self._fields.get(name, [b""])[0]


def parse_date(octets: bytes) -> float | None:
    """Read a date of RFC 5322 section 3.3, old zones too, or give None. A leap second is the one before it."""
    try:
        parts = parsedate_tz(octets[:_LONGEST_DATE].decode("ascii", "replace"))
        if parts is None:
            return None
        year, month, day, hour, minute, second = parts[:6]
        moment = dt.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=dt.UTC)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    at = moment.timestamp() - (parts[9] or 0)
    return at if _EARLIEST <= at <= LATEST else None


def name_date(name: bytes) -> float | None:
    """Give the time with which the name of a Maildir file begins."""
    found = _NAMED_TIME.match(name)
    return float(found[1]) if found else None


def _from_line_date(line: bytes) -> float | None:
    """RFC 4155: in UTC where no zone is given."""
    text = line[:_LONGEST_DATE].decode("ascii", "replace")
    found = _ASCTIME.search(text)
    if not found:
        # Some programs write it as in a field.
        return parse_date(line.partition(b" ")[2].partition(b" ")[2])
    month, day, time, zone, year, late_zone = found.groups()
    return parse_date(f"{day} {month} {year} {time} {late_zone or zone or '+0000'}".encode())


def _recipients(value: bytes) -> tuple[Recipient, ...]:
    bare = _COMMENT.sub(b" ", _QUOTED.sub(b" ", value))
    found: dict[Recipient, None] = {}
    for item in re.split(rb"[,;]", bare):
        angle = _ANGLE.search(item)
        address = (angle[1] if angle else _GROUP.sub(b"", item)).strip()
        if b"@" in address and not re.search(rb"\s", address):
            found[fold(address)] = None
    return tuple(found)
