"""The commands about records with `store.url = "memory:"`: they ask the running relay over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from click.testing import CliRunner
from parts.ports import HOST, free_port
from parts.relay_process import Finished, run_relay
from parts.store_folder import DAY, FIRST, record, repeat

from relay.claims.memory import MemoryStore
from relay.cli import main
from relay.core.claim import Confirm, Fingerprint, Note
from relay.monitor.http import COMMAND, HttpServer
from relay.monitor.metrics import Metrics
from relay.records.codec import encode
from relay.records.selection import Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.core.store import Store

COMMANDS = ("suppressed", "why 0123456789ab", "forget 0123456789ab", "forget --all")


@pytest.mark.parametrize("command", COMMANDS)
def test_without_http_the_memory_store_cannot_be_reached(command: str) -> None:
    name, *arguments = command.split()
    result = CliRunner().invoke(main, [name, "--set", "store.url=memory:", "--set", "http.address=", *arguments])
    assert result.exit_code == 1
    assert "error: store.url memory: is in the relay's own memory, and http.address is empty" in result.stderr
    result = CliRunner().invoke(
        main, [name, "--set", "store.url=memory:", "--set", f"http.address={HOST}:{free_port()}", *arguments]
    )
    assert result.exit_code == 1
    assert "does not answer: connection refused; with store.url memory: " in result.stderr
    assert "with store.url memory: it must be running, and on this host" in result.stderr


@contextlib.asynccontextmanager
async def http(memory: Store | None, host: str = HOST) -> AsyncIterator[str]:
    server = HttpServer(Metrics(), lambda: (True, {}), memory)
    port = await server.start(host, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await server.close()


async def call(address: str, command: str, *arguments: str) -> Finished:
    flags = ["--set", "store.url=memory:", "--set", f"http.address={address}"]
    return await run_relay(command, *flags, *arguments)


async def test_commands_use_the_store_of_a_running_relay() -> None:
    store = MemoryStore()
    one = record("000000000001", repeat("alice@example.test", fingerprint="k1"))
    sent = [Confirm(Fingerprint(f"k{number}"), FIRST, 600.0, 0.0, "bob@example.test") for number in range(3)]
    await store.execute([Note(one.id, encode(one), DAY), *sent])
    async with http(store, "0.0.0.0") as loopback:
        address = loopback.replace(HOST, "0.0.0.0")
        result = await call(address, "suppressed")
        assert result.stdout.endswith("34 s after aaaaaaaaaaaa  suppressed  rule default\n")
        assert (await call(address, "why", "alice@example.test")).status == 0
        assert (await call(address, "why", "bob@example.test")).status == 1
        assert (await call(address, "forget", "Bob@example.test", "--dry-run")).stdout == "would forget 3 acceptances\n"
        assert (await call(address, "forget", "000000000001")).stdout == "forgot 1 acceptance\n"
        assert (await call(address, "forget", "--all")).stdout == "forgot 2 acceptances\n"


async def test_a_relay_with_another_store_does_not_serve_records() -> None:
    async with http(None) as address:
        result = await call(address, "forget", "--all")
        assert result.status == 1
        assert result.stderr.endswith(
            f"error: the relay at {address} does not keep its store in memory; name the store that it uses with "
            "-c FILE or --store URL\n"
        )


@contextlib.asynccontextmanager
async def other_server(status: bytes, answer_body: bytes) -> AsyncIterator[str]:
    """Another HTTP server, which sends this answer to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(answer_body), answer_body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer_body", [b"{}", b"[]", b"0", b"free"])
async def test_a_wrong_answer_of_another_server_is_reported(answer_body: bytes) -> None:
    async with other_server(b"200 OK", answer_body) as address:
        result = await call(address, "forget", "--all")
    assert (result.status, result.stdout) == (1, "")
    assert f"error: the relay at http.address {address} does not answer: it answers as no relay does" in result.stderr


async def test_an_error_of_another_server_is_escaped_and_shortened() -> None:
    async with other_server(b"403 No", b"\x1b]0;x\x07" + b"go " * 5000) as address:
        result = await call(address, "suppressed")
    assert (result.status, result.stdout) == (1, "")
    assert f"error: the relay at http.address {address} says 403: \\x1b]0;x\\x07go go go " in result.stderr
    assert len(result.stderr) < 600


async def status_of(address: str, method: str, path: str, **more: Any) -> int:
    async with aiohttp.ClientSession() as client, client.request(method, f"http://{address}{path}", **more) as answer:
        return answer.status


async def test_web_pages_and_other_hosts_are_refused() -> None:
    store = MemoryStore()
    await store.execute([Confirm(Fingerprint("k1"), FIRST, 600.0)])
    everything = Selection(within=float("inf")).encode()
    post, get = ("POST", "/forget"), ("GET", "/records?age=60")
    async with http(store) as address:
        # Without the field: requests that a form or an image on any web page can send.
        assert await status_of(address, *post, data=everything) == 403
        assert await status_of(address, *get) == 403
        assert await status_of(address, *post, data=everything, headers={COMMAND: "records"}) == 403
        assert await status_of(address, "OPTIONS", "/forget", headers={"Origin": "http://evil.example"}) == 405
        # With the field, under a name that an attacker points to this address (DNS rebinding).
        for host in ("evil.example", f"evil.example:{address.rpartition(':')[2]}", "127.0.0.1.evil.example", "[::2]:1"):
            assert await status_of(address, *post, data=everything, headers={COMMAND: "forget", "Host": host}) == 403
        # Through a proxy on this host.
        proxied = {COMMAND: "forget", "X-Forwarded-For": "192.0.2.1"}
        assert await status_of(address, *post, data=everything, headers=proxied) == 403
        for host in ("localhost", "127.0.0.1", "[::1]:9625", "localhost:9625"):
            assert await status_of(address, *get, headers={COMMAND: "records", "Host": host}) == 200
        assert await status_of(address, *post, data=everything, headers={COMMAND: "forget"}) == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b'{"within": null}', b"[" * 100_000, Selection().encode().encode()[:-2]]
)
async def test_a_wrong_selection_is_refused(body: bytes) -> None:
    async with http(MemoryStore()) as address:
        assert await status_of(address, "POST", "/forget", data=body, headers={COMMAND: "forget"}) == 400


@pytest.mark.parametrize("age", ["", "?age=", "?age=soon", "?age=-1", "?age=nan"])
async def test_a_wrong_age_is_refused(age: str) -> None:
    async with http(MemoryStore()) as address:
        assert await status_of(address, "GET", f"/records{age}", headers={COMMAND: "records"}) == 400
