"""A client's session from its greeting to its end, by client or relay, at any step."""

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
    """Delivers a message, and checks that no session or claim is left."""
    before = len(peer.accepted)
    assert (await send(relay.port, SENDER, [TWO], content)).ok
    assert len(peer.accepted) == before + 1
    await until(lambda: not relay.busy, "the end of all sessions")
    assert relay.service.claims.held == 0
    assert relay.service.metrics.faults._value.get() == 0


# Admission


async def test_too_many_sessions_receive_421_until_one_has_ended(peer: ScriptedPeer) -> None:
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


async def test_a_client_of_another_network_receives_554(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"listen.networks": ["192.0.2.0/24"]}) as relay:
        async with await RawClient.open(relay.port) as client:
            assert client.greeting.code == 554
            assert client.greeting.text.startswith(b"5.7.1 ")
            assert (await client.command(b"EHLO me")) == GONE
        assert relay.service.listener.sessions == 0
    assert not peer.sessions or not peer.commands(b"MAIL")


async def test_all_addresses_include_ipv4_and_networks_match_mapped_addresses(peer: ScriptedPeer) -> None:
    settings = {"listen.address": "[::]:0", "listen.networks": ["127.0.0.0/8"]}
    async with servers.relay(peer.url, settings) as relay:
        async with await RawClient.open(relay.port, HOST) as client:
            assert client.greeting.code == 220
        if _has_ipv6():
            async with await RawClient.open(relay.port, "::1") as client:
                assert client.greeting.code == 554


async def test_a_client_that_leaves_before_its_greeting_is_no_fault(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    async with servers.relay(peer.url) as relay:
        for _ in range(20):
            client = await RawClient.open(relay.port, greeted=False)
            await client.reset()
        await still_serves(relay, peer)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_without_an_address_is_refused(peer: ScriptedPeer) -> None:
    """The system does not know the address of a connection that was reset before it was accepted."""
    async with servers.relay(peer.url) as relay:
        listener = relay.service.listener
        refusal = listener.table.refusal("")
        assert refusal
        assert refusal.reply.code == 554
        assert listener.sessions == 0


# End


@pytest.mark.parametrize(
    "sent",
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
async def test_a_client_that_leaves_before_the_dot_sends_nothing(peer: ScriptedPeer, sent: bytes, how: str) -> None:
    async with servers.relay(peer.url) as relay:
        client = await RawClient.open(relay.port)
        await client.send_raw(sent)
        for _ in range(sent.count(b"\r\n", 0, sent.find(b"Subject") if b"Subject" in sent else None)):
            await client.read_reply()
        await getattr(client, how)()
        if how == "half_close":
            assert await client.read_reply() == GONE
            await client.close()
        await still_serves(relay, peer)
    assert [message.recipients for message in peer.received] == [(TWO,)]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_a_client_that_leaves_during_a_command_sends_nothing(peer: ScriptedPeer, step: Step, how: str) -> None:
    """A close may be a half-close. The relay notices it only when it writes a reply."""
    peer.on(step, hang())
    limit = {"close": "0.2s", "reset": "100s"}[how]
    async with servers.relay(peer.url, {"upstream.connections": 1, "upstream.reply_timeout": limit}) as relay:
        client = await RawClient.open(relay.port)
        await client.send_raw(b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\n")
        await peer.wait_waiting(step)
        await getattr(client, how)()
        await still_serves(relay, peer)
    assert peer.copies() == {TWO: 1}


async def test_a_message_goes_on_after_its_client_left_and_the_retry_is_a_repeat(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with servers.relay(peer.url, {"dedup.reply": "explain"}) as relay:
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


async def test_a_client_that_half_closes_after_the_dot_receives_the_reply(peer: ScriptedPeer) -> None:
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


async def test_a_client_that_half_closes_receives_the_replies_to_all_its_commands(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.send_raw(
            b"HELO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\n" + stuff(MAIL)
        )
        await client.half_close()
        assert [(await client.read_reply()).code for _ in range(6)] == [250, 250, 250, 354, 250, 0]


@pytest.mark.parametrize(
    "sent", [b"", b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<one@example.test>\r\nDATA\r\nhalf"]
)
async def test_an_idle_client_receives_421(peer: ScriptedPeer, sent: bytes) -> None:
    async with servers.relay(peer.url, {"limits.session_idle": "1s"}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.send_raw(sent)
            for _ in range(sent.count(b"\r\n")):
                await client.read_reply()
            answer = await client.read_reply()
            assert answer.code == 421
            assert answer.text.startswith(b"4.4.2 ")
            assert await client.read_reply() == GONE
        await still_serves(relay, peer)
    assert peer.copies() == {TWO: 1}


async def test_a_client_that_waits_for_a_reply_is_not_idle(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.REPLY, wait(gate))
    settings = {"limits.session_idle": "1s"}
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        asyncio.get_running_loop().call_later(1.5, gate.set)
        assert (await client.content(MAIL)).code == 250


async def test_a_client_that_does_not_read_its_replies_is_disconnected(peer: ScriptedPeer) -> None:
    """It would occupy a session, and after RCPT an upstream connection, for ever."""
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


# Delivery


async def test_content_arrives_byte_for_byte_after_one_received_field(peer: ScriptedPeer) -> None:
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


async def test_a_thousand_pipelined_recipients(peer: ScriptedPeer) -> None:
    recipients = [b"user%d@example.test" % number for number in range(1000)]
    async with servers.relay(peer.url) as relay:
        sent = await send(relay.port, SENDER, recipients, MAIL, pipelined=True)
        assert sent.ok
        assert {answer.code for answer in sent.rcpt} == {250}
    assert peer.copies() == dict.fromkeys(recipients, 1)
    assert len(peer.accepted) == 1


async def test_no_content_is_forwarded_after_a_pipelined_data_was_refused(peer: ScriptedPeer) -> None:
    """RFC 2920: the client pipelines DATA. All recipients are refused, so the reply is 554 and no content follows."""
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), times=None)
    async with servers.relay(peer.url) as relay:
        sent = await send(relay.port, SENDER, [ONE, TWO], MAIL, pipelined=True)
    assert [answer.code for answer in sent.rcpt] == [550, 550]
    assert sent.final.code == 554
    assert not peer.received


async def test_a_transaction_in_progress_may_finish_during_a_drain(peer: ScriptedPeer) -> None:
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
