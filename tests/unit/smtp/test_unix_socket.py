"""Clients of a Unix socket: who may connect, what they may do, and what happens to the file."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import socket
import stat
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.check_command import UPSTREAM, check
from parts.client import RawClient
from parts.logged import wait_messages
from parts.relay_process import RelayProcess, run_relay

from relay.core.client import LOCAL, client_of, is_loopback
from relay.core.errors import CannotListenError
from relay.core.received import received_field
from relay.runtime import unix_socket

if TYPE_CHECKING:
    from pathlib import Path

    from parts.peer import ScriptedPeer

MAIL = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "smtp.sock"


def exists(path: Path) -> bool:
    return path.exists()


def permissions(path: Path) -> tuple[str, int]:
    found = path.stat()
    return stat.filemode(found.st_mode), found.st_gid


def write(path: Path) -> None:
    path.write_text("precious")


def remove(path: Path) -> None:
    path.unlink()


async def deliver(path: Path, content: bytes = MAIL) -> int:
    async with await RawClient.open_unix(path) as client:
        await client.begin(b"a@example.test", b"b@example.test")
        return (await client.content(content)).code


async def test_a_client_of_the_socket_may_send_whatever_the_networks_are(peer: ScriptedPeer, path: Path) -> None:
    settings = {"listen.address": f"unix:{path}", "listen.networks": [], "upstream.received_field": True}
    async with servers.relay(peer.url, settings) as relay:
        assert relay.service.address == f"unix:{path}"
        assert await deliver(path) == 250
        async with await RawClient.open_unix(path) as client:
            assert b"XFORWARD" in (await client.command(b"EHLO me")).text
    field = peer.accepted[0].content.partition(b";")[0]
    # RFC 5321 section 4.4: "from" Domain, a comment, "by" Domain, a comment.
    assert field.startswith(b"Received: from client.example.test (local)\r\n\tby ")


async def test_any_login_is_accepted_as_on_loopback(peer: ScriptedPeer, path: Path) -> None:
    settings = {"listen.address": f"unix:{path}", "auth.mode": "any"}
    async with servers.relay(peer.url, settings), await RawClient.open_unix(path) as client:
        assert b"AUTH PLAIN" in (await client.command(b"EHLO me")).text
        assert (await client.command(b"AUTH PLAIN AGEAYg==")).code == 235


async def test_the_socket_has_mode_and_group_and_is_removed_at_the_end(peer: ScriptedPeer, path: Path) -> None:
    async with servers.relay(peer.url, {"listen.address": f"unix:{path}"}):
        assert permissions(path) == ("srw-rw----", os.getegid())
    assert not exists(path)
    name = next(entry.gr_name for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    for group in (name, str(grp.getgrnam(name).gr_gid)):
        keys = {"listen.address": f"unix:{path}", "listen.socket_mode": "606", "listen.socket_group": group}
        async with servers.relay(peer.url, keys):
            assert permissions(path) == ("srw----rw-", grp.getgrnam(name).gr_gid)


async def test_the_socket_of_a_killed_relay_is_replaced(peer: ScriptedPeer, path: Path) -> None:
    async with RelayProcess("--listen", f"unix:{path}", upstream=peer.url) as relay:
        assert await deliver(path) == 250
        [line] = await wait_messages(relay, 1)
        assert line["peer"] == "local"
        relay.kill()
        await relay.wait()
        assert exists(path)
        await relay.start()
        assert await deliver(path) == 250
        relay.terminate()
        assert await relay.wait() == 0
    assert not exists(path)


async def test_a_socket_that_answers_is_not_replaced(peer: ScriptedPeer, path: Path) -> None:
    settings = {"listen.address": f"unix:{path}"}
    async with servers.relay(peer.url, settings):
        with pytest.raises(CannotListenError, match=f'listen.address = "unix:{path}".*Address already in use'):
            async with servers.relay(peer.url, settings):
                pass
        assert await deliver(path) == 250


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_of_another_type_is_not_replaced(path: Path, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(os.fspath(path))
        if kind == socket.SOCK_SEQPACKET:
            other.listen()
        with pytest.raises(OSError, match="Address already in use"):
            unix_socket.listen_on(path, 0o660, "", 1)
    assert exists(path)


def test_a_file_is_not_replaced_nor_what_a_link_points_to(path: Path, tmp_path: Path) -> None:
    write(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(OSError, match="the file there is no socket"):
            unix_socket.listen_on(name, 0o660, "", 1)
    assert path.read_text() == "precious"
    assert link.is_symlink()


async def test_the_socket_of_a_successor_stays(peer: ScriptedPeer, path: Path) -> None:
    async with servers.relay(peer.url, {"listen.address": f"unix:{path}"}):
        remove(path)
        successor = unix_socket.listen_on(path, 0o660, "", 1)
    with closing(successor):
        assert exists(path)


def test_nobody_connects_before_the_permissions_are_set(path: Path) -> None:
    """A group that this user may not use: the socket was never open, and does not stay."""
    with pytest.raises(OSError, match="there is no group no-such-group"):
        unix_socket.listen_on(path, 0o660, "no-such-group", 1)
    with pytest.raises(OSError, match="there is no group 99999999999"):
        unix_socket.listen_on(path, 0o660, "99999999999", 1)
    assert not exists(path)
    with pytest.raises(FileNotFoundError):
        unix_socket.listen_on(path.parent / "missing" / "s", 0o660, "", 1)


async def test_refused_clients_hear_why(peer: ScriptedPeer, path: Path) -> None:
    settings = {"listen.address": f"unix:{path}", "limits.sessions": 1}
    async with (
        servers.relay(peer.url, settings),
        await RawClient.open_unix(path),
        await RawClient.open_unix(path) as second,
    ):
        assert second.greeting.code == 421


async def test_a_client_hears_421_even_if_no_descriptor_is_left(peer: ScriptedPeer, path: Path) -> None:
    listen = ("--listen", f"unix:{path}")
    async with RelayProcess(*listen, upstream=peer.url, store="memory:", descriptors=(900, 900)) as relay:
        open_now = len(os.listdir(f"/proc/{relay.pid}/fd"))  # noqa: PTH208
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (open_now + 4, 900))
        clients = await asyncio.gather(*(RawClient.open_unix(path) for _ in range(10)))
        codes = Counter(client.greeting.code for client in clients)
        assert codes.keys() == {220, 421}
        assert codes[421] >= 5
        for client in clients:
            await client.close()


def test_all_local_clients_are_one_client_on_this_machine() -> None:
    assert is_loopback(LOCAL)
    assert client_of(LOCAL) == LOCAL
    field = received_field(helo=b"x", peer=LOCAL, hostname="h", loop_id="1", transaction_id="2", now=0)
    assert field.startswith(b"Received: from x (local)\r\n\tby h (smtp-dedup-relay 1) with ESMTP id 2;")


# The commands


async def test_check_and_serve_name_what_is_wrong(peer: ScriptedPeer, path: Path, tmp_path: Path) -> None:
    listen = f"unix:{path}"
    result = await check("--upstream", UPSTREAM, "--store", "memory:", listen=listen)
    assert f"ok    listen.address: {listen} is free\n" in result.stdout
    assert not exists(path)
    result = await check(
        "--upstream", UPSTREAM, "--store", "memory:", "--set", "listen.socket_group=nix", listen=listen
    )
    assert f"FAIL  listen.address: {listen} cannot be listened on: there is no group nix\n" in result.stdout
    assert "to fix: correct listen.socket_group" in result.stdout
    result = await check("--upstream", UPSTREAM, "--store", "memory:", listen=f"unix:{tmp_path}/missing/smtp.sock")
    assert "to fix: make the folder, or choose another listen.address\n" in result.stdout
    async with servers.relay(peer.url, {"listen.address": listen}):
        result = await check("--upstream", UPSTREAM, "--store", "memory:", listen=listen)
        assert f"ok    listen.address: {listen} is held by a relay (fine if it is this one)\n" in result.stdout
    write(path)
    # Not UPSTREAM: `serve` would make that Maildir, in the tree.
    upstream = f"maildir:{tmp_path}/mail"
    result = await run_relay("serve", "--listen", listen, "--http", "", "--upstream", upstream, "--store", "memory:")
    assert result.status == 1
    assert f'listen.address = "{listen}": cannot listen there: the file there is no socket; choose another' in (
        result.stderr
    )
