"""`listen.bare_line_ends`: content with a CR or LF that is not part of CRLF (ADR 33)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import send

from relay.core.content import Content

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer

BARE = [b"a\nb\r\n", b"a\rb\r\n", b"a\n\rb\r\n", b"a\r\r\n", b"\n\r\n", b"\r\r\n"]


@pytest.mark.parametrize("content", BARE)
async def test_a_bare_line_end_passes_or_is_rejected(peer: ScriptedPeer, content: bytes) -> None:
    async with servers.relay(peer.url) as relay:
        assert (await send(relay.port, b"a@example.test", [b"b@example.test"], content)).ok
    assert [message.content for message in peer.accepted] == [content]
    async with servers.relay(peer.url, {"listen.bare_line_ends": "reject"}) as relay:
        sent = await send(relay.port, b"a@example.test", [b"b@example.test"], content)
        assert sent.final.code == 550
        assert (await send(relay.port, b"a@example.test", [b"b@example.test"], b"a\0b\r\n\r\n.\r\n")).ok
        refused = relay.service.metrics.registry.get_sample_value("smtp_dedup_recipients_total", {"outcome": "refused"})
        assert refused == 1
    assert len(peer.accepted) == 2, "the rejected message has not arrived"


@pytest.mark.parametrize("wire", [b"", b"a\r\n", b"\r\n\r\n..\r\n\0\r\n"])
def test_crlf_is_no_bare_line_end(wire: bytes) -> None:
    assert not Content(wire).has_bare_line_end
