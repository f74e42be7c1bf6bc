"""The record of a suppression: which earlier message it repeats, by which rule and by which normalised form.

No content, no subject; addresses as the caller names them, which by default is a keyed hash. It is kept in the store
as one line of JSON.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from relay.core.claim import Original
from relay.core.envelope import fold
from relay.core.outcome import REPEATS, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.core.content import Content
    from relay.core.fingerprint import Judged
    from relay.core.normalise import NormalForm
    from relay.core.report import Report

_write = json.JSONEncoder(separators=(",", ":")).encode
_MOST_FIELDS = 40
"""Fields of a normalised form that an outline names."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """What was decided for one recipient, and why."""

    recipient: str
    outcome: Outcome
    """`SUPPRESSED` or `WOULD_SUPPRESS`."""
    rule: str
    fingerprint: str
    age: float
    """Seconds from the acceptance of the original to the end of this message; 0 where it was still under delivery."""
    original: Original | None
    """None where it was still under delivery, which only observing does not wait for."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message of which at least one recipient got nothing, or would have got nothing."""

    id: str
    """The id that stands in the 250 reply and in the log."""
    at: float
    """Seconds since the Unix epoch, by the clock of the relay's host."""
    message_id: str
    sender: str
    """The reverse-path."""
    repeats: tuple[Repeat, ...]
    forms: Mapping[str, tuple[str, ...]]
    """By rule: the fields that counted and a digest of each, such as `Subject 1c9f03a2`."""
    ignored: Mapping[str, tuple[str, ...]]
    """By rule: the names of what did not count."""
    kept: str = ""
    """The name of the kept copy, or empty."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that somebody got nothing of, and what it takes to send it after all."""

    reverse_path: bytes
    paths: tuple[bytes, ...]
    """Forward-paths that it was suppressed for, as the client wrote them."""
    content: Content
    parameters: tuple[bytes, ...] = ()
    """Of MAIL, such as `BODY=8BITMIME`."""


class Ledger(Protocol):
    """Who keeps records."""

    async def note(self, record: Record, copy: Copy | None) -> None:
        """Keep a record, and the copy if copies are kept (None where nothing was suppressed). Never raises."""


class Naming(Protocol):
    """How what is private stands in records."""

    def __call__(self, recipient: str) -> str:
        """Give the name of a folded address."""

    def words(self, text: str) -> str:
        """Give what somebody has said, without the addresses in it."""

    def digest(self, octets: bytes) -> str:
        """Give eight hexadecimal digits that are equal for equal octets."""


def record_of(report: Report, judged: Judged, names: Naming, at: float) -> Record | None:
    """Give the record of a message that is over, or None where no repeat was found."""
    found = {to: result for to, result in report.results.items() if result.outcome in REPEATS}
    if not found:
        return None
    rules = {report.rulings[to].rule: judged.rule(to) for to in found}
    return Record(
        id=report.record,
        at=at,
        message_id=report.message_id,
        sender=names(fold(report.envelope.reverse_path)),
        repeats=tuple(
            Repeat(
                names(to),
                result.outcome,
                report.rulings[to].rule,
                judged.fingerprint(to),
                result.age,
                result.original,
            )
            for to, result in found.items()
        ),
        forms={named: outline(judged.form(rule), names) for named, rule in rules.items()},
        ignored={
            named: tuple(dict.fromkeys(piece.name for piece in judged.form(rule).ignored))
            for named, rule in rules.items()
        },
    )


def outline(form: NormalForm, names: Naming) -> tuple[str, ...]:
    """Name the fields of a normalised form with a digest of each: enough to compare, too little to read."""
    shown = tuple(f"{label} {names.digest(value)}" for label, value in form.fields[:_MOST_FIELDS])
    more = len(form.fields) - len(shown)
    return (*shown, f"and {more} more") if more else shown


def encode(record: Record) -> str:
    """Write it as compact ASCII. Recipients of one original share it."""
    originals: dict[Original, int] = {}
    repeats = []
    for repeat in record.repeats:
        number = originals.setdefault(repeat.original, len(originals)) if repeat.original else None
        repeats.append(
            [repeat.recipient, repeat.outcome.value, repeat.rule, repeat.fingerprint, round(repeat.age, 3), number]
        )
    return _write(
        {
            "id": record.id,
            "at": record.at,
            "message_id": record.message_id,
            "sender": record.sender,
            "originals": [
                [original.record, original.message_id, original.reply, original.accepted_at] for original in originals
            ],
            "repeats": repeats,
            "forms": record.forms,
            "ignored": record.ignored,
            "kept": record.kept,
        }
    )


def decode(text: str | bytes) -> Record | None:
    """Read it, or give None: what stands in a store may be damaged. Fields of a later version are left out."""
    try:
        fields = json.loads(text)
        originals = {
            number: Original(str(record), str(message_id), str(reply), _number(at))
            for number, (record, message_id, reply, at) in enumerate(fields["originals"])
        }
        return Record(
            id=str(fields["id"]),
            at=_number(fields["at"]),
            message_id=str(fields["message_id"]),
            sender=str(fields["sender"]),
            repeats=tuple(_repeat(values, originals) for values in fields["repeats"]),
            forms=_names(fields["forms"]),
            ignored=_names(fields["ignored"]),
            kept=str(fields["kept"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None


def _repeat(values: list[Any], originals: Mapping[int, Original]) -> Repeat:
    recipient, outcome, rule, fingerprint, age, number = values
    original = None if number is None else originals[number]
    return Repeat(str(recipient), Outcome(outcome), str(rule), str(fingerprint), _number(age), original)


def _names(by_rule: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(rule): tuple(map(str, names)) for rule, names in by_rule.items()}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
