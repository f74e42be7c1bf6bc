"""Clients that name a recipient and stall: what they keep, and that others deliver meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient, send
from parts.upstream_delivery import MAIL, ONE, SENDER, TWO, code, deliver, offer, prepare, upstream
from parts.waiting import until

from relay.core.client import client_of
from relay.settings import Settings

if TYPE_CHECKING:
    from parts.peer import ScriptedPeer

    from relay.upstream.delivery import SmtpDelivery

MOST = 2
CONNECTIONS = 5


def holds(deliveries: list[SmtpDelivery]) -> list[bool]:
    return [bool(delivery._checkout and not delivery._checkout.checked_in) for delivery in deliveries]


async def test_a_client_keeps_a_few_connections_and_the_longest_silent_lose_theirs(peer: ScriptedPeer) -> None:
    """Also while nobody waits for one. Each message is delivered all the same, once."""
    async with upstream(peer.port, connections=CONNECTIONS, most_idle_of_client=MOST) as up:
        stalling = [up.begin(SENDER, "192.0.2.1") for _ in range(4)]
        for delivery in stalling:
            assert await offer(delivery, ONE, TWO) == [250, 250]
        await until(lambda: up.connections_in_use == MOST, "two connections")
        assert holds(stalling) == [False, False, True, True]
        for delivery in stalling:
            assert await prepare(delivery, ONE, TWO) == [250, 250]
            assert code(await delivery.send(b"", MAIL)) == 250
            await delivery.finish()
    assert peer.copies() == {ONE: 4, TWO: 4}


async def test_each_client_has_its_own_number(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, connections=CONNECTIONS, most_idle_of_client=MOST) as up:
        stalling = [up.begin(SENDER, client) for client in ("a", "a", "b", "b", "b")]
        for delivery in stalling:
            assert await offer(delivery, ONE) == [250]
        await until(lambda: up.connections_in_use == 4, "four connections")
        assert holds(stalling) == [True, True, False, True, True]
        for delivery in stalling:
            await delivery.finish()
        assert not up._pool._idle._of_client
        assert not up._pool._idle._since


@pytest.mark.parametrize(
    ("clients", "longest_idle"),
    [(["a"] * 30, 60.0), ([f"a{number}" for number in range(30)], 0.2)],
    ids=["one client", "many clients"],
)
async def test_others_deliver_while_clients_stall(peer: ScriptedPeer, clients: list[str], longest_idle: float) -> None:
    """30 transactions stall after RCPT, on 5 connections. Many clients keep all of them until others wait."""
    async with upstream(
        peer.port, connections=CONNECTIONS, most_idle_of_client=MOST, longest_idle_in_transaction=longest_idle
    ) as up:
        stalling = [up.begin(SENDER, client) for client in clients]
        offers = [asyncio.create_task(offer(delivery, ONE)) for delivery in stalling]
        async with asyncio.timeout(5):
            await asyncio.gather(*offers)
            for _ in range(10):
                assert code(await deliver(up, TWO)) == 250
        for delivery in stalling:
            await delivery.finish()
    assert peer.copies() == {TWO: 10}


async def test_a_stalled_client_leaves_room_in_the_whole_relay(peer: ScriptedPeer) -> None:
    """The default: 5 of 20. All clients are one address, as AVideo's are."""
    assert Settings().limits.client_upstream_connections == 5
    async with servers.relay(peer.url) as relay:
        stalled = [await RawClient.open(relay.port) for _ in range(60)]
        await asyncio.gather(*(client.begin(SENDER.reverse_path, ONE) for client in stalled))
        await until(lambda: relay.service.upstream.connections_in_use == 5, "five connections")
        for number in range(10):
            assert (await send(relay.port, SENDER.reverse_path, [TWO], b"mail %d" % number)).ok
        assert relay.service.metrics._upstream_steps["reclaimed"]._sum.get() > 0
        # A stalled client that goes on delivers too.
        assert (await stalled[0].content(b"Subject: late\r\n\r\n")).code == 250
        for client in stalled:
            await client.close()
    assert peer.copies() == {TWO: 10, ONE: 1}


@pytest.mark.parametrize(("peer_address", "client"), [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1")])
def test_an_address_is_one_client(peer_address: str, client: str) -> None:
    assert client_of(peer_address) == client


def test_an_ipv6_network_is_one_client() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff") != client_of("2001:db8:0:1::1")
