"""Several relays on one store, a store that fails, and restarts of relay and store."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest
from parts.counted_relay import CountedRelay, StartCounted, addresses
from parts.faults import Step, say, wait
from parts.redis_server import RedisServer
from parts.waiting import until, until_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parts.client import Sent
    from parts.peer import ScriptedPeer
    from parts.postfix import Postfix

ONE = addresses(1)
FIFTY = addresses(50)
PATIENT = {"store.timeout": "20s"}
"""Settings for a store that does not fail, on a machine that may be busy."""
BOUND = 2.0
"""Seconds by which a failing store may delay a client."""


@pytest.fixture(params=["redis", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that several processes can share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/claims.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


async def two_relays(
    start_counted: StartCounted, upstream: str, store: str, **settings: object
) -> tuple[CountedRelay, CountedRelay]:
    """Starts two relays on one store."""
    given = PATIENT | {key.replace("__", "."): value for key, value in settings.items()}
    async with asyncio.TaskGroup() as group:
        relays = [group.create_task(start_counted(upstream=upstream, store=store, settings=given)) for _ in range(2)]
    one, other = (relay.result() for relay in relays)
    other.mail = one.mail
    return one, other


# Two relays on one store


async def test_two_relays_on_one_store_send_one_copy(
    peer: ScriptedPeer, start_counted: StartCounted, store: str
) -> None:
    one, other = await two_relays(start_counted, peer.url, store)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.send(FIFTY))
        await peer.wait_waiting(Step.DOT)
        others = [
            group.create_task(relay.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(6)
            for relay in (one, other)
        ]
        await peer.wait_for(lambda: resets.visits == 12, "all twins but one waiting")
        # No client of either relay receives 250 before the upstream accepts the first copy.
        assert not any(task.done() for task in [first, *others])
        gate.set()
    assert all(task.result().ok for task in [first, *others])
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await one.outcomes() == {"forwarded": 50, "suppressed": 50 * 6}
    assert await other.outcomes() == {"suppressed": 50 * 6}


async def test_recipient_lists_in_opposite_order_at_two_relays(
    peer: ScriptedPeer, start_counted: StartCounted, store: str
) -> None:
    one, other = await two_relays(start_counted, peer.url, store)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(relay.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(20)
            for relay in (one, other)
        ]
    assert all(task.result().ok for task in tasks)
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await one.outcomes() + await other.outcomes() == {"forwarded": 50, "suppressed": 50 * 39}


async def test_mailboxes_behind_a_real_postfix_get_one_copy(
    postfix: Postfix, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    one, other = await two_relays(start_counted, postfix.url, redis_server.url)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(relay.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(3)
            for relay in (one, other)
        ]
    assert all(task.result().ok for task in tasks)
    await postfix.wait_delivered(50)
    assert postfix.deliveries() == {recipient.decode(): 1 for recipient in FIFTY}


@pytest.mark.parametrize("killed", [False, True], ids=["refused", "killed"])
async def test_the_other_relay_takes_over(
    peer: ScriptedPeer, start_counted: StartCounted, store: str, killed: bool
) -> None:
    one, other = await two_relays(start_counted, peer.url, store, dedup__lease="1s" if killed else "30s")
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), say(b"452 4.3.1 Disk full"))
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        await one.send_unanswered(FIFTY)
        await peer.wait_waiting(Step.DOT)
        second = group.create_task(other.send(FIFTY))
        await peer.wait_for(lambda: resets.visits == 1 or peer.accepted, "the second twin waiting")
        # On a busy machine a lease of 1 s may have expired by now; a lease of 30 s has not.
        assert killed or not peer.accepted
        if killed:
            one.process.kill()
            await one.wait_ended()
        else:
            gate.set()
    assert second.result().ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await other.outcomes() == {"forwarded": 50}


async def test_a_lease_is_renewed_as_long_as_its_owner_works(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    one, other = await two_relays(start_counted, peer.url, redis_server.url, dedup__lease="3s")
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.send(ONE))
        await peer.wait_waiting(Step.DOT)
        # The server restarts empty, and the owner claims again before the other relay asks.
        await asyncio.to_thread(redis_server.restart)
        await until(lambda: any(value[:1] == b"h" for value in values(redis_server)), "the claim held again")
        second = group.create_task(other.send(ONE))
        await peer.wait_for(lambda: resets.visits == 1, "the second twin waiting")
        gate.set()
    assert first.result().ok
    assert second.result().ok
    assert peer.copies() == {ONE[0]: 1}


# Restarts and expiry


async def test_a_restart_forgets_nothing(peer: ScriptedPeer, start_counted: StartCounted, store: str) -> None:
    one, other = await two_relays(start_counted, peer.url, store)
    assert (await one.send(FIFTY)).ok
    one.process.terminate()
    await one.wait_drained()
    await one.process.start()
    repeat = await one.send(FIFTY)
    assert repeat.final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert (await other.send(FIFTY)).ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert (await one.process.metrics()).outcomes() == {"suppressed": 50}


async def test_a_copy_after_the_entry_has_expired_is_forwarded(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    one, other = await two_relays(start_counted, peer.url, redis_server.url)
    assert (await one.send(ONE)).ok
    assert (await other.send(addresses(1))).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    await shorten(redis_server, seconds=300)
    fresh = await start_counted(upstream=peer.url, store=redis_server.url, settings=PATIENT)
    fresh.mail = one.mail
    answer = await fresh.send(ONE)
    # Starting a relay takes some of the window.
    age = re.search(rb"duplicate, .*, first sent (\d+) s ago", answer.final.text)
    assert age, answer
    assert 300 <= int(age[1]) < 600
    await shorten(redis_server, seconds=301)
    fresh = await start_counted(upstream=peer.url, store=redis_server.url, settings=PATIENT)
    fresh.mail = one.mail
    assert (await fresh.send(ONE)).final.text.startswith(b"2.0.0 Ok: queued")
    assert peer.copies() == {ONE[0]: 2}


# A store that fails


async def test_without_a_store_mail_flows_and_twins_inside_the_relay_are_suppressed(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    redis_server.kill()
    one, other = await two_relays(start_counted, peer.url, redis_server.url, store__timeout="1s")
    await check_degraded(one)
    assert (await timed(one.send(FIFTY))).ok
    assert (await timed(one.send(FIFTY))).ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    await asyncio.to_thread(redis_server.start)
    await check_recovered(one, redis_server, 50)
    await until(lambda: "store is back" in other.process.stderr(), "the store back at the other relay")
    assert (await other.send(FIFTY)).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert peer.copies() == dict.fromkeys(FIFTY, 1)


@pytest.mark.parametrize(
    ("fail", "repair"),
    [(RedisServer.pause, RedisServer.resume), (RedisServer.kill, RedisServer.start)],
    ids=["hanging", "killed and restarted"],
)
async def test_a_store_that_fails_under_load_loses_no_mail_and_delays_little(
    peer: ScriptedPeer,
    start_counted: StartCounted,
    redis_server: RedisServer,
    fail: Callable[[RedisServer], None],
    repair: Callable[[RedisServer], None],
) -> None:
    one, other = await two_relays(start_counted, peer.url, redis_server.url, store__timeout="1s")
    everyone = addresses(60)
    late = addresses(1, first=500)

    async def client(recipient: bytes) -> None:
        # Twins at once, then a retry of both.
        for _ in range(2):
            twins = [timed(one.send([recipient, b"all@example.test"])) for _ in range(2)]
            assert all(sent.ok for sent in await asyncio.gather(*twins))

    async with asyncio.TaskGroup() as group:
        for number, recipient in enumerate(everyone):
            group.create_task(client(recipient))
            await peer.wait_accepted(number // 2)
            if number == 20:
                await asyncio.to_thread(fail, redis_server)
            if number == 40:
                await until(lambda: "store unavailable" in one.process.stderr(), "the relay without its store")
                await check_degraded(one)
                assert [(await timed(one.send(late))).ok for _ in range(2)] == [True, True]
                await asyncio.to_thread(repair, redis_server)
    expected = dict.fromkeys([*everyone, *late, b"all@example.test"], 1)
    assert peer.copies() == expected
    await check_recovered(one, redis_server, len(expected))
    await until_told(lambda: has_store(other), "the store back at the idle relay")
    for recipient in [*everyone, *late]:
        assert (await other.send([recipient, b"all@example.test"])).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert peer.copies() == expected


async def timed(sending: object) -> Sent:
    """Returns the replies of a sending. Fails if it takes longer than three times the bound (for a busy machine)."""
    begun = time.monotonic()
    sent: Sent = await sending  # type: ignore[misc]
    assert time.monotonic() - begun < 3 * BOUND
    return sent


async def check_degraded(relay: CountedRelay) -> None:
    metrics = await relay.process.metrics()
    assert metrics.value("smtp_dedup_store_up") == 0
    assert metrics.value("smtp_dedup_store_degraded") == 1
    ready = await relay.process.readyz()
    assert (ready["status_code"], ready["store"]) == (200, "degraded")


async def check_recovered(relay: CountedRelay, redis_server: RedisServer, count: int) -> None:
    """Waits until so many acceptances are in the store, and checks that the relay reports its store as up."""
    await until(lambda: sum(value[:1] == b"s" for value in values(redis_server)) >= count, "all written back")
    metrics = await relay.process.metrics()
    assert metrics.value("smtp_dedup_store_up") == 1
    assert metrics.value("smtp_dedup_store_degraded") == 0
    assert (await relay.process.readyz())["store"] == "up"


async def has_store(relay: CountedRelay) -> bool:
    return bool((await relay.process.readyz())["store"] == "up")


async def shorten(redis_server: RedisServer, seconds: int) -> None:
    """Shortens the remaining time of all keys in Redis, as if so many seconds had passed."""
    with redis_server.client() as client:
        for key in client.scan_iter():
            client.pexpire(key, client.pttl(key) - seconds * 1000)


def values(redis_server: RedisServer) -> list[bytes]:
    """Returns the claims and acceptances in the store."""
    with redis_server.client() as client:
        held = [client.get(key) for key in client.scan_iter("smtp-dedup:v*")]
    return [value for value in held if value]
