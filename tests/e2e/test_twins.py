"""Repeats through real relay processes: each recipient gets one copy, and each client receives 250."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest
from parts.avideo import Sending, notification, recovery, two_factor, verification
from parts.counted_relay import CountedRelay, StartCounted, addresses
from parts.faults import Step, say, wait
from parts.shared_relay import SharedRelay
from parts.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parts.peer import ScriptedPeer

ONE = addresses(1)


@pytest.fixture(scope="module")
def shared_relay() -> Iterator[SharedRelay]:
    with SharedRelay({"upstream.connections": 100}) as relay:
        yield relay


@pytest.fixture
async def peer(shared_relay: SharedRelay) -> AsyncIterator[ScriptedPeer]:
    """The upstream of the shared relay and of other relays."""
    async with shared_relay.peer() as server:
        yield server


def mails(relay: CountedRelay, count: int) -> list[bytes]:
    """Returns one notification as so many processes of AVideo send it: Date, Message-ID and boundary differ."""
    return [notification(video=f"v{relay.number}", sending=Sending(seed=str(number))) for number in range(count)]


# Simultaneous


@pytest.mark.parametrize("count", [2, 6, 100])
async def test_twins_that_wait_for_one_first_copy(peer: ScriptedPeer, relay: CountedRelay, count: int) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    resets = peer.on(Step.RSET, times=0)
    fifty = addresses(50)
    async with asyncio.TaskGroup() as group:
        twins = [
            group.create_task(relay.send(fifty[:: (-1) ** number], mail, pipelined=True))
            for number, mail in enumerate(mails(relay, count))
        ]
        # A message that waits for another's copy returns its upstream connection.
        await peer.wait_for(lambda: resets.visits == count - 1, "all twins but one waiting")
        await peer.wait_waiting(Step.DOT)
        assert not any(twin.done() for twin in twins)
        gate.set()
    assert all(twin.result().ok for twin in twins)
    assert peer.copies() == dict.fromkeys(fifty, 1)
    assert len(peer.accepted) == 1
    assert await relay.outcomes() == {"forwarded": 50, "suppressed": 50 * (count - 1)}


@pytest.mark.parametrize("count", [2, 6, 100])
async def test_twins_whose_lists_overlap(peer: ScriptedPeer, relay: CountedRelay, count: int) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    shared = addresses(49)
    unique = addresses(count, first=101)
    async with asyncio.TaskGroup() as group:
        twins = [
            group.create_task(relay.send([*shared, unique[number]][:: (-1) ** number], mail, pipelined=True))
            for number, mail in enumerate(mails(relay, count))
        ]
        # Each has one unique recipient, and delivers to it before it waits for the others.
        await peer.wait_waiting(Step.DOT, count)
        gate.set()
    assert all(twin.result().ok for twin in twins)
    assert peer.copies() == dict.fromkeys([*shared, *unique], 1)
    assert await relay.outcomes() == {"forwarded": 49 + count, "suppressed": 49 * (count - 1)}


async def test_500_twins_over_10_connections_all_get_a_reply(peer: ScriptedPeer, start_counted: StartCounted) -> None:
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"upstream.connections": 10})
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    resets = peer.on(Step.RSET, times=0)
    three = addresses(3)
    async with asyncio.TaskGroup() as group:
        twins = [group.create_task(relay.send(three, pipelined=True)) for _ in range(500)]
        # The first copy keeps one connection; 499 go through the other nine.
        await peer.wait_for(lambda: resets.visits == 499, "499 twins waiting")
        await peer.wait_waiting(Step.DOT)
        gate.set()
    assert all(twin.result().ok for twin in twins)
    assert peer.copies() == dict.fromkeys(three, 1)
    assert len(peer.sessions) <= 10 + 499 // 50  # a connection is retired after 50 RSETs
    assert await relay.outcomes() == {"forwarded": 3, "suppressed": 3 * 499}


async def test_one_waiter_after_the_other_takes_over_until_one_succeeds(
    peer: ScriptedPeer, relay: CountedRelay
) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), say(b"452 4.3.1 Disk full"), times=3)
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        twins = [group.create_task(relay.send(ONE)) for _ in range(10)]
        await peer.wait_for(lambda: resets.visits == 9, "nine twins waiting")
        await peer.wait_waiting(Step.DOT)
        gate.set()
    assert sorted(twin.result().final.code for twin in twins) == [250] * 7 + [452] * 3
    assert peer.copies() == {ONE[0]: 1}
    assert await relay.outcomes() == {"forwarded": 1, "suppressed": 6, "deferred": 3}


async def test_a_wait_ends_with_451_when_the_first_copy_takes_too_long(
    peer: ScriptedPeer, start_counted: StartCounted
) -> None:
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"dedup.wait": "0.3s"})
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(ONE))
        await peer.wait_waiting(Step.DOT)
        second = await relay.send([*ONE, b"other@example.test"])
        assert second.final.code == 451
        assert second.final.text.startswith(b"4.4.5 ")
        gate.set()
    assert first.result().ok
    assert (await relay.send([*ONE, b"other@example.test"])).ok
    assert peer.copies() == {ONE[0]: 1, b"other@example.test": 1}
    assert await relay.outcomes() == {"forwarded": 2, "suppressed": 2, "deferred": 1}


# One after the other


async def test_a_repeat_gets_its_own_reply_and_is_forwarded_after_the_window(
    peer: ScriptedPeer, start_counted: StartCounted
) -> None:
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"dedup.window": "3s"})
    first = await relay.send(ONE)
    assert first.final.text.startswith(b"2.0.0 Ok: queued as ")
    replied_at = time.monotonic()
    begun: list[float] = []
    repeats = []
    async with asyncio.timeout(LONGEST):
        while len(peer.accepted) == 1:
            begun.append(time.monotonic())
            repeats.append(await relay.send(ONE))
    for repeat in repeats[:-1]:
        assert re.fullmatch(rb"2\.0\.0 Ok: duplicate, record \w+, first sent [0-3] s ago", repeat.final.text)
    assert len(repeats) > 1
    assert repeats[-1].final.text.startswith(b"2.0.0 Ok: queued as ")
    # The window begins with the acceptance, and repeats do not lengthen it.
    assert peer.accepted[1].at - peer.accepted[0].at > 2.99
    assert begun[-2] < replied_at + 3
    assert await relay.outcomes() == {"forwarded": 2, "suppressed": len(repeats) - 1}


async def test_without_a_window_everything_is_forwarded(peer: ScriptedPeer, start_counted: StartCounted) -> None:
    relay = await start_counted("--store", "memory:", "--window", "0", upstream=peer.url)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(ONE))
        await peer.wait_waiting(Step.DOT)
        assert (await relay.send(ONE)).ok
        gate.set()
    assert first.result().ok
    assert peer.copies() == {ONE[0]: 2}
    assert await relay.outcomes() == {"forwarded": 2}


async def test_observing_forwards_all_counts_repeats_and_never_waits(
    peer: ScriptedPeer, start_counted: StartCounted
) -> None:
    relay = await start_counted("--store", "memory:", "--observe", upstream=peer.url)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(ONE))
        await peer.wait_waiting(Step.DOT)
        assert (await relay.send(ONE)).ok
        assert not first.done()
        gate.set()
    assert first.result().ok
    assert (await relay.send([*ONE, b"other@example.test"])).ok
    assert peer.copies() == {ONE[0]: 3, b"other@example.test": 1}
    assert await relay.outcomes() == {"forwarded": 2, "would_suppress": 2}


# Never suppressed


@pytest.mark.parametrize(
    "mail",
    [recovery("t0ken"), verification("c0de"), two_factor("t0ken")],
    ids=["recovery", "verification", "two-factor"],
)
async def test_mails_with_a_unique_link_are_forwarded_each_time(
    peer: ScriptedPeer, relay: CountedRelay, mail: bytes
) -> None:
    exempt = (await relay.process.metrics()).value("smtp_dedup_exempt_messages_total")
    assert [(await relay.send(ONE, mail)).ok for _ in range(2)] == [True, True]
    assert peer.copies() == {ONE[0]: 2}
    assert (await relay.process.metrics()).value("smtp_dedup_exempt_messages_total") == exempt + 2


async def test_bounces_and_messages_in_a_loop_are_forwarded_each_time(peer: ScriptedPeer, relay: CountedRelay) -> None:
    for _ in range(2):
        assert (await relay.send(ONE, sender=b"")).ok
    assert peer.copies() == {ONE[0]: 2}
    # As the upstream would return it to the relay, with our Received field first.
    assert (await relay.send(addresses(1, first=2), relay.mail)).ok
    returned = peer.accepted[-1].content
    assert returned.endswith(relay.mail)
    assert returned.startswith(b"Received: ")
    for _ in range(2):
        assert (await relay.send(addresses(1, first=2), returned)).ok
    assert peer.copies()[addresses(1, first=2)[0]] == 3
    foreign = b"Received: from elsewhere by another.example.test;\r\n\tSun, 1 Mar 2026 10:57:00 +0000\r\n" + relay.mail
    for _ in range(2):
        assert (await relay.send(addresses(1, first=3), foreign)).ok
    assert peer.copies()[addresses(1, first=3)[0]] == 1


async def test_a_message_with_100_hops_is_refused(peer: ScriptedPeer, relay: CountedRelay) -> None:
    hop = b"Received: from a by b; Sun, 1 Mar 2026 10:57:00 +0000\r\n"
    sent = await relay.send(addresses(2), hop * 101 + relay.mail)
    assert sent.final.code == 554
    assert sent.final.text.startswith(b"5.4.6 ")
    assert not peer.received
    assert (await relay.send(addresses(2), hop * 99 + relay.mail)).ok
    assert await relay.outcomes() == {"refused": 2, "forwarded": 2}
