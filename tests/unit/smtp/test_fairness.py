"""One client neither freezes the others nor keeps a place for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import GONE, RawClient
from parts.faults import Step, say
from parts.ports import HOST
from parts.relay_process import RelayProcess
from parts.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from parts.peer import ScriptedPeer

SENDER, ONE = b"sender@example.test", b"one@example.test"
SLOWEST = 3 * 0.25
"""Seconds. Users are promised a third of it."""


@pytest.mark.parametrize(
    "command", [b"NOOP\r\n", b"NOOP\n", b"EHLO x\r\n", b"HELP\r\n", b"RSET\r\n", b"RCPT TO:<one@example.test>\r\n"]
)
async def test_pipelined_commands_do_not_stop_the_others(peer: ScriptedPeer, command: bytes) -> None:
    """8 MB of commands in one burst, whose replies are read."""
    async with RelayProcess(upstream=peer.url, store="memory:") as relay:
        flood = await RawClient.open(relay.port)
        await flood.begin(SENDER, ONE)
        sending = asyncio.create_task(flood.send_raw(command * (8_000_000 // len(command))))
        reading = asyncio.create_task(_read_all(flood))
        slowest = 0.0
        async with await RawClient.open(relay.port) as other:
            await flood_began(flood)
            for _ in range(10):
                for ask in (other.command(b"NOOP"), relay.get("/livez")):
                    begun = time.monotonic()
                    await ask
                    slowest = max(slowest, time.monotonic() - begun)
        assert not sending.done() or not reading.done()
        for task in (sending, reading):
            task.cancel()
        await asyncio.wait([sending, reading])
        await flood.reset()
    assert slowest < SLOWEST


async def flood_began(flood: RawClient) -> None:
    await until(lambda: getattr(flood, "replies", 0), "the first reply to the flood")


async def _read_all(client: RawClient) -> None:
    client.replies = 0  # type: ignore[attr-defined]
    while await client.read_reply(seconds=60) != GONE:
        client.replies += 1  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def deaf_client(port: int, octets: bytes, *, half_close: bool = False) -> AsyncIterator[None]:
    """Sends octets without reading, and keeps the connection open."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, (HOST, port))
    sending = loop.create_task(loop.sock_sendall(client, octets))
    try:
        if half_close:
            await sending
            client.shutdown(socket.SHUT_WR)
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        client.close()


@pytest.mark.parametrize(
    ("last", "half_close"), [(b"QUIT\r\n", False), (b"", True), (b"", False)], ids=["QUIT", "half-close", "silence"]
)
async def test_a_client_that_does_not_read_loses_its_place(peer: ScriptedPeer, last: bytes, half_close: bool) -> None:
    """Replies that fill the system's buffers lie unread in the relay, too few to stop its writing."""
    async with servers.relay(peer.url, {"limits.session_idle": "1s"}) as relay:
        # HELP has the longest reply. Some megabytes of replies fit in the buffers of the system.
        count = await _replies_that_stay_unread(relay)
        async with deaf_client(relay.port, b"HELP\r\n" * count + last, half_close=half_close):
            await until(lambda: relay.service.listener.sessions == 1, "the session")
            await until(lambda: relay.service.listener.sessions == 0, "the end of the session", seconds=20)


async def _replies_that_stay_unread(relay: servers.Relay) -> int:
    """Returns a number of HELP commands whose replies leave a rest in the relay below its high-water mark."""
    async with deaf_client(relay.port, b"HELP\r\n" * 1_000_000):
        session = None
        while session is None or not session._paused:
            await asyncio.sleep(0.01)
            session = next((s for s in _protocols(relay)), None)
        unread = session._transport.get_write_buffer_size()
        count = session.replies_written
    del unread
    return count


async def test_many_refusals_are_slowed_and_capped(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=b"bad", times=None)
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        relay.service.listener.table.limits.__dict__["refusal_delay"] = 0.01
        for number in range(100):
            assert (await client.command(b"RCPT TO:<bad%d@example.test>" % number)).code == 550
        begun = time.monotonic()
        codes = [(await client.command(b"RCPT TO:<bad%d@example.test>" % number)).code for number in range(100, 120)]
        assert time.monotonic() - begun >= 20 * 0.01
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
