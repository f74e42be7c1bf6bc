"""What the stores keep of an acceptance, and what they accept from a store that others may write."""

from __future__ import annotations

import json

import pytest

from relay.claims.wire_form import decode, decode_recipient, encode
from relay.core.claim import Original

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
