"""The form of replies, and their changes on the way to the client."""

from __future__ import annotations

import pytest

from relay.core import reply as replies
from relay.core.reply import Reply


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply.of(250, "2.0.0 Ok"), b"250 2.0.0 Ok\r\n"),
        (Reply(250, (b"one", b"two", b"three")), b"250-one\r\n250-two\r\n250 three\r\n"),
        (Reply(550, (b"\xff\xe4 8-bit",)), b"550 \xff\xe4 8-bit\r\n"),
        (Reply(250, (b"",)), b"250 \r\n"),
        (Reply(250, (b"same", b"same")), b"250-same\r\n250 same\r\n"),
        (Reply.of(451, "não"), b"451 n?o\r\n"),
    ],
)
def test_every_line_but_the_last_has_a_hyphen(reply: Reply, octets: bytes) -> None:
    assert reply.encode() == octets


@pytest.mark.parametrize("code", [250, 251, 354, 421, 451, 550])
def test_a_reply_is_positive_transient_or_permanent(code: int) -> None:
    reply = Reply.of(code, "x")
    kinds = {2: reply.positive, 4: reply.transient, 5: reply.permanent}
    assert [kind for kind, holds in kinds.items() if holds] == [code // 100] * (code != 354)
    assert reply.closing == (code == 421)


def test_the_client_never_receives_421_of_an_upstream_and_receives_250_for_any_acceptance() -> None:
    assert Reply.of(421, "4.3.2 going down").for_client().encode() == b"451 4.3.2 going down\r\n"
    assert Reply.of(450, "later").for_client() == Reply.of(450, "later")
    assert Reply.of(251, "2.0.0 queued").as_acceptance().encode() == b"250 2.0.0 queued\r\n"
    assert Reply.of(451, "later").as_acceptance() == Reply.of(451, "later")


def test_the_text_is_all_lines_and_decodes_any_bytes() -> None:
    assert Reply(250, (b"one", "zwö".encode(), b"\xff")).text == "one zwö \\xff"


def test_the_replies_of_the_relay_have_an_enhanced_status_code_of_their_class() -> None:
    own = {name: value for name, value in vars(replies).items() if isinstance(value, Reply) and value.code != 354}
    assert len(own) > 15
    for name, reply in own.items():
        assert reply.lines[0].startswith(b"%d." % (reply.code // 100)), name
        assert len(reply.encode()) <= 512
