"""What only Redis Sentinel has: the choice of the master, and failover."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.counted_relay import addresses
from parts.ports import HOST, free_port
from parts.redis_scripted import bulk, listening, saying
from parts.redis_sentinel import SERVICE, SentinelSet, shared_sentinels
from parts.redis_server import redis_store
from parts.waiting import until

from relay.core.claim import Claim, Confirm, Fingerprint, Held, Original, Sent, Token, Won
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from parts.counted_relay import CountedRelay, StartCounted
    from parts.peer import ScriptedPeer
    from parts.redis_scripted import Serve

    from relay.claims.redis.store import RedisStore

KEY = Fingerprint("v1:" + "3f" * 32)
MINE, THEIRS = Token("mine"), Token("theirs")
CLAIM = Claim(KEY, MINE, 30, 600)
ORIGINAL = Original("rec-1", "<1@example.org>", "250 ok", 1.0)


@pytest.fixture
def sentinels() -> SentinelSet:
    shared = shared_sentinels()
    shared.ready()
    return shared


@pytest_asyncio.fixture
async def store(sentinels: SentinelSet) -> AsyncIterator[RedisStore]:
    store = redis_store(sentinels.url)
    yield store
    await store.close()


def url(sentinels: SentinelSet, ports: list[int], service: str = SERVICE) -> str:
    return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in ports)}/{service}"


@contextlib.contextmanager
def stopped(sentinels: SentinelSet, count: int) -> Iterator[None]:
    """Stops some sentinels, so that they hang."""
    pids = [sentinel.process.pid for sentinel in sentinels.sentinels[:count]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# Finding the master


async def test_a_sentinel_that_hangs_or_is_gone_costs_nothing(sentinels: SentinelSet) -> None:
    ports = [sentinel.port for sentinel in sentinels.sentinels]
    with stopped(sentinels, 1):
        async with asyncio.timeout(10):  # that of one look is 12
            store = redis_store(sentinels.url, timeout=30)
            assert await store.execute([CLAIM]) == [Won()]
            await store.close()
    store = redis_store(url(sentinels, [free_port(), *ports[1:]]))
    assert await store.execute([CLAIM]) == [Won()]
    await store.close()


async def test_one_sentinel_of_three_is_enough(sentinels: SentinelSet) -> None:
    with stopped(sentinels, 2):
        store = redis_store(sentinels.url)
        assert await store.execute([CLAIM]) == [Won()]
        await store.close()


async def test_the_server_that_most_sentinels_name_is_the_master() -> None:
    asked: list[int] = []
    ports: list[int] = []

    def server(number: int) -> Serve:
        def reply(command: Sequence[bytes]) -> bytes:
            match command[0]:
                case b"ROLE":
                    asked.append(number)
                    return b"*1\r\n" + bulk(b"master")
                case b"TIME":
                    return b"*2\r\n" + bulk(b"9") + bulk(b"0")
                case b"EVAL":
                    return b":1\r\n"
            return b"+OK\r\n"

        return saying(reply)

    def sentinel(number: int) -> Serve:
        return saying(
            lambda command: (
                b"*2\r\n" + bulk(HOST.encode()) + bulk(b"%d" % ports[number]) if b"SENTINEL" in command else b"+OK\r\n"
            )
        )

    async with contextlib.AsyncExitStack() as stack:
        ports += [await stack.enter_async_context(listening(server(number))) for number in range(2)]
        votes = [await stack.enter_async_context(listening(sentinel(number))) for number in (0, 1, 0, 1, 1)]
        store = redis_store(f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in votes)}/{SERVICE}")
        assert await store.execute([CLAIM]) == [Won()]
        assert asked == [1]
        await store.close()


async def test_no_sentinel_at_all(sentinels: SentinelSet) -> None:
    ports = sorted(free_port() for _ in range(2))
    store = redis_store(url(sentinels, ports))
    with pytest.raises(StoreError) as caught:
        await store.execute([CLAIM])
    assert str(caught.value).startswith(f"redis {SERVICE} of the sentinels {HOST}:{ports[0]},{HOST}:{ports[1]}: ")
    assert f"sentinel {HOST}:{ports[0]}: connection refused" in str(caught.value)
    silent = redis_store(sentinels.url)
    with (
        stopped(sentinels, 3),
        pytest.raises(StoreError, match=r"sentinel 127\.0\.0\.1:[0-9]+: no answer within 0\.4 s"),
    ):
        await silent.open()


async def test_a_service_that_no_sentinel_knows(sentinels: SentinelSet) -> None:
    for place, words in (
        (url(sentinels, [sentinels.sentinels[0].port], "nobody"), 'the sentinels know no service "nobody"'),
        (url(sentinels, [sentinels.master().port]), "unknown command"),
    ):
        with pytest.raises(StoreError, match=words):
            await redis_store(place).open()


async def test_a_server_that_is_named_but_no_master_is_not_asked(store: RedisStore, sentinels: SentinelSet) -> None:
    master = sentinels.master()
    [replica] = [server for server in sentinels.servers if server is not master]
    with master.client() as client:
        client.replicaof(HOST, str(replica.port))
        try:
            with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{master.port}: it is no master"):
                await store.execute([CLAIM])
        finally:
            client.replicaof("NO", "ONE")
    assert await store.execute([CLAIM]) == [Won()]


async def test_passwords_of_servers_and_of_sentinels_are_two(sentinels: SentinelSet) -> None:
    master = sentinels.master()
    with contextlib.ExitStack() as stack:
        for server in sentinels.servers:
            client = stack.enter_context(server.client())
            client.execute_command("ACL", "SETUSER", "relay", "on", ">sesame", "~*", "+@all")
            stack.callback(client.execute_command, "ACL", "DELUSER", "relay")
        for sentinel in sentinels.sentinels:
            client = stack.enter_context(sentinel.client())
            client.execute_command("ACL", "SETUSER", "default", "resetpass", ">open%word")
            stack.callback(client.execute_command, "ACL", "SETUSER", "default", "nopass")
        given = sentinels.url.replace("//", "//relay:sesame@") + "?db=1&sentinel_password=open%25word"
        store = redis_store(given)
        assert await store.execute([CLAIM]) == [Won()]
        await store.close()
        for wrong in (given.replace("sesame", "simsim"), given.replace("open", "simsim"), given.partition("?")[0]):
            with pytest.raises(StoreError) as caught:
                await redis_store(wrong).open()
            assert "simsim" not in str(caught.value)
        with master.client() as client:
            assert client.info("keyspace")["db1"]["keys"] == 1


# When it changes


async def test_a_master_that_was_demoted_is_left(store: RedisStore, sentinels: SentinelSet) -> None:
    """The connection stays open: only the refusal shows it."""
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    master = sentinels.master()
    with master.client() as client:
        client.replicaof(HOST, "1")
        try:
            with pytest.raises(StoreError, match="read only replica"):
                await store.execute([CLAIM])
            with pytest.raises(StoreError, match="it is no master"):
                await store.execute([CLAIM])  # the sentinels are asked again
        finally:
            client.replicaof("NO", "ONE")
    assert isinstance((await store.execute([CLAIM]))[0], Sent)


async def test_a_failover_is_noticed_once_and_what_was_replicated_is_there(
    store: RedisStore, sentinels: SentinelSet
) -> None:
    held = Fingerprint("v1:held")
    await store.execute([Confirm(KEY, ORIGINAL, 600), Claim(held, MINE, 30, 600)])
    old = sentinels.master()
    with old.client() as client:
        assert client.wait(1, 5000) == 1
    await asyncio.to_thread(old.kill)
    await asyncio.to_thread(sentinels.wait_taken_over, old)
    assert store.restarts == 0
    for _ in range(2):
        told = await store.execute([CLAIM, Claim(held, THEIRS, 30, 600)])
        assert [type(answer) for answer in told] == [Sent, Held]
        assert store.restarts == 1


async def test_two_relays_through_a_failover_under_load(
    peer: ScriptedPeer, start_counted: StartCounted, sentinels: SentinelSet
) -> None:
    one = await start_counted(upstream=peer.url, store=sentinels.url)
    other = await start_counted(upstream=peer.url, store=sentinels.url)
    other.mail = one.mail
    everyone = addresses(120)
    heard: list[bool] = []
    ended: set[bytes] = set()
    # Whom both relays send to while one of them is without the store may get two copies; before and after nobody does.
    spared: set[bytes] = set()

    async def twins(recipient: bytes) -> None:
        async with asyncio.TaskGroup() as group:
            told = [group.create_task(relay.send([recipient])) for relay in (one, one, other)]
        heard.extend(task.result().ok for task in told)
        ended.add(recipient)

    async with asyncio.TaskGroup() as group:
        for number, recipient in enumerate(everyone):
            if number == 40:
                await until(lambda: len(ended) >= 20, "some that have ended")
                old = sentinels.master()
                spared |= ended
                await asyncio.to_thread(old.kill)
            if number == 80:
                await asyncio.to_thread(sentinels.wait_taken_over, old)
                await both_back(one, other)
                spared |= set(everyone[80:])
            group.create_task(twins(recipient))
            await peer.wait_accepted(max(0, number - 1))
    assert heard == [True] * 3 * len(everyone)
    copies = peer.copies()
    assert set(copies) == set(everyone), "0 lost"
    assert [copies[recipient] for recipient in spared] == [1] * len(spared)
    assert max(copies.values()) <= 2, "each relay keeps its own twins apart"
    # What the failover lost of it, and what was never written, the relays have written back.
    await until(lambda: sent_in(sentinels) == len(everyone), "all written back")
    for relay in (one, other):
        assert [(await relay.send([recipient])).ok for recipient in everyone] == [True] * len(everyone)
    assert peer.copies() == copies


async def both_back(*relays: CountedRelay) -> None:
    for relay in relays:
        await until(
            lambda relay=relay: (
                (said := relay.process.stderr()).count("store is back") >= said.count("store unavailable") > 0
            ),
            "the store back",
        )


async def test_one_relay_sends_no_duplicate_when_the_master_is_killed(
    peer: ScriptedPeer, start_counted: StartCounted, sentinels: SentinelSet
) -> None:
    relay = await start_counted(upstream=peer.url, store=sentinels.url)
    everyone = addresses(60)

    async with asyncio.TaskGroup() as group:
        for number, recipient in enumerate(everyone):
            group.create_task(relay.send_twins_twice([recipient, b"all@example.test"]))
            await peer.wait_accepted(number // 2)
            if number == 20:
                old = sentinels.master()
                await asyncio.to_thread(old.kill)
            if number == 40:
                await asyncio.to_thread(sentinels.wait_taken_over, old)
                await both_back(relay)
    assert peer.copies() == dict.fromkeys([*everyone, b"all@example.test"], 1)
    await until(lambda: sent_in(sentinels) == len(everyone) + 1, "all written back")


def sent_in(sentinels: SentinelSet) -> int:
    """Returns the number of acceptances on the master."""
    with sentinels.master().client() as client:
        return sum((client.get(key) or b"")[:1] == b"s" for key in client.scan_iter("smtp-dedup:v*"))
