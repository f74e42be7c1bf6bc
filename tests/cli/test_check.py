"""`relay check`: what it tests, and the remedies that it names."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from parts.check_command import UPSTREAM, check, holding
from parts.logged import wait_logged
from parts.ports import HOST, free_port
from parts.redis_server import RedisServer
from parts.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_all_is_well(peer: ScriptedPeer) -> None:
    with RedisServer(persist=True) as redis_server:
        result = await check("--upstream", peer.url, "--store", redis_server.url)
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok    listen.address", "ok    http.address", "ok    upstream.url", "ok    store.url"),
        "ok    tls.certificate",
        "ok    record.secret_file",
    ]
    assert lines[2].endswith(f"{peer.url} answers and takes messages up to 10240000 bytes")
    assert "\x1b" not in result.stdout
    # It speaks with the upstream as the relay would, up to the content.
    assert [command[:12] for command in peer.commands()[1:]] == [b"MAIL FROM:<>", b"RCPT TO:<pos", b"RSET", b"QUIT"]


async def test_each_fault_is_shown_with_its_remedy(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port()}"
    result = await check("--upstream", f"smtp://{address}", "--store", f"redis://{HOST}:{free_port()}")
    assert result.status == 1
    failure = f"FAIL  upstream.url: smtp://{address}: no connection to {address}: Connection refused\n"
    assert failure in result.stdout
    assert "      to fix: start it, or correct upstream.url\n" in result.stdout
    assert "FAIL  store.url: redis://" in result.stdout
    assert "      to fix: start it, or correct store.url\n" in result.stdout
    (tmp_path / "file").touch()
    result = await check("--upstream", f"maildir:{tmp_path}/file/a/b", "--store", f"sqlite:{tmp_path}/file/b.db")
    assert result.status == 1
    assert "cannot be made: Not a directory\n      to fix: name a folder that this user may write" in result.stdout
    assert "to fix: name a file in a folder that this user may write, or correct store.url" in result.stdout


async def test_addresses_that_a_relay_holds_pass(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    addresses = {"listen": f"{HOST}:{relay.port}", "http": f"{HOST}:{relay.http_port}"}
    result = await check("--upstream", peer.url, "--store", "memory:", **addresses)
    assert result.status == 0
    assert f"ok    listen.address: {HOST}:{relay.port} is held by a relay (fine if it is this one)\n" in result.stdout
    assert (
        f"ok    http.address: {HOST}:{relay.http_port} is held by a relay (fine if it is this one)\n" in result.stdout
    )


async def test_a_tls_address_that_a_relay_holds_passes(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    address = f"{HOST}:{free_port()}"
    tls = ("--set", f"listen.tls_address={address}", "--set", "tls.self_signed=true")
    relay = await start_relay(*tls, upstream=peer.url)
    await until(lambda: f'"listen_tls": "{address}"' in relay.stderr(), "the line in the log")
    listen = f"{HOST}:{relay.port}"
    result = await check("--upstream", peer.url, "--store", "memory:", *tls, listen=listen)
    assert f"ok    listen.tls_address: {address} is held by a relay (fine if it is this one)\n" in result.stdout


async def test_addresses_that_another_program_holds_fail(tmp_path: Path) -> None:
    web = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
    async with holding(b"220 mx.example.test ESMTP Postfix\r\n") as listen, holding(web) as http:
        result = await check("--upstream", f"maildir:{tmp_path}", "--store", "memory:", listen=listen, http=http)
        assert result.status == 1
        assert f"FAIL  listen.address: {listen} cannot be listened on: Address already in use\n" in result.stdout
        assert "      to fix: choose another listen.address, or stop the program that uses it\n" in result.stdout
        assert f"FAIL  http.address: {http} cannot be listened on: Address already in use\n" in result.stdout


async def test_control_characters_of_an_upstream_are_escaped() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 Go away \x1b]0;x\x07\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        url = f"smtp://{HOST}:{server.sockets[0].getsockname()[1]}"
        result = await check("--upstream", url, "--store", "memory:")
    assert result.status == 1
    assert "Go away" in result.stdout
    assert "\x1b" not in result.stdout


async def test_each_upstream_is_tested(peer: ScriptedPeer) -> None:
    """While one is down the others take the mail, so only this test shows it."""
    unreachable = f"smtp://{HOST}:{free_port()}"
    result = await check("--upstream", peer.url, "--store", "memory:", "--set", f"upstream.fallback_urls={unreachable}")
    assert result.status == 1
    assert f"ok    upstream.url: {peer.url} answers" in result.stdout
    assert f"FAIL  upstream.fallback_urls: {unreachable}: no connection" in result.stdout
    assert "\n      to fix: start it, or correct upstream.fallback_urls\n" in result.stdout


async def test_a_host_name_without_an_address_is_reported() -> None:
    result = await check("--upstream", "smtp://nobody.invalid", "--store", "memory:")
    assert result.status == 1
    assert "\n      to fix: correct the host name in upstream.url\n" in result.stdout


async def test_a_server_without_a_greeting_may_be_no_mail_server() -> None:
    with RedisServer() as server:
        url = f"smtp://{HOST}:{server.port}"
        result = await check("--upstream", url, "--store", "memory:", "--set", "upstream.greeting_timeout=200ms")
    assert f"FAIL  upstream.url: {url}: {HOST}:{server.port} was not ready for mail within 0.2 s\n" in result.stdout
    assert "\n      to fix: check that it is an SMTP server " in result.stdout


async def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    result = await check("--upstream", f"maildir:{tmp_path}/a/mail", "--store", f"sqlite:{tmp_path}/b/relay.db")
    assert result.status == 0
    assert f"ok    store.url: sqlite:{tmp_path}/b/relay.db is not there yet and can be made\n" in result.stdout
    assert names_in(tmp_path) == []


async def test_the_check_changes_nothing_in_an_existing_store(tmp_path: Path, peer: ScriptedPeer) -> None:
    (tmp_path / "relay.db").touch()
    for _ in range(2):
        assert (await check("--upstream", peer.url, "--store", f"sqlite:{tmp_path}/relay.db")).status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert names_in(tmp_path) == ["relay.db"]


async def test_a_locked_store_fails(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/relay.db"
    (tmp_path / "relay.db").touch()
    assert (await check("--upstream", UPSTREAM, "--store", store)).status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        result = await check("--upstream", UPSTREAM, "--store", store)
    assert result.status == 1
    assert "FAIL  store.url: sqlite:" in result.stdout
    assert "(database is locked)\n      to fix: see which program holds its lock" in result.stdout


async def test_an_address_whose_holder_never_ends_its_answer_fails_in_time(tmp_path: Path) -> None:
    clients: set[asyncio.StreamWriter] = set()
    all_left = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"2")
                await writer.drain()
                await asyncio.sleep(0.2)
        writer.close()
        clients.discard(writer)
        if not clients:
            all_left.set()

    async with await asyncio.start_server(drip, HOST, 0) as server, asyncio.timeout(3 * 10):
        address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        result = await check("--upstream", f"maildir:{tmp_path}", "--store", "memory:", listen=address)
        await all_left.wait()
    assert f"FAIL  listen.address: {address} cannot be listened on: Address already in use\n" in result.stdout


@pytest.mark.parametrize("key", ["upstream.url", "record.keep"])
async def test_a_file_is_no_maildir(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").touch()
    wrong = f"maildir:{tmp_path}/file"
    result = await check("--upstream", UPSTREAM, "--store", "memory:", "--set", f"{key}={wrong}")
    if key == "upstream.url":
        result = await check("--upstream", wrong, "--store", "memory:")
    assert result.status == 1
    assert f"FAIL  {key}: {wrong}: cannot be written: Not a directory\n" in result.stdout
    assert "\n      to fix: name a folder that this user may write" in result.stdout


async def test_a_running_relay_reports_that_a_file_is_no_maildir(start_relay: StartRelay, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    relay = await start_relay(upstream=f"maildir:{tmp_path}/file")
    await wait_logged(
        relay, f'does not answer", "error": "the Maildir {tmp_path}/file cannot be written: Not a directory'
    )
    assert (await relay.readyz())["upstream"] == "down"


async def test_files_for_records_are_tested_and_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").write_text("short\n")
    for folder in ("empty", "a/b"):
        flags = ("--set", f"record.keep=maildir:{tmp_path}/{folder}", "--set", f"record.secret_file={tmp_path}/k/key")
        result = await check("--upstream", UPSTREAM, "--store", "memory:", *flags)
        assert result.status == 0
        assert f"ok    record.keep: maildir:{tmp_path}/{folder} can be written\n" in result.stdout
        assert f"ok    record.secret_file: {tmp_path}/k/key is not there yet and can be made\n" in result.stdout
    assert sorted(names_in(tmp_path)) == ["empty", "short"]
    for name, reason in (("short", "its first line is shorter"), ("short/key", "cannot be made: Not a directory\n")):
        flags = ("--set", f"record.secret_file={tmp_path}/{name}")
        result = await check("--upstream", UPSTREAM, "--store", "memory:", *flags)
        assert result.status == 1
        assert f"FAIL  record.secret_file: {tmp_path}/{name}: {reason}" in result.stdout
        assert "\n      to fix: " in result.stdout.partition("record.secret_file")[2]


async def test_a_path_that_cannot_be_looked_up_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    flags = ("--set", f"record.keep=maildir:{path}", "--set", f"record.secret_file={path}/key")
    result = await check("--upstream", UPSTREAM, "--store", "memory:", *flags)
    assert result.status == 1
    assert f"FAIL  record.keep: maildir:{path}: cannot be made: File name too long\n" in result.stdout
    assert f"FAIL  record.secret_file: {path}/key: cannot be made: File name too long\n" in result.stdout


async def test_a_default_secret_file_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "record.key").mkdir()
    result = await check("--upstream", UPSTREAM, "--store", f"sqlite:{tmp_path}/relay.db")
    assert result.status == 0
    assert f"warn  record.secret_file: {tmp_path}/record.key: Is a directory\n" in result.stdout
    (tmp_path / "record.key").rmdir()
    store = f"sqlite:{tmp_path}/relay.db"
    result = await check("--upstream", UPSTREAM, "--store", store, "--set", "record.addresses=true")
    assert f"ok    record.secret_file: {tmp_path}/record.key is not there yet and can be made\n" in result.stdout
