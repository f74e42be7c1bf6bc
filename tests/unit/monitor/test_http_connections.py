"""The HTTP server's connections have a bound, and each must ask something from time to time."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parts.client import send
from parts.ports import HOST
from parts.waiting import until, until_told

from relay.monitor.http import HttpServer
from relay.monitor.http_connections import MOST_CONNECTIONS, HttpConnections
from relay.monitor.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import StartRelay
    from parts.peer import ScriptedPeer

LIMIT = 0.2
"""Seconds within which a connection must ask something."""
REQUEST = b"GET /livez HTTP/1.1\r\nHost: relay\r\n\r\n"
REFUSED = b"HTTP/1.1 503 "


@asynccontextmanager
async def server(most: int = 10, request_every: float = 3600.0) -> AsyncIterator[int]:
    """A server's port."""
    http = HttpServer(Metrics(), lambda: (True, {}), connections=HttpConnections(most, request_every))
    try:
        yield await http.start(HOST, 0)
    finally:
        await http.close()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client of the server."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Sends a request and returns the status line."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    return head.splitlines()[0]


async def wait_cut(reader: asyncio.StreamReader, limit: float) -> float:
    """Waits until the server ends a connection. Returns the seconds."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(limit):
        with suppress(ConnectionResetError):
            await reader.read()
    return loop.time() - begun


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", REQUEST[:-2], b"POST /livez HTTP/1.1\r\n" + b"a: b\r\n" * 20])
async def test_a_header_that_is_not_completed_ends_its_connection(sent: bytes) -> None:
    async with server(request_every=LIMIT) as port, connection(port) as (reader, writer):
        writer.write(sent)
        assert await wait_cut(reader, 3 * LIMIT + 1) >= LIMIT / 2


async def test_an_idle_connection_ends_but_one_that_asks_goes_on() -> None:
    loop = asyncio.get_running_loop()
    async with server(request_every=LIMIT) as port, connection(port) as (reader, writer):
        end = loop.time() + 3 * LIMIT
        while loop.time() < end:
            assert await ask(reader, writer) == b"HTTP/1.1 200 OK"
        await wait_cut(reader, 3 * LIMIT + 1)


async def test_a_connection_too_many_hears_503_and_finds_a_place_later() -> None:
    async with server(most=2) as port, connection(port) as first:
        async with connection(port) as second:
            for served in (first, second):
                assert await ask(*served) == b"HTTP/1.1 200 OK"
            async with connection(port) as (reader, _):
                answer = await reader.read()
                assert answer.startswith(REFUSED)
                assert answer.endswith(b"\r\n\r\ntoo many connections\n")

        async def is_served() -> bool:
            async with connection(port) as client:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    return await ask(*client) == b"HTTP/1.1 200 OK"
            return False

        await until_told(is_served, "a place")
        assert await ask(*first) == b"HTTP/1.1 200 OK"


async def test_clients_of_http_take_a_bounded_number_of_descriptors(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    relay = await start_relay(upstream=peer.url)
    before = descriptors(relay.pid)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(socket.create_connection((HOST, relay.http_port)))) for _ in range(300)]
        for client in clients[:MOST_CONNECTIONS]:
            client.sendall(b"GET /")
        for client in clients[MOST_CONNECTIONS:]:
            assert client.recv(100).startswith(REFUSED)
        await until(lambda: descriptors(relay.pid) <= before + MOST_CONNECTIONS, "closed descriptors")
        assert (await send(relay.port, b"a@example.test", [b"b@example.test"], b"Subject: x\r\n\r\nx\r\n")).ok


async def test_malformed_requests_do_not_fill_the_log(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    for octets in (
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        async with connection(relay.http_port) as (reader, writer):
            writer.write(octets)
            assert b" 400 " in await reader.read()
    relay.terminate()
    await relay.wait()
    assert "Traceback" not in relay.stderr()
    assert "Error handling request" not in relay.stderr()
