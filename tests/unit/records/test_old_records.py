"""The records of version 0.1: read as traces, however they were damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, TraceOutcome
from relay.records.old_records import decode

RECORD: dict[str, Any] = {
    "id": "ba9876543210",
    "at": 1_700_000_034.5,
    "message_id": "<2@example.test>",
    "sender": "h:0",
    "originals": [["0123456789ab", "<1@example.test>", "2.0.0 Ok: queued as 4XYZ", 1_700_000_000.5]],
    "repeats": [["h:1", "suppressed", "default", "v1:0a", 34.0, 0], ["h:2", "would_suppress", "x", "v1:0b", 0.0, None]],
    "forms": {"default": ["Subject 0a"]},
    "ignored": {"default": []},
    "kept": "1.R.host",
}


def test_a_record_is_read_as_the_trace_of_a_suppression() -> None:
    trace = decode(json.dumps(RECORD))
    assert trace is not None
    original = Original("0123456789ab", "<1@example.test>", "2.0.0 Ok: queued as 4XYZ", 1_700_000_000.5)
    assert (trace.id, trace.at, trace.sender, trace.kept) == ("ba9876543210", 1_700_000_034.5, "h:0", "1.R.host")
    assert (trace.forms, trace.ignored) == ({"default": ("Subject 0a",)}, {"default": ()})
    assert trace.repeats == (
        RecipientTrace("h:1", TraceOutcome.SUPPRESSED, original.reply, "default", "v1:0a", 34.0, original),
        RecipientTrace("h:2", TraceOutcome.WOULD_SUPPRESS, "", "x", "v1:0b", 0.0, None),
    )


@pytest.mark.parametrize("field", RECORD)
@pytest.mark.parametrize("value", [None, 7, [[]], [None], "x", 1e400])
def test_a_damaged_record_is_no_fault(field: str, value: object) -> None:
    decode(json.dumps(RECORD | {field: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", b"\xff", "[" * 100_000])
def test_a_text_that_is_no_record_is_no_trace(text: str | bytes) -> None:
    assert decode(text) is None
