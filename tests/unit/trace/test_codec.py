"""The line of a trace: read as it was written, however it was damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts.traces import repeat, some_traces, trace

from relay.trace.codec import decode, encode, outcome_in_line, rule_in_line, text_in_line, time_of

HOSTILE = '"],["\\" \x00\n\r\x1b[31m \u202e \udce4 Grüße'


@pytest.mark.parametrize("made", [trace(1), repeat(2), *some_traces(20)])
def test_a_trace_is_read_as_it_was_written(made) -> None:
    assert decode(encode(made)) == made


def test_a_line_has_no_line_end_and_is_ascii_whatever_the_client_sent() -> None:
    made = repeat(1)._replace(helo=HOSTILE, message_id=HOSTILE, subject=HOSTILE, sender=HOSTILE, login=HOSTILE)
    line = encode(made)
    assert line.isascii()
    assert line.isprintable()
    assert decode(line) == made


def test_recipients_with_the_same_outcome_and_reply_are_written_together() -> None:
    one = trace(1)
    thousand = one._replace(recipients=one.recipients * 1000)
    assert len(encode(thousand)) < len(encode(one)) + 22 * 1000
    assert decode(encode(thousand)) == thousand


def test_the_time_is_read_without_the_rest() -> None:
    assert time_of(encode(trace(7, at=1_700_000_007.125)).encode()) == 1_700_000_007.125
    assert time_of(b"") == time_of(b"x") == time_of(b"[NaN,") == 0.0


def test_fields_of_a_later_version_are_ignored() -> None:
    for made in (trace(1), repeat(1)):
        fields = json.loads(encode(made))
        fields += [{}, {}, "", "new"][len(fields) - 15 :]
        assert decode(json.dumps(fields)) == made


@given(st.integers(0, 14), st.sampled_from([None, "x", -1, 1e400, [], {}, [[]], [["forwarded"]], [[None] * 7]]))
def test_a_damaged_field_is_no_fault(place: int, value: object) -> None:
    fields = json.loads(encode(repeat(1)))
    fields[place] = value
    decode(json.dumps(fields))


@given(st.text(max_size=30))
def test_a_text_that_is_no_line_is_no_trace(text: str) -> None:
    assert decode(text) is None


def test_a_line_that_was_cut_is_no_trace() -> None:
    line = encode(repeat(1))
    assert [cut for cut in range(len(line)) if decode(line[:cut])] == []


@pytest.mark.parametrize("at", ["1e400", "NaN"])
def test_a_line_whose_time_is_none_is_no_trace(at: str) -> None:
    _, comma, rest = encode(trace(1)).partition(",")
    assert decode(f"[1700000000000{comma}{rest}") is not None
    assert decode(f"[{at}{comma}{rest}") is None
    assert time_of(f"[{at}{comma}{rest}".encode()) == 0


def test_what_is_searched_for_is_in_the_line() -> None:
    line = encode(repeat(1)._replace(message_id=f"<{HOSTILE}>")).encode()
    assert text_in_line(HOSTILE) in line
    assert outcome_in_line(repeat(1).recipients[0].outcome) in line
    assert rule_in_line("codes") in line
    assert rule_in_line("code") not in line
