"""Several relays on one store, a store that fails, and what is remembered over restarts."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest
from parts.desk import Desk, OpenDesk, people
from parts.faults import Step, say, wait
from parts.redis_server import RedisServer
from parts.waiting import until, until_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parts.client import Sent
    from parts.peer import ScriptedPeer
    from parts.postfix import Postfix

ONE = people(1)
FIFTY = people(50)
PATIENT = {"store.timeout": "20s"}
"""For a store that does not fail, on a machine that may be busy."""
BOUND = 2.0
"""Seconds that a failing store may cost a client."""


@pytest.fixture(params=["redis", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that several processes can share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/claims.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


async def two_desks(open_desk: OpenDesk, upstream: str, store: str, **settings: object) -> tuple[Desk, Desk]:
    """Open two relays on one store."""
    given = PATIENT | {key.replace("__", "."): value for key, value in settings.items()}
    async with asyncio.TaskGroup() as group:
        desks = [group.create_task(open_desk(upstream=upstream, store=store, settings=given)) for _ in range(2)]
    one, other = (desk.result() for desk in desks)
    other.mail = one.mail
    return one, other


# Two relays on one store


async def test_two_relays_on_one_store_send_one_copy(peer: ScriptedPeer, open_desk: OpenDesk, store: str) -> None:
    one, other = await two_desks(open_desk, peer.url, store)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    given_up = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.send(FIFTY))
        await peer.wait_waiting(Step.DOT)
        others = [
            group.create_task(desk.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(6)
            for desk in (one, other)
        ]
        await peer.wait_for(lambda: given_up.visits == 12, "all twins but one waiting")
        # At the other relay too nobody hears 250 before the first copy is accepted.
        assert not any(task.done() for task in [first, *others])
        gate.set()
    assert all(task.result().ok for task in [first, *others])
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await one.outcomes() == {"forwarded": 50, "suppressed": 50 * 6}
    assert await other.outcomes() == {"suppressed": 50 * 6}


async def test_lists_that_cross_at_two_relays(peer: ScriptedPeer, open_desk: OpenDesk, store: str) -> None:
    one, other = await two_desks(open_desk, peer.url, store)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(desk.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(20)
            for desk in (one, other)
        ]
    assert all(task.result().ok for task in tasks)
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await one.outcomes() + await other.outcomes() == {"forwarded": 50, "suppressed": 50 * 39}


async def test_mailboxes_behind_a_real_postfix_get_one_copy(
    postfix: Postfix, open_desk: OpenDesk, redis_server: RedisServer
) -> None:
    one, other = await two_desks(open_desk, postfix.url, redis_server.url)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(desk.send(FIFTY[:: (-1) ** number], pipelined=True))
            for number in range(3)
            for desk in (one, other)
        ]
    assert all(task.result().ok for task in tasks)
    await postfix.wait_delivered(50)
    assert postfix.deliveries() == {recipient.decode(): 1 for recipient in FIFTY}


@pytest.mark.parametrize("killed", [False, True], ids=["refused", "killed"])
async def test_the_other_relay_takes_over(peer: ScriptedPeer, open_desk: OpenDesk, store: str, killed: bool) -> None:
    one, other = await two_desks(open_desk, peer.url, store, dedup__lease="1s" if killed else "30s")
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), say(b"452 4.3.1 Disk full"))
    given_up = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        await one.offer(FIFTY)
        await peer.wait_waiting(Step.DOT)
        second = group.create_task(other.send(FIFTY))
        await peer.wait_for(lambda: given_up.visits == 1 or peer.accepted, "the second twin waiting")
        # On a starved machine a lease of 1 s may have run out by now. One of 30 s has not.
        assert killed or not peer.accepted
        if killed:
            one.relay.kill()
            await one.ended()
        else:
            gate.set()
    assert second.result().ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert await other.outcomes() == {"forwarded": 50}


async def test_a_lease_is_renewed_as_long_as_its_owner_works(
    peer: ScriptedPeer, open_desk: OpenDesk, redis_server: RedisServer
) -> None:
    one, other = await two_desks(open_desk, peer.url, redis_server.url, dedup__lease="3s")
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    given_up = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.send(ONE))
        await peer.wait_waiting(Step.DOT)
        # The server comes back empty, and the claim is taken again by its owner before anybody else asks for it.
        await asyncio.to_thread(redis_server.restart)
        await until(lambda: any(value[:1] == b"h" for value in values(redis_server)), "the claim held again")
        second = group.create_task(other.send(ONE))
        await peer.wait_for(lambda: given_up.visits == 1, "the second twin waiting")
        gate.set()
    assert first.result().ok
    assert second.result().ok
    assert peer.copies() == {ONE[0]: 1}


# What is remembered


async def test_a_restart_forgets_nothing(peer: ScriptedPeer, open_desk: OpenDesk, store: str) -> None:
    one, other = await two_desks(open_desk, peer.url, store)
    assert (await one.send(FIFTY)).ok
    one.relay.terminate()
    await one.drained()
    await one.relay.start()
    repeat = await one.send(FIFTY)
    assert repeat.final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert (await other.send(FIFTY)).ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    assert (await one.relay.metrics()).outcomes() == {"suppressed": 50}


async def test_what_a_store_has_forgotten_in_time_is_forwarded(
    peer: ScriptedPeer, open_desk: OpenDesk, redis_server: RedisServer
) -> None:
    one, other = await two_desks(open_desk, peer.url, redis_server.url)
    assert (await one.send(ONE)).ok
    assert (await other.send(people(1))).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    await shorten(redis_server, seconds=300)
    fresh = await open_desk(upstream=peer.url, store=redis_server.url, settings=PATIENT)
    fresh.mail = one.mail
    answer = await fresh.send(ONE)
    # To start a relay took some of the window too.
    age = re.search(rb"duplicate, .*, first sent (\d+) s ago", answer.final.text)
    assert age, answer
    assert 300 <= int(age[1]) < 600
    await shorten(redis_server, seconds=301)
    fresh = await open_desk(upstream=peer.url, store=redis_server.url, settings=PATIENT)
    fresh.mail = one.mail
    assert (await fresh.send(ONE)).final.text.startswith(b"2.0.0 Ok: queued")
    assert peer.copies() == {ONE[0]: 2}


# A store that fails


async def test_without_a_store_mail_flows_and_twins_inside_the_relay_are_suppressed(
    peer: ScriptedPeer, open_desk: OpenDesk, redis_server: RedisServer
) -> None:
    redis_server.kill()
    one, other = await two_desks(open_desk, peer.url, redis_server.url, store__timeout="1s")
    await see_degraded(one)
    assert (await timed(one.send(FIFTY))).ok
    assert (await timed(one.send(FIFTY))).ok
    assert peer.copies() == dict.fromkeys(FIFTY, 1)
    await asyncio.to_thread(redis_server.start)
    await see_recovered(one, redis_server, 50)
    await until(lambda: "store is back" in other.relay.stderr(), "the store back at the other relay")
    assert (await other.send(FIFTY)).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert peer.copies() == dict.fromkeys(FIFTY, 1)


@pytest.mark.parametrize(
    ("fail", "mend"),
    [(RedisServer.pause, RedisServer.resume), (RedisServer.kill, RedisServer.start)],
    ids=["hanging", "killed and restarted"],
)
async def test_a_store_that_fails_under_load_costs_no_mail_and_little_time(
    peer: ScriptedPeer,
    open_desk: OpenDesk,
    redis_server: RedisServer,
    fail: Callable[[RedisServer], None],
    mend: Callable[[RedisServer], None],
) -> None:
    one, other = await two_desks(open_desk, peer.url, redis_server.url, store__timeout="1s")
    everyone = people(60)
    late = people(1, first=500)

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
                await until(lambda: "store unavailable" in one.relay.stderr(), "the relay without its store")
                await see_degraded(one)
                assert [(await timed(one.send(late))).ok for _ in range(2)] == [True, True]
                await asyncio.to_thread(mend, redis_server)
    expected = dict.fromkeys([*everyone, *late, b"all@example.test"], 1)
    assert peer.copies() == expected
    await see_recovered(one, redis_server, len(expected))
    await until_told(lambda: has_store(other), "the store back at the idle relay")
    for recipient in [*everyone, *late]:
        assert (await other.send([recipient, b"all@example.test"])).final.text.startswith(b"2.0.0 Ok: duplicate, ")
    assert peer.copies() == expected


async def timed(sending: object) -> Sent:
    """Give what a client heard, no later than the bound, three times over for a noisy machine."""
    begun = time.monotonic()
    sent: Sent = await sending  # type: ignore[misc]
    assert time.monotonic() - begun < 3 * BOUND
    return sent


async def see_degraded(desk: Desk) -> None:
    metrics = await desk.relay.metrics()
    assert metrics.value("smtp_dedup_store_up") == 0
    assert metrics.value("smtp_dedup_store_degraded") == 1
    ready = await desk.relay.readyz()
    assert (ready["status_code"], ready["store"]) == (200, "degraded")


async def see_recovered(desk: Desk, redis_server: RedisServer, count: int) -> None:
    """Wait until so many acceptances stand in the store, and see that the relay says so too."""
    await until(lambda: sum(value[:1] == b"s" for value in values(redis_server)) >= count, "all written back")
    metrics = await desk.relay.metrics()
    assert metrics.value("smtp_dedup_store_up") == 1
    assert metrics.value("smtp_dedup_store_degraded") == 0
    assert (await desk.relay.readyz())["store"] == "up"


async def has_store(desk: Desk) -> bool:
    return bool((await desk.relay.readyz())["store"] == "up")


async def shorten(redis_server: RedisServer, seconds: int) -> None:
    """Let time pass for what Redis keeps."""
    with redis_server.client() as client:
        for key in client.scan_iter():
            client.pexpire(key, client.pttl(key) - seconds * 1000)


def values(redis_server: RedisServer) -> list[bytes]:
    """Give what the store holds for fingerprints."""
    with redis_server.client() as client:
        held = [client.get(key) for key in client.scan_iter("smtp-dedup:v*")]
    return [value for value in held if value]
