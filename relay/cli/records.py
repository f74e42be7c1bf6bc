"""Records for people and for programs: times, spans, addresses, and the question which records somebody means."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from relay.core.claim import Original
    from relay.core.record import Record, Repeat
    from relay.records.pseudonyms import Pseudonyms
    from relay.settings import Settings

_ID = re.compile(r"[0-9a-fA-F]{12}")
# RFC 5321 section 4.1.1.3: the one address that needs no domain.
_SOMETHING = re.compile(r"(?is)[0-9a-f]{12}|h:[0-9a-f]{16}|postmaster|<.+>|.*@.*")
_SPANS = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (120, 60, "min"))


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read the duration that a flag gives, such as `90s`, `10m` or `2d`."""
    from relay.settings.units import parse_duration

    del ctx, param
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def something(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Read an argument that names something: an ID, a Message-ID, an address or the name of one in records."""
    from relay.runtime.terminal import printable

    del ctx, param
    if value is None or _SOMETHING.fullmatch(value.strip()):
        return value
    said = f"'{printable(value)}' is no address, id or Message-ID" if value.strip() else "it is empty"
    raise click.BadParameter(f"{said}; write NAME@DOMAIN, the 12 hexadecimal digits of a record, or <MESSAGE-ID>")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for, in every way in which it can be meant: ID, Message-ID or address."""

    written: str
    record: str
    message_id: str
    recipients: frozenset[str]

    @classmethod
    def read(cls, written: str, names: Pseudonyms | None) -> Wanted:
        """Read an argument. Without `names` addresses are found only where they stand unhashed."""
        from relay.records.pseudonyms import address
        from relay.records.selection import bare

        written = written.strip()
        if _ID.fullmatch(written):
            return cls(written, written.lower(), "", frozenset())
        recipients = names.find(written) if names else frozenset((str(address(written)),))
        return cls(written, "", bare(written), recipients)

    def recipient_of(self, repeat: Repeat) -> bool:
        """Say whether the address is the one that was asked for."""
        return repeat.recipient in self.recipients

    def is_record(self, record: Record) -> bool:
        """Say whether the record itself was asked for, by its id or its Message-ID."""
        from relay.records.selection import bare

        return bool(
            (self.record and record.id == self.record)
            or (self.message_id and bare(record.message_id) == self.message_id)
        )

    def is_original(self, original: Original | None) -> bool:
        """Say whether the message that was repeated was asked for."""
        from relay.records.selection import bare

        return original is not None and bool(
            (self.record and original.id == self.record)
            or (self.message_id and bare(original.message_id) == self.message_id)
        )


def names_of(settings: Settings) -> Pseudonyms | None:
    """Give how addresses stand in records here; None where no secret was made yet. Raises `SettingsError`."""
    from relay.records.pseudonyms import Pseudonyms
    from relay.records.secret import find_secret
    from relay.settings.sources import default_secret_file

    secret = find_secret(settings.record.secret_file, default_secret_file(settings, os.environ))
    return Pseudonyms(secret, plain=settings.record.addresses) if secret else None


def timestamp(seconds: float) -> str:
    """Write seconds since the epoch as in the log, without their fractions."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown time"


def span(seconds: float) -> str:
    """Write a duration in one unit."""
    for least, length, unit in _SPANS:
        if seconds >= least:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def as_json(record: Record) -> dict[str, object]:
    """Give a record for programs."""
    return {
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


def _original(original: Original) -> dict[str, object]:
    return {
        "id": original.id,
        "message_id": original.message_id,
        "reply": original.reply,
        "time": timestamp(original.accepted_at),
    }
