"""A trace as one line of JSON, for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from relay.cli.records import timestamp

if TYPE_CHECKING:
    from relay.core.claim import Original
    from relay.core.trace import Trace


def json_line(trace: Trace) -> str:
    """Returns a trace as one line of JSON. Times are in UTC, durations in seconds, sizes in bytes."""
    fields = {
        "id": trace.id,
        "time": timestamp(trace.at),
        "host": trace.host,
        "peer": trace.peer,
        "helo": trace.helo,
        "login": trace.login,
        "from": trace.sender,
        "message_id": trace.message_id,
        "subject": trace.subject,
        "size_bytes": trace.size,
        "upstream": trace.upstream,
        "reply": trace.reply,
        "seconds": trace.seconds,
        "steps_seconds": {step.value: seconds for step, seconds in trace.steps.items()},
        "recipients": [
            {
                "recipient": to.recipient,
                "outcome": to.outcome.value,
                "reply": to.reply,
                "rule": to.rule,
                "fingerprint": to.fingerprint,
                "age_seconds": to.age,
                "original": to.original and _original(to.original),
            }
            for to in trace.recipients
        ],
        "counted": {rule: list(fields) for rule, fields in trace.forms.items()},
        "ignored": {rule: list(names) for rule, names in trace.ignored.items()},
        "kept": trace.kept,
    }
    return json.dumps(fields)


def _original(original: Original) -> dict[str, object]:
    return {
        "id": original.id,
        "message_id": original.message_id,
        "reply": original.reply,
        "time": timestamp(original.accepted_at),
    }
