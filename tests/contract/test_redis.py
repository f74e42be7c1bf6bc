"""What only Redis has: lost connections, refusals by the server, values that no relay wrote, expiry."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import uvloop
from parts.counted_relay import addresses
from parts.old_records import OldRecord, write_to_redis
from parts.ports import free_port
from parts.redis_scripted import bulk, closed, listening, saying
from parts.redis_server import RedisServer, redis_servers, redis_store
from parts.traces import trace
from parts.waiting import until

from relay.claims.manager import ClaimManager
from relay.claims.redis import permissions
from relay.claims.redis.server_clock import ServerClock
from relay.claims.redis.store import RedisStore
from relay.claims.store_client import BatchingStoreClient
from relay.claims.write_back import WRITE_BACK_BATCH
from relay.core.claim import (
    AskGeneration,
    Claim,
    ClaimTerms,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Follow,
    Free,
    Full,
    Generation,
    Held,
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Token,
    Unknown,
    Won,
)
from relay.core.errors import StoreError
from relay.core.sequence import SequenceName, SequenceState
from relay.core.trace import TraceQuery
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits

if TYPE_CHECKING:
    import contextlib
    from collections.abc import AsyncIterator, Callable

    from parts.certificates import Authority
    from parts.counted_relay import StartCounted
    from parts.peer import ScriptedPeer


KEY = Fingerprint("v1:" + "3f" * 32)
OTHER = Fingerprint("v1:" + "a0" * 32)
MINE, THEIRS = Token("mine"), Token("theirs")
ORIGINAL = Original("rec-1", "<1@example.org>", "250 ok", 1.0)
CLAIM = Claim(KEY, MINE, 30, 600)
PEEK = Peek(KEY, 600)
NAME = "smtp-dedup:" + KEY
MANY = [Claim(Fingerprint(f"v1:{number}"), MINE, 30, 600) for number in range(50)]


@pytest_asyncio.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = redis_store(redis_server.url)
    await store.open()
    yield store
    await store.close()


async def test_no_key_is_without_expiry(store: RedisStore, redis_server: RedisServer) -> None:
    second, third = Fingerprint("v1:second"), Fingerprint("v1:third")
    await store.identity()
    await store.execute([CLAIM, Renew(KEY, MINE, 60), Claim(KEY, MINE, 40, 600)])
    await store.execute(
        [Claim(second, MINE, 30, 600), Confirm(second, ORIGINAL, 600), Confirm(third, ORIGINAL, 600, 599)]
    )
    await store.forget(lambda _: False)
    left = redis_server.keys()
    assert len(left) == 5
    assert 30_000 < left[NAME] <= 40_000
    assert 590_000 < left["smtp-dedup:" + second] <= 600_000
    assert 0 < left["smtp-dedup:" + third] <= 1_000
    assert all(milliseconds > 0 for milliseconds in left.values())


@pytest.mark.parametrize("left", [None, 60_000])
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"OK",
        b"x" * 5_000,
        b"s",
        b"s600000",
        b"s600000 ",
        b"s600000 {}",
        b"s600000 [1, 2]",
        b"s600000 " + b"[" * 100_000,
        b's600000 {"record": 1, "message_id": "", "reply": "", "accepted_at": 0}',
        b's600000 {"record": "", "message_id": "", "reply": "", "accepted_at": NaN}',
        b's1e999 {"record": "", "message_id": "", "reply": "", "accepted_at": 0}',
        b's-5 {"record": "", "message_id": "", "reply": "", "accepted_at": 0}',
        "s\N{SUPERSCRIPT TWO} {}".encode(),
        b"s" + b"9" * 5_000 + b' {"record": "", "message_id": "", "reply": "", "accepted_at": 0}',
    ],
)
async def test_a_value_that_no_relay_wrote_never_counts_as_sent(
    store: RedisStore, redis_server: RedisServer, value: bytes, left: int | None
) -> None:
    with redis_server.client() as client:
        client.set(NAME, value, px=left)
    peeked, claimed = await store.execute([PEEK, CLAIM])
    assert isinstance(peeked, Unknown | Free)
    assert isinstance(claimed, Unknown | Won)
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    (answer,) = await store.execute([PEEK])
    assert isinstance(answer, Sent), "an acceptance overwrites it"


async def test_an_entry_without_expiry_is_free(store: RedisStore, redis_server: RedisServer) -> None:
    for command in (CLAIM, Confirm(KEY, ORIGINAL, 600)):
        await store.execute([command])
        with redis_server.client() as client:
            client.persist(NAME)
        assert await store.execute([PEEK, Claim(KEY, THEIRS, 30, 600)]) == [Free(), Won()]
        assert redis_server.keys()[NAME] > 0


async def test_an_entry_that_has_more_left_than_its_window_is_free(
    store: RedisStore, redis_server: RedisServer
) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    with redis_server.client() as client:
        client.pexpire(NAME, 700_000)
    assert await store.execute([PEEK, CLAIM]) == [Free(), Won()]


async def test_a_key_of_the_wrong_type_is_unknown_and_no_other_key_suffers(
    store: RedisStore, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.rpush(NAME, "a", "b")
    for command in (CLAIM, PEEK, Renew(KEY, MINE, 30), Release(KEY, MINE)):
        before, answer, after = await store.execute([MANY[0], command, MANY[1]])
        assert (before, after) == (Won(), Won())
        assert isinstance(answer, Unknown)
    (alone,) = await store.execute([CLAIM])
    assert isinstance(alone, Unknown), "the key is to blame, not the server"
    assert await store.execute([Confirm(KEY, ORIGINAL, 600)]) == [Done()]
    (answer,) = await store.execute([PEEK])
    assert isinstance(answer, Sent)


async def test_a_connection_lost_while_idle_costs_nothing(store: RedisStore, redis_server: RedisServer) -> None:
    await store.execute([CLAIM])
    with redis_server.client() as client:
        assert client.client_kill_filter(_type="normal", skipme=True) == 1
    assert isinstance((await store.execute([Claim(KEY, THEIRS, 30, 600)]))[0], Held)
    assert store.restarts == 0


def test_a_connection_reset_while_idle_costs_nothing_on_uvloop_either() -> None:
    """uvloop closes the transport, and raises RuntimeError at the next write."""
    replies = {b"TIME": b"*2\r\n" + bulk(b"9") + bulk(b"0"), b"EVAL": b":1\r\n"}
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await saying(lambda command: replies.get(command[0], b"+OK\r\n"))(reader, writer)

    async def reset_once() -> None:
        async with listening(serve) as port:
            store = redis_store(at(port))
            assert await store.execute([CLAIM]) == [Won()]
            no_delay = struct.pack("ii", 1, 0)  # a close with this is a reset
            writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_delay)
            writers[0].transport.abort()
            await until(store._servers._connection._connection._writer.is_closing, "the connection reset")
            assert await store.execute([CLAIM]) == [Won()]
            assert len(writers) == 2
            await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reset_once())


async def test_a_restart_costs_nothing_and_is_noticed(store: RedisStore, redis_server: RedisServer) -> None:
    await store.execute([CLAIM])
    redis_server.restart()
    assert await store.execute([Claim(KEY, THEIRS, 30, 600)]) == [Won()]
    assert store.restarts == 1
    redis_server.restart()
    await store.open()
    assert store.restarts == 2, "an idle check notices it as well"
    await store.execute([CLAIM])
    await store.open()
    assert store.restarts == 2


async def test_a_redis_restarted_empty_while_idle_receives_what_was_sent(
    peer: ScriptedPeer, start_counted: StartCounted, redis_server: RedisServer
) -> None:
    one = await start_counted(upstream=peer.url, store=redis_server.url)
    other = await start_counted(upstream=peer.url, store=redis_server.url)
    other.mail = one.mail
    mine, theirs = addresses(10), addresses(10, first=11)
    await asyncio.gather(*(one.send([to]) for to in mine), *(other.send([to]) for to in theirs))
    redis_server.restart()

    def sent() -> int:
        return sum(key.startswith("smtp-dedup:v") for key in set(redis_server.keys()))

    await until(lambda: sent() == len(mine + theirs), "all written back")
    for relay in (one, other):
        assert all(told.ok for told in await asyncio.gather(*(relay.send([to]) for to in mine + theirs)))
    assert peer.copies() == dict.fromkeys(mine + theirs, 1)


async def test_a_server_that_refuses_info_serves(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-info")
        try:
            store = redis_store(redis_server.url)
            assert await store.execute([CLAIM]) == [Won()]
            client.client_kill_filter(_type="normal", skipme=True)
            assert await store.execute([CLAIM]) == [Won()]
            assert store.restarts == 0
            await store.close()
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+info")


async def test_a_server_that_is_not_there(store: RedisStore, redis_server: RedisServer) -> None:
    redis_server.kill()
    for ask in (lambda: store.execute([CLAIM]), store.open, store.identity):
        with pytest.raises(StoreError, match=f"redis at 127.0.0.1:{redis_server.port}"):
            await ask()
    redis_server.start()
    assert await store.execute([CLAIM]) == [Won()]


def at(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


def cutting(port: int, *, after: int, cuts: int) -> contextlib.AbstractAsyncContextManager[int]:
    """A proxy that cuts the first `cuts` connections after `after` bytes of replies to scripts."""
    counter = itertools.count()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if b"EVAL" in data:
                begun.set()
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        begun = asyncio.Event()
        asking = asyncio.create_task(pass_on(reader, to_server, begun))
        rest = after if next(counter) < cuts else 1_000_000_000
        while rest > 0 and (data := await from_server.read(rest)):
            writer.write(data)
            if begun.is_set():
                rest -= len(data)
        asking.cancel()
        await asyncio.wait([asking])
        await closed(to_server)

    return listening(serve)


MIDWAY = 250
"""Bytes into 100 answers of four bytes each, with the server's time before them."""


async def test_a_connection_cut_between_two_answers_is_asked_again(redis_server: RedisServer) -> None:
    async with cutting(redis_server.port, after=MIDWAY, cuts=1) as port:
        store = redis_store(at(port))
        await store.execute([CLAIM])
        assert await store.execute(MANY * 2) == [Won()] * 100, "what is my own already is won again"
        await store.close()


async def test_a_connection_cut_twice_is_an_error(redis_server: RedisServer) -> None:
    async with cutting(redis_server.port, after=MIDWAY, cuts=2) as port:
        store = redis_store(at(port))
        with pytest.raises(StoreError, match="redis at"):
            await store.execute(MANY * 2)
        assert await store.execute(MANY) == [Won()] * 50
        await store.close()


async def test_a_server_that_closes_at_once_is_connected_to_once() -> None:
    calls = itertools.count()

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        next(calls)

    async with listening(hang_up) as port:
        store = redis_store(at(port))
        with pytest.raises(StoreError):
            await store.execute([CLAIM])
        assert next(calls) == 1, "the library does not retry"
        await store.close()


async def test_answers_of_a_cancelled_batch_are_never_read(store: RedisStore, redis_server: RedisServer) -> None:
    redis_server.pause()
    asking = asyncio.create_task(store.execute(MANY))
    await asyncio.wait([asking], timeout=0.1)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    redis_server.resume()
    assert await store.execute([PEEK]) == [Free()]
    (answer,) = await store.execute([Claim(MANY[0].key, THEIRS, 30, 600)])
    assert isinstance(answer, Held), "carried out all the same: the caller must reckon with it"


@pytest.mark.parametrize("over", ["nothing", "a claim"])
async def test_what_is_carried_out_after_its_end_leaves_no_entry(
    store: RedisStore, redis_server: RedisServer, over: str
) -> None:
    """The caller has given up; the commands wait in the socket of a server that is stopped."""
    second, third = Fingerprint("v1:second"), Fingerprint("v1:third")
    if over == "a claim":
        await store.execute([CLAIM, Claim(second, MINE, 0.9, 600)])
    redis_server.pause()
    late = [Confirm(KEY, ORIGINAL, 1), Renew(second, MINE, 1), Claim(third, MINE, 1, 600), Confirm(third, ORIGINAL, 1)]
    asking = asyncio.create_task(store.execute(late))
    await asyncio.wait([asking], timeout=0.1)
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(1)
    redis_server.resume()
    assert await store.execute([Peek(key, 600) for key in (KEY, second, third)]) == [Free()] * 3
    assert redis_server.keys() == {}


async def test_what_is_carried_out_late_ends_when_it_would_have(store: RedisStore, redis_server: RedisServer) -> None:
    await store.open()
    redis_server.pause()
    asking = asyncio.create_task(store.execute([Confirm(KEY, ORIGINAL, 600)]))
    await asyncio.wait([asking], timeout=1)
    redis_server.resume()
    await asking
    [answer] = await store.execute([PEEK])
    assert isinstance(answer, Sent)
    assert answer.age >= 1


class Skewed:
    """This host's clock. A jump looks as if the server's clock had been set the other way."""

    jumped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.jumped


@pytest.mark.parametrize("jump", [1000.0, -1000.0, 0.07], ids=["back", "forward", "drift"])
async def test_a_server_whose_clock_was_set_is_asked_again(redis_server: RedisServer, jump: float) -> None:
    clock = Skewed()
    store = redis_store(redis_server.url, clock=clock)
    second = Fingerprint("v1:second")
    await store.execute([Claim(second, MINE, 30, 600)])
    clock.jumped = jump
    assert await store.execute([Confirm(KEY, ORIGINAL, 600), Claim(second, MINE, 30, 600)]) == [Done(), Won()]
    left = redis_server.keys()
    assert 598_000 < left[NAME] <= 600_000
    assert 28_000 < left["smtp-dedup:" + second] <= 30_000
    assert isinstance((await store.execute([PEEK]))[0], Sent)
    await store.close()


async def test_a_new_connection_learns_the_clock_anew(redis_server: RedisServer) -> None:
    """Another server may have the same address now."""
    clock = Skewed()
    store = redis_store(redis_server.url, clock=clock)
    await store.execute([CLAIM])
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    clock.jumped = 1000
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    assert 598_000 < redis_server.keys()[NAME] <= 600_000
    await store.close()


def test_a_servers_clock_is_never_thought_to_be_ahead() -> None:
    ours = 100.0
    clock = ServerClock(lambda: ours)
    clock.learn(99.0, 5_099.9)  # it may have said so at any moment in between
    assert clock.at(100.0) == pytest.approx(5_099.9)
    ours = 200.0
    assert not clock.learn(199.99, 5_199.895), "as we thought, and told less exactly"
    assert clock.at(200.0) == pytest.approx(5_199.9)
    ours = 300.0
    assert clock.learn(299.99, 5_300.5), "set forward, or better known"
    assert clock.at(300.0) == pytest.approx(5_300.5)
    ours = 400.0
    assert not clock.learn(399.99, 5_400.48), "it drifts back a little"
    assert clock.at(400.0) == pytest.approx(5_400.48)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:1", "redis at 127.0.0.1:1: connection refused"),
        ("redis://[::1]:1", r"redis at \[::1\]:1: (connection refused|cannot assign requested address)"),
        ("redis://localhost:1", "redis at localhost:1: (connection refused|cannot assign requested address)"),
        ("redis://nowhere.invalid", r"redis at nowhere\.invalid: [^:.]+"),
        ("unix:///nowhere/redis.sock", "redis at /nowhere/redis.sock: no such file or directory"),
    ],
)
async def test_errors_are_short(url: str, words: str) -> None:
    with pytest.raises(StoreError) as caught:
        await redis_store(url).open()
    assert re.fullmatch(words, str(caught.value))


async def test_a_handshake_that_was_cancelled_starts_again(redis_server: RedisServer) -> None:
    store = redis_store(redis_server.url)
    redis_server.pause()
    opening = asyncio.create_task(store.open())
    await asyncio.wait([opening], timeout=0.1)
    opening.cancel()
    await asyncio.wait([opening])
    redis_server.resume()
    assert await store.execute([PEEK, CLAIM]) == [Free(), Won()]
    await store.close()


async def test_a_replica_refuses(store: RedisStore, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(StoreError, match="read only replica"):
                await store.execute([CLAIM, Claim(Fingerprint("v1:x"), MINE, 30, 600)])
        finally:
            client.replicaof("NO", "ONE")
    assert await store.execute([CLAIM]) == [Won()]


async def test_a_full_server_is_unknown_where_it_refuses(store: RedisStore, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            refused, answered = await store.execute([CLAIM, Release(KEY, MINE)])
            assert isinstance(refused, Unknown)
            assert "maxmemory" in refused.reason
            assert answered == Done()
            with pytest.raises(StoreError, match="maxmemory"):
                await store.execute([CLAIM])
        finally:
            client.config_set("maxmemory", 0)
    assert await store.execute([CLAIM]) == [Won()]


async def test_a_server_with_a_password(redis_server: RedisServer) -> None:
    place = f"127.0.0.1:{redis_server.port}"
    with redis_server.client() as client:
        client.config_set("requirepass", "sesame")
        try:
            for url in (f"redis://{place}", f"redis://:simsim@{place}"):
                store = redis_store(url)
                with pytest.raises(StoreError) as caught:
                    await store.execute([CLAIM])
                assert place in str(caught.value)
                assert "simsim" not in str(caught.value)
                await store.close()
            store = redis_store(f"redis://:sesame@{place}")
            assert await store.execute([CLAIM]) == [Won()]
            await store.close()
        finally:
            client.config_set("requirepass", "")


async def test_a_server_that_is_loading() -> None:
    async with listening(saying(lambda _: b"-LOADING Redis is loading the dataset in memory\r\n")) as port:
        store = redis_store(at(port))
        for ask in (lambda: store.execute([CLAIM, PEEK]), store.identity):
            with pytest.raises(StoreError, match="loading the dataset"):
                await ask()
        await store.close()


async def test_a_unix_socket() -> None:
    with RedisServer(unix=True) as server:
        store = redis_store(server.url)
        assert await store.execute([CLAIM]) == [Won()]
        server.kill()
        with pytest.raises(StoreError, match=f"redis at {server.socket}"):
            await store.execute([CLAIM])
        await store.close()


# Records and forgetting

STREAM, GENERATION = "smtp-dedup:records", "smtp-dedup:generation"


async def texts_of_records(store: RedisStore) -> list[str]:
    return [text async for text in store.records(600)]


async def test_old_records_that_cannot_be_read_cost_no_claim(store: RedisStore, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set(STREAM, "x")
        client.set(GENERATION, "x")
        client.delete(GENERATION)
        client.rpush(GENERATION, "x")
    generation, claimed = await store.execute([AskGeneration(), CLAIM])
    assert isinstance(generation, Unknown)
    assert claimed == Won()
    with pytest.raises(StoreError, match=r"redis at .*WRONGTYPE"):
        await texts_of_records(store)


async def test_an_old_record_that_was_written_twice_is_read_once(store: RedisStore, redis_server: RedisServer) -> None:
    now = time.time()
    write_to_redis(redis_server, [OldRecord("rec-1", "first", now - 2, 600), OldRecord("rec-1", "last", now - 1, 600)])
    assert await texts_of_records(store) == ["last"]


async def test_what_no_relay_wrote_into_the_stream_is_skipped(store: RedisStore, redis_server: RedisServer) -> None:
    strange = [
        {"a": "b"},
        {"record": "r", "keep": "soon", "text": "{}"},
        {"record": "r", "keep": "9" * 5_000, "text": "long"},
        {"record": "s", "keep": "600000", "text": b"\xff"},
    ]
    with redis_server.client() as client:
        for fields in strange:
            client.xadd(STREAM, fields)
    write_to_redis(redis_server, [OldRecord("rec-1", "{}", time.time() + 1, 600)])
    assert await texts_of_records(store) == ["{}", "\N{REPLACEMENT CHARACTER}", "long"]


async def test_an_entry_of_an_earlier_version_names_no_recipient(store: RedisStore, redis_server: RedisServer) -> None:
    value = b's600000 {"record":"rec-1","message_id":"<1@example.org>","reply":"250 ok","accepted_at":1.0}'
    with redis_server.client() as client:
        client.set(NAME, value, px=590_000)
    (answer,) = await store.execute([PEEK])
    assert isinstance(answer, Sent)
    assert answer.original == ORIGINAL
    seen: list[Entry] = []
    assert await store.forget(lambda entry: bool(seen.append(entry)) or True) == 1
    assert [(entry.key, entry.original, entry.recipient) for entry in seen] == [(KEY, ORIGINAL, "")]


async def test_what_changes_after_it_was_read_is_not_forgotten(store: RedisStore, redis_server: RedisServer) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])

    def matches(_: Entry) -> bool:
        with redis_server.client() as client:
            client.set(NAME, "hmine", px=30_000)
        return True

    assert await store.forget(matches) == 0
    assert isinstance((await store.execute([PEEK]))[0], Held)


async def test_what_a_relay_writes_back_meanwhile_is_forgotten_too(redis_server: RedisServer) -> None:
    """The server has come back empty, and hears of thousands of acceptances while an operator forgets them."""
    guard = BatchingStoreClient(redis_store(redis_server.url), limit=20)
    book = ClaimManager(guard, lease=30, clock=time.monotonic)
    await guard.start()
    terms = {Fingerprint(f"v1:{number}"): ClaimTerms(600, "one") for number in range(WRITE_BACK_BATCH * 20)}
    await book.claim(terms, MINE)
    await book.settle(MINE, dict.fromkeys(terms, ORIGINAL), [], terms)
    redis_server.flush()
    guard._breaker.data_losses += 1
    book.store_returned()
    await until(lambda: len(book._table.unwritten) < len(terms), "a batch written back")
    over = threading.Event()

    def matches(_: Entry) -> bool:
        return over.wait(20)

    forgetting = asyncio.create_task(asyncio.to_thread(asyncio.run, forgotten(redis_server, matches)))
    await until(lambda: not book._table.unwritten, "the end of writing back")
    over.set()
    assert await forgetting < len(terms), "not all was written and deleted again"
    assert set(redis_server.keys()) <= {GENERATION, "smtp-dedup:identity"}
    assert set((await book.claim(terms, THEIRS)).values()) == {Won()}
    await book.close()
    await guard.close()


async def forgotten(redis_server: RedisServer, matches: Callable[[Entry], bool]) -> int:
    operator = redis_store(redis_server.url)
    try:
        return await operator.forget(matches)
    finally:
        await operator.close()


async def test_what_arrives_behind_the_first_scan_is_forgotten_too(
    store: RedisStore, redis_server: RedisServer
) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    late = "smtp-dedup:v1:late"
    looks = iter([True])

    def matches(_: Entry) -> bool:
        with redis_server.client() as client:
            if next(looks, False):
                client.set(late, client.get(NAME), px=500_000)
        return True

    assert await store.forget(matches) == 2
    assert late not in set(redis_server.keys())


async def test_keys_that_no_relay_wrote_do_not_stop_forgetting(store: RedisStore, redis_server: RedisServer) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    with redis_server.client() as client:
        client.rpush("smtp-dedup:list", "x")
        client.set("smtp-dedup:text", "s600000 {}", px=1000)
        client.set("smtp-dedup:forever", f"s600000 {client.get(NAME).partition(b' ')[2].decode()}")
        client.set(b"smtp-dedup:\xff", client.get(NAME), px=1000)
        client.set("smtp-dedup:longer", client.get(NAME), px=700_000)
        client.set("elsewhere", client.get(NAME), px=1000)
    assert await store.forget(lambda _: True) == 2
    assert set(redis_server.keys()) >= {"smtp-dedup:list", "smtp-dedup:forever", "smtp-dedup:longer", "elsewhere"}
    assert NAME not in set(redis_server.keys())


async def test_forgetting_that_is_refused_is_an_error(store: RedisStore, redis_server: RedisServer) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    for command in ("scan", "eval", "del", "set"):
        with redis_server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", f"-{command}")
            try:
                with pytest.raises(StoreError, match=f"redis at 127.0.0.1:{redis_server.port}: "):
                    await store.forget(lambda _: True)
            finally:
                client.execute_command("ACL", "SETUSER", "default", f"+{command}")
    redis_server.kill()
    with pytest.raises(StoreError, match="connection refused"):
        await store.forget(lambda _: True)
    with pytest.raises(StoreError, match="connection refused"):
        await texts_of_records(store)
    redis_server.start()
    assert await store.execute([AskGeneration()]) == [Generation("")]


async def test_a_server_behind_tls(authority: Authority) -> None:
    certificate = str(authority.issue())
    tls = {"tls-port": str(free_port()), "tls-auth-clients": "no", "tls-ca-cert-file": str(authority.certificate)}
    with RedisServer(options=tls | {"tls-cert-file": certificate, "tls-key-file": certificate}):
        url = f"rediss://localhost:{tls['tls-port']}/1?ssl_ca_certs={authority.certificate}"
        store = redis_store(url)
        assert await store.execute([CLAIM]) == [Won()]
        await store.close()
        with pytest.raises(StoreError, match="certificate verify failed"):
            await redis_store(url.partition("?")[0]).open()


@pytest.mark.parametrize("foreign", ["x)\r\nSubject: injected", "", "a", "a" * 17, "A" * 16, "a" * 5_000_000, None])
async def test_an_identity_that_no_relay_wrote_is_replaced(
    store: RedisStore, redis_server: RedisServer, foreign: str | None
) -> None:
    with redis_server.client() as client:
        if foreign is None:
            client.rpush("smtp-dedup:identity", "x")
        else:
            client.set("smtp-dedup:identity", foreign)
            client.set(GENERATION, foreign or "?")
    identity = await store.identity()
    assert re.fullmatch("[0-9a-f]{16}", identity)
    assert await store.identity() == identity
    generation, claimed = await store.execute([AskGeneration(), CLAIM])
    assert isinstance(generation, Unknown) is (foreign is not None)
    assert claimed == Won()


async def test_an_endless_value_is_cut_before_it_travels(store: RedisStore, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set(NAME, "s600000 " + "A" * 60_000_000, px=500_000)
        before = client.info("stats")["total_net_output_bytes"]
        answers = await store.execute([PEEK, CLAIM, Renew(KEY, MINE, 30), AskGeneration()])
        assert all(isinstance(answer, Unknown) for answer in answers[:3])
        assert client.info("stats")["total_net_output_bytes"] - before < 100_000


EPOCH = "0123456789abcdef"


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "q",
        f"q {EPOCH}",
        f"q not-hex {KEY}",
        f"q {EPOCH} {' '.join([KEY] * 9)}",
        f"h {EPOCH} {KEY}",
        "A" * 60_000_000,
        f"q {EPOCH} {KEY}" + " x" * 10_000_000,
    ],
    ids=len,
)
async def test_a_sequence_that_no_relay_wrote_is_replaced(
    store: RedisStore, redis_server: RedisServer, foreign: str
) -> None:
    with redis_server.client() as client:
        client.set("smtp-dedup:q4:s", foreign)
        before = client.info("stats")["total_net_output_bytes"]
        command = Follow(SequenceName("q4:s"), KEY, "f" * 16, 600)
        assert await store.execute([command] * 2) == [SequenceState("f" * 16, (KEY,))] * 2
        assert client.info("stats")["total_net_output_bytes"] - before < 100_000
        assert 0 < client.pttl("smtp-dedup:q4:s") <= 600_000


async def test_a_sequence_of_another_type_or_form_is_unknown(store: RedisStore, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.rpush("smtp-dedup:q4:s", "x")
        client.set("smtp-dedup:q4:t", f"q abc {KEY}")
    commands = [Follow(SequenceName(name), KEY, "f" * 16, 600) for name in ("q4:s", "q4:t")]
    assert all(isinstance(answer, Unknown) for answer in await store.execute(commands))


async def test_sequences_count_against_the_bound_of_a_process(redis_server: RedisServer) -> None:
    now = 1000.0
    store = redis_store(redis_server.url, clock=lambda: now, most_claims=10)
    commands = [Follow(SequenceName(f"q4:{number}"), KEY, f"{number:016x}", 600) for number in range(11)]
    await store.execute(commands[:9])
    await store.execute(commands[:9])  # immediate repeats are not counted again
    await store.execute([Follow(SequenceName("q4:0"), OTHER, "e" * 16, 600)])
    known, new = await store.execute([commands[0], commands[10]])
    assert isinstance(known, SequenceState)
    assert new == Full()
    now += 620
    assert isinstance((await store.execute([commands[10]]))[0], SequenceState)
    await store.close()


async def test_namespaces_on_one_server_share_nothing(redis_server: RedisServer) -> None:
    stores = [RedisStore(replace(redis_servers(redis_server.url), namespace=name)) for name in ("", "staging", "stag")]
    for number, store in enumerate(stores):
        assert await store.execute([CLAIM]) == [Won()]
        await store.execute([Confirm(KEY, replace(ORIGINAL, id=f"rec-{number}"), 600)])
        old = OldRecord(f"rec-{number}", f"{number}", time.time(), 600)
        write_to_redis(redis_server, [old], store._keys.records)
    assert len({await store.identity() for store in stores}) == 3
    for number, store in enumerate(stores):
        assert [entry.original.id async for entry in store.sent()] == [f"rec-{number}"]
        assert await texts_of_records(store) == [f"{number}"]
    assert await stores[0].forget(lambda _: True) == 1
    assert await stores[1].execute([AskGeneration()]) == [Generation("")]
    for store in stores[1:]:
        assert isinstance((await store.execute([PEEK]))[0], Sent)
    assert {"smtp-dedup:" + KEY, "smtp-dedup.stag:" + KEY, "smtp-dedup.staging:" + KEY} & {*redis_server.keys()} == {
        "smtp-dedup.stag:" + KEY,
        "smtp-dedup.staging:" + KEY,
    }
    for store in stores:
        await store.close()


async def test_a_process_writes_a_bounded_number_of_claims(redis_server: RedisServer) -> None:
    now = 1000.0
    store = redis_store(redis_server.url, clock=lambda: now, most_claims=100)
    keys = [Fingerprint(f"v1:{number}") for number in range(100)]
    await store.execute([Claim(KEY, MINE, 30, 600)])
    await store.execute([Confirm(key, ORIGINAL, 600) for key in keys])
    new = Fingerprint("v1:new")
    assert await store.execute([Claim(new, MINE, 30, 600), Confirm(new, ORIGINAL, 600)]) == [Full(), Full()]
    sent, own = await store.execute([Claim(keys[0], MINE, 30, 600), Claim(KEY, MINE, 30, 600)])
    assert isinstance(sent, Sent), "what is known is still suppressed"
    assert own == Won(), "what is held stays held"
    assert await store.execute([Confirm(KEY, ORIGINAL, 600, token=MINE)]) == [Done()]
    now += 620
    assert await store.execute([Claim(new, MINE, 30, 600)]) == [Won()]
    await store.close()


def documented_acl(cluster: bool) -> str:
    """Returns the rules of the user in docs/redis.md."""
    lines = Path("docs/redis.md").read_text("utf-8").splitlines()
    [rules] = [
        line.partition(">PASSWORD ")[2]
        for line in lines
        if line.startswith("ACL SETUSER relay ") and ("+cluster" in line) is cluster
    ]
    return rules


def test_the_documented_acl_is_the_one_that_is_tested() -> None:
    assert documented_acl(cluster=False) == permissions.ACL
    assert documented_acl(cluster=True) == permissions.CLUSTER_ACL


REQUIRED = ["eval", "get", "getrange", "set", "del", "exists", "pttl", "pexpire", "pexpireat"]

FOR_TRACES = ["rpush", "lrange", "lindex", "llen", "hget", "hmget", "hset", "hgetall", "hdel", "hincrby"]


@pytest.mark.parametrize("lacking", ["", *REQUIRED, "xrevrange", "scan", "ping", *FOR_TRACES])
async def test_the_documented_acl_suffices_and_a_missing_command_is_found(
    redis_server: RedisServer, lacking: str
) -> None:
    rules = permissions.ACL.split()
    with redis_server.client() as client:
        taken = [f"-{lacking}"] if lacking else []
        client.execute_command("ACL", "SETUSER", "relay", "reset", "on", ">pw", *rules, *taken)
        url = redis_server.url.replace("redis://", "redis://relay:pw@")
        try:
            store = redis_store(url)
            assert await store.refused_commands() == ([lacking.upper()] if lacking else [])
            client_of_store = BatchingStoreClient(redis_store(url), limit=20)
            await client_of_store.start()
            assert client_of_store.up is (lacking not in set(REQUIRED) - {"getrange", "exists"})
            if not lacking:
                assert await store.execute([AskGeneration(), CLAIM]) == [Generation(""), Won()]
                assert await store.forget(lambda _: True) == 0
                write_to_redis(redis_server, [OldRecord("rec-1", "{}", time.time(), 600)])
                assert await texts_of_records(store) == ["{}"]
                assert store._servers.restarts == 0
                traces = RedisTraceStore(redis_servers(url), Limits(600.0, 1 << 20))
                await traces.append([trace(1, at=time.time())])
                assert len((await traces.find(TraceQuery(names=frozenset({trace(1).id})), 10)).traces) == 1
                assert len(await traces.counts(time.time() // 60 * 60 - 60, 60)) == 1
                await traces.close()
            await client_of_store.close()
            await store.close()
        finally:
            client.execute_command("ACL", "DELUSER", "relay")


async def test_a_missing_command_is_noticed_while_the_relay_runs(redis_server: RedisServer) -> None:
    """Without PTTL two relays would each deliver, while everything looks well."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "relay", "reset", "on", ">pw", *permissions.ACL.split())
        try:
            store = redis_store(redis_server.url.replace("redis://", "redis://relay:pw@"))
            await store.execute([CLAIM])
            client.execute_command("ACL", "SETUSER", "relay", "-pttl")
            with pytest.raises(StoreError, match=r"pttl|can't run this command"):
                await store.execute([Claim(KEY, THEIRS, 30, 600), *MANY])
            await store.close()
        finally:
            client.execute_command("ACL", "DELUSER", "relay")
