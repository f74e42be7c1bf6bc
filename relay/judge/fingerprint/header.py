"""The header fields that count: all of them, except a short list that differs on every send and that nobody acts on.

A field of the short list counts as written if an MTA, a filter or a reader may act on it. Otherwise a copy with such a
field could be dropped behind the upstream's 250, and the genuine mail would be suppressed as its repeat (ADR 25).
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from relay.core.envelope import fold
from relay.judge.mime.headers import decode_value, unfold, usual_spelling

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from relay.judge.mime.headers import Fields

_UNCOUNTED = frozenset((
    *("date", "message-id", "received", "return-path", "mime-version", "to", "x-mailer", "user-agent"),
    *("dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results"),
))  # fmt: skip
"""The short list. Fields that begin with `Content-` count with the parts of the message, MIME-Version does so too."""
_MOST = {
    # Some MTAs bounce a message after 25 (Sendmail) or 30 (Exim) hops, and later hops add theirs.
    "received": 10,
    **dict.fromkeys(("dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results"), 50),
}
"""How often a field of the short list may occur; the others once."""
_LONGEST_PAST, _LONGEST_FUTURE = 3 * 3600.0, 3600.0
"""Seconds from Date to receipt, and from receipt to Date. Filters act on more (SpamAssassin; rspamd)."""
_LARGEST = 10 * 1024
"""Bytes of all values on the short list. Some MTAs refuse header sections of 32 KiB (Sendmail)."""
_LONGEST_KEY = 256
"""Characters."""
_FIRST = {"subject": "", "from": " "}
"""The fields before the others, which are in the order of their names."""
_PLAIN = bytes((*b"\t\r\n", *range(0x20, 0x7F)))
_LONGEST_LINE = 998
_ODD = re.compile(rb"[^\t\r\n -~]|\A(?=[^\n]{998})|\n(?=[^\n]{998})")
"""What a mail server may refuse: controls, octets outside ASCII, lines over 998 octets (RFC 5322 section 2.1.1)."""
_KEY = re.compile(rb"[!-~]+(?: [!-~]+)*")
_MONTHS = {month: number for number, month in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
# RFC 5322 section 3.3, without the obsolete forms that filters score, except the names of UTC.
_DATE = re.compile(
    rb"\s*(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),\s*)?([0-9]{1,2})\s+([A-Z][a-z]{2})\s+([0-9]{4})"
    rb"\s+([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?\s+(?:([+-])(0[0-9]|1[0-4])([0-5][0-9])|GMT|UTC?|Z)(?:\s*\([^()]*\))?\s*"
)
# RFC 5322 section 3.6.4. Large receivers refuse a mail with one of another form.
_MESSAGE_ID = re.compile(rb"\s*<[!-;=?-~]+@[!-;=?-~]+>\s*")
_WITH_FORM = ("date", "message-id")
_LONGEST_VALUE = 998
"""Octets of a value, folds included, that is compared decoded."""
REVERSE_PATH, DOMAIN = "reverse-path", "reverse-path domain"


class Field(NamedTuple):
    """A value that counts, with a label that says what it is."""

    label: str
    value: bytes


def counted_fields(fields: Fields, reverse_path: bytes, received_at: float | None) -> tuple[Field, ...]:
    """Returns what counts of a header section and of the reverse-path.

    The order of fields with different names does not count. `received_at` is the time of receipt in seconds since the
    Unix epoch; if it is unknown, any valid Date is near. Without a From field the whole reverse-path counts.
    """
    counted: list[tuple[str, bytes]] = []
    uncounted: list[tuple[str, bytes]] = []
    for field in fields:
        is_uncounted = field[0] in _UNCOUNTED or field[0].startswith("content-")
        (uncounted if is_uncounted else counted).append(field)
    counted.sort(key=_rank)
    # White space that folding hides can make a header section longer than the next mail server takes.
    is_large = sum([len(value) for _, value in counted]) > _LARGEST
    found = [_decoded(name, raw, is_large or len(raw) > _LONGEST_VALUE) for name, raw in counted]
    found += [Field(f"{usual_spelling(name)} (raw)", raw) for name, raw in _acted_on(uncounted, received_at)]
    present = dict(fields)
    if fields and "date" not in present:
        found.append(Field("Date (missing)", b""))
    found.append(Field(DOMAIN, _domain(reverse_path)) if "from" in present else Field(REVERSE_PATH, reverse_path))
    return tuple(found)


def key_fields(fields: Fields, counted: Sequence[Field], names: Collection[str]) -> tuple[Field, ...]:
    """Returns what counts of a message that carries a key in one of these fields: key and sender; else nothing.

    `names` are in lower case. Of several such fields, or of a malformed one, no key is certain.
    """
    keys = [(name, unfold(value).strip()) for name, value in fields if name in names]
    if len(keys) != 1 or len(keys[0][1]) > _LONGEST_KEY or not _KEY.fullmatch(keys[0][1]):
        return ()
    sender = (field for field in counted if field.label in {"From", "From (raw)", REVERSE_PATH, DOMAIN})
    return (Field(f"key {usual_spelling(keys[0][0])}", keys[0][1]), *sender)


def _rank(field: tuple[str, bytes]) -> str:
    return _FIRST.get(field[0], field[0])


def _decoded(name: str, raw: bytes, is_long: bool) -> Field:
    text = None if is_long else decode_value(raw, structured=name != "subject")
    label = usual_spelling(name)
    return Field(f"{label} (raw)", raw) if text is None else Field(label, text)


def _acted_on(uncounted: list[tuple[str, bytes]], received_at: float | None) -> list[tuple[str, bytes]]:
    """Returns the fields of the short list that count as written, in the order of their names."""
    values = dict(uncounted)
    joined = b"\n".join(values.values())
    # Most header sections have one field of each name and nothing odd, which this finds out in a third of the time.
    if len(values) == len(uncounted) and len(joined) <= _LONGEST_LINE and not joined.translate(None, _PLAIN):
        suspects = [name for name in _WITH_FORM if name in values]
        return [(name, values[name]) for name in suspects if not _has_form(name, values[name], received_at)]
    reasons = _reasons(uncounted, received_at)
    return sorted((field for field, reason in zip(uncounted, reasons, strict=True) if reason), key=_rank)


def why_counted(fields: Fields, received_at: float | None = None) -> list[tuple[str, str]]:
    """Returns the name of each field of the short list that counts as written, with the reason, for people."""
    uncounted = [field for field in fields if field[0] in _UNCOUNTED or field[0].startswith("content-")]
    reasons = _reasons(uncounted, received_at)
    found = [(usual_spelling(name), reason) for (name, _), reason in zip(uncounted, reasons, strict=True) if reason]
    return list(dict.fromkeys(found))


def _reasons(uncounted: list[tuple[str, bytes]], received_at: float | None) -> list[str]:
    """Returns for each field why it counts as written; an empty text if it does not count."""
    too_large = len(b"\n".join([value for _, value in uncounted])) > _LARGEST
    occurrences = Counter([name for name, _ in uncounted])

    def reason(name: str, value: bytes) -> str:
        if too_large:
            return f"the fields that usually do not count have more than {_LARGEST:,} bytes together"
        if _ODD.search(value):
            return "it has a control, an octet outside ASCII or a line of 998 octets or more"
        if occurrences[name] > _MOST.get(name, 1):
            return f"there are {occurrences[name]} such fields"
        if name in _WITH_FORM and not _has_form(name, value, received_at):
            return "its value is no valid one" + (", or far from the time of receipt" if name == "date" else "")
        return ""

    return [reason(name, value) for name, value in uncounted]


def _has_form(name: str, value: bytes, received_at: float | None) -> bool:
    """Returns whether a Message-ID or Date has the form that receivers expect."""
    return bool(_MESSAGE_ID.fullmatch(value)) if name == "message-id" else _is_near(value, received_at)


def _is_near(raw: bytes, received_at: float | None) -> bool:
    """Returns whether a Date is valid and near the time of receipt."""
    sent_at = _time_of(raw)
    if sent_at is None or received_at is None:
        return sent_at is not None
    return -_LONGEST_FUTURE <= received_at - sent_at <= _LONGEST_PAST


# The mails of one second share their Date.
@lru_cache(maxsize=16)
def _time_of(date: bytes) -> float | None:
    """Returns the time of a Date in seconds since the Unix epoch; None if the Date is not valid."""
    found = _DATE.fullmatch(date)
    if not found:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups(b"0")
    offset = dt.timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = dt.timezone(-offset if sign == b"-" else offset)
        time = dt.datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=zone)
    except (KeyError, ValueError):
        return None
    return time.timestamp()


@lru_cache(maxsize=64)
def _domain(reverse_path: bytes) -> bytes:
    """Returns the folded domain of a reverse-path; empty if it has none."""
    return fold(reverse_path).rpartition("@")[2].encode("utf-8", "surrogateescape") if b"@" in reverse_path else b""
