"""The names by which a message is found: the queue ids of all kinds of mail servers among them."""

from __future__ import annotations

import pytest
from parts.traces import repeat

from relay.core.trace import TraceQuery
from relay.trace.codec import encode
from relay.trace.names import names_of, queue_ids
from relay.trace.segments import Needles, index_of

REPLIES = {
    "250 2.0.0 Ok: queued as 4XYZ12": "4XYZ12",
    "250 2.0.0 Ok: queued as ABCDEF.": "ABCDEF",
    "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 9F1A2B3C4D": "9F1A2B3C4D",
    "250 OK id=1rAbcD-000001-2x": "1rAbcD-000001-2x",
    "250 2.0.0 4AS9xk2p012345 Message accepted for delivery": "4AS9xk2p012345",
    "250 2.0.0 OK  1700000000 d9443c01a7336-2b1f3.144 - gsmtp": "d9443c01a7336-2b1f3.144",
    "250 2.6.0 <address> [InternalId=123456789, Hostname=AM0PR01.example.net] Queued mail for delivery": "123456789",
    "250 ok 1700000000 qp 12345678": "12345678",
    "250 2.0.0: 1a2b3c4d Message accepted for delivery": "1a2b3c4d",
    "250 Message queued (7F3B2C1D-1111-4222-8333-1234567890AB.1)": "7F3B2C1D-1111-4222-8333-1234567890AB.1",
    "250 Ok 0100018c-aaaa-bbbb-cccc-0123456789ab-000000": "0100018c-aaaa-bbbb-cccc-0123456789ab-000000",
}


@pytest.mark.parametrize(("reply", "queue_id"), REPLIES.items())
def test_a_message_is_found_by_its_queue_id(reply: str, queue_id: str) -> None:
    assert queue_id in queue_ids(reply)


@pytest.mark.parametrize("reply", ["", "250 2.0.0 Ok", "550 5.1.1 User unknown", "451 4.4.1 try again later"])
def test_other_words_are_no_queue_ids(reply: str) -> None:
    assert queue_ids(reply) == []


def test_each_name_leads_to_the_segment_and_to_the_line() -> None:
    made = repeat(1)
    line = encode(made).encode()
    index = index_of({7: line})
    for name in names_of(made):
        needles = Needles(TraceQuery(names=frozenset({name})))
        assert needles.pieces(index) == (None if name in {"h:bb", "h:cc"} else {7}), name
        assert needles.match(line), name


@pytest.mark.parametrize(("reply", "queue_id"), REPLIES.items())
def test_each_queue_id_leads_to_the_segment(reply: str, queue_id: str) -> None:
    index = index_of({3: f'"{reply}"'.encode(), 4: b"other"})
    assert Needles(TraceQuery(names=frozenset({queue_id}))).pieces(index) == {3}


def test_a_segment_without_a_word_of_the_name_is_not_read() -> None:
    index = index_of({0: encode(repeat(1)).encode()})
    for name in ("h:1111111111111111", "alice@elsewhere.test", "4OTHER99"):
        assert Needles(TraceQuery(names=frozenset({name}))).pieces(index) == set()
    assert Needles(TraceQuery(names=frozenset({"x"}))).pieces(index) is None, "too short to say"
