"""What the stores keep of an acceptance, and what they accept from a store that others may write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.claims.wire_form import decode, decode_recipient, decode_sequence, encode, encode_sequence
from relay.core.claim import Fingerprint, Original
from relay.core.sequence import SequenceState

ORIGINAL = Original("0123456789ab", "<1@example.test>", "2.0.0 Ok: queued as 4X", 1_700_000_000.0)


def test_an_acceptance_is_read_back() -> None:
    text = encode(ORIGINAL, "h:9fdf3541722f6ccf")
    assert (decode(text), decode_recipient(text)) == (ORIGINAL, "h:9fdf3541722f6ccf")


def test_control_characters_of_a_reply_are_replaced() -> None:
    decoded = decode(encode(Original("0123456789ab", "<1\r\n>", "2.0.0\x1b[2J", 1.5)))
    assert decoded == Original("0123456789ab", "<1??>", "2.0.0?[2J", 1.5)


@pytest.mark.parametrize("field", ["record", "message_id", "reply"])
@pytest.mark.parametrize("value", ["a\r\nBcc: x", "a\x1b[2J", "\0", "x" * 10_000, 7, None])
def test_what_no_relay_wrote_is_refused(field: str, value: object) -> None:
    fields = json.loads(encode(ORIGINAL)) | {field: value}
    assert decode(json.dumps(fields)) is None


@pytest.mark.parametrize("value", ["a\r\nb", "x" * 10_000, 7])
def test_a_recipient_that_no_relay_wrote_is_empty(value: object) -> None:
    assert decode_recipient(json.dumps({"recipient": value})) == ""


# Sequences

sequence_words = st.lists(st.text("v4:0af", min_size=1, max_size=80).map(Fingerprint), min_size=1, max_size=8)


@given(st.text("0123456789abcdef", min_size=16, max_size=16), sequence_words)
def test_a_sequence_is_read_as_it_was_written(epoch: str, fingerprints: list[Fingerprint]) -> None:
    state = SequenceState(epoch, tuple(fingerprints))
    assert decode_sequence(encode_sequence(state)) == state


@given(st.text() | st.binary() | st.none() | st.integers())
def test_anything_else_is_no_sequence(text: object) -> None:
    state = decode_sequence(text)
    assert state is None or encode_sequence(state) == text
