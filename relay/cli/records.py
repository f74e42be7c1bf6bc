"""What the commands about records share: reading their arguments, and writing times, durations and records."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from relay.admin.records import Records
    from relay.core.claim import Original
    from relay.core.trace import RecipientTrace, Trace

_ID = re.compile(r"[0-9a-fA-F]{12}")
# RFC 5321 section 4.1.1.3: postmaster is the one address that needs no domain.
_QUERY = re.compile(r"(?is)[0-9a-f]{12}|h:[0-9a-f]{16}|postmaster|<.+>|.*@.*")
_UNITS = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (120, 60, "min"))
"""From how many seconds on a unit is used, its length in seconds, and its name."""


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Returns the seconds of a duration flag, such as `90s`, `10m` or `2d`."""
    from relay.settings.units import parse_duration as parse

    del ctx, param
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_record_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Returns the ID of a record in lower case."""
    del ctx, param
    if not _ID.fullmatch(value.strip()):
        raise click.BadParameter("not the id of a record, which has 12 hexadecimal digits; relay suppressed lists them")
    return value.strip().lower()


def parse_query(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Checks an argument that is an ID, a Message-ID, an address or the hash of an address."""
    from relay.runtime.terminal import printable

    del ctx, param
    if value is None or _QUERY.fullmatch(value.strip()):
        return value
    fault = f"'{printable(value)}' is no address, id or Message-ID" if value.strip() else "it is empty"
    raise click.BadParameter(f"{fault}; write NAME@DOMAIN, the 12 hexadecimal digits of a record, or <MESSAGE-ID>")


@dataclass(frozen=True, slots=True)
class Query:
    """What the user asks for: an ID, or a Message-ID or address, which cannot be told apart by their form."""

    written: str
    record: str
    """An ID in lower case, or empty."""
    message_id: str
    """Without angle brackets, or empty."""
    recipients: frozenset[str]
    """The address as records may contain it."""

    hashed: bool = True
    """Whether records that contain the address hashed are found."""

    @classmethod
    async def parse(cls, written: str, source: Records) -> Query:
        """Reads an argument. Asks `source` how its records contain an address."""
        from relay.records.selection import bare

        written = written.strip()
        if _ID.fullmatch(written):
            return cls(written, written.lower(), "", frozenset())
        found = await source.find(written)
        return cls(written, "", bare(written), found.names, found.hashed)

    def matches_recipient(self, repeat: RecipientTrace) -> bool:
        """Returns whether this recipient was asked for."""
        return repeat.recipient in self.recipients

    def matches_record(self, record: Trace) -> bool:
        """Returns whether the suppressed message was asked for, by its ID or Message-ID."""
        return self._matches(record.id, record.message_id)

    def matches_original(self, original: Original | None) -> bool:
        """Returns whether the earlier message was asked for, by its ID or Message-ID."""
        return original is not None and self._matches(original.id, original.message_id)

    def _matches(self, id_: str, message_id: str) -> bool:
        from relay.records.selection import bare

        return id_ == self.record if self.record else bool(self.message_id) and bare(message_id) == self.message_id


def timestamp(seconds: float) -> str:
    """Formats seconds since the Unix epoch as the log does, but without fractions: `2025-03-01T10:00:34Z`."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown time"


def duration(seconds: float) -> str:
    """Formats a duration in one unit, such as `34 s` or `5 min`."""
    for least, length, unit in _UNITS:
        if seconds >= least:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def counted(number: int, noun: str) -> str:
    """Formats a number with its noun, such as `2 recipients`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def json_line(record: Trace) -> str:
    """Formats a record as one line of JSON, for programs."""
    import json

    fields = {
        "id": record.id,
        "time": timestamp(record.at),
        "message_id": record.message_id,
        "from": record.sender,
        "recipients": [
            {
                "recipient": repeat.recipient,
                "outcome": repeat.outcome.value,
                "rule": repeat.rule,
                "fingerprint": repeat.fingerprint,
                "age_seconds": repeat.age,
                "original": repeat.original and _original(repeat.original),
            }
            for repeat in record.repeats
        ],
        "counted": {rule: list(fields) for rule, fields in record.forms.items()},
        "ignored": {rule: list(pieces) for rule, pieces in record.ignored.items()},
        "kept": record.kept,
    }
    return json.dumps(fields)


def _original(original: Original) -> dict[str, object]:
    return {
        "id": original.id,
        "message_id": original.message_id,
        "reply": original.reply,
        "time": timestamp(original.accepted_at),
    }
