"""Invalid input in every state of a session: the relay loses nothing and serves the next client."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parts import dialog_servers as servers
from parts.client import RawClient, send
from parts.peer import ScriptedPeer
from parts.waiting import until

HELLO = b"EHLO me\r\n"
MAIL = b"MAIL FROM:<a@example.test>\r\n"
RCPT = b"RCPT TO:<b@example.test>\r\n"
STATES = {
    "greeted": b"",
    "after EHLO": HELLO,
    "sender": HELLO + MAIL,
    "recipient": HELLO + MAIL + RCPT,
    "content": HELLO + MAIL + RCPT + b"DATA\r\n",
    "after content": HELLO + MAIL + RCPT + b"DATA\r\n.\r\n",
    "second sender": HELLO + MAIL + RCPT + b"DATA\r\n.\r\n" + MAIL,
}
_VERBS = [
    b"MAIL FROM:",
    b"RCPT TO:",
    b"DATA",
    b"RSET",
    b"EHLO ",
    b"HELO",
    b"NOOP",
    b"HELP ",
    b"VRFY ",
    b"<",
    b">",
    b'"',
    b"@",
]
_LINES = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.one_of(st.sampled_from([*_VERBS, b"\r", b"\n", b"\r\n", b".", b"\0", b" "]), st.binary(max_size=4)),
        max_size=12,
    ).map(b"".join),
)


def test_the_relay_survives_any_line_in_any_state() -> None:
    """One relay serves all examples. A random line may also send a message."""
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        peer = runner.run(_enter(stack, runner, ScriptedPeer()))
        relay = runner.run(_enter(stack, runner, servers.relay(peer.url, {"upstream.patience": "0s"})))

        @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(state=st.sampled_from(sorted(STATES)), line=_LINES)
        def play(state: str, line: bytes) -> None:
            runner.run(_survive(relay, peer, STATES[state], line))

        play()
        assert relay.service.metrics.faults._value.get() == 0


async def _enter(
    stack: contextlib.ExitStack, runner: asyncio.Runner, manager: contextlib.AbstractAsyncContextManager
) -> object:
    entered = await manager.__aenter__()
    stack.callback(lambda: runner.run(manager.__aexit__(None, None, None)))
    return entered


async def _survive(relay: servers.Relay, peer: ScriptedPeer, before: bytes, line: bytes) -> None:
    async with asyncio.timeout(20):
        async with await RawClient.open(relay.port) as client:
            await client.send_raw(before + line + b"\r\n")
            await client.half_close()
            while (answer := await client.read_reply()).code:
                assert answer.code in {221, 250, 252, 354, 421, 451, 452, 500, 501, 503, 552, 554, 555}
        await until(lambda: not relay.busy, "the end of the session")
        assert relay.service.claims.held == 0
        before_next = len(peer.accepted)
        sent = await send(relay.port, b"", [b"next@example.test"], b"Subject: next\r\n\r\n")
        assert sent.ok
        assert peer.accepted[before_next].recipients == (b"next@example.test",)


@pytest.mark.parametrize(
    "octets", [bytes(range(256)) * 40, b"\0" * 20_000, b"\xff" * 9000 + b"\r\n", b"\r" * 9000, b"." * 9000]
)
async def test_binary_content_arrives_unchanged(octets: bytes) -> None:
    content = octets + b"" * octets.endswith(b"\r\n") or b"\r\n"
    content = content if content.endswith(b"\r\n") else content + b"\r\n"
    async with ScriptedPeer() as peer, servers.relay(peer.url) as relay:
        assert (await send(relay.port, b"a@example.test", [b"b@example.test"], content)).ok
        assert peer.accepted[0].content == content


async def test_input_that_is_not_smtp(caplog: pytest.LogCaptureFixture) -> None:
    """A TLS ClientHello, an HTTP request, and a port scan."""
    async with ScriptedPeer() as peer, servers.relay(peer.url) as relay:
        for octets in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 500,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 30,
            b"\0" * 70_000,
            b"\n" * 70_000,
        ):
            async with await RawClient.open(relay.port) as client:
                await client.send_raw(octets)
                await client.half_close()
                codes = set()
                while (answer := await client.read_reply()).code:
                    codes.add(answer.code)
                assert codes <= {500, 421}
        assert (await send(relay.port, b"a@example.test", [b"b@example.test"], b"\r\n")).ok
        await until(lambda: not relay.busy, "the end of all sessions")
    assert not [record for record in caplog.records if record.exc_info]
