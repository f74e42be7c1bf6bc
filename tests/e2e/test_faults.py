"""Faults around the relay: a first copy that fails, clients that disconnect, and signals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts.client import GONE, RawClient, stuff
from parts.counted_relay import SENDER, CountedRelay, StartCounted, addresses
from parts.faults import Step, drop, say, wait
from parts.shared_relay import SharedRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parts.faults import Action
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

ONE = addresses(1)
TWO = addresses(2)


@pytest.fixture(scope="module")
def shared_relay() -> Iterator[SharedRelay]:
    with SharedRelay() as relay:
        yield relay


@pytest.fixture
async def peer(shared_relay: SharedRelay) -> AsyncIterator[ScriptedPeer]:
    """The upstream of the shared relay and of other relays."""
    async with shared_relay.peer() as server:
        yield server


def claims(redis_server: RedisServer) -> list[bytes]:
    """Returns the claims and acceptances in the store."""
    with redis_server.client() as client:
        return [client.get(key) for key in client.scan_iter("smtp-dedup:v*")]


# The first of two twins fails


@pytest.mark.parametrize(
    ("fault", "expected_reply", "outcome"),
    [
        ((Step.DOT, say(b"452 4.3.1 Disk full")), b"452 4.3.1 Disk full", "deferred"),
        ((Step.DOT, say(b"421 4.3.2 Shutting down")), b"451 4.3.2 Shutting down", "deferred"),
        ((Step.DOT, say(b"550 5.7.1 Looks like spam")), b"550 5.7.1 Looks like spam", "refused"),
        ((Step.DATA, say(b"451 4.3.0 Try later")), b"451 4.3.0 Try later", "deferred"),
        ((Step.DOT, drop()), b"451 4.4.2 The upstream", "uncertain"),
    ],
    ids=["4yz", "421", "5yz", "4yz before the dot", "dropped after the dot"],
)
async def test_the_second_twin_is_forwarded_when_the_first_fails(
    peer: ScriptedPeer, relay: CountedRelay, fault: tuple[Step, Action], expected_reply: bytes, outcome: str
) -> None:
    await check_that_the_second_takes_over(peer, relay, *fault, expected_reply=expected_reply)
    assert await relay.outcomes() == {outcome: 2, "forwarded": 2}


async def test_the_second_twin_is_forwarded_when_the_first_loses_its_connection_before_the_dot(
    peer: ScriptedPeer, start_counted: StartCounted
) -> None:
    # With patience the first would connect again and be forwarded. Without it the relay still repeats once.
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"upstream.patience": 0})
    await check_that_the_second_takes_over(
        peer, relay, Step.DATA, drop(), expected_reply=b"451 4.4.1 The upstream", times=2
    )
    assert await relay.outcomes() == {"deferred": 2, "forwarded": 2}


async def check_that_the_second_takes_over(
    peer: ScriptedPeer, relay: CountedRelay, step: Step, failure: Action, *, expected_reply: bytes, times: int = 1
) -> None:
    gate = asyncio.Event()
    peer.on(step, wait(gate), failure, times=times)
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(TWO))
        await peer.wait_waiting(step)
        second = group.create_task(relay.send(TWO[::-1]))
        await peer.wait_for(lambda: resets.visits == 1, "the second twin waiting")
        gate.set()
    answer = first.result().final
    assert b"%d %b" % (answer.code, answer.text[: len(expected_reply) - 4]) == expected_reply
    assert second.result().ok
    assert peer.copies() == dict.fromkeys(TWO, 1)


@pytest.mark.parametrize(("on_uncertain", "copies"), [("release", 2), ("keep", 1)])
async def test_the_first_twin_has_an_unclear_outcome(
    peer: ScriptedPeer, start_counted: StartCounted, on_uncertain: str, copies: int
) -> None:
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"dedup.on_uncertain": on_uncertain})
    gate = asyncio.Event()
    peer.on(Step.REPLY, wait(gate), drop())
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(ONE))
        await peer.wait_waiting(Step.REPLY)
        second = group.create_task(relay.send(ONE))
        await peer.wait_for(lambda: resets.visits == 1, "the second twin waiting")
        gate.set()
    assert first.result().final.code == 451
    assert first.result().final.text.startswith(b"4.4.2 ")
    assert second.result().ok
    assert (await relay.send(ONE)).ok
    assert peer.copies() == {ONE[0]: copies}
    assert await relay.outcomes() == (
        {"uncertain": 1, "forwarded": 1, "suppressed": 1} if copies == 2 else {"uncertain": 1, "suppressed": 2}
    )


async def test_a_connection_lost_before_the_dot_costs_the_client_nothing(
    peer: ScriptedPeer, relay: CountedRelay
) -> None:
    peer.on(Step.DATA, drop())
    assert (await relay.send(TWO)).ok
    assert peer.copies() == dict.fromkeys(TWO, 1)
    assert await relay.outcomes() == {"forwarded": 2}


async def test_some_are_accepted_and_a_retry_sends_only_the_rest(peer: ScriptedPeer, relay: CountedRelay) -> None:
    assert (await relay.send(ONE)).ok
    # The upstream accepts both at first, and refuses one when the relay opens a narrower transaction, there and on the
    # fresh connection on which the relay tries once more.
    fickle = b"fickle@example.test"
    peer.on(Step.RCPT, say(b"450 4.2.1 Mailbox busy"), matching=fickle, skip=1, times=2)
    first = await relay.send([*TWO, fickle])
    assert (first.final.code, first.final.text) == (450, b"4.2.1 Mailbox busy")
    assert (await relay.send([*TWO, fickle])).ok
    assert peer.copies() == {**dict.fromkeys(TWO, 1), fickle: 1}
    assert await relay.outcomes() == {"forwarded": 3, "suppressed": 3, "deferred": 1}


# The client disconnects


@pytest.mark.parametrize("leave", [RawClient.reset, RawClient.close], ids=["RST", "FIN"])
async def test_a_client_that_left_after_its_dot_is_recognised_when_it_retries(
    peer: ScriptedPeer, relay: CountedRelay, leave: object
) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    resets = peer.on(Step.RSET, times=0)
    client = await relay.send_unanswered(TWO)
    await peer.wait_waiting(Step.DOT)
    await leave(client)  # type: ignore[operator]
    async with asyncio.TaskGroup() as group:
        retry = group.create_task(relay.send(TWO))
        await peer.wait_for(lambda: resets.visits == 1, "the retry waiting")
        gate.set()
    assert retry.result().ok
    assert (await relay.send(TWO)).ok
    assert peer.copies() == dict.fromkeys(TWO, 1)
    assert await relay.outcomes() == {"forwarded": 2, "suppressed": 4}


async def test_a_waiter_whose_client_has_disconnected_takes_over(peer: ScriptedPeer, relay: CountedRelay) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), say(b"452 4.3.1 Disk full"))
    resets = peer.on(Step.RSET, times=0)
    first = await relay.send_unanswered(ONE)
    await peer.wait_waiting(Step.DOT)
    second = await relay.send_unanswered(ONE)
    await peer.wait_for(lambda: resets.visits == 1, "the second waiting")
    await second.reset()
    gate.set()
    assert (await first.read_reply()).code == 452
    await peer.wait_accepted(1)
    assert await relay.outcomes() == {"deferred": 1, "forwarded": 1}


async def test_a_client_that_disconnects_before_its_dot_leaves_no_claim(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    relay = await start_counted(upstream=peer.url, store=redis_server.url)
    client = await relay.begin(TWO)
    await client.send_raw(stuff(relay.mail)[:-3])
    await client.reset()
    async with await RawClient.open(relay.process.port) as client:
        await client.begin(SENDER, *TWO)
    await peer.wait_for(lambda: len(peer.commands(b"RSET")) == 2, "both transactions given up")
    assert await relay.outcomes() == {}
    assert not peer.received
    assert claims(redis_server) == []
    assert (await relay.send(TWO)).ok
    assert peer.copies() == dict.fromkeys(TWO, 1)
    assert await relay.outcomes() == {"forwarded": 2}


async def test_a_client_that_half_closes_after_the_dot_receives_the_reply(
    peer: ScriptedPeer, relay: CountedRelay
) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    client = await relay.send_unanswered(ONE)
    await client.half_close()
    await peer.wait_waiting(Step.DOT)
    gate.set()
    assert (await client.read_reply()).code == 250
    assert await client.read_reply() == GONE
    assert peer.copies() == {ONE[0]: 1}


# Signals


async def test_a_drain_finishes_open_transactions_and_refuses_new_ones(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    relay = await start_counted(upstream=peer.url, store=redis_server.url)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    gated = await relay.send_unanswered(ONE)
    await peer.wait_waiting(Step.DOT)
    resets = peer.on(Step.RSET, times=0)
    waiting = await relay.send_unanswered(ONE)
    await peer.wait_for(lambda: resets.visits == 1, "the second waiting")
    begun = await relay.begin(addresses(1, first=2))
    idle = await relay.connect()

    relay.process.terminate()
    farewell = await idle.read_reply()
    assert (farewell.code, farewell.text[:6]) == (421, b"4.3.2 ")
    assert await idle.read_reply() == GONE
    newcomer = await relay.connect()
    assert (newcomer.greeting.code, newcomer.greeting.text[:6]) == (421, b"4.3.2 ")
    assert (await relay.process.readyz())["status_code"] == 503
    await relay.finish(begun, addresses(1, first=2))
    assert (await begun.read_reply()).code == 250
    refusal = await begun.command(b"MAIL FROM:<>")
    assert (refusal.code, refusal.text[:6]) == (421, b"4.3.2 ")

    gate.set()
    assert [(await client.read_reply()).code for client in (gated, waiting)] == [250, 250]
    await relay.wait_drained()
    assert peer.copies() == dict.fromkeys(TWO, 1)
    assert [held for held in claims(redis_server) if not held.startswith(b"s")] == []
    assert len(claims(redis_server)) == 2


async def test_a_drain_that_takes_too_long_is_cut_short(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    relay = await start_counted(upstream=peer.url, store=redis_server.url, settings={"limits.drain": "2s"})
    peer.on(Step.DOT, wait(asyncio.Event()))
    resets = peer.on(Step.RSET, times=0)
    first = await relay.send_unanswered(ONE)
    await peer.wait_waiting(Step.DOT)
    second = await relay.send_unanswered(ONE)
    await peer.wait_for(lambda: resets.visits == 1, "the second waiting")
    relay.process.terminate()
    answer = await second.read_reply()
    assert (answer.code, answer.text[:6]) == (451, b"4.4.5 ")
    assert (await first.read_reply()).code == 421
    assert await relay.wait_ended() == 1
    assert claims(redis_server) == []


async def test_a_second_signal_ends_at_once(peer: ScriptedPeer, start_counted: StartCounted) -> None:
    relay = await start_counted("--store", "memory:", upstream=peer.url, settings={"limits.drain": "60s"})
    peer.on(Step.DOT, wait(asyncio.Event()))
    first = await relay.send_unanswered(ONE)
    await peer.wait_waiting(Step.DOT)
    idle = await relay.connect()
    relay.process.terminate()
    assert (await idle.read_reply()).code == 421
    relay.process.terminate()
    assert await relay.wait_ended(seconds=15) == 1
    assert await first.read_reply() == GONE
