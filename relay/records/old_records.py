"""Reads the records of suppressions that version 0.1 wrote, as traces."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Trace, TraceOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping


def decode(text: str | bytes) -> Trace | None:
    """Returns the trace of a suppressed message from its record, or None if the text is damaged."""
    try:
        fields = json.loads(text)
        originals = {
            number: Original(str(record), str(message_id), str(reply), _number(at))
            for number, (record, message_id, reply, at) in enumerate(fields["originals"])
        }
        return Trace(
            id=str(fields["id"]),
            at=_number(fields["at"]),
            seconds=0.0,
            host="",
            peer="",
            helo="",
            login="",
            sender=str(fields["sender"]),
            message_id=str(fields["message_id"]),
            subject="",
            size=0,
            upstream="",
            reply="",
            recipients=tuple(_recipient(values, originals) for values in fields["repeats"]),
            forms=_names(fields["forms"]),
            ignored=_names(fields["ignored"]),
            kept=str(fields["kept"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None


def _recipient(values: list[Any], originals: Mapping[int, Original]) -> RecipientTrace:
    recipient, outcome, rule, fingerprint, age, number = values
    original = None if number is None else originals[number]
    return RecipientTrace(
        str(recipient),
        TraceOutcome(outcome),
        original.reply if original else "",
        str(rule),
        str(fingerprint),
        _number(age),
        original,
    )


def _names(by_rule: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(rule): tuple(map(str, names)) for rule, names in by_rule.items()}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
