"""The memory of all messages is bounded: who waits, who is refused, and that all of it is given back."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient, stuff
from parts.faults import Step, wait
from parts.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from parts.dialog_servers import Relay
    from parts.peer import ScriptedPeer

MIB = 1 << 20
SENDER, ONE, TWO, THREE = b"sender@example.test", b"one@example.test", b"two@example.test", b"three@example.test"
NO_MEMORY = 452


@pytest.fixture
async def relay(peer: ScriptedPeer) -> AsyncIterator[Relay]:
    async with servers.relay(peer.url, {"limits.memory": "1MiB", "upstream.connections": 1}) as started:
        yield started
        await until(lambda: started.service._memory.used == 0, "all memory given back")


def used(relay: Relay) -> int:
    return relay.service._memory.used


def shorten_wait(relay: Relay) -> None:
    table = relay.service.listener.table
    table.limits = dataclasses.replace(table.limits, memory_wait=0.02)


def mail(size: int) -> bytes:
    return b"Subject: x\r\n\r\n" + b"x" * 76 + b"\r\n" + (b"y" * 76 + b"\r\n") * (size // 78 - 1)


async def begin(client: RawClient, recipient: bytes, size: int = 0) -> None:
    await client.command(b"EHLO client.example.test")
    answer = await client.command(b"MAIL FROM:<%b>" % SENDER + (b" SIZE=%d" % size if size else b""))
    assert answer.code == 250, answer
    assert (await client.command(b"RCPT TO:<%b>" % recipient)).code == 250


async def start_upload(client: RawClient, recipient: bytes, size: int) -> None:
    await begin(client, recipient, size)
    assert (await client.command(b"DATA")).code == 354


async def test_a_size_over_the_budget_is_never_offered_or_accepted(relay: Relay) -> None:
    async with await RawClient.open(relay.port) as client:
        assert b"SIZE 1048576" in (await client.command(b"EHLO client.example.test")).lines
        assert (await client.command(b"MAIL FROM:<%b> SIZE=%d" % (SENDER, MIB + 1))).code == 552
        await client.begin(SENDER, ONE)
        assert (await client.content(mail(2 * MIB))).code == 552


@pytest.mark.parametrize(("upstream", "offered"), [(b"SIZE", b"SIZE 0"), (b"SIZE 99999999", b"SIZE 1048576")])
async def test_without_a_limit_of_the_relay_the_budget_is_the_limit(
    peer: ScriptedPeer, upstream: bytes, offered: bytes
) -> None:
    settings = {"limits.memory": "1MiB", "limits.message_size": "0"}
    peer.extensions = (upstream,)
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        assert offered in (await client.command(b"EHLO client.example.test")).lines
        assert (await client.command(b"MAIL FROM:<%b> SIZE=%d" % (SENDER, MIB + 1))).code == 552
        await client.begin(SENDER, ONE)
        assert (await client.content(mail(2 * MIB))).code == 552


async def test_data_waits_for_room_and_then_hears_354(relay: Relay) -> None:
    async with await RawClient.open(relay.port) as first, await RawClient.open(relay.port) as second:
        await start_upload(first, ONE, MIB)
        await begin(second, TWO, 600_000)
        waiting = asyncio.ensure_future(second.command(b"DATA"))
        await until(lambda: relay.service._memory._waiting, "the second one waits")
        await first.send_raw(stuff(mail(100_000)))
        assert (await first.read_reply()).code == 250
        assert (await waiting).code == 354
        assert used(relay) == 600_000
        await second.send_raw(stuff(mail(600_000)))
        assert (await second.read_reply()).code == 250


async def test_data_without_room_hears_452_before_354_and_can_be_sent_later(relay: Relay, peer: ScriptedPeer) -> None:
    shorten_wait(relay)
    async with await RawClient.open(relay.port) as first, await RawClient.open(relay.port) as second:
        await start_upload(first, ONE, MIB)
        await begin(second, TWO, 600_000)
        answer = await second.command(b"DATA")
        assert answer.code == NO_MEMORY
        assert answer.text.startswith(b"4.3.1 ")
        await first.send_raw(stuff(mail(100_000)))
        assert (await first.read_reply()).code == 250
        assert (await second.content(mail(500_000))).code == 250
    assert [message.recipients for message in peer.accepted] == [(ONE,), (TWO,)]
    assert relay.service.metrics.memory_refused._value.get() == 1


async def test_a_session_that_waits_for_room_holds_no_upstream_connection(relay: Relay, peer: ScriptedPeer) -> None:
    # There is one connection, and the first message, which has memory, needs it to make room for the second.
    async with await RawClient.open(relay.port) as first, await RawClient.open(relay.port) as second:
        await start_upload(first, ONE, MIB)
        await begin(second, TWO, 600_000)  # takes the connection over while the first one uploads
        waiting = asyncio.ensure_future(second.command(b"DATA"))
        await until(lambda: relay.service._memory._waiting, "the second one waits")
        await peer.wait_for(lambda: len(peer.commands(b"RSET")) == 2, "both have left the connection")
        await first.send_raw(stuff(mail(100_000)))
        assert (await first.read_reply()).code == 250
        assert (await waiting).code == 354
        await second.send_raw(stuff(mail(600_000)))
        assert (await second.read_reply()).code == 250
    assert [message.recipients for message in peer.accepted] == [(ONE,), (TWO,)]


@pytest.mark.parametrize("declared", [0, 100])
async def test_an_upload_that_outgrows_the_budget_is_read_to_its_dot_and_refused(relay: Relay, declared: int) -> None:
    async with await RawClient.open(relay.port) as first, await RawClient.open(relay.port) as second:
        await start_upload(first, ONE, 700_000)
        await start_upload(second, TWO, declared)
        await second.send_raw(stuff(mail(600_000)) + b"NOOP\r\n")
        answer = await second.read_reply()
        assert answer.code == NO_MEMORY
        assert answer.text.startswith(b"4.3.1 ")
        assert (await second.read_reply()).code == 250, "NOOP"
        assert used(relay) == 700_000
        assert relay.service.metrics.memory_refused._value.get() == 1
        await start_upload(second, TWO, 0)
        await second.send_raw(stuff(mail(300_000)))
        assert (await second.read_reply()).code == 250
        await first.send_raw(stuff(mail(100_000)))
        assert (await first.read_reply()).code == 250


async def test_half_uploads_never_wait_for_each_other(relay: Relay) -> None:
    async with await RawClient.open(relay.port) as first, await RawClient.open(relay.port) as second:
        for client, recipient in ((first, ONE), (second, TWO)):
            await start_upload(client, recipient, 0)
            await client.send_raw(mail(500_000))
        await until(lambda: used(relay) > 990_000, "two halves")
        for client in (first, second):
            await client.send_raw(stuff(b"y" * 400_000))
        answers = [(await client.read_reply()).code for client in (first, second)]
        assert sorted(answers) == [250, NO_MEMORY]


async def test_memory_is_held_while_a_message_is_delivered_and_its_client_is_gone(
    relay: Relay, peer: ScriptedPeer
) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    client = await RawClient.open(relay.port)
    await start_upload(client, ONE, 600_000)
    await client.send_raw(stuff(mail(600_000)))
    await peer.wait_for(lambda: peer.received, "the message upstream")
    await client.reset()
    await until(lambda: not len(relay.service.listener.table), "the session gone")
    assert used(relay) == 600_000
    gate.set()
    await until(lambda: not used(relay), "the memory given back")
    assert len(peer.accepted) == 1


@pytest.mark.parametrize("when", ["before the content", "in the content"])
async def test_a_client_that_leaves_before_its_dot_gives_its_memory_back(relay: Relay, when: str) -> None:
    client = await RawClient.open(relay.port)
    await start_upload(client, ONE, 600_000)
    if when == "in the content":
        await client.send_raw(mail(100_000))
    await client.reset()
    await until(lambda: not used(relay), "the memory given back")


async def test_waiting_twins_are_counted(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with (
        servers.relay(peer.url) as relay,
        await RawClient.open(relay.port) as first,
        await RawClient.open(relay.port) as second,
    ):
        for client in (first, second):
            await start_upload(client, ONE, 0)
            await client.send_raw(stuff(mail(100)))
            await peer.wait_for(lambda: peer.received, "the first copy upstream")
        await until(lambda: b"smtp_dedup_waiting_twins 1.0" in relay.service.metrics.exposition("")[0], "a twin")
        gate.set()
        assert [(await client.read_reply()).code for client in (first, second)] == [250, 250]
        assert b"smtp_dedup_waiting_twins 0.0" in relay.service.metrics.exposition("")[0]
