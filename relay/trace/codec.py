"""Converts a trace to one line of JSON and back.

A line is a list, because names of fields would be half of it. It begins with the time, which is read without the rest.
Recipients with the same outcome, reply and rule are written together:

    [1700000000.12,"3f9c0a1b2c4d",0.031,"mx1","192.0.2.1","app","","h:2f93f20de5f6f90f","<1@example.org>","",9120,
     "mta:25",0,[["forwarded","250 2.0.0 Ok: queued as 4XYZ12","default",["h:9fdf3541722f6ccf"]]],[0.002,0.001]]
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STEPS = tuple(Step)
_OUTCOMES = {outcome.value: outcome for outcome in TraceOutcome}
_DIGITS = 3
"""Decimal places of seconds."""
_SAME = 0
"""In place of the reply to the client, if the first recipient's is the same."""

_write = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def encode(trace: Trace) -> str:
    """Returns the trace as one line of ASCII."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for to in trace.recipients:
        original = to.original
        key = (to.outcome._value_, to.reply, to.rule, to.age, original)
        group = groups.get(key)
        if group is None:
            group = groups[key] = [to.outcome._value_, to.reply, to.rule, []]
            if to.fingerprint:
                group += [round(to.age, _DIGITS), original and _original_fields(original), []]
        group[3].append(to.recipient)
        if to.fingerprint:
            group[6].append(to.fingerprint)
    reply = _SAME if trace.recipients and trace.reply == trace.recipients[0].reply else trace.reply
    steps = trace.steps
    fields: list[Any] = [
        round(trace.at, _DIGITS),
        trace.id,
        round(trace.seconds, _DIGITS),
        trace.host,
        trace.peer,
        trace.helo,
        trace.login,
        trace.sender,
        trace.message_id,
        trace.subject,
        trace.size,
        trace.upstream,
        reply,
        list(groups.values()),
        [round(steps.get(step, 0), _DIGITS) for step in _STEPS] if steps else [],
    ]
    if trace.forms or trace.ignored or trace.kept:
        fields += [trace.forms, trace.ignored, trace.kept]
    return _write(fields)


def decode(line: str | bytes) -> Trace | None:
    """Returns the trace, or None if the line is damaged. Ignores fields that a later version may have added."""
    try:
        at, id_, seconds, *texts, size, upstream, reply, groups, steps = (fields := json.loads(line))[:15]
        forms, ignored, kept = fields[15:18] or ({}, {}, "")
        recipients = tuple(to for group in groups for to in _recipients(*group))
        host, peer, helo, login, sender, message_id, subject = map(str, texts)
        return Trace(
            id=str(id_),
            at=_number(at),
            seconds=_number(seconds),
            host=host,
            peer=peer,
            helo=helo,
            login=login,
            sender=sender,
            message_id=message_id,
            subject=subject,
            size=int(_number(size)),
            upstream=str(upstream),
            reply=recipients[0].reply if reply == _SAME else str(reply),
            recipients=recipients,
            steps={step: taken for step, value in zip(_STEPS, steps, strict=False) if (taken := _number(value))},
            forms=_names(forms),
            ignored=_names(ignored),
            kept=str(kept),
        )
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None


def time_of(line: bytes) -> float:
    """Returns the time of a trace without reading the rest of its line; 0 if the line is damaged."""
    try:
        return _number(line[1 : line.find(b",")])
    except ValueError:
        return 0.0


def _recipients(
    outcome: str, reply: str, rule: str, names: list[str], age: float = 0, original: Any = None, *more: list[str]
) -> Iterator[RecipientTrace]:
    fingerprints = more[0] if more else [""] * len(names)
    first = original and Original(str(original[0]), str(original[1]), str(original[2]), _number(original[3]))
    for name, fingerprint in zip(names, fingerprints, strict=True):
        yield RecipientTrace(
            str(name), _OUTCOMES[outcome], str(reply), str(rule), str(fingerprint), _number(age), first or None
        )


def _original_fields(original: Original) -> list[Any]:
    return [original.id, original.message_id, original.reply, original.accepted_at]


def _names(by_rule: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(rule): tuple(map(str, names)) for rule, names in by_rule.items()}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
