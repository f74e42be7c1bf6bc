"""Converts a record to one line of JSON and back."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from relay.core.claim import Original
from relay.core.outcome import Outcome
from relay.core.record import Record, Repeat

if TYPE_CHECKING:
    from collections.abc import Mapping

_write = json.JSONEncoder(separators=(",", ":")).encode


def encode(record: Record) -> str:
    """Returns the record as one line of ASCII. Each original is written once, and repeats refer to it by number."""
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
                [original.id, original.message_id, original.reply, original.accepted_at] for original in originals
            ],
            "repeats": repeats,
            "forms": record.forms,
            "ignored": record.ignored,
            "kept": record.kept,
        }
    )


def decode(text: str | bytes) -> Record | None:
    """Returns the record, or None if the text is damaged. Unknown fields of later versions are ignored."""
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
