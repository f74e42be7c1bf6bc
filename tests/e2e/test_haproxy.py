"""A real HAProxy in front of the relay, with both versions of the PROXY protocol."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import socket
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient
from parts.logged import lines, wait_messages
from parts.ports import HOST, free_port
from parts.relay_process import RelayProcess
from parts.waiting import until_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from parts.peer import ScriptedPeer

BALANCER = "127.0.0.2"
"""The address from which HAProxy connects to the relay."""
CLIENT = "127.0.0.7"
OTHER = "127.0.0.8"
CONFIG = """
global
    stats socket {folder}/stats.sock
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen smtp
    bind {host}:{port}
    source {balancer}
    option smtpchk EHLO haproxy.test
    server relay {host}:{relay} {option} check inter 100ms
"""


class HAProxy:
    """A running HAProxy with one server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._stats = folder / "stats.sock"

    async def is_checked(self) -> bool:
        """Returns whether an SMTP check of the server has passed."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._stats)
        except OSError:
            return False
        writer.write(b"show stat\n")
        rows = list(csv.DictReader((await reader.read()).decode().splitlines()))
        writer.close()
        [server] = [row for row in rows if row["svname"] == "relay"]
        return server["check_status"] == "L7OK"


@contextlib.asynccontextmanager
async def haproxy(folder: Path, relay: int, option: str) -> AsyncIterator[HAProxy]:
    port = free_port()
    text = CONFIG.format(folder=folder, host=HOST, port=port, relay=relay, option=option, balancer=BALANCER)
    file = folder / "haproxy.cfg"
    await asyncio.to_thread(file.write_text, text)
    process = await asyncio.create_subprocess_exec("haproxy", "-q", "-db", "-f", str(file))
    try:
        server = HAProxy(folder, port)
        await until_told(server.is_checked, "a check of HAProxy that has passed")
        yield server
    finally:
        process.kill()
        await process.wait()


async def connect(port: int, address: str) -> RawClient:
    """Connects from an address of this machine, and reads the greeting."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    client = RawClient(*await asyncio.open_connection(sock=sock))
    client.greeting = await client.read_reply()
    return client


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
async def test_haproxy_names_its_client(peer: ScriptedPeer, tmp_path: Path, option: str) -> None:
    networks = {"listen.proxy_networks": f"{BALANCER}/32", "listen.networks": f"{CLIENT}/32"}
    async with (
        RelayProcess(upstream=peer.url, store="memory:", settings=networks) as relay,
        haproxy(tmp_path, relay.port, option) as balancer,
    ):
        async with await connect(balancer.port, CLIENT) as client:
            await client.begin(b"a@example.test", b"b@example.test")
            assert (await client.content(b"Subject: x\r\n\r\nhello\r\n")).code == 250
        async with await connect(balancer.port, OTHER) as client:
            assert client.greeting.code == 554
        [line] = await wait_messages(relay, 1)
        assert line["peer"] == CLIENT
        # The checks of HAProxy are no faults, although its own network may not send.
        counts = (await relay.metrics()).by_label("smtp_dedup_sessions_refused_total", "reason")
        assert {reason: count for reason, count in counts.items() if count} == {"network": 1}
        [refusal] = [line for line in lines(relay) if line["event"] == "session refused"]
        assert (refusal["peer"], refusal["reason"]) == (OTHER, "network")
    assert b"([127.0.0.7])\r\n" in peer.accepted[0].content
