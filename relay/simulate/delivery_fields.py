"""Reads from a header section when an archived message was delivered, to whom, and from whom. Never strict.

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
"""The recipient of a message that names no recipient, and the name of that source."""

_FIELD = re.compile(
    rb"(?im)^(received|delivery-date|date|return-path|x-original-to|delivered-to|envelope-to|to|cc)[ \t]*:"
    rb"(.*(?:\n[ \t].*)*)"
)
# What mail servers, their filters and mail readers add at delivery and after it.
_ADDED = re.compile(
    rb"(?im)^(?:received(?:-spf)?|return-path|delivered-to|(?:x-)?original-to|x-original-recipient|envelope-to"
    rb"|delivery-date|authentication-results|x-received|(?:x-)?status|x-uidl?|x-keywords|lines"
    rb"|x-(?:spam|spamd|rspamd|virus|mozilla|gm|gmail|google|ms-exchange|microsoft|forefront)-[!-9;-~]+)[ \t]*:"
    rb".*(?:\n[ \t].*)*\n"
)
_BLANK_LINE = re.compile(rb"\n\r?\n")
_DELIVERY_RECIPIENT = {"x-original-to": "X-Original-To", "delivered-to": "Delivered-To", "envelope-to": "Envelope-To"}
_LONGEST_DATE = 200
_EARLIEST = dt.datetime(1, 1, 1, tzinfo=dt.UTC).timestamp()
LATEST = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp()
"""Seconds since the Unix epoch. A zone may move a date beyond the years that `datetime` supports."""

# The date of asctime, with the zone that some programs put before or after the year.
_ASCTIME = re.compile(
    r"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) ([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?) (?:([A-Z]{1,5}|[+-][0-9]{4}) )?([0-9]{4})"
    r"(?: ([+-][0-9]{4}))?"
)
_TIME_IN_NAME = re.compile(rb"([0-9]{9,10})\.")

# RFC 5322 section 3.4, loosely: quoted strings and comments may hold separators; without them, a comma ends an address.
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"(?!@)', re.DOTALL)
_COMMENT = re.compile(rb"\([^()]*\)")
_GROUP = re.compile(rb"^[^<>@]*:")
_ANGLE = re.compile(rb"<([^<>]*)>")


class DeliveryDate(NamedTuple):
    """A time in seconds since the Unix epoch, and the field that gave it."""

    at: float
    source: str


class DeliveryRecipients(NamedTuple):
    """Recipients, and the field that named them."""

    recipients: tuple[Recipient, ...]
    source: str


class DeliveryFields:
    """The fields about the delivery. `from_line` is the mbox line before the message, or empty."""

    def __init__(self, head: bytes, from_line: bytes = b"") -> None:
        blank = _BLANK_LINE.search(head)
        self._from_line = from_line
        self._fields: dict[str, list[bytes]] = {}
        for field in _FIELD.finditer(head, 0, blank.start() + 1 if blank else len(head)):
            self._fields.setdefault(field[1].decode("ascii").lower(), []).append(unfold(field[2]).strip())

    def date(self) -> DeliveryDate | None:
        """Returns the delivery time from the first source that has a usable one, or None."""
        return next((DeliveryDate(at, source) for source, at in self._dates() if at is not None), None)

    def _dates(self) -> Iterator[tuple[str, float | None]]:
        yield "Received", parse_date(self._top("received").rpartition(b";")[2])
        yield "Delivery-date", parse_date(self._top("delivery-date"))
        yield "From_ line", _parse_from_line(self._from_line)
        yield "Date", parse_date(self._top("date"))

    def recipients(self) -> DeliveryRecipients:
        """Returns the recipients that the delivery recorded, else all addresses in To and Cc, else `UNKNOWN`."""
        for name, source in _DELIVERY_RECIPIENT.items():
            if recipients := _addresses(self._top(name)):
                return DeliveryRecipients(recipients, source)
        if recipients := _addresses(b",".join(self._fields.get("to", []) + self._fields.get("cc", []))):
            return DeliveryRecipients(recipients, "To and Cc")
        return DeliveryRecipients((fold(UNKNOWN.encode()),), UNKNOWN)

    def reverse_path(self) -> bytes | None:
        """Returns the reverse-path from Return-Path, empty for `<>`, or None without such a field."""
        if "return-path" not in self._fields:
            return None
        value = self._top("return-path")
        angle = _ANGLE.search(value)
        return angle[1].strip() if angle else value

    def _top(self, name: str) -> bytes:
        return self._fields.get(name, [b""])[0]


def without_delivery_fields(content: bytes) -> bytes:
    """Returns the content as the relay saw it, as far as is known: without the fields that a delivery adds."""
    blank = _BLANK_LINE.search(content)
    end = blank.start() + 1 if blank else len(content)
    return _ADDED.sub(b"", content[:end]) + content[end:]


def parse_date(octets: bytes) -> float | None:
    """Parses a date (RFC 5322 section 3.3, with obsolete zones). Returns seconds since the Unix epoch, or None.

    A leap second counts as the second before it.
    """
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


def parse_file_name(name: bytes) -> float | None:
    """Returns the time at the beginning of a Maildir file name, in seconds since the Unix epoch, or None."""
    match = _TIME_IN_NAME.match(name)
    return float(match[1]) if match else None


def _parse_from_line(line: bytes) -> float | None:
    """Parses the date of a From_ line (RFC 4155). Without a zone it is UTC."""
    match = _ASCTIME.search(line[:_LONGEST_DATE].decode("ascii", "replace"))
    if not match:
        # Some programs write the date of a header field.
        return parse_date(line.partition(b" ")[2].partition(b" ")[2])
    month, day, time, zone, year, late_zone = match.groups()
    return parse_date(f"{day} {month} {year} {time} {late_zone or zone or '+0000'}".encode())


def _addresses(value: bytes) -> tuple[Recipient, ...]:
    """Returns the distinct addresses of a field, folded."""
    bare = _COMMENT.sub(b" ", _QUOTED.sub(b" ", value))
    found: dict[Recipient, None] = {}
    for item in re.split(rb"[,;]", bare):
        angle = _ANGLE.search(item)
        address = (angle[1] if angle else _GROUP.sub(b"", item)).strip()
        if b"@" in address and not re.search(rb"\s", address):
            found[fold(address)] = None
    return tuple(found)
