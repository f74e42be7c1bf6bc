"""Who is admitted, what the others hear, and what the operator sees of it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import ssl
from collections import Counter
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import GONE, RawClient, send
from parts.logged import wait_logged
from parts.relay_process import RelayProcess

from relay.core.session_refusal import SessionRefusal
from relay.monitor.logs import MessageLog
from relay.monitor.metrics import Metrics
from relay.monitor.reporter import LogAndMetricsReporter
from relay.smtp.session_table import SessionLimits, SessionTable

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer


class FakeSession:
    """A place in the table."""

    in_transaction = False

    def __init__(self, peer: str) -> None:
        self.peer = peer


def table(sessions: int, descriptors: int = 10_000) -> SessionTable:
    limits = SessionLimits([ip_network("0.0.0.0/0"), ip_network("::/0")], 0, sessions, 1.0, descriptors)
    return SessionTable(limits, None)  # type: ignore[arg-type] - nothing here begins a transaction


def fill(places: SessionTable, peer: str) -> tuple[int, SessionRefusal | None]:
    """Opens sessions until one is refused. Returns their number and the refusal."""
    count = 0
    while not (refusal := places.refusal(peer)):
        places.add(FakeSession(peer))
        count += 1
    return count, refusal


async def test_one_client_leaves_room_for_others() -> None:
    places = table(2000)
    assert fill(places, "127.0.0.1") == (1900, SessionRefusal.CLIENT_SHARE)
    assert fill(places, "192.0.2.1") == (95, SessionRefusal.CLIENT_SHARE)
    assert not places.refusal("192.0.2.2")


@pytest.mark.parametrize("sessions", [1, 2])
async def test_one_client_may_hold_all_of_two_sessions(sessions: int) -> None:
    assert fill(table(sessions), "127.0.0.1") == (sessions, SessionRefusal.SESSIONS)


@pytest.mark.parametrize("sessions", [3, 10, 20])
async def test_one_of_a_few_sessions_is_left_for_others(sessions: int) -> None:
    places = table(sessions)
    assert fill(places, "127.0.0.1") == (sessions - 1, SessionRefusal.CLIENT_SHARE)
    assert fill(places, "127.0.0.2") == (1, SessionRefusal.SESSIONS)


async def test_an_ipv6_network_of_64_bits_is_one_client() -> None:
    places = table(100)
    for number in range(95):
        assert not places.refusal(f"2001:db8::{number:x}")
        places.add(FakeSession(f"2001:db8::{number:x}"))
    assert places.refusal("2001:db8::ffff") is SessionRefusal.CLIENT_SHARE
    assert not places.refusal("2001:db8:0:1::1")
    assert not places.refusal("::ffff:192.0.2.1")


async def test_a_place_is_free_again_after_its_session() -> None:
    places, session = table(1), FakeSession("127.0.0.1")
    places.add(session)
    assert places.refusal("127.0.0.1") is SessionRefusal.SESSIONS
    places.remove(session)
    places.remove(session)
    assert not places.refusal("127.0.0.1")
    assert not places._clients


async def test_descriptors_limit_the_sessions() -> None:
    assert fill(table(2000, descriptors=2), "127.0.0.1") == (2, SessionRefusal.DESCRIPTORS)


async def test_the_log_has_one_line_a_minute_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "relay")
    times = iter([0.0, 1.0, 2.0, 59.0, 61.0])
    metrics = Metrics()
    reporter = LogAndMetricsReporter(metrics, MessageLog(addresses=False), lambda: next(times))
    for number, refusal in enumerate(
        [*[SessionRefusal.NETWORK] * 2, SessionRefusal.SESSIONS, *[SessionRefusal.NETWORK] * 2]
    ):
        reporter.session_refused(f"192.0.2.{number}", refusal)
    lines = [(record.fields["peer"], record.fields["key"], record.fields["sessions"]) for record in caplog.records]
    assert lines == [
        ("192.0.2.0", "listen.networks", 1),
        ("192.0.2.2", "limits.sessions", 1),
        ("192.0.2.4", "listen.networks", 3),
    ]
    assert metrics.sessions_refused[SessionRefusal.NETWORK]._value.get() == 4


async def test_each_refusal_is_counted_and_logged(peer: ScriptedPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "relay")
    async with servers.relay(peer.url, {"listen.networks": ["192.0.2.0/24"]}) as relay:
        assert await greeting(relay) == 554
        expect(relay, caplog, {"network": 1})
    async with servers.relay(peer.url, {"limits.sessions": 1}) as relay, await RawClient.open(relay.port):
        assert await greeting(relay) == 421
        expect(relay, caplog, {"sessions": 1})
    async with servers.relay(peer.url) as relay:
        await relay.service.drain()
        assert await greeting(relay) == 421
        expect(relay, caplog, {"draining": 1})


async def test_a_tls_client_hello_ends_the_session(peer: ScriptedPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "relay")
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x.test").do_handshake()
    async with servers.relay(peer.url) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.send_raw(hello.read())
            assert (await client.read_reply()).code == 421
            assert await client.read_reply() == GONE
        expect(relay, caplog, {"tls": 1})
        assert (await send(relay.port, b"a@x.test", [b"one@example.test"], b"hello")).ok


async def test_the_soft_limit_of_descriptors_is_raised(peer: ScriptedPeer) -> None:
    async with RelayProcess(upstream=peer.url, store="memory:", descriptors=(200, 900)) as relay:
        assert resource.prlimit(relay.pid, resource.RLIMIT_NOFILE) == (900, 900)


async def test_sessions_beyond_the_descriptors_receive_421(peer: ScriptedPeer) -> None:
    """With 64 descriptors eight sessions are admitted, seven of them from one client, and mail still flows."""
    async with RelayProcess(upstream=peer.url, descriptors=(64, 64)) as relay:
        clients = await asyncio.gather(*(RawClient.open(relay.port) for _ in range(80)))
        codes = Counter(client.greeting.code for client in clients)
        assert codes == {220: 7, 421: 73}
        admitted = next(client for client in clients if client.greeting.code == 220)
        assert await admitted.begin(b"a@x.test", b"one@example.test")
        assert (await admitted.content(b"hello")).code == 250
        counts = (await relay.metrics()).by_label("smtp_dedup_sessions_refused_total", "reason")
        assert counts["descriptors"] == 73
        await wait_logged(relay, "session refused")
        for client in clients:
            await client.close()


async def test_a_client_hears_421_even_if_no_descriptor_is_left(peer: ScriptedPeer) -> None:
    async with RelayProcess(upstream=peer.url, store="memory:", descriptors=(900, 900)) as relay:
        open_now = len(os.listdir(f"/proc/{relay.pid}/fd"))  # noqa: PTH208
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (open_now + 4, 900))
        clients = await asyncio.gather(*(RawClient.open(relay.port) for _ in range(10)))
        codes = Counter(client.greeting.code for client in clients)
        assert codes.keys() == {220, 421}
        assert codes[421] >= 5
        for client in clients:
            await client.close()
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (900, 900))
        assert (await send(relay.port, b"a@x.test", [b"one@example.test"], b"hello")).ok


async def greeting(relay: servers.Relay) -> int:
    async with await RawClient.open(relay.port) as client:
        return client.greeting.code


def expect(relay: servers.Relay, caplog: pytest.LogCaptureFixture, refused: dict[str, int]) -> None:
    counts = {item.reason: int(c._value.get()) for item, c in relay.service.metrics.sessions_refused.items()}
    assert {reason: count for reason, count in counts.items() if count} == refused
    [reason] = refused
    line = caplog.records[-1]
    assert line.getMessage() == "session refused"
    assert (line.fields["reason"], line.fields["peer"]) == (reason, "127.0.0.1")
    assert line.fields["key"].split(",")[0] in {"listen.networks", "limits.sessions", "listen.address", "limits.drain"}
