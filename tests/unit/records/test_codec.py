"""The record of a suppression as the line that a store keeps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.claim import Original
from relay.core.outcome import REPEATS, Outcome
from relay.core.record import Record, Repeat
from relay.records.codec import decode, encode

# What 8-bit replies and addresses leave behind is in there too: lone surrogates.
TEXTS = st.text(st.characters(), max_size=30)
SECONDS = st.floats(0, 4e9).map(lambda value: round(value, 3))
ORIGINALS = st.builds(Original, TEXTS, TEXTS, TEXTS, SECONDS)
REPEATED = st.builds(Repeat, TEXTS, st.sampled_from(sorted(REPEATS)), TEXTS, TEXTS, SECONDS, st.none() | ORIGINALS)
NAMES = st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3).map(tuple), max_size=3)
RECORDS = st.builds(
    Record, TEXTS, SECONDS, TEXTS, TEXTS, st.lists(REPEATED, max_size=4).map(tuple), NAMES, NAMES, TEXTS
)
FIRST = Original("0123456789ab", "<1@example.test>", "2.0.0 Ok: queued as 4XYZ", 1_700_000_000.5)


def record(repeats: int = 1) -> Record:
    found = tuple(
        Repeat(f"h:{number:016x}", Outcome.SUPPRESSED, "default", f"v1:{number:040x}", 34.0, FIRST)
        for number in range(repeats)
    )
    return Record("ba9876543210", 1_700_000_034.5, "<2@example.test>", "h:0", found, {"default": ("Subject 0a",)}, {})


@given(RECORDS)
def test_a_record_survives_the_way_through_a_store(written: Record) -> None:
    line = encode(written)
    assert decode(line) == written
    assert decode(line.encode("ascii")) == written
    assert "\n" not in line


def test_recipients_share_what_they_repeat() -> None:
    assert encode(record(100)).count(FIRST.reply) == 1
    assert decode(encode(record(100))) == record(100)


def test_what_a_later_version_adds_is_left_out() -> None:
    fields = json.loads(encode(record()))
    assert decode(json.dumps(fields | {"colour": [1, {"a": None}]})) == record()


@given(st.text() | st.binary())
def test_any_line_is_a_record_or_none(line: str | bytes) -> None:
    decoded = decode(line)
    assert decoded is None or decode(encode(decoded)) == decoded


@given(st.data())
def test_a_damaged_line_is_a_record_or_none(data: st.DataObject) -> None:
    line = encode(record(2))
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:at] + data.draw(st.text(max_size=3)) + line[at + data.draw(st.integers(0, 5)) :]
    found = decode(damaged)
    assert found is None or decode(encode(found)) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(encode(record())))), JSON)
def test_a_field_of_another_kind_is_no_exception(name: str, value: object) -> None:
    found = decode(json.dumps(json.loads(encode(record())) | {name: value}))
    assert found is None or decode(encode(found)) == found


@pytest.mark.parametrize("name", sorted(json.loads(encode(record()))))
def test_a_line_that_lacks_a_field_is_none(name: str) -> None:
    fields = json.loads(encode(record()))
    del fields[name]
    assert decode(json.dumps(fields)) is None


@pytest.mark.parametrize("at", ["NaN", "Infinity", "1e999", '"soon"', "null", "1" * 400])
def test_a_time_that_is_none_is_none(at: str) -> None:
    line = encode(record()).replace("1700000034.5", at)
    assert decode(line) is None


def test_an_original_that_is_not_there_is_none() -> None:
    fields = json.loads(encode(record()))
    for number in (1, -1, "0", 0.5):
        fields["repeats"][0][5] = number
        assert decode(json.dumps(fields)) is None
