"""What a Redis Cluster adds: nodes that fail one by one, slots that move, and answers in no order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.counted_relay import addresses
from parts.ports import HOST, free_port
from parts.redis_cluster import RedisCluster, shared_cluster
from parts.redis_scripted import bulk, listening, saying
from parts.redis_server import redis_store
from parts.waiting import until, until_told
from redis.crc import key_slot

from relay.core.claim import (
    AskGeneration,
    Claim,
    Confirm,
    Fingerprint,
    Generation,
    Held,
    Original,
    Peek,
    Token,
    Unknown,
    Won,
)
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from parts.counted_relay import StartCounted
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

    from relay.claims.redis.store import RedisStore
    from relay.core.claim import Answer

MINE, THEIRS = Token("mine"), Token("theirs")
ORIGINAL = Original("rec-1", "<1@example.org>", "250 ok", 1.0)
KEYS = [Fingerprint(f"v1:{number:064x}") for number in range(60)]


@pytest.fixture
def cluster() -> RedisCluster:
    cluster = shared_cluster()
    cluster.ready()
    return cluster


@pytest_asyncio.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    store = redis_store(cluster.url)
    await store.open()
    yield store
    await store.close()


def name(key: str) -> str:
    return f"smtp-dedup:{key}"


def claims(token: Token = MINE, keys: Sequence[Fingerprint] = KEYS) -> list[Claim]:
    return [Claim(key, token, 30, 600) for key in keys]


def kinds(answers: Sequence[Answer]) -> set[type]:
    return {Unknown if isinstance(answer, Unknown) else type(answer) for answer in answers}


def by_node(cluster: RedisCluster) -> dict[int, list[Fingerprint]]:
    """Returns the keys by the port of their node."""
    ports = {key: cluster.node_of(name(key)).port for key in KEYS}
    return {node.port: [key for key in KEYS if ports[key] == node.port] for node in cluster.nodes}


# Nodes that fail


async def test_only_the_keys_of_a_node_that_is_gone_are_unknown(store: RedisStore, cluster: RedisCluster) -> None:
    where = by_node(cluster)
    gone, *others = cluster.nodes
    assert await store.execute(claims()) == [Won()] * len(KEYS)
    gone.kill()
    for _ in range(3):
        answers = dict(zip(KEYS, await store.execute(claims(THEIRS)), strict=True))
        assert kinds([answers[key] for key in where[gone.port]]) == {Unknown}
        assert kinds([answers[key] for node in others for key in where[node.port]]) == {Held}
    refused = answers[where[gone.port][0]]
    assert isinstance(refused, Unknown)
    assert refused.reason == f"redis at {HOST}:{gone.port}: connection refused"
    alone = await store.execute(claims(keys=where[gone.port]))
    assert kinds(alone) == {Unknown}, "the others answer, so the store is not down"
    gone.start()
    await until_told(lambda: all_answered(store), "the node is asked again")


async def test_a_node_that_is_away_from_the_start_costs_only_its_own_keys(cluster: RedisCluster) -> None:
    where = by_node(cluster)
    gone, *others = cluster.nodes
    gone.kill()
    store = redis_store(cluster.url)
    answers = dict(zip(KEYS, await store.execute(claims()), strict=True))
    assert kinds([answers[key] for key in where[gone.port]]) == {Unknown}
    assert kinds([answers[key] for node in others for key in where[node.port]]) == {Won}
    await store.close()


async def all_answered(store: RedisStore) -> bool:
    return Unknown not in kinds(await store.execute(claims()))


async def test_a_node_that_hangs_delays_the_others_once_a_second(store: RedisStore, cluster: RedisCluster) -> None:
    where = by_node(cluster)
    hanging, *others = cluster.nodes
    await store.execute(claims())
    hanging.pause()
    begun = time.monotonic()
    answers = dict(zip(KEYS, await store.execute(claims(THEIRS)), strict=True))
    assert kinds([answers[key] for key in where[hanging.port]]) == {Unknown}
    assert kinds([answers[key] for node in others for key in where[node.port]]) == {Held}
    assert 0.3 < time.monotonic() - begun < 0.9, "inside the guard's limit"
    begun = time.monotonic()
    for _ in range(20):
        await store.execute(claims(THEIRS))
        await store.open()
    assert time.monotonic() - begun < 4, "each for itself they would cost 16 s"
    hanging.resume()
    await until_told(lambda: all_answered(store), "the node is asked again")


async def test_without_any_node_the_store_is_down(store: RedisStore, cluster: RedisCluster) -> None:
    await store.execute(claims())
    for node in cluster.nodes:
        node.kill()
    for ask in (lambda: store.execute(claims()), store.identity, store.open, lambda: store.forget(lambda _: True)):
        with pytest.raises(StoreError, match=r"^redis cluster at 127\.0\.0\.1:.*: connection refused"):
            await ask()
    for node in cluster.nodes:
        node.start()
    await until_told(lambda: opens(store), "the cluster answers")


async def opens(store: RedisStore) -> bool:
    try:
        await store.open()
        return await all_answered(store)
    except StoreError:
        return False


async def test_any_one_node_is_enough_to_find_the_others(cluster: RedisCluster) -> None:
    url = f"redis+cluster://{HOST}:{free_port()},{HOST}:{cluster.nodes[2].port}"
    store = redis_store(url)
    assert await store.execute(claims()) == [Won()] * len(KEYS)
    await store.close()


async def test_a_node_that_was_restarted_is_noticed_once(store: RedisStore, cluster: RedisCluster) -> None:
    await store.execute(claims())
    cluster.nodes[1].restart()
    for _ in range(2):
        await store.open()
        assert store.restarts == 1


class ScriptedNode:
    """A node that replies what the test wants about itself and the cluster."""

    def __init__(self, epoch: int = 1, state: str = "ok") -> None:
        self.epoch, self.state = epoch, state
        self.master = 0
        self.life = 1
        self.ends = False

    def __call__(self, command: Sequence[bytes]) -> bytes:
        if self.ends:
            self.ends = False
            return b""
        told = {
            b"TIME": b"*2\r\n" + bulk(b"9") + bulk(b"0"),
            b"INFO": bulk(b"run_id:%d" % self.life),
            b"SLOTS": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n" + bulk(HOST.encode()) + b":%d\r\n" % self.master,
            b"COMMAND": b"*0\r\n",
            b"CLUSTER": bulk(f"cluster_state:{self.state}\ncluster_current_epoch:{self.epoch}".encode()),
            b"EVAL": b":1\r\n" if self.epoch == 1 else b"-MOVED 1 %s:%d\r\n" % (HOST.encode(), self.master),
        }
        return told.get(b"SLOTS" if b"SLOTS" in command else command[0], b"+OK\r\n")


async def test_a_master_that_another_has_replaced_is_noticed_once() -> None:
    """It may have been a failover; also of one that was restarted before."""
    node = ScriptedNode()
    async with listening(saying(node)) as one, listening(saying(node)) as other:
        node.master = one
        store = redis_store(f"redis+cluster://{HOST}:{one},{HOST}:{other}")
        assert await store.execute(claims()) == [Won()] * len(KEYS)
        node.ends, node.life = True, 2
        await store.open()
        assert store.restarts == 1
        node.epoch, node.master = 2, other
        await store.execute(claims())
        await until(lambda: store.restarts != 1, "the new map of the slots")
        changed = store.restarts
        await store.open()
        assert store.restarts == changed
        await store.close()


async def test_of_nodes_that_disagree_the_latest_that_serves_is_believed() -> None:
    nodes = [ScriptedNode(2), ScriptedNode(1), ScriptedNode(3, "fail")]
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(listening(saying(node))) for node in nodes]
        for node, port in zip(nodes, ports, strict=True):
            node.master = port
        for seeds in (ports, ports[::-1]):
            store = redis_store(f"redis+cluster://{','.join(f'{HOST}:{port}' for port in seeds)}")
            assert [server.name for server in await store.survey()] == [f"{HOST}:{ports[0]}"]
            await store.close()


async def test_an_identity_once_heard_outlives_its_node(store: RedisStore, cluster: RedisCluster) -> None:
    identity = await store.identity()
    cluster.node_of("smtp-dedup:identity").kill()
    assert await store.identity() == identity
    fresh = redis_store(cluster.url)
    with pytest.raises(StoreError, match=r"no identity .*connection refused"):
        await fresh.identity()
    await fresh.close()


async def test_forgetting_without_a_node_is_refused(store: RedisStore, cluster: RedisCluster) -> None:
    await store.execute([Confirm(key, ORIGINAL, 600) for key in KEYS])
    generation = cluster.node_of("smtp-dedup:generation")
    next(node for node in cluster.nodes if node is not generation).kill()
    with pytest.raises(StoreError, match="connection refused"):
        await store.forget(lambda _: True)
    assert await store.execute([AskGeneration()]) == [Generation("")]


async def test_one_server_and_a_cluster_are_distinguished(cluster: RedisCluster, redis_server: RedisServer) -> None:
    for url, remedy in (
        (f"redis+cluster://{HOST}:{redis_server.port}", "cluster support disabled"),
        (f"redis://{HOST}:{cluster.nodes[0].port}", r"belongs to a cluster; write redis\+cluster://"),
    ):
        store = redis_store(url)
        with pytest.raises(StoreError, match=remedy):
            await store.execute(claims())
        await store.close()


async def test_a_password_opens_all_nodes(cluster: RedisCluster) -> None:
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            client = stack.enter_context(node.client())
            client.config_set("requirepass", "sesame")
            client.connection_pool.connection_kwargs["password"] = "sesame"
            stack.callback(client.config_set, "requirepass", "")
        store = redis_store(cluster.url.replace("//", "//:sesame@"))
        assert await store.execute(claims()) == [Won()] * len(KEYS)
        await store.close()
        store = redis_store(cluster.url.replace("//", "//:simsim@"))
        with pytest.raises(StoreError, match="invalid username-password pair") as caught:
            await store.execute(claims())
        assert "simsim" not in str(caught.value)
        await store.close()


# Slots that move


async def test_a_slot_is_followed_while_it_moves_and_after(store: RedisStore, cluster: RedisCluster) -> None:
    key = KEYS[0]
    slot = key_slot(name(key).encode())
    # Of the same slot, and not there yet.
    fresh = [Fingerprint(f"{number}{{{name(key)}}}") for number in range(4)]
    source = cluster.node_of(name(key))
    target = next(node for node in cluster.nodes if node is not source)
    assert {key_slot(name(other).encode()) for other in fresh} == {slot}
    await store.execute(claims(keys=[key]))
    cluster.begin_moving(slot, source, target)
    try:
        assert kinds(await store.execute(claims(THEIRS, [key]))) == {Held}, "it is where it was"
        assert kinds(await store.execute(claims(MINE, [fresh[0]]))) == {Won}, "asked of the new node (ASK)"
        cluster.move_keys(slot, source, target)
        mixed = await store.execute([*claims(THEIRS), *claims(THEIRS, fresh[:2]), AskGeneration()])
        assert [type(answer) for answer in (mixed[0], *mixed[len(KEYS) :])] == [Held, Held, Won, Generation]
        assert Unknown not in kinds(mixed)
        assert await store.forget(lambda _: True) == 0
    finally:
        cluster.end_moving(slot, target)
    assert await store.execute(claims(MINE, [key, fresh[2]])) == [Won(), Won()], "followed to the new node (MOVED)"
    assert len(target.keys()) >= 3

    async def not_sent_on() -> bool:
        before = moves(source)
        assert isinstance((await store.execute([Peek(key, 600)]))[0], Held)
        return moves(source) == before

    await until_told(not_sent_on, "the new map of the slots")


def moves(node: RedisServer) -> int:
    """Returns how often a node has replied that another one serves the slot."""
    with node.client() as client:
        return int(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])


async def test_what_moves_while_it_is_looked_for_is_forgotten(store: RedisStore, cluster: RedisCluster) -> None:
    await store.execute([Confirm(key, ORIGINAL, 600) for key in KEYS])
    last = max(cluster.nodes, key=lambda node: node.port)
    first = min(cluster.nodes, key=lambda node: node.port)
    moving = next(key for key in KEYS if cluster.node_of(name(key)) is last)
    slot = key_slot(name(moving).encode())
    seen: set[Fingerprint] = set()
    async for entry in store.sent():
        if not seen:  # the first node has been scanned, the last one not yet
            cluster.begin_moving(slot, last, first)
            cluster.move_keys(slot, last, first)
            cluster.end_moving(slot, first)
        seen.add(entry.key)
    assert seen == set(KEYS)


# In which order


async def test_no_answer_is_older_than_a_generation_that_is_new(cluster: RedisCluster) -> None:
    """One node answers with its claim; then that is forgotten; then the other node answers with the new generation."""
    generation = cluster.node_of("smtp-dedup:generation")
    key = next(key for key in KEYS if cluster.node_of(name(key)) is not generation)
    holder = cluster.node_of(name(key))
    store = redis_store(cluster.url, timeout=20)
    await store.execute([AskGeneration(), Confirm(key, ORIGINAL, 600)])
    reader, writer = await asyncio.open_connection(HOST, generation.port)
    writer.write(b"PING\r\n")
    await reader.readline()
    with holder.client() as client:
        client.config_resetstat()
        generation.pause()
        writer.write(b"SET smtp-dedup:generation 0123456789abcdef PX 100000\r\n")
        asking = asyncio.create_task(store.execute([AskGeneration(), *claims(THEIRS, [key])]))
        await until(lambda: client.info("commandstats").get("cmdstat_eval"), "the claim answered")
        client.delete(name(key))
    generation.resume()
    assert await asking == [Generation("0123456789abcdef"), Won()]
    writer.close()
    await writer.wait_closed()
    await store.close()


async def test_the_usual_batch_takes_one_round_trip(store: RedisStore, cluster: RedisCluster) -> None:
    await store.execute([AskGeneration()])
    before = evals(cluster)
    for _ in range(5):
        await store.execute([AskGeneration(), *claims()])
    assert evals(cluster) - before == 5 * len(KEYS)


def evals(cluster: RedisCluster) -> int:
    total = 0
    for node in cluster.nodes:
        with node.client() as client:
            total += client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    return total


async def test_old_records_that_have_no_node_cost_no_claim(store: RedisStore, cluster: RedisCluster) -> None:
    records = cluster.node_of("smtp-dedup:records")
    where = by_node(cluster)
    records.kill()
    answers = await store.execute(claims())
    assert sum(answer == Won() for answer in answers) == len(KEYS) - len(where[records.port])
    with pytest.raises(StoreError, match="connection refused"):
        [text async for text in store.records(600)]


# Relays on a cluster


async def test_twins_at_one_relay_stay_one_while_a_master_is_away(
    peer: ScriptedPeer, start_counted: StartCounted, cluster: RedisCluster
) -> None:
    relay = await start_counted(upstream=peer.url, store=cluster.url)
    everyone = addresses(60)

    async with asyncio.TaskGroup() as group:
        for number, recipient in enumerate(everyone):
            group.create_task(relay.send_twins_twice([recipient, b"all@example.test"]))
            await peer.wait_accepted(number // 2)
            if number == 20:
                before = peer.copies()
                cluster.nodes[0].kill()
            if number == 40:
                assert (await relay.process.metrics()).value("smtp_dedup_store_up") == 1, "two of three answer"
                await asyncio.to_thread(cluster.nodes[0].start)
    assert peer.copies() == dict.fromkeys([*everyone, b"all@example.test"], 1)
    # The node came back empty: what it held is gone, and all that it missed is written.
    await until(lambda: sent_in(cluster) >= len(everyone) + 1 - len(before), "written what the node missed")


def sent_in(cluster: RedisCluster) -> int:
    """Returns the number of acceptances in the cluster."""
    count = 0
    for node in cluster.nodes:
        with node.client() as client:
            count += sum((client.get(key) or b"")[:1] == b"s" for key in client.scan_iter("smtp-dedup:v*"))
    return count


async def test_nodes_restarted_empty_while_idle_receive_what_was_sent(
    peer: ScriptedPeer, start_counted: StartCounted, cluster: RedisCluster
) -> None:
    relay = await start_counted(upstream=peer.url, store=cluster.url)
    everyone = addresses(30)
    await asyncio.gather(*(relay.send([recipient]) for recipient in everyone))
    for node in cluster.nodes:
        node.restart()
    await until(lambda: sent_in(cluster) == len(everyone), "all written back")


async def test_two_relays_send_one_copy_while_slots_move(
    peer: ScriptedPeer, start_counted: StartCounted, cluster: RedisCluster
) -> None:
    one = await start_counted(upstream=peer.url, store=cluster.url)
    other = await start_counted(upstream=peer.url, store=cluster.url)
    other.mail = one.mail
    everyone = addresses(80)
    heard: list[bool] = []

    async def twins(recipient: bytes) -> None:
        for _ in range(3):
            heard.extend(sent.ok for sent in await asyncio.gather(one.send([recipient]), other.send([recipient])))

    async with asyncio.TaskGroup() as group:
        for number, recipient in enumerate(everyone):
            group.create_task(twins(recipient))
            await peer.wait_accepted(number // 2)
            if number % 20 == 10:
                assert await asyncio.to_thread(move_some, cluster)
    assert all(heard)
    assert len(heard) == 6 * len(everyone)
    assert peer.copies() == dict.fromkeys(everyone, 1)
    for relay in (one, other):
        assert "store unavailable" not in relay.process.stderr()


def move_some(cluster: RedisCluster) -> int:
    """Moves half of the slots with claims from one node to the next. Returns their number."""
    source, target = cluster.nodes[0], cluster.nodes[1]
    held = source.keys()
    some = sorted({key_slot(key.encode()) for key in held if key.startswith("smtp-dedup:v")})[::2]
    for slot in some:
        cluster.begin_moving(slot, source, target)
    for slot in some:
        cluster.move_keys(slot, source, target)
    for slot in some:
        cluster.end_moving(slot, target)
    return len(some)
