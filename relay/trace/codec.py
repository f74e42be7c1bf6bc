"""Converts a trace to one line of JSON and back.

A line is a list, because names of fields would be half of it. It begins with the time, which is read without the rest.
Recipients with the same outcome, reply and rule are written together:

    [1700000000123,"3f9c0a1b2c4d",31000,"mx1","192.0.2.1","app","","h:2f93f20de5f6f90f","<1@example.org>","",9120,
     "mta:25",0,[["forwarded","250 2.0.0 Ok: queued as 4XYZ12","default",["h:9fdf3541722f6ccf"]]],[250000,2100,900]]

The time is in milliseconds, durations are in microseconds: to write a float costs as much as all else.
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
_MS, _US = 1_000, 1_000_000
"""Parts of a second."""
_SAME = 0
"""In place of the reply to the client, if the first recipient's is the same."""

_quote = json.encoder.encode_basestring_ascii
_QUOTED_OUTCOMES = {outcome.value: _quote(outcome.value) for outcome in TraceOutcome}


def encode(trace: Trace) -> str:
    """Returns the trace as one line of ASCII."""
    # Written in one piece: the encoder of `json` takes more than twice the time for so many short values.
    quote = _quote
    recipients, steps = trace.recipients, trace.steps
    groups: dict[tuple[Any, ...], list[RecipientTrace]] = {}
    for to in recipients:
        groups.setdefault((to.outcome._value_, to.reply, to.rule, to.age, to.original), []).append(to)
    reply = _SAME if recipients and trace.reply == recipients[0].reply else quote(trace.reply)
    times = ",".join([str(int(steps.get(step, 0) * _US)) for step in _STEPS]) if steps else ""
    more = ""
    if trace.forms or trace.ignored or trace.kept:
        more = f",{json.dumps(trace.forms)},{json.dumps(trace.ignored)},{quote(trace.kept)}"
    return (
        f"[{int(trace.at * _MS)},{quote(trace.id)},{int(trace.seconds * _US)},{quote(trace.host)},{quote(trace.peer)},"
        f"{quote(trace.helo)},{quote(trace.login)},{quote(trace.sender)},{quote(trace.message_id)},"
        f"{quote(trace.subject)},{trace.size},{quote(trace.upstream)},{reply},"
        f"[{','.join(map(_encode_group, groups.values()))}],[{times}]{more}]"
    )


def _encode_group(group: list[RecipientTrace]) -> str:
    """Returns recipients for whom the same happened, for the same reason."""
    first, quote = group[0], _quote
    names = ",".join([quote(to.recipient) for to in group])
    text = f"[{_QUOTED_OUTCOMES[first.outcome._value_]},{quote(first.reply)},{quote(first.rule)},[{names}]"
    if not first.fingerprint:
        return text + "]"
    original = first.original
    fields = original and [original.id, original.message_id, original.reply, original.accepted_at]
    return f"{text},{int(first.age * _US)},{json.dumps(fields)},{json.dumps([to.fingerprint for to in group])}]"


def decode(line: str | bytes) -> Trace | None:
    """Returns the trace, or None if the line is damaged. Ignores fields that a later version may have added."""
    try:
        at, id_, seconds, *texts, size, upstream, reply, groups, steps = (fields := json.loads(line))[:15]
        forms, ignored, kept = fields[15:18] or ({}, {}, "")
        recipients = tuple(to for group in groups for to in _recipients(group))
        host, peer, helo, login, sender, message_id, subject = map(str, texts)
        return Trace(
            id=str(id_),
            at=_number(at) / _MS,
            seconds=_number(seconds) / _US,
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
            steps={step: _number(us) / _US for step, us in zip(_STEPS, steps, strict=False) if us},
            forms=_names(forms),
            ignored=_names(ignored),
            kept=str(kept),
        )
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None


def text_in_line(text: str) -> bytes:
    """Returns what a line contains in which this text is, or is a part of, a field."""
    return _quote(text)[1:-1].encode("ascii")


def id_in_line(name: str) -> bytes:
    """Returns what a line contains if this is the id of its message, and not of one that the message repeats."""
    return f",{_quote(name)},".encode("ascii")


def outcome_in_line(outcome: TraceOutcome) -> bytes:
    """Returns what a line contains in which a recipient has this outcome."""
    return f"[{_quote(outcome)},".encode("ascii")


def rule_in_line(rule: str) -> bytes:
    """Returns what a line contains in which a recipient has this rule."""
    return f",{_quote(rule)},[".encode("ascii")


def time_of(line: bytes) -> float:
    """Returns the time of a trace without reading the rest of its line; 0 if the line is damaged."""
    try:
        return _number(line[1 : line.find(b",")]) / _MS
    except ValueError:
        return 0.0


def _recipients(group: list[Any]) -> Iterator[RecipientTrace]:
    outcome, reply, rule, names = group[:4]
    age, first, fingerprints = group[4:7] or (0, None, [""] * len(names))
    original = Original(str(first[0]), str(first[1]), str(first[2]), _number(first[3])) if first else None
    for name, fingerprint in zip(names, fingerprints, strict=True):
        yield RecipientTrace(
            str(name), _OUTCOMES[outcome], str(reply), str(rule), str(fingerprint), _number(age) / _US, original
        )


def _names(by_rule: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(rule): tuple(map(str, names)) for rule, names in by_rule.items()}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
