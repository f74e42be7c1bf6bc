"""Traces in Redis: the keys, a repeated batch, and a server that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts.redis_server import RedisServer, redis_servers
from parts.traces import AT, trace
from parts.waiting import block_until

from relay.core.errors import StoreError
from relay.core.trace import TraceQuery
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400.0
LIMITS = Limits(30 * DAY, 100 << 20)


@pytest.fixture(scope="module")
def only_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(only_server: RedisServer) -> RedisServer:
    only_server.flush()
    return only_server


def new_store(server: RedisServer, limits: Limits = LIMITS, timeout: float = 60.0) -> RedisTraceStore:
    return RedisTraceStore(redis_servers(server.url), limits, timeout=timeout, now=lambda: AT)


async def test_all_keys_expire_and_begin_as_those_of_the_claims(server: RedisServer) -> None:
    store = new_store(server)
    await store.append([trace(1)])
    await store.close()
    keys = server.keys()
    assert {key.rpartition(":")[0] for key in keys} >= {"smtp-dedup:{trace}", "smtp-dedup:{trace}:1"}
    assert all(0 < left <= 31 * DAY * 1000 for left in keys.values()), keys
    assert keys["smtp-dedup:{trace}:1:lines"] <= 30 * DAY * 1000


async def test_a_batch_that_is_repeated_is_stored_once(server: RedisServer) -> None:
    store, other = new_store(server), new_store(server)
    for _ in range(2):
        await store.append([trace(1), trace(2)])
        await store.append([trace(3)])
        await store.append([trace(3)])
        await other.append([trace(3)])
    found = await store.find(TraceQuery(), 100)
    assert len(found.traces) == 3, "of one id the newest is found"
    with server.client() as client:
        assert client.llen("smtp-dedup:{trace}:1:lines") == 5
    await store.close()
    await other.close()


async def test_the_bytes_in_redis_are_bounded(server: RedisServer) -> None:
    size = 1 << 20
    store = new_store(server, Limits(30 * DAY, size))
    for start in range(0, 20_000, 200):
        await store.append([trace(number) for number in range(start, start + 200)])
    await store.close()
    with server.client() as client:
        used = sum(client.memory_usage(key, samples=0) for key in client.scan_iter())
    assert size / 2 < used < 2 * size


async def test_a_server_that_does_not_answer_is_an_error_in_time(server: RedisServer) -> None:
    store = new_store(server, timeout=0.05)
    server.pause()
    try:
        with pytest.raises(StoreError, match=r"no answer within 0.05 s"):
            await store.append([trace(1)])
        with pytest.raises(StoreError, match=r"no answer within 0.05 s"):
            await store.find(TraceQuery(), 10)
    finally:
        server.resume()
    await store.close()


async def test_a_failure_closes_the_connection_of_searches_until_the_next_one(server: RedisServer) -> None:
    store = new_store(server)
    await store.append([trace(1)])
    assert (await store.find(TraceQuery(), 1)).traces == (trace(1),)
    with server.client() as client:
        connections = len(client.client_list())
        client.rename("smtp-dedup:{trace}:segments", "kept")
        client.set("smtp-dedup:{trace}:segments", "no hash")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.append([trace(2)])
        block_until(lambda: len(client.client_list()) == connections - 1, "the end of the connection of searches")
        client.rename("kept", "smtp-dedup:{trace}:segments")
    await store.append([trace(2)])
    assert (await store.find(TraceQuery(), 1)).traces == (trace(2),)
    await store.close()


async def test_what_no_relay_wrote_is_no_trace(server: RedisServer) -> None:
    store = new_store(server)
    await store.append([trace(1)])
    with server.client() as client:
        client.rpush("smtp-dedup:{trace}:1:lines", "x", "1\n[]\nx", "\n")
        client.hset(
            "smtp-dedup:{trace}:segments", mapping={"x": "1", "7": "1 2 3", "8": "x " * 6, "1": "5 1 1 0 9e9 1"}
        )
    page = await store.find(TraceQuery(), 100)
    assert page.traces == (trace(1),)
    await store.append([trace(2)])
    assert (await store.find(TraceQuery(), 1)).traces == (trace(2),)
    await store.close()
