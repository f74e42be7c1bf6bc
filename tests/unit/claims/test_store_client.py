"""The guard before a store that does what the test says."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.redis_server import redis_store
from parts.waiting import until

from relay.claims.store_client import BATCH, BatchingStoreClient
from relay.core.claim import (
    Answer,
    Claim,
    Command,
    Confirm,
    Done,
    Fingerprint,
    Free,
    Original,
    Peek,
    Release,
    Token,
    Unknown,
    Won,
)
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from parts.redis_server import RedisServer

LIMIT = 0.05
"""Seconds; only tests of a store that hangs wait so long."""
LONG = 30.0


def peek(name: object) -> Peek:
    return Peek(Fingerprint(f"v1:{name}"), 600)


async def answer(commands: Sequence[Command]) -> list[Answer]:
    """Say `Free`, with the name of the key, so that a test sees whose answer it is."""
    return [Named(command.key) if isinstance(command, Peek) else Done() for command in commands]


class Named(Free):
    """An answer that knows its question."""

    def __init__(self, key: Fingerprint) -> None:
        object.__setattr__(self, "key", key)

    __slots__ = ("key",)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and other.key == self.key

    __hash__ = None


def answers_to(*commands: Peek) -> list[Answer]:
    return [Named(command.key) for command in commands]


async def hang(_: Sequence[Command]) -> list[Answer]:
    await asyncio.Event().wait()
    return []


class FakeStore:
    """Answers by `behave`, which a test may change at any time; a probe is answered while `serves`."""

    def __init__(self) -> None:
        self.behave: Callable[[Sequence[Command]], Awaitable[list[Answer]]] = answer
        self.serves = True
        self.refusal: Answer = Won()
        self.id = "first"
        self.restarts = 0
        self.asked: list[list[Command]] = []
        self.entered = asyncio.Event()
        self.probed = asyncio.Event()
        self.running = 0
        self.closed = 0

    async def open(self) -> None:
        self.entered.set()
        if not self.serves:
            raise StoreError("connection refused")

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        assert self.running == 0, "one round trip at a time"
        if isinstance(commands[0], Claim) and commands[0].key.startswith("probe:"):
            self.probed.set()
            if not self.serves:
                raise StoreError("connection refused")
            return [self.refusal, Done()]
        self.asked.append(list(commands))
        self.running += 1
        self.entered.set()
        try:
            return await self.behave(commands)
        finally:
            self.running -= 1

    async def has_been_asked(self, times: int) -> None:
        async with asyncio.timeout(LONG):
            while len(self.asked) < times:
                self.entered.clear()
                await self.entered.wait()

    async def identity(self) -> str:
        return self.id

    async def close(self) -> None:
        self.closed += 1


class Gate:
    """A behaviour: answers wait until it opens."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def __call__(self, commands: Sequence[Command]) -> list[Answer]:
        await self.event.wait()
        return await answer(commands)


class Changes:
    """What a subscriber heard; one may wait for the next."""

    def __init__(self, guard: BatchingStoreClient) -> None:
        self.heard: list[bool] = []
        self._event = asyncio.Event()
        guard.subscribe(self._hear)

    def _hear(self, up: bool) -> None:
        self.heard.append(up)
        self._event.set()

    async def until(self, up: bool) -> None:
        async with asyncio.timeout(LONG):
            while not self.heard or self.heard[-1] is not up:
                self._event.clear()
                await self._event.wait()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest_asyncio.fixture
async def guard(store: FakeStore) -> AsyncIterator[BatchingStoreClient]:
    """A guard whose limit no test reaches."""
    guard = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    await guard.start()
    yield guard
    await guard.close()


@pytest_asyncio.fixture
async def strict(store: FakeStore) -> AsyncIterator[BatchingStoreClient]:
    """A guard with a short limit."""
    guard = BatchingStoreClient(store, limit=LIMIT, probe_every=0.001)
    await guard.start()
    yield guard
    await guard.close()


def are_unknown(answers: Sequence[Answer], count: int) -> bool:
    return len(answers) == count and all(isinstance(answer, Unknown) for answer in answers)


def asking(guard: BatchingStoreClient, *commands: Command) -> asyncio.Task[list[Answer]]:
    return asyncio.create_task(guard.ask(commands))


async def in_flight(guard: BatchingStoreClient, store: FakeStore, *commands: Command) -> asyncio.Task[list[Answer]]:
    before = len(store.asked)
    task = asking(guard, *commands)
    await store.has_been_asked(before + 1)
    return task


# Batches


async def test_questions_travel_and_answers_come_back(guard: BatchingStoreClient, store: FakeStore) -> None:
    assert await guard.ask([peek(1), peek(2)]) == answers_to(peek(1), peek(2))
    assert store.asked == [[peek(1), peek(2)]]
    assert await guard.ask([]) == []


async def test_what_comes_in_during_a_round_trip_travels_together_in_the_next(
    guard: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = gate = Gate()
    first = await in_flight(guard, store, peek("first"))
    others = [asking(guard, peek(number), peek(-number)) for number in range(1, 11)]
    await asyncio.sleep(0)
    gate.event.set()
    assert await first == answers_to(peek("first"))
    for number, other in enumerate(others, start=1):
        assert await other == answers_to(peek(number), peek(-number))
    assert [len(batch) for batch in store.asked] == [1, 20]


async def test_an_acceptance_grows_older_while_it_waits_in_the_queue(store: FakeStore) -> None:
    now = 100.0
    guard = BatchingStoreClient(store, limit=LONG, clock=lambda: now)
    await guard.start()
    gate = asyncio.Event()

    async def gated(commands: Sequence[Command]) -> list[Answer]:
        await gate.wait()
        return await answer(commands)

    store.behave = gated
    first = asyncio.ensure_future(guard.ask([peek(1)]))
    await store.entered.wait()
    original = Original("4f1d", "", "", 0.0)
    second = asyncio.ensure_future(guard.ask([Confirm(Fingerprint("v1:k"), original, 600.0, 2.0, "to k")]))
    await asyncio.sleep(0)
    now += 3.0
    gate.set()
    await asyncio.gather(first, second)
    assert store.asked[-1] == [Confirm(Fingerprint("v1:k"), original, 600.0, 5.0, "to k")]
    await guard.close()


async def test_a_long_list_is_split_and_short_ones_fill_up_its_last_piece(
    guard: BatchingStoreClient, store: FakeStore
) -> None:
    many = [peek(number) for number in range(2 * BATCH + 500)]
    long, short, full = asking(guard, *many), asking(guard, peek("short")), asking(guard, *many[:BATCH])
    assert await long == answers_to(*many)
    assert await short == answers_to(peek("short"))
    assert await full == answers_to(*many[:BATCH])
    assert [len(batch) for batch in store.asked] == [BATCH, BATCH, 501, BATCH]


async def test_a_caller_cancelled_in_the_queue_is_not_carried(guard: BatchingStoreClient, store: FakeStore) -> None:
    store.behave = gate = Gate()
    first = await in_flight(guard, store, peek("first"))
    leaving = asking(guard, *[peek("leaving")] * (2 * BATCH))
    staying = asking(guard, peek("staying"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    gate.event.set()
    assert await staying == answers_to(peek("staying"))
    assert await first == answers_to(peek("first"))
    assert leaving.cancelled()
    assert store.asked[1:] == [[peek("staying")]]


async def test_a_caller_cancelled_on_the_way_does_not_disturb_the_others(
    guard: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = gate = Gate()
    leaving = asking(guard, peek("leaving"))
    staying = await in_flight(guard, store, peek("staying"))
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    gate.event.set()
    assert await staying == answers_to(peek("staying"))
    assert store.asked == [[peek("leaving"), peek("staying")]]


# The limit


async def test_a_hanging_store_is_left_after_the_limit_and_given_up_after_two(
    strict: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = hang
    store.serves = False
    first = await in_flight(strict, store, peek("first"))
    second = asking(strict, peek("second"))
    assert are_unknown(await first, 1)
    assert strict.up, "it may have had a bad moment"
    await store.has_been_asked(2)
    queued = asking(strict, peek("queued"), peek("queued, too"))
    assert are_unknown(await second, 1)
    assert not strict.up
    assert are_unknown(await queued, 2)
    assert store.running == 0, "the round trip has been cancelled"
    assert are_unknown(await strict.ask([peek("later")]), 1)
    assert len(store.asked) == 2, "nobody waits for it any more"


async def test_an_answer_between_two_hangs_clears_the_store(strict: BatchingStoreClient, store: FakeStore) -> None:
    for _ in range(3):
        store.behave = hang
        assert are_unknown(await strict.ask([peek(1)]), 1)
        store.behave = answer
        assert await strict.ask([peek(1)]) == answers_to(peek(1))
    assert strict.up


@pytest.mark.parametrize("late", [True, False])
async def test_a_timer_that_fired_late_is_no_verdict(store: FakeStore, late: bool) -> None:
    """The clock tells how late. It is asked when the question is posted, is carried and begins its round trip; what it
    says the fourth time, when the timer fires, makes the store answer.
    """
    store.behave = gate = Gate()
    times = iter([])

    def clock() -> float:
        now = next(times, 0.0)
        if now:
            gate.event.set()
        return now

    guard = BatchingStoreClient(store, limit=LIMIT, clock=clock)
    await guard.start()
    times = iter([0.0, 0.0, 0.0, 5.0 if late else LIMIT])
    answers = await guard.ask([peek(1)])
    assert answers == answers_to(peek(1)) if late else are_unknown(answers, 1)
    await guard.close()


async def test_a_late_timer_gives_one_more_look_not_for_ever(store: FakeStore) -> None:
    store.behave = hang
    times = iter(range(0, 1000, 10))
    guard = BatchingStoreClient(store, limit=LIMIT, clock=lambda: float(next(times)))
    await guard.start()
    async with asyncio.timeout(LONG):
        assert are_unknown(await guard.ask([peek(1)]), 1)
    await guard.close()


async def test_waiting_in_the_queue_is_no_verdict(store: FakeStore) -> None:
    async def slow(commands: Sequence[Command]) -> list[Answer]:
        await asyncio.sleep(0.15)
        return await answer(commands)

    store.behave = slow
    guard = BatchingStoreClient(store, limit=0.25)
    await guard.start()
    waiting = [asking(guard, *[peek(number) for number in range(BATCH)]) for _ in range(4)]
    for task in waiting:
        assert len(await task) == BATCH
        assert not are_unknown(task.result(), BATCH)
    await guard.close()


# The breaker


async def test_what_the_store_says_itself_counts_at_once(
    guard: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    changes = Changes(guard)
    opened = asyncio.Event()

    async def refuse(_: Sequence[Command]) -> list[Answer]:
        await opened.wait()
        raise StoreError("connection refused")

    store.behave, store.serves = refuse, False
    first = await in_flight(guard, store, peek(1))
    queued = asking(guard, peek(2), peek(3))
    await asyncio.sleep(0)
    opened.set()
    assert await first == [Unknown("connection refused")]
    assert await queued == [Unknown("connection refused")] * 2
    assert not guard.up
    assert await guard.ask([peek(4)]) == [Unknown("connection refused")]
    for _ in range(3):
        store.probed.clear()
        await store.probed.wait()
    assert not guard.up
    store.behave, store.serves = answer, True
    await changes.until(up=True)
    assert guard.up
    assert await guard.ask([peek(5)]) == answers_to(peek(5))
    assert store.asked == [[peek(1)], [peek(5)]]
    assert changes.heard == [False, True]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "store unavailable, working without it: connection refused"),
        ("INFO", "store is back"),
    ]


async def test_a_good_start_is_no_return(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    guard = BatchingStoreClient(store, limit=LONG)
    changes = Changes(guard)
    await guard.start()
    assert (guard.up, guard.identity, changes.heard) == (True, "first", [True])
    assert caplog.records == []
    await guard.close()


async def test_the_relay_starts_without_its_store(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store.serves = False
    guard = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    changes = Changes(guard)
    assert are_unknown(await guard.ask([peek(1)]), 1)
    await guard.start()
    assert (guard.up, guard.identity) == (False, None)
    assert "connection refused" in caplog.text
    store.serves = True
    await changes.until(up=True)
    assert guard.identity == "first"
    await guard.close()


async def test_a_store_that_hangs_at_the_start(store: FakeStore) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    store.identity = never
    guard = BatchingStoreClient(store, limit=LIMIT)
    async with asyncio.timeout(LONG):
        await guard.start()
        assert not guard.up
        await guard.close()


async def test_a_store_that_only_reads_is_not_up(store: FakeStore) -> None:
    store.refusal = Unknown("read only replica")
    guard = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    changes = Changes(guard)
    await guard.start()
    assert await guard.ask([peek(1)]) == [Unknown("read only replica")]
    store.refusal = Won()
    await changes.until(up=True)
    await guard.close()


async def test_the_identity_is_remembered_while_the_store_is_away(guard: BatchingStoreClient, store: FakeStore) -> None:
    changes = Changes(guard)

    async def refuse(_: Sequence[Command]) -> list[Answer]:
        raise StoreError("gone")

    store.behave, store.serves = refuse, False
    await guard.ask([peek(1)])
    assert (guard.up, guard.identity) == (False, "first")
    store.id, store.serves = "second: it came back empty", True
    await changes.until(up=True)
    assert guard.identity == store.id


async def test_a_store_that_was_restarted_answers_and_is_told_of_all(
    guard: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    changes = Changes(guard)

    async def restarted(commands: Sequence[Command]) -> list[Answer]:
        store.restarts, store.id, store.behave = 1, "second: it came back empty", answer
        return await answer(commands)

    store.behave = restarted
    assert await guard.ask([peek(1)]) == answers_to(peek(1)), "the question on which it was noticed too"
    await changes.until(up=True)
    assert (guard.up, guard.identity) == (True, store.id)
    assert await guard.ask([peek(2)]) == answers_to(peek(2))
    assert changes.heard == [True], "it was never away, and is told once"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_store_that_was_restarted_and_does_not_serve_is_down(
    guard: BatchingStoreClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Changes(guard)

    async def refuse() -> str:
        raise StoreError("loading")

    with monkeypatch.context() as patch:
        patch.setattr(store, "identity", refuse)
        store.restarts = 1
        await guard.ask([peek(1)])
        await changes.until(up=False)
    await changes.until(up=True)
    assert changes.heard == [False, True]


async def test_a_store_that_nobody_asks_is_looked_at(store: FakeStore) -> None:
    guard = BatchingStoreClient(store, limit=LONG, probe_every=0.001, look_every=0.001)
    changes = Changes(guard)
    await guard.start()
    store.restarts = 1
    await until(lambda: changes.heard == [True, True], "told again")
    store.serves = False
    await changes.until(up=False)
    store.serves = True
    await changes.until(up=True)
    assert store.asked == []
    await guard.close()


async def test_a_round_trip_that_breaks_off_by_itself_counts_as_a_hang(
    guard: BatchingStoreClient, store: FakeStore
) -> None:
    async def break_off(_: Sequence[Command]) -> list[Answer]:
        raise asyncio.CancelledError

    async with asyncio.timeout(LONG):
        store.behave = break_off
        assert are_unknown(await guard.ask([peek(1)]), 1)
        store.behave = answer
        assert await guard.ask([peek(1)]) == answers_to(peek(1))
        store.behave, store.serves = break_off, False
        for _ in range(2):
            assert are_unknown(await guard.ask([peek(1)]), 1)
        assert not guard.up


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_fault_of_the_guards_own_is_answered_and_survived(
    guard: BatchingStoreClient,
    store: FakeStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    changes = Changes(guard)

    def broken() -> None:
        raise error

    async with asyncio.timeout(LONG):
        with monkeypatch.context() as patch:
            patch.setattr(guard, "_gather", broken)
            assert are_unknown(await guard.ask([peek(1)]), 1)
        await changes.until(up=True)
        assert await guard.ask([peek(1)]) == answers_to(peek(1))
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [True]


async def test_a_fault_that_lasts_is_logged_once(
    guard: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> list[Answer]:
        store.probed.set()
        raise ZeroDivisionError

    store.behave = store.identity = broken
    assert are_unknown(await guard.ask([peek(1)]), 1)
    for _ in range(3):
        store.probed.clear()
        await store.probed.wait()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_worker_that_is_ended_from_outside_leaves_nobody_waiting(
    guard: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = hang
    first = await in_flight(guard, store, peek(1))
    queued = asking(guard, peek(2))
    await asyncio.sleep(0)
    guard._worker.cancel()
    async with asyncio.timeout(LONG):
        assert are_unknown(await first, 1)
        assert are_unknown(await queued, 1)
        assert are_unknown(await guard.ask([peek(3)]), 1)


@pytest.mark.parametrize("fault", ["raises", "too few answers"])
async def test_a_fault_in_the_store_is_answered_and_survived(
    guard: BatchingStoreClient, store: FakeStore, fault: str
) -> None:
    changes = Changes(guard)

    async def broken(_: Sequence[Command]) -> list[Answer]:
        if fault == "raises":
            raise ZeroDivisionError
        return [Free()]

    store.behave = broken
    assert are_unknown(await guard.ask([peek(1), peek(2)]), 2)
    assert changes.heard == [False]
    store.behave = answer
    await changes.until(up=True)
    assert await guard.ask([peek(1)]) == answers_to(peek(1))


async def test_a_fault_in_a_subscriber_is_its_own(guard: BatchingStoreClient, store: FakeStore) -> None:
    guard.subscribe(lambda _: 1 // 0)
    changes = Changes(guard)
    store.behave = lambda _: 1 // 0
    assert are_unknown(await guard.ask([peek(1)]), 1)
    store.behave = answer
    await changes.until(up=True)


# The end


async def test_closing_answers_all_and_leaves_no_task(store: FakeStore) -> None:
    guard = BatchingStoreClient(store, limit=LONG)
    await guard.start()
    store.behave = hang
    first = await in_flight(guard, store, peek(1))
    queued = asking(guard, peek(2))
    await asyncio.sleep(0)
    await guard.close()
    assert await first == await queued == [Unknown("the relay is ending")]
    assert are_unknown(await guard.ask([peek(3)]), 1)
    assert (store.running, store.closed) == (0, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_what_never_started(store: FakeStore) -> None:
    await BatchingStoreClient(store, limit=LONG).close()
    assert store.closed == 1


# With a real server


async def test_a_stopped_redis_costs_two_limits_and_is_asked_again_when_it_goes_on(redis_server: RedisServer) -> None:
    guard = BatchingStoreClient(redis_store(redis_server.url), limit=0.2, probe_every=0.01)
    await guard.start()
    changes = Changes(guard)
    key, token = Fingerprint("v1:a"), Token("t")
    assert await guard.ask([Claim(key, token, 30, 600)]) == [Won()]
    redis_server.pause()
    async with asyncio.timeout(LONG):
        for _ in range(2):
            assert are_unknown(await guard.ask([Claim(key, token, 30, 600), Release(key, token)]), 2)
    assert changes.heard == [False]
    redis_server.resume()
    await changes.until(up=True)
    assert await guard.ask([Peek(key, 600), Claim(key, token, 30, 600)]) == [Free(), Won()]
    await guard.close()


async def test_a_killed_redis_is_noticed_at_once_and_its_return_too(redis_server: RedisServer) -> None:
    guard = BatchingStoreClient(redis_store(redis_server.url), limit=LONG, probe_every=0.01)
    await guard.start()
    changes = Changes(guard)
    before = guard.identity
    redis_server.kill()
    assert are_unknown(await guard.ask([peek(1)]), 1)
    assert changes.heard == [False]
    redis_server.start()
    await changes.until(up=True)
    assert guard.identity not in (None, before)
    await guard.close()


async def test_a_loop_held_up_longer_than_the_limit_still_reads_its_answer(redis_server: RedisServer) -> None:
    guard = BatchingStoreClient(redis_store(redis_server.url), limit=0.1)
    await guard.start()
    many = [Claim(Fingerprint(f"v1:{number}"), Token("t"), 30, 600) for number in range(BATCH)]
    redis_server.pause()
    task = asking(guard, *many)
    await asyncio.wait([task], timeout=0.02)
    redis_server.resume()
    time.sleep(0.4)  # noqa: ASYNC251, the fault itself: nothing of ours runs, not even the timer
    assert await task == [Won()] * BATCH
    await guard.close()
