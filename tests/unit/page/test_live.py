"""The stream of events that renews the overview, and TLS on `http.address`."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from parts.page_server import page_server
from parts.ports import HOST
from parts.waiting import until

from relay.monitor.http import HttpServer
from relay.monitor.http_connections import HttpConnections
from relay.monitor.metrics import Metrics
from relay.page.live import MOST_STREAMS
from relay.page.overview import BLOCKS

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp
    from parts.certificates import Authority


async def next_block(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            line = await stream.content.readline()
            assert line
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                return found


async def test_a_stream_sends_all_blocks_and_then_those_that_change() -> None:
    async with page_server(live_every=0.02) as page, page.client.get(page.url + "/events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert [(await next_block(stream))["id"] for _ in BLOCKS] == list(BLOCKS)
        page.ready = False
        changed = await next_block(stream)
        assert (changed["id"], "Mail cannot flow" in changed["html"]) == ("state", True)


async def test_a_stream_is_never_silent_so_that_proxies_notice_a_reader_who_has_left() -> None:
    async with page_server(live_every=0.02) as page, page.client.get(page.url + "/events") as stream:
        for _ in BLOCKS:
            await next_block(stream)
        async with asyncio.timeout(10):
            assert [await stream.content.readline() for _ in range(5)] == [b"\n", b":\n", b"\n", b":\n", b"\n"]


async def test_streams_share_a_look_at_the_state() -> None:
    async with page_server(live_every=3600) as page, AsyncExitStack() as stack:
        for _ in range(5):
            stream = await stack.enter_async_context(page.client.get(page.url + "/events"))
            assert (await next_block(stream))["id"] == BLOCKS[0]
        assert page.traces.questions == 2  # the last hour, and the last day


async def test_streams_are_bounded_in_number_and_end_with_the_server() -> None:
    async with page_server(live_every=0.02) as page, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(page.client.get(page.url + "/events")) for _ in range(MOST_STREAMS)]
        assert (await page.get("/events"))[0] == 503
        assert (await page.get("/"))[0] == 200
        streams.pop().close()

        async def has_place() -> bool:
            async with page.client.get(page.url + "/events") as stream:
                return stream.status == 200

        async with asyncio.timeout(10):
            while not await has_place():
                pass
        page.site.close()
        async with asyncio.timeout(10):
            for stream in streams:
                await stream.read()


async def test_a_stream_needs_a_session(tmp_path: Path) -> None:
    async with page_server(tmp_path / "users") as page:
        assert (await page.get("/events"))[0] == 303


# TLS


def contexts(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.issue())
    return server, ssl.create_default_context(cafile=authority.certificate)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_clients_speak_tls_and_silent_ones_are_bounded(run: Any, authority: Authority) -> None:
    server_context, client_context = contexts(authority)

    async def main() -> None:
        connections = HttpConnections(most=3, request_every=3600, tls=lambda: server_context)
        server = HttpServer(Metrics(), lambda: (True, {}), connections=connections)
        port = await server.start(HOST, 0)
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client_context)
            for _ in range(2):
                writer.write(request)
                assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 OK")
            silent = [await asyncio.open_connection(HOST, port) for _ in range(2)]
            await until(lambda: len(connections.open) == 3, "places taken")
            too_many, other = await asyncio.open_connection(HOST, port)
            with suppress(ConnectionError):
                assert await too_many.read() == b""
            silent[0][1].write(b"GET / HTTP/1.1\r\n\r\n")  # no handshake
            with suppress(ConnectionError):
                await silent[0][0].read()
            for each in (silent[0][1], silent[1][1], other, writer):
                each.close()
            await until(lambda: not connections.open, "places given back")
        finally:
            await server.close()

    run(main())
