"""Rules with `repeats = "consecutive"` through real relay processes, counted at the upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts.alerts import RULE, alert, firing, resolved
from parts.counted_relay import CountedRelay, StartCounted, addresses
from parts.faults import Step, say, wait
from parts.logged import wait_messages

if TYPE_CHECKING:
    from pathlib import Path

    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

ONE, TWO = addresses(1), addresses(2)
INTERRUPTED = "another mail of this sender came in between"


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """A settings file with a consecutive rule."""
    file = tmp_path / "relay.toml"
    file.write_text(RULE)
    return str(file)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/claims.db"


@pytest.fixture
async def two(peer: ScriptedPeer, start_counted: StartCounted, rules: str, store: str) -> list[CountedRelay]:
    """Two relays on one store; with the store in memory, one relay twice."""
    given = {"store.timeout": "20s"}
    count = 1 if store == "memory:" else 2
    relays = [await start_counted("-c", rules, upstream=peer.url, store=store, settings=given) for _ in range(count)]
    return [relays[0], relays[-1]]


async def copies(peer: ScriptedPeer, relay: CountedRelay, *mails: bytes, to: list[bytes] = ONE) -> list[int]:
    """Sends the mails one after the other. Returns how many copies the upstream accepted of each."""
    counts = []
    for mail in mails:
        before = peer.copies().total()
        assert (await relay.send(to, mail)).ok
        counts.append(peer.copies().total() - before)
    return counts


async def test_a_state_that_returns_is_delivered_again(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    one, other = two
    assert await copies(peer, one, firing(), resolved(), firing()) == [1, 1, 1]
    assert await copies(peer, other, firing(), resolved(), resolved(), firing(), firing()) == [0, 1, 0, 1, 0]
    assert await copies(peer, one, firing()) == [0]
    lines = await wait_messages(one.process, 4)
    assert [line.get("not_suppressed") for line in lines[:3]] == [None, None, INTERRUPTED]
    metrics = await one.process.metrics()
    assert metrics.value("smtp_dedup_interrupted_repeats_total", rule="states") == (1 if one is not other else 3)


async def test_other_recipients_and_senders_do_not_come_in_between(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    one, other = two
    assert await copies(peer, one, firing(), to=TWO) == [2]
    assert await copies(peer, other, resolved(), to=TWO[1:]) == [1]
    assert await copies(peer, other, alert("RESOLVED", "Other <other@example.test>")) == [1]
    assert await copies(peer, one, firing(), to=TWO) == [1], "only the second one had another mail in between"
    assert await copies(peer, other, firing(), to=TWO) == [0]


async def test_simultaneous_copies_are_sent_once(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    assert await copies(peer, two[0], firing(), resolved()) == [1, 1]
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    resets = peer.on(Step.RSET, times=0)
    async with asyncio.TaskGroup() as group:
        twins = [group.create_task(relay.send(ONE, firing())) for _ in range(5) for relay in two]
        await peer.wait_waiting(Step.DOT)
        await peer.wait_for(lambda: resets.visits == 9, "all twins but one waiting")
        gate.set()
    assert all(twin.result().ok for twin in twins)
    assert len(peer.accepted) == 3


async def test_a_retry_after_a_refusal_is_forwarded(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    one, other = two
    assert await copies(peer, one, firing(), resolved()) == [1, 1]
    peer.on(Step.DOT, say(b"452 4.3.1 Disk full"))
    assert (await one.send(ONE, firing())).final.code == 452
    assert await copies(peer, other, firing(), firing()) == [1, 0]


async def test_a_mail_that_was_overtaken_is_the_latest_one(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    one, other = two
    assert await copies(peer, one, firing()) == [1]
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(one.send(ONE, resolved()))
        await peer.wait_waiting(Step.DOT)
        assert await copies(peer, other, firing()) == [1], "RESOLVED is in flight"
        gate.set()
    assert slow.result().ok
    assert await copies(peer, other, firing(), firing()) == [1, 0]


async def test_concurrent_states_are_never_lost(peer: ScriptedPeer, two: list[CountedRelay]) -> None:
    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            sent = [
                group.create_task(relay.send(ONE, mail)) for relay in two for mail in (firing(), resolved(), firing())
            ]
        assert all(task.result().ok for task in sent)
        await copies(peer, two[0], resolved())
        assert await copies(peer, two[1], firing(), resolved(), firing(), firing()) == [1, 1, 1, 0]
