"""Floods and half-open sessions: memory stays bounded, and other clients are served meanwhile and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient, send
from parts.waiting import until

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer

SLOWEST = 3 * 1.0
"""Seconds for a mail of another client. Users are promised a third of it."""
MEMORY = 32 << 20
"""`limits.memory` in bytes."""
_HELLO = b"EHLO x\r\n"
_MAIL = _HELLO + b"MAIL FROM:<a@example.test>\r\n"
_DATA = _MAIL + b"RCPT TO:<b@example.test>\r\nDATA\r\n"
FLOODS = {
    "connections that say nothing": (300, b""),
    "half a command": (300, b"EHL"),
    "a line without an end": (50, b"x" * 300_000),
    "AUTH without a response": (300, _HELLO + b"AUTH LOGIN\r\n"),
    "a sender and no more": (300, _MAIL),
    "DATA and no content": (300, _DATA),
    "half an upload": (100, _DATA + b"Subject: x\r\n\r\n" + b"x" * 20_000),
    "uploads that outgrow the memory": (60, _DATA + b"x" * 1_000_000),
    "pipelined commands whose replies are not read": (20, b"HELP\r\n" * 50_000),
    "a chunk that never ends": (100, _MAIL + b"BDAT 999999999\r\n" + b"x" * 100_000),
    "commands that do not exist": (300, b"\0\r\n" * 100),
}
"""The number of connections, and what each sends without reading a reply."""


@pytest.mark.parametrize("flood", FLOODS)
async def test_others_are_served_during_a_flood(peer: ScriptedPeer, flood: str) -> None:
    count, octets = FLOODS[flood]
    settings = {"limits.memory": "32MiB", "auth.mode": "any", "limits.commands": 0, "upstream.connections": 20}
    async with servers.relay(peer.url, settings) as relay, contextlib.AsyncExitStack() as stack:
        table = relay.service.listener.table
        senders = []
        for _ in range(count):
            client = await RawClient.open(relay.port)
            stack.push_async_callback(client.reset)
            senders.append(asyncio.ensure_future(client.send_raw(octets)))
        slowest = 0.0
        for number in range(5):
            begun = time.monotonic()
            sent = await send(relay.port, b"c@example.test", [b"d@example.test"], b"Subject: %d\r\n\r\nx\r\n" % number)
            assert sent.final.code in {250, 452}, sent
            assert sent.ok or flood == "uploads that outgrow the memory"
            slowest = max(slowest, time.monotonic() - begun if sent.ok else 0.0)
            assert relay.service._memory.used <= MEMORY
            buffered = [len(session.close_with.__self__._input._buffer) for session in table._sessions]
            assert sum(buffered) <= MEMORY + 400_000 * len(buffered), "a client may send 64 KiB and one read ahead"
        assert slowest < SLOWEST
        for task in senders:
            task.cancel()
        await asyncio.wait(senders)
        await stack.aclose()
        await until(lambda: not relay.busy, "the end of all sessions")
        assert relay.service._memory.used == 0
        assert (await send(relay.port, b"c@example.test", [b"d@example.test"], b"Subject: after\r\n\r\nx\r\n")).ok
        assert relay.service.metrics.faults._value.get() == 0
