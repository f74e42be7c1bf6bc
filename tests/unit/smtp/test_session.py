"""A client's session from its greeting to its end, whoever ends it and when."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import GONE, RawClient, send, stuff
from parts.faults import Step, hang, say, wait
from parts.ports import HOST
from parts.waiting import until

from relay.smtp.session import Session

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer

SENDER, ONE, TWO = b"sender@example.test", b"one@example.test", b"two@example.test"
MAIL = b"Subject: x\r\n\r\nhello\r\n"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def still_serves(relay: servers.Relay, peer: ScriptedPeer, content: bytes = MAIL) -> None:
    """Bring a message through, and see that of all sessions before nothing is left."""
    before = len(peer.accepted)
    assert (await send(relay.port, SENDER, [TWO], content)).ok
    assert len(peer.accepted) == before + 1
    await until(lambda: not relay.busy, "the end of all sessions")
    assert relay.service.claims.held == 0
    assert relay.service.metrics.faults._value.get() == 0


# Who may come in


async def test_too_many_sessions_hear_421_until_one_has_gone(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.sessions": 2}) as relay:
        one, two = await RawClient.open(relay.port), await RawClient.open(relay.port)
        async with await RawClient.open(relay.port) as third:
            assert third.greeting.code == 421
            assert third.greeting.text.startswith(b"4.3.2 ")
            assert await third.read_reply() == GONE
        await one.close()
        await until(lambda: relay.service.listener.sessions == 1, "the end of a session")
        await two.close()
        await still_serves(relay, peer)


async def test_a_client_from_elsewhere_hears_554(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"listen.networks": ["192.0.2.0/24"]}) as relay:
        async with await RawClient.open(relay.port) as client:
            assert client.greeting.code == 554
            assert client.greeting.text.startswith(b"5.7.1 ")
            assert (await client.command(b"EHLO me")) == GONE
        assert relay.service.listener.sessions == 0
    assert not peer.sessions or not peer.commands(b"MAIL")


async def test_all_addresses_are_ipv4_too_and_networks_hold_for_mapped_ones(peer: ScriptedPeer) -> None:
    settings = {"listen.address": "[::]:0", "listen.networks": ["127.0.0.0/8"]}
    async with servers.relay(peer.url, settings) as relay:
        async with await RawClient.open(relay.port, HOST) as client:
            assert client.greeting.code == 220
        if _has_ipv6():
            async with await RawClient.open(relay.port, "::1") as client:
                assert client.greeting.code == 554


async def test_a_client_that_is_gone_before_its_greeting_is_no_fault(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    async with servers.relay(peer.url) as relay:
        for _ in range(20):
            client = await RawClient.open(relay.port, greeted=False)
            await client.reset()
        await still_serves(relay, peer)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_nobody_can_name_any_more_is_not_ours(peer: ScriptedPeer) -> None:
    """The system does not know the address of a connection that was broken before it was taken."""
    async with servers.relay(peer.url) as relay:
        listener = relay.service.listener
        session = Session(listener.table, listener._dependencies, "", lambda reply: None)
        assert session.greeting().code == 554
        assert listener.sessions == 0


# How it ends


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"EHLO m",
        b"EHLO me\r\n",
        b"EHLO me\r\nMAIL FROM:<a@x.test>\r\n",
        b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\n",
        b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\n",
        b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\nSubject: x\r\n\r\n.",
    ],
    ids=["nothing", "half a line", "EHLO", "MAIL", "RCPT", "DATA", "half the content"],
)
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_who_leaves_before_the_dot_leaves_nothing_behind(peer: ScriptedPeer, said: bytes, how: str) -> None:
    async with servers.relay(peer.url) as relay:
        client = await RawClient.open(relay.port)
        await client.send_raw(said)
        for _ in range(said.count(b"\r\n", 0, said.find(b"Subject") if b"Subject" in said else None)):
            await client.read_reply()
        await getattr(client, how)()
        if how == "half_close":
            assert await client.read_reply() == GONE
            await client.close()
        await still_serves(relay, peer)
    assert [message.recipients for message in peer.received] == [(TWO,)]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_who_leaves_while_the_upstream_thinks_leaves_nothing_behind(
    peer: ScriptedPeer, step: Step, how: str
) -> None:
    """A plain close may be a half-close, and is noticed only when a reply is written."""
    peer.on(step, hang())
    limit = {"close": "0.2s", "reset": "100s"}[how]
    async with servers.relay(peer.url, {"upstream.connections": 1, "upstream.reply_timeout": limit}) as relay:
        client = await RawClient.open(relay.port)
        await client.send_raw(b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\n")
        await peer.wait_waiting(step)
        await getattr(client, how)()
        await still_serves(relay, peer)
    assert peer.copies() == {TWO: 1}


async def test_who_leaves_after_the_dot_has_sent_it_and_its_retry_is_known(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with servers.relay(peer.url) as relay:
        client = await RawClient.open(relay.port)
        await client.begin(SENDER, ONE)
        await client.command(b"DATA")
        await client.send_raw(stuff(MAIL))
        await peer.wait_waiting(Step.DOT)
        await client.reset()
        await until(lambda: relay.service.listener.sessions == 0, "the end of the session")
        gate.set()
        retry = await send(relay.port, SENDER, [ONE], MAIL)
        assert retry.ok
        assert b"duplicate" in retry.final.text
    assert peer.copies() == {ONE: 1}


async def test_who_half_closes_after_the_dot_hears_the_reply(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with servers.relay(peer.url) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.begin(SENDER, ONE)
            await client.command(b"DATA")
            await client.send_raw(stuff(MAIL))
            await client.half_close()
            await peer.wait_waiting(Step.DOT)
            gate.set()
            assert (await client.read_reply()).code == 250
            assert await client.read_reply() == GONE
        await still_serves(relay, peer)


async def test_who_half_closes_with_commands_on_the_way_hears_all_replies(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.send_raw(
            b"HELO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\n" + stuff(MAIL)
        )
        await client.half_close()
        assert [(await client.read_reply()).code for _ in range(6)] == [250, 250, 250, 354, 250, 0]


@pytest.mark.parametrize(
    "said", [b"", b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\nhalf"]
)
async def test_a_silent_client_hears_421(peer: ScriptedPeer, said: bytes) -> None:
    async with servers.relay(peer.url, {"limits.session_idle": "1s"}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.send_raw(said)
            for _ in range(said.count(b"\r\n")):
                await client.read_reply()
            answer = await client.read_reply()
            assert answer.code == 421
            assert answer.text.startswith(b"4.4.2 ")
            assert await client.read_reply() == GONE
        await still_serves(relay, peer)
    assert peer.copies() == {TWO: 1}


async def test_a_client_is_not_silent_while_it_waits_for_us(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.REPLY, wait(gate))
    settings = {"limits.session_idle": "1s"}
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        asyncio.get_running_loop().call_later(1.5, gate.set)
        assert (await client.content(MAIL)).code == 250


async def test_a_client_that_does_not_read_its_replies_is_let_go(peer: ScriptedPeer) -> None:
    """It would keep its session, and with a recipient given also an upstream connection, for ever."""
    async with servers.relay(peer.url, {"limits.session_idle": "0.2s"}) as relay:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (HOST, relay.port))
        flood = loop.create_task(loop.sock_sendall(client, b"HELP\r\n" * 2_000_000))
        try:
            await until(lambda: relay.service.listener.sessions == 1, "the session")
            await until(lambda: relay.service.listener.sessions == 0, "the end of the session", seconds=20)
        finally:
            flood.cancel()
            await asyncio.wait([flood])
            client.close()
        await still_serves(relay, peer)


# What comes through


async def test_content_arrives_byte_for_byte_below_one_received_field(peer: ScriptedPeer) -> None:
    odd = b"".join(bytes([octet]) * 3 for octet in range(256)) + b"\n\r\n.\r\n..\r\n\r\r\n" + b"x" * 100_000 + b"\r\n"
    for field in (False, True):
        async with servers.relay(peer.url, {"upstream.received_field": field}) as relay:
            assert (await send(relay.port, b"", [ONE], odd)).ok
    plain, traced = (message.content for message in peer.accepted)
    assert plain == odd
    assert traced.endswith(odd)
    lines = traced.removesuffix(odd).split(b"\r\n")
    assert lines[0].startswith(b"Received: from client.example.test ([127.0.0.1])")
    assert all(line.startswith(b"\t") for line in lines[1:-1])
    assert lines[-1] == b""


async def test_a_thousand_recipients_pipelined(peer: ScriptedPeer) -> None:
    everybody = [b"user%d@example.test" % number for number in range(1000)]
    async with servers.relay(peer.url) as relay:
        sent = await send(relay.port, SENDER, everybody, MAIL, pipelined=True)
        assert sent.ok
        assert {answer.code for answer in sent.rcpt} == {250}
    assert peer.copies() == dict.fromkeys(everybody, 1)
    assert len(peer.accepted) == 1


async def test_pipelined_content_after_a_refused_data_is_not_sent_on(peer: ScriptedPeer) -> None:
    """RFC 2920: the client says DATA with the rest; where nobody was taken it hears 554, and no content follows."""
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), times=None)
    async with servers.relay(peer.url) as relay:
        sent = await send(relay.port, SENDER, [ONE, TWO], MAIL, pipelined=True)
    assert [answer.code for answer in sent.rcpt] == [550, 550]
    assert sent.final.code == 554
    assert not peer.received


async def test_who_is_told_of_the_drain_may_finish(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay:
        idle = await RawClient.open(relay.port)
        busy = await RawClient.open(relay.port)
        await busy.begin(SENDER, ONE)
        drain = asyncio.create_task(relay.service.drain())
        assert (await idle.read_reply()).code == 421
        async with await RawClient.open(relay.port) as late:
            assert late.greeting.code == 421
        assert (await busy.content(MAIL)).code == 250
        assert await drain
        assert (await busy.command(b"MAIL FROM:<a@x.test>")).code == 421
        assert await busy.read_reply() == GONE
        await idle.close()
        await busy.close()
    assert peer.copies() == {ONE: 1}
