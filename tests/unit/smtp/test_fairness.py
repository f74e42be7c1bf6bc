"""One client neither freezes the others nor keeps a place for ever."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient
from parts.faults import Step, say
from parts.ports import HOST
from parts.relay_process import RelayProcess
from parts.waiting import until

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer

SENDER, ONE = b"sender@example.test", b"one@example.test"
SLOWEST = 3 * 0.25
"""Seconds. Users are promised a third of it."""


@pytest.mark.parametrize("command", [b"NOOP", b"EHLO x", b"HELP", b"RSET", b"RCPT TO:<one@example.test>"])
async def test_pipelined_commands_do_not_stop_the_others(peer: ScriptedPeer, command: bytes) -> None:
    """8 MB of commands in one burst, whose replies are read."""
    settings = {"limits.commands": 0}
    relay_process = RelayProcess(upstream=peer.url, store="memory:", settings=settings)
    async with relay_process as relay, await RawClient.open(relay.port) as other:
        flood = await RawClient.open(relay.port)
        await flood.begin(SENDER, ONE)
        octets = (command + b"\r\n") * (8_000_000 // len(command))
        sending = asyncio.create_task(flood.send_raw(octets))
        await flood.read_reply()
        reading = asyncio.create_task(_read_all(flood))
        slowest = 0.0
        for _ in range(10):
            for question in (other.command(b"NOOP"), relay.get("/livez")):
                begun = time.monotonic()
                await question
                slowest = max(slowest, time.monotonic() - begun)
        assert not reading.done()
        for task in (sending, reading):
            task.cancel()
        await asyncio.wait([sending, reading])
        await flood.reset()
    assert slowest < SLOWEST


async def _read_all(client: RawClient) -> None:
    while await client._reader.read(1 << 16):
        pass


@pytest.mark.parametrize("last", ["QUIT", "half-close", "silence"])
async def test_a_client_that_does_not_read_loses_its_place(peer: ScriptedPeer, last: str) -> None:
    """Some replies lie unread in the relay, too few to stop its writing."""
    async with servers.relay(peer.url, {"limits.session_idle": "0.5s"}) as relay:
        table = relay.service.listener.table
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, (HOST, relay.port))
            await until(lambda: len(table) == 1, "the session")
            [session] = table._sessions
            await until(lambda: session.close_with.__self__._transport, "the connection")
            transport = session.close_with.__self__._transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            while not transport.get_write_buffer_size():
                await loop.sock_sendall(client, b"HELP\r\n" * 20)
                await asyncio.sleep(0.005)
            if last == "QUIT":
                await loop.sock_sendall(client, b"QUIT\r\n")
            elif last == "half-close":
                client.shutdown(socket.SHUT_WR)
            await until(lambda: len(table) == 0, "the end of the session", seconds=5)
        await until(lambda: not relay.busy, "the end of all sessions")


async def test_many_refusals_are_slowed_and_capped(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=b"bad", times=None)
    async with servers.relay(peer.url) as relay:
        table = relay.service.listener.table
        table.limits = dataclasses.replace(table.limits, refusal_delay=0.002)
        async with await RawClient.open(relay.port) as client:
            await client.begin(SENDER, ONE)
            for number in range(100):
                assert (await client.command(b"RCPT TO:<bad%d@example.test>" % number)).code == 550
            begun = time.monotonic()
            codes = [(await client.command(b"RCPT TO:<bad%d@example.test>" % each)).code for each in range(100, 120)]
            assert time.monotonic() - begun >= 20 * 0.002
            assert codes == [550] * 20
            codes = [(await client.command(b"RCPT TO:<bad %d@example.test>" % number)).code for number in range(880)]
            assert codes == [501] * 880
            assert (await client.command(b"RCPT TO:<two@example.test>")).code == 452
            assert (await client.content(b"hello")).code == 250
    assert peer.copies() == {ONE: 1}


async def test_client_errors_are_forgotten_at_each_accepted_message(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        for number in range(30):
            assert (await client.command(b"EXPN list")).code == 500
            await client.begin(SENDER, ONE)
            assert (await client.content(b"mail %d" % number)).code == 250
        peer.on(Step.REPLY, say(b"550 5.7.1 no"), times=None)
        for _ in range(10):
            assert (await client.command(b"EXPN list")).code == 500
            await client.begin(SENDER, ONE)
            assert (await client.content(b"refused")).code == 550
        codes = [(await client.command(b"EXPN list")).code for _ in range(10)]
        assert codes == [500] * 9 + [421]
