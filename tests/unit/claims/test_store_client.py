"""The store client, with a store that behaves as the test says."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.logged import events
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
    Held,
    Original,
    Peek,
    Release,
    Token,
    Unknown,
    Won,
)
from relay.core.errors import StoreBusyError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from parts.redis_server import RedisServer

LIMIT = 0.05
"""Seconds. Only tests of a store that hangs wait so long."""
LONG = 30.0


def peek(name: object) -> Peek:
    return Peek(Fingerprint(f"v1:{name}"), 600)


async def answer(commands: Sequence[Command]) -> list[Answer]:
    """Returns `Free` with the key, so that a test can tell the answers apart."""
    return [Named(command.key) if isinstance(command, Peek) else Done() for command in commands]


class Named(Free):
    """An answer with the key of its command."""

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
    """Answers with `behave`, which a test may change at any time. Answers probes while `serves`."""

    def __init__(self) -> None:
        self.behave: Callable[[Sequence[Command]], Awaitable[list[Answer]]] = answer
        self.serves = True
        self.refusal: Answer = Won()
        self.held: Answer = Held(60)
        """What a probe hears about a key that is held."""
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
            return [self.refusal, self.held, Done(), Done(), Free()]
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
    """A behaviour: answers only when its event is set."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def __call__(self, commands: Sequence[Command]) -> list[Answer]:
        await self.event.wait()
        return await answer(commands)


class StateChanges:
    """The states that a subscriber was called with."""

    def __init__(self, client: BatchingStoreClient) -> None:
        self.states: list[bool] = []
        self._event = asyncio.Event()
        client.subscribe(self._add)

    def _add(self, up: bool) -> None:
        self.states.append(up)
        self._event.set()

    async def until(self, up: bool) -> None:
        async with asyncio.timeout(LONG):
            while not self.states or self.states[-1] is not up:
                self._event.clear()
                await self._event.wait()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest_asyncio.fixture
async def client(store: FakeStore) -> AsyncIterator[BatchingStoreClient]:
    """A store client whose limit no test reaches."""
    client = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    await client.start()
    yield client
    await client.close()


@pytest_asyncio.fixture
async def impatient(store: FakeStore) -> AsyncIterator[BatchingStoreClient]:
    """A store client with a short limit."""
    client = BatchingStoreClient(store, limit=LIMIT, probe_every=0.001)
    await client.start()
    yield client
    await client.close()


def are_unknown(answers: Sequence[Answer], count: int) -> bool:
    return len(answers) == count and all(isinstance(answer, Unknown) for answer in answers)


def asking(client: BatchingStoreClient, *commands: Command) -> asyncio.Task[list[Answer]]:
    return asyncio.create_task(client.ask(commands))


async def in_flight(client: BatchingStoreClient, store: FakeStore, *commands: Command) -> asyncio.Task[list[Answer]]:
    before = len(store.asked)
    task = asking(client, *commands)
    await store.has_been_asked(before + 1)
    return task


# Batches


async def test_commands_are_answered_in_order(client: BatchingStoreClient, store: FakeStore) -> None:
    assert await client.ask([peek(1), peek(2)]) == answers_to(peek(1), peek(2))
    assert store.asked == [[peek(1), peek(2)]]
    assert await client.ask([]) == []


async def test_commands_queued_during_a_round_trip_share_the_next_batch(
    client: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = gate = Gate()
    first = await in_flight(client, store, peek("first"))
    others = [asking(client, peek(number), peek(-number)) for number in range(1, 11)]
    await asyncio.sleep(0)
    gate.event.set()
    assert await first == answers_to(peek("first"))
    for number, other in enumerate(others, start=1):
        assert await other == answers_to(peek(number), peek(-number))
    assert [len(batch) for batch in store.asked] == [1, 20]


async def test_an_acceptance_ages_while_it_is_queued(store: FakeStore) -> None:
    now = 100.0
    client = BatchingStoreClient(store, limit=LONG, clock=lambda: now)
    await client.start()
    gate = asyncio.Event()

    async def gated(commands: Sequence[Command]) -> list[Answer]:
        await gate.wait()
        return await answer(commands)

    store.behave = gated
    first = asyncio.ensure_future(client.ask([peek(1)]))
    await store.entered.wait()
    original = Original("4f1d", "", "", 0.0)
    second = asyncio.ensure_future(client.ask([Confirm(Fingerprint("v1:k"), original, 600.0, 2.0, "to k")]))
    await asyncio.sleep(0)
    now += 3.0
    gate.set()
    await asyncio.gather(first, second)
    assert store.asked[-1] == [Confirm(Fingerprint("v1:k"), original, 600.0, 5.0, "to k")]
    await client.close()


async def test_a_long_list_is_split_and_short_ones_fill_its_last_batch(
    client: BatchingStoreClient, store: FakeStore
) -> None:
    many = [peek(number) for number in range(2 * BATCH + 500)]
    long, short, full = asking(client, *many), asking(client, peek("short")), asking(client, *many[:BATCH])
    assert await long == answers_to(*many)
    assert await short == answers_to(peek("short"))
    assert await full == answers_to(*many[:BATCH])
    assert [len(batch) for batch in store.asked] == [BATCH, BATCH, 501, BATCH]


async def test_a_request_cancelled_in_the_queue_is_not_sent(client: BatchingStoreClient, store: FakeStore) -> None:
    store.behave = gate = Gate()
    first = await in_flight(client, store, peek("first"))
    leaving = asking(client, *[peek("leaving")] * (2 * BATCH))
    staying = asking(client, peek("staying"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    gate.event.set()
    assert await staying == answers_to(peek("staying"))
    assert await first == answers_to(peek("first"))
    assert leaving.cancelled()
    assert store.asked[1:] == [[peek("staying")]]


async def test_a_request_cancelled_during_its_round_trip_does_not_disturb_others(
    client: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = gate = Gate()
    leaving = asking(client, peek("leaving"))
    staying = await in_flight(client, store, peek("staying"))
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    gate.event.set()
    assert await staying == answers_to(peek("staying"))
    assert store.asked == [[peek("leaving"), peek("staying")]]


# The limit


async def test_a_call_that_hangs_ends_at_the_limit_and_two_open_the_breaker(
    impatient: BatchingStoreClient, store: FakeStore
) -> None:
    store.behave = hang
    store.serves = False
    first = await in_flight(impatient, store, peek("first"))
    second = asking(impatient, peek("second"))
    assert are_unknown(await first, 1)
    assert impatient.up, "it may have been a short stall"
    await store.has_been_asked(2)
    queued = asking(impatient, peek("queued"), peek("queued, too"))
    assert are_unknown(await second, 1)
    assert not impatient.up
    assert are_unknown(await queued, 2)
    assert store.running == 0, "the round trip has been cancelled"
    assert are_unknown(await impatient.ask([peek("later")]), 1)
    assert len(store.asked) == 2, "a store that is down is not asked"


async def test_an_answer_between_two_hangs_resets_their_count(impatient: BatchingStoreClient, store: FakeStore) -> None:
    for _ in range(3):
        store.behave = hang
        assert are_unknown(await impatient.ask([peek(1)]), 1)
        store.behave = answer
        assert await impatient.ask([peek(1)]) == answers_to(peek(1))
    assert impatient.up


class LoopClock:
    """The event loop's clock, which only the test moves, as if the loop had been held up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now)

    async def advance(self, seconds: float) -> None:
        """Moves the clock, and lets the timers that are due fire."""
        self._now += seconds
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.mark.parametrize("late", [True, False])
async def test_a_timer_that_fires_late_does_not_count_as_a_hang(
    client: BatchingStoreClient, store: FakeStore, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.behave = gate = Gate()
    clock = LoopClock(monkeypatch)
    task = await in_flight(client, store, peek(1))
    await clock.advance(2 * LONG if late else LONG)
    gate.event.set()
    answers = await task
    assert answers == answers_to(peek(1)) if late else are_unknown(answers, 1)


async def test_a_late_timer_extends_the_limit_once_and_not_for_ever(
    client: BatchingStoreClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.behave = hang
    clock = LoopClock(monkeypatch)
    task = await in_flight(client, store, peek(1))
    await clock.advance(2 * LONG)
    assert not task.done()
    await clock.advance(2 * LONG)
    assert are_unknown(await task, 1)


async def test_time_in_the_queue_does_not_count_as_a_hang(store: FakeStore) -> None:
    async def slow(commands: Sequence[Command]) -> list[Answer]:
        await asyncio.sleep(0.15)
        return await answer(commands)

    store.behave = slow
    client = BatchingStoreClient(store, limit=0.25)
    await client.start()
    waiting = [asking(client, *[peek(number) for number in range(BATCH)]) for _ in range(4)]
    for task in waiting:
        assert len(await task) == BATCH
        assert not are_unknown(task.result(), BATCH)
    await client.close()


# The breaker


async def test_a_store_error_opens_the_breaker_at_once(
    client: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    changes = StateChanges(client)
    opened = asyncio.Event()

    async def refuse(_: Sequence[Command]) -> list[Answer]:
        await opened.wait()
        raise StoreError("connection refused")

    store.behave, store.serves = refuse, False
    first = await in_flight(client, store, peek(1))
    queued = asking(client, peek(2), peek(3))
    await asyncio.sleep(0)
    opened.set()
    assert await first == [Unknown("connection refused")]
    assert await queued == [Unknown("connection refused")] * 2
    assert not client.up
    assert await client.ask([peek(4)]) == [Unknown("connection refused")]
    for _ in range(3):
        store.probed.clear()
        await store.probed.wait()
    assert not client.up
    store.behave, store.serves = answer, True
    await changes.until(up=True)
    assert client.up
    assert await client.ask([peek(5)]) == answers_to(peek(5))
    assert store.asked == [[peek(1)], [peek(5)]]
    assert changes.states == [False, True]
    assert events(caplog) == [
        ("WARNING", "store unavailable, working without it", {"error": "connection refused"}),
        ("INFO", "store is back", {}),
    ]


async def test_one_busy_call_does_not_open_the_breaker_and_two_do(
    client: BatchingStoreClient, store: FakeStore
) -> None:
    changes = StateChanges(client)

    async def busy(_: Sequence[Command]) -> list[Answer]:
        raise StoreBusyError("another process keeps it locked")

    store.behave = busy
    assert await client.ask([peek(1)]) == [Unknown("another process keeps it locked")]
    assert client.up
    store.behave = answer
    assert await client.ask([peek(2)]) == answers_to(peek(2))
    store.behave = busy
    for number in (3, 4):
        assert are_unknown(await client.ask([peek(number)]), 1)
    await changes.until(up=True)
    assert changes.states == [False, True]


@pytest.mark.parametrize("loss", ["none", "restart", "identity"])
async def test_a_store_that_returns_has_lost_data_if_its_identity_or_a_restart_says_so(
    client: BatchingStoreClient, store: FakeStore, loss: str
) -> None:
    changes = StateChanges(client)

    async def refuse(_: Sequence[Command]) -> list[Answer]:
        raise StoreError("connection refused")

    store.behave = refuse
    await client.ask([peek(1)])
    store.behave = answer
    store.restarts += loss == "restart"
    store.id = "second" if loss == "identity" else store.id
    await changes.until(up=True)
    assert client.data_losses == (0 if loss == "none" else 1)


async def test_a_store_that_does_not_keep_claims_is_down(store: FakeStore) -> None:
    """As Redis for a user who may not call PTTL, without which no claim can be seen to be held."""
    for answer_to_second, reason in ((Unknown("NOPERM"), "NOPERM"), (Won(), "it does not keep claims")):
        store.held = answer_to_second
        client = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
        await client.start()
        [told] = await client.ask([peek(1)])
        assert isinstance(told, Unknown)
        assert reason in told.reason
        await client.close()


async def test_a_first_probe_that_succeeds_is_not_logged_as_a_return(
    store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    client = BatchingStoreClient(store, limit=LONG)
    changes = StateChanges(client)
    await client.start()
    assert (client.up, client.identity, changes.states) == (True, "first", [True])
    assert caplog.records == []
    await client.close()


async def test_the_client_starts_while_the_store_is_down(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store.serves = False
    client = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    changes = StateChanges(client)
    assert are_unknown(await client.ask([peek(1)]), 1)
    await client.start()
    assert (client.up, client.identity) == (False, None)
    assert events(caplog) == [("WARNING", "store unavailable, working without it", {"error": "connection refused"})]
    store.serves = True
    await changes.until(up=True)
    assert client.identity == "first"
    await client.close()


async def test_a_store_that_hangs_at_the_start(store: FakeStore) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    store.identity = never
    client = BatchingStoreClient(store, limit=LIMIT)
    async with asyncio.timeout(LONG):
        await client.start()
        assert not client.up
        await client.close()


async def test_a_read_only_store_is_down(store: FakeStore) -> None:
    store.refusal = Unknown("read only replica")
    client = BatchingStoreClient(store, limit=LONG, probe_every=0.001)
    changes = StateChanges(client)
    await client.start()
    assert await client.ask([peek(1)]) == [Unknown("read only replica")]
    store.refusal = Won()
    await changes.until(up=True)
    await client.close()


async def test_the_identity_is_kept_while_the_store_is_down(client: BatchingStoreClient, store: FakeStore) -> None:
    changes = StateChanges(client)

    async def refuse(_: Sequence[Command]) -> list[Answer]:
        raise StoreError("gone")

    store.behave, store.serves = refuse, False
    await client.ask([peek(1)])
    assert (client.up, client.identity) == (False, "first")
    store.id, store.serves = "second: it came back empty", True
    await changes.until(up=True)
    assert client.identity == store.id


async def test_a_restarted_store_answers_and_subscribers_are_called(
    client: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.store")
    changes = StateChanges(client)

    async def restarted(commands: Sequence[Command]) -> list[Answer]:
        store.restarts, store.id, store.behave = 1, "second: it came back empty", answer
        return await answer(commands)

    store.behave = restarted
    assert await client.ask([peek(1)]) == answers_to(peek(1)), "also the command that noticed it"
    await changes.until(up=True)
    assert (client.up, client.identity) == (True, store.id)
    assert await client.ask([peek(2)]) == answers_to(peek(2))
    assert changes.states == [True], "it was never down, and subscribers are called once"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_restarted_store_that_does_not_serve_is_down(
    client: BatchingStoreClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = StateChanges(client)

    async def refuse() -> str:
        raise StoreError("loading")

    with monkeypatch.context() as patch:
        patch.setattr(store, "identity", refuse)
        store.restarts = 1
        await client.ask([peek(1)])
        await changes.until(up=False)
    await changes.until(up=True)
    assert changes.states == [False, True]


async def test_an_idle_store_is_checked(store: FakeStore) -> None:
    client = BatchingStoreClient(store, limit=LONG, probe_every=0.001, check_every=0.001)
    changes = StateChanges(client)
    await client.start()
    store.restarts = 1
    await until(lambda: changes.states == [True, True], "a second call of the subscriber")
    store.serves = False
    await changes.until(up=False)
    store.serves = True
    await changes.until(up=True)
    assert store.asked == []
    await client.close()


async def test_a_round_trip_that_is_cancelled_inside_the_store_counts_as_a_hang(
    client: BatchingStoreClient, store: FakeStore
) -> None:
    async def break_off(_: Sequence[Command]) -> list[Answer]:
        raise asyncio.CancelledError

    async with asyncio.timeout(LONG):
        store.behave = break_off
        assert are_unknown(await client.ask([peek(1)]), 1)
        store.behave = answer
        assert await client.ask([peek(1)]) == answers_to(peek(1))
        store.behave, store.serves = break_off, False
        for _ in range(2):
            assert are_unknown(await client.ask([peek(1)]), 1)
        assert not client.up


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_the_worker_survives_an_error_outside_of_a_call(
    store: FakeStore, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """The clock fails when the worker reads it, between two calls of the store."""
    failures = [error()]

    def clock() -> float:
        task = asyncio.current_task()
        if failures and task is not None and task.get_name() == "store client":
            raise failures.pop()
        return 0.0

    client = BatchingStoreClient(store, limit=LONG, clock=clock, probe_every=0.001)
    await client.start()
    changes = StateChanges(client)
    async with asyncio.timeout(LONG):
        assert are_unknown(await client.ask([peek(1)]), 1)
        await changes.until(up=True)
        assert await client.ask([peek(1)]) == answers_to(peek(1))
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [True]
    await client.close()


async def test_a_lasting_bug_in_the_store_is_logged_once(
    client: BatchingStoreClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> list[Answer]:
        store.probed.set()
        raise ZeroDivisionError

    store.behave = store.identity = broken
    assert are_unknown(await client.ask([peek(1)]), 1)
    for _ in range(3):
        store.probed.clear()
        await store.probed.wait()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_worker_that_is_cancelled_answers_all_callers(client: BatchingStoreClient, store: FakeStore) -> None:
    store.behave = hang
    first = await in_flight(client, store, peek(1))
    queued = asking(client, peek(2))
    await asyncio.sleep(0)
    client._worker.cancel()
    async with asyncio.timeout(LONG):
        assert are_unknown(await first, 1)
        assert are_unknown(await queued, 1)
        assert are_unknown(await client.ask([peek(3)]), 1)


@pytest.mark.parametrize("fault", ["raises", "too few answers"])
async def test_the_worker_survives_a_bug_in_the_store(
    client: BatchingStoreClient, store: FakeStore, fault: str
) -> None:
    changes = StateChanges(client)

    async def broken(_: Sequence[Command]) -> list[Answer]:
        if fault == "raises":
            raise ZeroDivisionError
        return [Free()]

    store.behave = broken
    assert are_unknown(await client.ask([peek(1), peek(2)]), 2)
    assert changes.states == [False]
    store.behave = answer
    await changes.until(up=True)
    assert await client.ask([peek(1)]) == answers_to(peek(1))


async def test_a_bug_in_a_subscriber_does_not_disturb_the_client(client: BatchingStoreClient, store: FakeStore) -> None:
    client.subscribe(lambda _: 1 // 0)
    changes = StateChanges(client)
    store.behave = lambda _: 1 // 0
    assert are_unknown(await client.ask([peek(1)]), 1)
    store.behave = answer
    await changes.until(up=True)


# The end


async def test_closing_answers_all_callers_and_leaves_no_task(store: FakeStore) -> None:
    client = BatchingStoreClient(store, limit=LONG)
    await client.start()
    store.behave = hang
    first = await in_flight(client, store, peek(1))
    queued = asking(client, peek(2))
    await asyncio.sleep(0)
    await client.close()
    assert await first == await queued == [Unknown("the relay is ending")]
    assert are_unknown(await client.ask([peek(3)]), 1)
    assert (store.running, store.closed) == (0, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_never_started_can_be_closed(store: FakeStore) -> None:
    await BatchingStoreClient(store, limit=LONG).close()
    assert store.closed == 1


# With a real server


async def test_a_paused_redis_costs_two_limits_and_is_asked_again_when_it_resumes(redis_server: RedisServer) -> None:
    client = BatchingStoreClient(redis_store(redis_server.url), limit=0.2, probe_every=0.01)
    await client.start()
    changes = StateChanges(client)
    key, token = Fingerprint("v1:a"), Token("t")
    assert await client.ask([Claim(key, token, 30, 600)]) == [Won()]
    redis_server.pause()
    async with asyncio.timeout(LONG):
        for _ in range(2):
            assert are_unknown(await client.ask([Claim(key, token, 30, 600), Release(key, token)]), 2)
    assert changes.states == [False]
    redis_server.resume()
    await changes.until(up=True)
    assert await client.ask([Peek(key, 600), Claim(key, token, 30, 600)]) == [Free(), Won()]
    await client.close()


async def test_a_killed_redis_is_down_at_once_and_its_return_is_noticed(redis_server: RedisServer) -> None:
    client = BatchingStoreClient(redis_store(redis_server.url), limit=LONG, probe_every=0.01)
    await client.start()
    changes = StateChanges(client)
    before = client.identity
    redis_server.kill()
    assert are_unknown(await client.ask([peek(1)]), 1)
    assert changes.states == [False]
    redis_server.start()
    await changes.until(up=True)
    assert client.identity not in (None, before)
    await client.close()


async def test_an_answer_is_read_after_a_stall_of_the_loop_longer_than_the_limit(redis_server: RedisServer) -> None:
    client = BatchingStoreClient(redis_store(redis_server.url), limit=0.1)
    await client.start()
    many = [Claim(Fingerprint(f"v1:{number}"), Token("t"), 30, 600) for number in range(BATCH)]
    redis_server.pause()
    task = asking(client, *many)
    await asyncio.wait([task], timeout=0.02)
    redis_server.resume()
    time.sleep(0.4)  # noqa: ASYNC251 - the stall itself: not even the timer runs
    assert await task == [Won()] * BATCH
    await client.close()
