"""Clients behind a balancer: the PROXY header, and what the address in it decides."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import ssl
import struct
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.check_command import UPSTREAM, check
from parts.client import GONE, RawClient
from parts.waiting import until

from relay.core.client import names_itself

if TYPE_CHECKING:
    from pathlib import Path

    from parts.certificates import Authority
    from parts.peer import ScriptedPeer

MAIL = b"Subject: x\r\n\r\nhello\r\n"
SETTINGS = {
    "listen.proxy_networks": ["127.0.0.0/8"],
    "listen.networks": ["192.0.2.0/24", "2001:db8::/32"],
    "upstream.received_field": True,
}
CLIENT = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_VERSION_1 = b"PROXY TCP6 %b1 %bffff 65535 65535\r\n" % (
    b"2001:0db8:" + b"0000:" * 5 + b"000",
    b"2001:0db8:" + b"ffff:" * 5,
)
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UNIX = 0x00, 0x11, 0x12, 0x21, 0x31


def version_2(command: int, family: int, block: bytes = b"", *, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def addresses(source: str, destination: str) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack("!HH", 56324, 25)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


TCP4_BLOCK = addresses("192.0.2.1", "198.51.100.1")
TLVS = b"".join(
    (
        tlv(0x01, b"smtp"),
        tlv(0x02, b"mail.example.test"),
        tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client")),
        tlv(0x04, b"\0" * 1000),
        tlv(0xEE, b"\r\n.\r\n"),
    )
)


def refused(relay: servers.Relay) -> dict[str, int]:
    counts = {item.reason: int(c._value.get()) for item, c in relay.service.metrics.sessions_refused.items()}
    return {reason: count for reason, count in counts.items() if count}


async def connect(relay: servers.Relay, header: bytes) -> RawClient:
    """Connects as a balancer does, and reads the greeting."""
    client = await RawClient.open(relay.port, greeted=False)
    await client.send_raw(header)
    client.greeting = await client.read_reply()
    return client


@pytest.mark.parametrize(
    ("header", "literal"),
    [
        (CLIENT, b"[192.0.2.1]"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n", b"[IPv6:2001:db8::1]"),
        (LONGEST_VERSION_1, b"[IPv6:2001:db8::1]"),
        (version_2(PROXY, TCP4, TCP4_BLOCK), b"[192.0.2.1]"),
        (version_2(PROXY, TCP6, addresses("2001:db8::1", "2001:db8::2")), b"[IPv6:2001:db8::1]"),
        (version_2(PROXY, TCP4, TCP4_BLOCK + TLVS), b"[192.0.2.1]"),
        (version_2(PROXY, TCP4, TCP4_BLOCK + b"no TLV"), b"[192.0.2.1]"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7, 4096])
async def test_the_client_in_the_header_may_send(
    peer: ScriptedPeer, header: bytes, literal: bytes, pieces: int
) -> None:
    """`pieces` is the size of each, in bytes. The client's first command may arrive in the last one."""
    async with (
        servers.relay(peer.url, SETTINGS) as relay,
        await RawClient.open(relay.port, greeted=False) as client,
    ):
        wire = header + b"EHLO client.example.test\r\n"
        _set_nodelay(client)
        for start in range(0, len(wire), pieces):
            await client.send_raw(wire[start : start + pieces])
        assert (await client.read_reply()).code == 220
        assert (await client.read_reply()).code == 250
        await client.begin(b"a@example.test", b"b@example.test")
        assert (await client.content(MAIL)).code == 250
        assert refused(relay) == {}
    assert b"from client.example.test (%b)\r\n" % literal in peer.accepted[0].content


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 56324 25\r\n",
        b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 56324 25\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        version_2(LOCAL, UNSPEC),
        version_2(LOCAL, TCP4, TCP4_BLOCK),
        version_2(LOCAL, TCP4, b"short"),
        version_2(PROXY, UNSPEC),
        version_2(PROXY, UNSPEC, TLVS),
        version_2(PROXY, UNIX, b"/run/client".ljust(108, b"\0") + bytes(108)),
    ],
)
async def test_a_balancer_may_look_whether_the_relay_works(peer: ScriptedPeer, header: bytes) -> None:
    """It is greeted from any network. Whether it may send, its own network decides."""
    for networks, code in (SETTINGS["listen.networks"], 554), (["127.0.0.1"], 250):
        async with servers.relay(peer.url, {**SETTINGS, "listen.networks": networks}) as relay:
            async with await connect(relay, header) as client:
                assert client.greeting.code == 220
                assert (await client.command(b"EHLO me")).code == 250
                assert (await client.command(b"MAIL FROM:<a@example.test>")).code == code
                assert (await client.command(b"QUIT")).code == 221
            assert refused(relay) == {}


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO me\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"proxy TCP4 192.0.2.1 198.51.100.1 56324 25\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.1 56324 25\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.1 56324 25\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 25\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 25\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.1 56324 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 025 25\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.1 56324 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 \r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        b"PROXY UNKNOWN " + b"x" * 100_000,
        SIGNATURE[:11] + b"\r" + version_2(PROXY, TCP4, TCP4_BLOCK)[12:],
        version_2(0x11, TCP4, TCP4_BLOCK),
        version_2(0x31, TCP4, TCP4_BLOCK),
        version_2(0x22, TCP4, TCP4_BLOCK),
        version_2(PROXY, 0x41, TCP4_BLOCK),
        version_2(PROXY, 0x13, TCP4_BLOCK),
        version_2(PROXY, UDP4, TCP4_BLOCK),
        version_2(PROXY, TCP4),
        version_2(PROXY, TCP4, TCP4_BLOCK[:-1]),
        version_2(PROXY, TCP6, TCP4_BLOCK),
        version_2(PROXY, UNIX, TCP4_BLOCK),
        version_2(PROXY, TCP4, TCP4_BLOCK, length=0xFFFF),
        version_2(LOCAL, UNSPEC, length=0xFFFF),
    ],
)
async def test_a_wrong_header_ends_the_connection(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    caplog.set_level(logging.WARNING)
    async with servers.relay(peer.url, SETTINGS) as relay:
        async with await connect(relay, header) as client:
            # A reset can overtake the reply, because bytes of the client were not read.
            assert client.greeting.code in {421, GONE.code}
            assert (await client.command(b"MAIL FROM:<a@example.test>")) == GONE
        assert refused(relay) == {"proxy": 1}
        assert relay.service.listener.table.headers_awaited == 0
    [line] = [record for record in caplog.records if record.name != "relay.store"]
    fields = line.fields
    assert (line.getMessage(), fields["reason"], fields["key"]) == ("session refused", "proxy", "listen.proxy_networks")
    assert fields["peer"] == "127.0.0.1"


@pytest.mark.parametrize("header", [b"", b"P", CLIENT[:-1], version_2(PROXY, TCP4, length=12)])
async def test_a_late_header_ends_the_connection(peer: ScriptedPeer, header: bytes) -> None:
    async with servers.relay(peer.url, SETTINGS) as relay:
        table = relay.service.listener.table
        table.limits = dataclasses.replace(table.limits, handshake=0.2)
        async with await connect(relay, header) as client:
            assert client.greeting.code == 421
        assert refused(relay) == {"proxy": 1}


async def test_a_connection_without_a_byte_is_no_fault_and_half_a_header_is_one(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, SETTINGS) as relay:
        table = relay.service.listener.table
        for end in (RawClient.close, RawClient.reset):
            client = await RawClient.open(relay.port, greeted=False)
            await until(lambda: table.headers_awaited == 1, "the connection")
            await end(client)
            await until(lambda: table.headers_awaited == 0, "its end")
        assert refused(relay) == {}
        client = await RawClient.open(relay.port, greeted=False)
        await client.send_raw(CLIENT[:20])
        await client.half_close()
        assert (await client.read_reply()).code == 421
        await client.close()
        assert refused(relay) == {"proxy": 1}


async def test_the_header_of_any_other_host_is_not_read(peer: ScriptedPeer) -> None:
    """Else every client could choose its address."""
    settings = {"listen.proxy_networks": ["192.0.2.0/24"]}
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        assert client.greeting.code == 220
        assert (await client.command(CLIENT.rstrip())).code == 500


async def test_the_real_address_decides_who_may_send_and_log_in(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    other = CLIENT.replace(b"192.0.2.1", b"203.0.113.5")
    async with servers.relay(peer.url, SETTINGS) as relay:
        async with await connect(relay, other) as client:
            assert client.greeting.code == 554
        assert refused(relay) == {"network": 1}
        assert caplog.records[-1].fields["peer"] == "203.0.113.5"
    peer.users = {b"anna": b"s3cret"}
    async with servers.relay(peer.url, {**SETTINGS, "auth.mode": "passthrough"}) as relay:
        async with await connect(relay, CLIENT) as client:
            assert b"AUTH PLAIN" in (await client.command(b"EHLO me")).text
        async with await connect(relay, other) as client:
            assert b"AUTH PLAIN" not in (await client.command(b"EHLO me")).text
            assert (await client.command(b"MAIL FROM:<a@example.test>")).code == 530


@pytest.mark.parametrize(
    ("balancer", "client", "itself"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("::ffff:10.0.0.5", "10.0.0.5", True),
        ("2001:db8::5", "2001:db8::6", False),
        ("10.0.0.5", "127.0.0.1", True),
        ("10.0.0.5", "::1", True),
        ("10.0.0.5", "::ffff:127.0.0.1", True),
        ("127.0.0.2", "127.0.0.7", False),
        ("10.0.0.5", "10.0.0.6", False),
    ],
)
def test_loopback_of_another_machine_is_not_trusted(balancer: str, client: str, itself: bool) -> None:
    assert names_itself(balancer, client) is itself


async def test_clients_are_counted_by_their_real_address(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {**SETTINGS, "limits.sessions": 4}) as relay:
        clients = [await connect(relay, CLIENT) for _ in range(4)]
        clients.append(await connect(relay, CLIENT.replace(b"192.0.2.1", b"192.0.2.2")))
        assert [client.greeting.code for client in clients] == [220, 220, 220, 421, 220]
        assert relay.service.listener.table._clients == Counter({"192.0.2.1": 3, "192.0.2.2": 1})
        assert refused(relay) == {"client_share": 1}
        for client in clients:
            await client.close()


async def test_a_connection_without_its_header_takes_a_place(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {**SETTINGS, "limits.sessions": 3}) as relay:
        table = relay.service.listener.table
        waiting = [await RawClient.open(relay.port, greeted=False) for _ in range(3)]
        await until(lambda: table.headers_awaited == 3, "the connections")
        async with await connect(relay, CLIENT) as client:
            assert client.greeting.code in {421, GONE.code}
        assert refused(relay) == {"sessions": 1}
        await waiting[0].send_raw(CLIENT)
        assert (await waiting[0].read_reply()).code == 220
        assert (table.headers_awaited, len(table)) == (2, 1)
        for client in waiting:
            await client.close()


async def test_a_drain_does_not_wait_for_headers(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, SETTINGS) as relay:
        first, second = [await RawClient.open(relay.port, greeted=False) for _ in range(2)]
        await until(lambda: relay.service.listener.table.headers_awaited == 2, "the connections")
        assert await relay.service.drain()
        await first.send_raw(CLIENT)
        assert (await first.read_reply()).code == 421
        assert refused(relay) == {"draining": 1}
    assert await second.read_reply() == GONE
    await first.close()
    await second.close()


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("header", [CLIENT, version_2(PROXY, TCP4, TCP4_BLOCK + TLVS)])
async def test_tls_begins_after_the_header(
    peer: ScriptedPeer, authority: Authority, tmp_path: Path, implicit: bool, header: bytes
) -> None:
    certificate = tmp_path / "relay.pem"
    _copy(authority, certificate)
    tls = {"tls.certificate": str(certificate), "listen.tls_address": "127.0.0.1:0"}
    async with servers.relay(peer.url, {**SETTINGS, **tls}) as relay:
        port = int(relay.service.tls_address.rpartition(":")[2]) if implicit else relay.port
        context = ssl.create_default_context(cafile=str(authority.certificate))
        async with await RawClient.open(port, greeted=False) as client:
            await client.send_raw(header)
            if implicit:
                await client.handshake(context)
                assert (await client.read_reply()).code == 220
            else:
                assert (await client.read_reply()).code == 220
                await client.command(b"EHLO me")
                assert (await client.start_tls(context)).code == 220
            await client.begin(b"a@example.test", b"b@example.test")
            assert (await client.content(MAIL)).code == 250
        assert refused(relay) == {}
    assert b"([192.0.2.1])\r\n" in peer.accepted[0].content
    assert b"with ESMTPS " in peer.accepted[0].content


@pytest.mark.parametrize("path", ["smtp.sock"])
async def test_a_client_of_a_unix_socket_sends_no_header(peer: ScriptedPeer, tmp_path: Path, path: str) -> None:
    settings = {"listen.address": f"unix:{tmp_path / path}", "listen.proxy_networks": ["127.0.0.0/8"]}
    async with servers.relay(peer.url, settings), await RawClient.open_unix(tmp_path / path) as client:
        assert client.greeting.code == 220


async def test_check_recognises_a_relay_that_takes_it_for_a_balancer(peer: ScriptedPeer, tmp_path: Path) -> None:
    tls = {"listen.tls_address": "127.0.0.1:0", "tls.self_signed": True, "store.url": f"sqlite:{tmp_path}/relay.db"}
    async with servers.relay(peer.url, {**SETTINGS, **tls}) as relay:
        addresses = {"listen.address": relay.service.address, "listen.tls_address": relay.service.tls_address}
        keys = [f"listen.tls_address={relay.service.tls_address}", "tls.self_signed=true"]
        keys += ["listen.proxy_networks=127.0.0.0/8"]
        flags = [word for key in keys for word in ("--set", key)]
        result = await check("--upstream", UPSTREAM, *flags, listen=relay.service.address)
        for key, address in addresses.items():
            assert f"ok    {key}: {address} is held by a relay (fine if it is this one)\n" in result.stdout
        assert refused(relay) == {}


def _set_nodelay(client: RawClient) -> None:
    client._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _copy(authority: Authority, certificate: Path) -> None:
    certificate.write_bytes(authority.issue().read_bytes())


async def test_a_client_that_connected_before_a_restart_may_send_though_its_header_came_later(
    peer: ScriptedPeer,
) -> None:
    async with servers.relay(peer.url, {**SETTINGS, "listen.reuse_port": True}) as relay:
        listener = relay.service.listener
        client, silent = [await RawClient.open(relay.port, greeted=False) for _ in range(2)]
        async with client, silent:
            await until(lambda: listener.table.headers_awaited == 2, "two connections without a header")
            drain = asyncio.create_task(listener.drain(20.0))
            await until(lambda: listener.draining, "the drain")
            await client.send_raw(CLIENT)
            assert (await client.read_reply()).code == 220
            await client.begin(b"a@example.test", b"b@example.test")
            assert (await client.content(MAIL)).code == 250
        assert await drain
    assert peer.copies() == {b"b@example.test": 1}
