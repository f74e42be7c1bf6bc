"""`relay check` and what `relay serve` says at its start: is everything there, and if not, what is to be done."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from parts.ports import HOST, free_port
from parts.relay_process import Finished, run_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer


async def check(*flags: str, **settings: object) -> Finished:
    """Look with free addresses unless others are given."""
    listen = str(settings.pop("listen", f"{HOST}:{free_port()}"))
    http = str(settings.pop("http", f"{HOST}:{free_port()}"))
    return await run_relay("check", "--listen", listen, "--http", http, *flags)


@contextlib.asynccontextmanager
async def holding(said: bytes) -> AsyncIterator[str]:
    """Hold an address as some other program does, which says this to everybody."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, HOST, port):
        yield f"{HOST}:{port}"


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_all_is_well(peer: ScriptedPeer, redis_server: RedisServer) -> None:
    looked = await check("--upstream", peer.url, "--store", redis_server.url)
    assert (looked.status, looked.stderr) == (0, "")
    lines = looked.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok    listen.address", "ok    http.address", "ok    upstream.url", "ok    store.url")
    ]
    assert lines[2].endswith(f"{peer.url} answers and takes messages up to 10240000 bytes")
    assert "\x1b" not in looked.stdout
    assert peer.commands(b"MAIL") == []


async def test_what_is_down_is_named_with_its_mend(tmp_path: Path) -> None:
    nobody = f"smtp://{HOST}:{free_port()}"
    looked = await check("--upstream", nobody, "--store", f"redis://{HOST}:{free_port()}")
    assert looked.status == 1
    assert f"FAIL  upstream.url: {nobody}: no connection to {nobody[7:]}: Connection refused\n" in looked.stdout
    assert "      to mend: start it, or correct upstream.url\n" in looked.stdout
    assert "FAIL  store.url: redis://" in looked.stdout
    assert "      to mend: start it, or correct store.url\n" in looked.stdout
    (tmp_path / "file").touch()
    looked = await check("--upstream", f"maildir:{tmp_path}/file/a/b", "--store", f"sqlite:{tmp_path}/file/b.db")
    assert looked.status == 1
    assert "cannot be written: Not a directory\n      to mend: name a folder that this user may write" in looked.stdout
    assert "to mend: name a file in a folder that this user may write, or correct store.url" in looked.stdout


async def test_addresses_that_a_relay_holds_are_well(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    addresses = {"listen": f"{HOST}:{relay.port}", "http": f"{HOST}:{relay.http_port}"}
    looked = await check("--upstream", peer.url, "--store", "memory:", **addresses)
    assert looked.status == 0
    assert f"ok    listen.address: {HOST}:{relay.port} is held by a relay\n" in looked.stdout
    assert f"ok    http.address: {HOST}:{relay.http_port} is held by a relay\n" in looked.stdout


async def test_addresses_that_others_hold_are_not(tmp_path: Path) -> None:
    web = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
    async with holding(b"220 mx.example.test ESMTP Postfix\r\n") as listen, holding(web) as http:
        looked = await check("--upstream", f"maildir:{tmp_path}", "--store", "memory:", listen=listen, http=http)
        assert looked.status == 1
        assert f"FAIL  listen.address: {listen} cannot be listened on: Address already in use\n" in looked.stdout
        assert "      to mend: choose another listen.address, or end what holds it\n" in looked.stdout
        assert f"FAIL  http.address: {http} cannot be listened on: Address already in use\n" in looked.stdout


@pytest.mark.parametrize("key", ["listen", "http"])
async def test_serve_ends_with_78_where_its_address_is_taken(tmp_path: Path, key: str) -> None:
    addresses = {"listen": f"{HOST}:{free_port()}", "http": f"{HOST}:{free_port()}"}
    async with holding(b"220 mx\r\n") as taken:
        flags = [f"--{name}={address}" for name, address in (addresses | {key: taken}).items()]
        ended = await run_relay("serve", *flags, "--upstream", f"maildir:{tmp_path}", "--store", "memory:")
    assert ended.status == 78
    assert ended.stdout == ""
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f'error: {key}.address = "{taken}": cannot listen there: Address already in use; choose')
    assert "Traceback" not in ended.stderr


async def test_looking_changes_nothing_in_a_store_that_is_there(tmp_path: Path, peer: ScriptedPeer) -> None:
    for _ in range(2):
        assert (await check("--upstream", peer.url, "--store", f"sqlite:{tmp_path}/relay.db")).status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert names_in(tmp_path) == ["relay.db"]
