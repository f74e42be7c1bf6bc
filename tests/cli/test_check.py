"""`relay check` and what `relay serve` says at its start: is everything there, and if not, what is to be done."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from parts.logged import wait_logged
from parts.ports import HOST, free_port
from parts.redis_cluster import shared_cluster
from parts.redis_sentinel import SERVICE, shared_sentinels
from parts.redis_server import RedisServer, redis_store
from parts.relay_process import Finished, run_relay

from relay.claims.redis.server_info import ServerInfo
from relay.cli import main
from relay.cli.check_redis import findings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer


UPSTREAM = "maildir:nowhere/mail"
"""A Maildir that could be made, and is not."""


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


async def test_all_is_well(peer: ScriptedPeer) -> None:
    with RedisServer(persist=True) as redis_server:
        looked = await check("--upstream", peer.url, "--store", redis_server.url)
    assert (looked.status, looked.stderr) == (0, "")
    lines = looked.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok    listen.address", "ok    http.address", "ok    upstream.url", "ok    store.url"),
        "ok    record.secret_file",
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
    assert "cannot be made: Not a directory\n      to mend: name a folder that this user may write" in looked.stdout
    assert "to mend: name a file in a folder that this user may write, or correct store.url" in looked.stdout


async def test_addresses_that_a_relay_holds_are_well(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    addresses = {"listen": f"{HOST}:{relay.port}", "http": f"{HOST}:{relay.http_port}"}
    looked = await check("--upstream", peer.url, "--store", "memory:", **addresses)
    assert looked.status == 0
    assert f"ok    listen.address: {HOST}:{relay.port} is held by a relay (fine if it is this one)\n" in looked.stdout
    assert (
        f"ok    http.address: {HOST}:{relay.http_port} is held by a relay (fine if it is this one)\n" in looked.stdout
    )


async def test_addresses_that_others_hold_are_not(tmp_path: Path) -> None:
    web = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
    async with holding(b"220 mx.example.test ESMTP Postfix\r\n") as listen, holding(web) as http:
        looked = await check("--upstream", f"maildir:{tmp_path}", "--store", "memory:", listen=listen, http=http)
        assert looked.status == 1
        assert f"FAIL  listen.address: {listen} cannot be listened on: Address already in use\n" in looked.stdout
        assert "      to mend: choose another listen.address, or end what holds it\n" in looked.stdout
        assert f"FAIL  http.address: {http} cannot be listened on: Address already in use\n" in looked.stdout


@pytest.mark.parametrize("key", ["listen", "http"])
async def test_serve_ends_with_1_where_its_address_is_taken(tmp_path: Path, key: str) -> None:
    addresses = {"listen": f"{HOST}:{free_port()}", "http": f"{HOST}:{free_port()}"}
    async with holding(b"220 mx\r\n") as taken:
        flags = [f"--{name}={address}" for name, address in (addresses | {key: taken}).items()]
        ended = await run_relay("serve", *flags, "--upstream", f"maildir:{tmp_path}", "--store", "memory:")
    assert ended.status == 1
    assert ended.stdout == ""
    last = ended.stderr.splitlines()[-1]
    reason = "Address already in use; choose another"
    assert (
        last == f'error: {key}.address = "{taken}": cannot listen there: {reason} {key}.address, or end what holds it'
    )
    assert "Traceback" not in ended.stderr
    assert '"ended"' not in ended.stderr


async def test_serve_names_the_relay_that_holds_both_its_addresses(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    flags = ["--listen", f"{HOST}:{relay.port}", "--http", f"{HOST}:{relay.http_port}", "--store", "memory:"]
    ended = await run_relay("serve", *flags, "--upstream", peer.url)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.status == 1
    assert [line.split()[1] for line in errors] == ["listen.address", "http.address"]
    assert all("cannot listen there: Address already in use, by a relay; " in line for line in errors)


async def test_serve_says_what_else_is_wrong_with_an_address(tmp_path: Path) -> None:
    # RFC 5737: an address of documentation, which no host has.
    flags = ["--listen", "192.0.2.1:2525", "--http", "", "--upstream", f"maildir:{tmp_path}", "--store", "memory:"]
    ended = await run_relay("serve", *flags)
    assert ended.status == 1
    assert "cannot listen there: Cannot assign requested address; choose another listen.address\n" in ended.stderr


async def test_what_an_upstream_says_is_text_on_the_terminal() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 Go away \x1b]0;x\x07\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        url = f"smtp://{HOST}:{server.sockets[0].getsockname()[1]}"
        looked = await check("--upstream", url, "--store", "memory:")
    assert looked.status == 1
    assert "Go away" in looked.stdout
    assert "\x1b" not in looked.stdout


async def test_each_of_several_upstreams_is_looked_at(peer: ScriptedPeer) -> None:
    """Where one is down the others carry the mail, so nobody else would say so."""
    nobody = f"smtp://{HOST}:{free_port()}"
    looked = await check("--upstream", peer.url, "--store", "memory:", "--set", f"upstream.fallback_urls={nobody}")
    assert looked.status == 1
    assert f"ok    upstream.url: {peer.url} answers" in looked.stdout
    assert f"FAIL  upstream.fallback_urls: {nobody}: no connection" in looked.stdout
    assert "\n      to mend: start it, or correct upstream.fallback_urls\n" in looked.stdout


async def test_a_host_that_has_no_address_is_to_be_corrected() -> None:
    looked = await check("--upstream", "smtp://nobody.invalid", "--store", "memory:")
    assert looked.status == 1
    assert "\n      to mend: correct the host name in upstream.url\n" in looked.stdout


async def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    looked = await check("--upstream", f"maildir:{tmp_path}/a/mail", "--store", f"sqlite:{tmp_path}/b/relay.db")
    assert looked.status == 0
    assert f"ok    store.url: sqlite:{tmp_path}/b/relay.db is not there yet and can be made\n" in looked.stdout
    assert names_in(tmp_path) == []


async def test_looking_changes_nothing_in_a_store_that_is_there(tmp_path: Path, peer: ScriptedPeer) -> None:
    (tmp_path / "relay.db").touch()
    for _ in range(2):
        assert (await check("--upstream", peer.url, "--store", f"sqlite:{tmp_path}/relay.db")).status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert names_in(tmp_path) == ["relay.db"]


@pytest.mark.parametrize("key", ["upstream.url", "record.keep"])
async def test_a_file_is_no_maildir(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").touch()
    wrong = f"maildir:{tmp_path}/file"
    looked = await check("--upstream", UPSTREAM, "--store", "memory:", "--set", f"{key}={wrong}")
    if key == "upstream.url":
        looked = await check("--upstream", wrong, "--store", "memory:")
    assert looked.status == 1
    assert f"FAIL  {key}: {wrong}: cannot be written: Not a directory\n" in looked.stdout
    assert "\n      to mend: name a folder that this user may write" in looked.stdout


async def test_a_relay_says_that_a_file_is_no_maildir(start_relay: StartRelay, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    relay = await start_relay(upstream=f"maildir:{tmp_path}/file")
    await wait_logged(relay, f"does not answer: the Maildir {tmp_path}/file cannot be written: Not a directory")
    assert (await relay.readyz())["upstream"] == "down"


async def test_what_records_need_is_tried_and_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").write_text("short\n")
    for folder in ("empty", "a/b"):
        flags = ("--set", f"record.keep=maildir:{tmp_path}/{folder}", "--set", f"record.secret_file={tmp_path}/k/key")
        looked = await check("--upstream", UPSTREAM, "--store", "memory:", *flags)
        assert looked.status == 0
        assert f"ok    record.keep: maildir:{tmp_path}/{folder} can be written\n" in looked.stdout
        assert f"ok    record.secret_file: {tmp_path}/k/key is not there yet and can be made\n" in looked.stdout
    assert sorted(names_in(tmp_path)) == ["empty", "short"]
    for name, reason in (("short", "its first line is shorter"), ("short/key", "cannot be made: Not a directory\n")):
        flags = ("--set", f"record.secret_file={tmp_path}/{name}")
        looked = await check("--upstream", UPSTREAM, "--store", "memory:", *flags)
        assert looked.status == 1
        assert f"FAIL  record.secret_file: {tmp_path}/{name}: {reason}" in looked.stdout
        assert "\n      to mend: " in looked.stdout.partition("record.secret_file")[2]


async def test_a_secret_that_nobody_named_is_a_caution(tmp_path: Path) -> None:
    (tmp_path / "record.key").mkdir()
    looked = await check("--upstream", UPSTREAM, "--store", f"sqlite:{tmp_path}/relay.db")
    assert looked.status == 0
    assert f"warn  record.secret_file: {tmp_path}/record.key: Is a directory\n" in looked.stdout
    looked = await check("--upstream", UPSTREAM, "--store", "memory:", "--set", "record.addresses=true")
    assert "record.secret_file" not in looked.stdout


# Servers that answer, and not as they should


@pytest.mark.parametrize(
    ("url", "password", "mend"),
    [
        ("redis+cluster://{}", "", "it is no cluster: write redis://HOST in store.url"),
        ("redis+sentinel://{}/mymaster", "", "it is no sentinel: name the sentinels in store.url, or write"),
        ("redis://:x@{}", "", "it has no password: take that out of store.url"),
        ("redis://{}", "right", "write its password in store.url: redis://:PASSWORD@HOST"),
        ("redis://:wrong@{}", "right", "write the right password (and user) in store.url"),
        ("redis://{}/99", "", "correct the number of the database in store.url"),
    ],
)
def test_the_mend_is_for_what_a_redis_said(redis_server: RedisServer, url: str, password: str, mend: str) -> None:
    given = url.format(f"{HOST}:{redis_server.port}")
    free = ("--listen", f"{HOST}:0", "--http", f"{HOST}:0", "--upstream", UPSTREAM)
    with redis_server.client() as client:
        client.execute_command("CONFIG", "SET", "requirepass", password)
        try:
            looked = CliRunner().invoke(main, ["check", *free, "--store", given])
            asked = CliRunner().invoke(main, ["suppressed", "--store", given])
        finally:
            client.execute_command("CONFIG", "SET", "requirepass", "")
    assert (looked.exit_code, asked.exit_code) == (1, 1)
    assert f"\n      to mend: {mend}" in looked.stdout
    assert f"; {mend}" in asked.stderr


async def test_a_cluster_is_named_as_one() -> None:
    cluster = shared_cluster()
    cluster.ready()
    for node in cluster.nodes:  # also the one that takes what is asked for first
        looked = await check("--upstream", UPSTREAM, "--store", f"redis://{HOST}:{node.port}")
        assert looked.status == 1
        assert "\n      to mend: write redis+cluster://HOST:PORT in store.url\n" in looked.stdout


async def test_a_cluster_without_slots_is_to_be_given_them() -> None:
    # The bus would take the port 10,000 above, which may be that of somebody's connection.
    with RedisServer(options={"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
        looked = await check("--upstream", UPSTREAM, "--store", f"redis+cluster://{HOST}:{server.port}")
    assert "\n      to mend: assign its slots (redis-cli --cluster fix HOST:PORT), or name another" in looked.stdout


async def test_who_waits_to_be_spoken_to_is_perhaps_no_mail_server() -> None:
    with RedisServer() as server:
        url = f"smtp://{HOST}:{server.port}"
        looked = await check("--upstream", url, "--store", "memory:", "--set", "upstream.connect_timeout=200ms")
    assert f"FAIL  upstream.url: {url}: {HOST}:{server.port} was not ready for mail within 0.2 s\n" in looked.stdout
    assert "\n      to mend: is it an SMTP server? " in looked.stdout


# Redis that answers, and may forget


async def warned(server: RedisServer, *commands: tuple[str, ...]) -> Finished:
    """Look at a server after these commands."""
    with server.client() as client:
        for command in commands:
            client.execute_command(*command)
    looked = await check("--upstream", UPSTREAM, "--store", server.url)
    assert "\x1b" not in looked.stdout
    assert f"ok    store.url: {server.url} answers\n" in looked.stdout
    return looked


@pytest.fixture
def persisting() -> Iterator[RedisServer]:
    with RedisServer(persist=True) as server:
        yield server


async def test_nothing_to_say_of_a_redis_that_keeps_all(persisting: RedisServer) -> None:
    looked = await warned(persisting)
    assert looked.status == 0
    assert "warn" not in looked.stdout
    with persisting.client() as client:
        client.execute_command("CONFIG", "SET", "appendonly", "no")
    assert "persists nothing" in (await warned(persisting)).stdout
    assert "warn" not in (await warned(persisting, ("CONFIG", "SET", "save", "60 1"))).stdout


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_evicts_is_warned_of(persisting: RedisServer, policy: str) -> None:
    looked = await warned(persisting, ("CONFIG", "SET", "maxmemory-policy", policy))
    assert looked.status == 0
    assert f'warn  store.url: {HOST}:{persisting.port} has maxmemory-policy "{policy}"' in looked.stdout
    assert '\n      to mend: write "maxmemory-policy noeviction" in its redis.conf, or run CONFIG SET ' in looked.stdout
    assert ("all keys of the relay have an expiry" in looked.stdout) == (policy == "volatile-ttl")


async def test_a_redis_that_keeps_nothing_is_warned_of(redis_server: RedisServer) -> None:
    looked = await warned(redis_server)
    assert looked.status == 0
    assert f"warn  store.url: {HOST}:{redis_server.port} persists nothing: " in looked.stdout
    assert '\n      to mend: write "appendonly yes" in its redis.conf, or run CONFIG SET ' in looked.stdout


async def test_what_may_not_be_looked_at_is_said(persisting: RedisServer) -> None:
    looked = await warned(persisting, ("ACL", "SETUSER", "default", "-config"))
    assert looked.status == 0
    assert "does not let this user read its CONFIG; whether it evicts or persists is not known\n" in looked.stdout
    assert looked.stdout.count("warn") == 1


async def test_a_cluster_that_lacks_a_node_still_works() -> None:
    cluster = shared_cluster()
    cluster.ready()
    looked = await check("--upstream", UPSTREAM, "--store", cluster.url)
    assert looked.stdout.count("persists nothing") == 3
    gone_node = next(node for node in cluster.nodes if node is not cluster.node_of("smtp-dedup:identity"))
    gone_node.kill()
    looked = await check("--upstream", UPSTREAM, "--store", cluster.url)
    assert looked.status == 0
    gone = f"{HOST}:{gone_node.port}"
    assert (
        f"warn  store.url: redis at {gone}: connection refused: mail whose claims belong there is forwarded"
        in looked.stdout
    )


async def test_sentinels_are_asked_for_the_master() -> None:
    sentinels = shared_sentinels()
    sentinels.ready()
    looked = await check("--upstream", UPSTREAM, "--store", sentinels.url)
    assert looked.status == 0
    assert f"warn  store.url: {HOST}:{sentinels.master().port} persists nothing" in looked.stdout
    looked = await check("--upstream", UPSTREAM, "--store", sentinels.url.replace(SERVICE, "nobody"))
    assert looked.status == 1
    assert 'the sentinels know no service "nobody"\n      to mend: correct the name of the service, ' in looked.stdout


async def test_a_clock_that_goes_wrong_is_warned_of(persisting: RedisServer) -> None:
    store = redis_store(persisting.url)
    for wrong, words in ((-5.0, "s ahead of this host's"), (5.0, "s behind this host's")):
        [warning] = findings(await store.survey(wall=lambda off=wrong: time.time() + off))
        assert not warning.fails
        assert warning.text.startswith(f"the clock of {HOST}:{persisting.port} is ")
        assert warning.text.endswith(words)
    assert list(findings(await store.survey(wall=lambda: time.time() + 1.5))) == []
    await store.close()


def test_clocks_that_differ_from_one_another_are_warned_of() -> None:
    def server(name: str, ahead: float) -> ServerInfo:
        return ServerInfo(name, ahead=ahead, version=(7, 0), eviction_policy="noeviction", persists=True)

    [warning] = findings([server("h:1", 1.2), server("h:2", -1.3), server("h:3", 0.0)])
    assert warning.text.startswith("the clock of h:1 is 2.5 s ahead of that of h:2: windows change")
    assert list(findings([server("h:1", 1.0), server("h:2", -0.9)])) == []


def test_a_redis_that_is_too_old_fails() -> None:
    for version, fails in (((6, 0, 16), True), ((6, 2), False), ((7, 2, 4), False)):
        found = list(findings([ServerInfo("h:1", "", 0.0, version, "noeviction", persists=True)]))
        assert [finding.fails for finding in found] == [True] * fails
    [failure] = findings([ServerInfo("h:1", "", 0.0, (6, 0, 16), "noeviction", persists=True)])
    assert failure.text == "h:1 is Redis 6.0.16, which cannot keep claims"
