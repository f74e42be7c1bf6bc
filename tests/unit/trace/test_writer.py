"""Writing traces: in batches, before a reply, later, or not at all, and never a fault for the mail."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from parts import virtual_time
from parts.traces import trace
from parts.waiting import until

from relay.core.errors import StoreError
from relay.core.trace import TraceQuery
from relay.trace.memory import MemoryTraceStore
from relay.trace.segments import Limits
from relay.trace.writer import BATCH, INTERVAL, SWEEP_EVERY, Credit, TraceWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from relay.core.trace import Trace


class Store(MemoryTraceStore):
    """A store that goes away, hangs, and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__(Limits(86400.0, 100 << 20), now=lambda: 1_700_000_000.0)
        self.away = False
        self.poison = False
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.batches: list[int] = []
        self.opened = self.closed = False

    async def open(self) -> None:
        self.opened = True
        if self.away:
            raise StoreError("away")

    async def append(self, traces: Sequence[Trace]) -> None:
        await self.hangs.wait()
        if self.away:
            raise StoreError("away")
        if self.poison:
            raise ValueError("a fault")
        self.batches.append(len(traces))
        await super().append(traces)

    async def close(self) -> None:
        self.closed = True

    async def ids(self) -> list[str]:
        """Returns the ids of all traces, oldest first."""
        return [each.id for each in reversed((await self.find(TraceQuery(), 100_000)).traces)]


class Writing:
    def __init__(self, **more: Any) -> None:
        self.store = Store()
        self.lost = self.skipped = 0
        self.writer = TraceWriter(self.store, on_lost=self._lose, on_skipped=self._skip, **more)

    def _lose(self, number: int) -> None:
        self.lost += number

    def _skip(self) -> None:
        self.skipped += 1

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.add(partial(trace, number), 1)

    async def write(self, number: int) -> None:
        await self.writer.write(partial(trace, number), 1)


def ids(*numbers: int) -> list[str]:
    return [trace(number).id for number in numbers]


@contextlib.asynccontextmanager
async def writing(**more: Any) -> AsyncIterator[Writing]:
    made = Writing(**more)
    await made.writer.start()
    yield made
    await made.writer.close()
    assert made.store.closed


def in_virtual_time(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Runs a test in virtual time."""

    @functools.wraps(test)
    def run(*arguments: object, **fixtures: object) -> None:
        virtual_time.run(test(*arguments, **fixtures))

    return run


@in_virtual_time
async def test_traces_are_written_together_after_half_a_second() -> None:
    async with writing() as made:
        made.add(1, 2)
        await asyncio.sleep(INTERVAL * 0.9)
        made.add(3)
        assert made.store.batches == []
        await asyncio.sleep(INTERVAL * 0.2)
        assert made.store.batches == [3]
        assert made.writer.waiting == 0
        made.add(4)
        await asyncio.sleep(INTERVAL * 1.1)
        assert made.store.batches == [3, 1]


async def test_the_trace_of_a_suppression_is_stored_when_write_returns() -> None:
    async with writing() as made:
        made.add(1)
        await made.write(2)
        assert await made.store.ids() == ids(1, 2)


async def test_suppressions_at_the_same_time_share_a_batch() -> None:
    async with writing() as made:
        made.store.hangs.clear()
        first = asyncio.ensure_future(made.write(1))
        await asyncio.sleep(0)
        await until(lambda: made.writer.waiting and not made.writer._waiting, "the first one in its batch")
        others = [asyncio.ensure_future(made.write(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        made.store.hangs.set()
        await asyncio.gather(first, *others)
        assert made.store.batches == [1, 3]


@in_virtual_time
async def test_a_full_batch_is_written_at_once() -> None:
    async with writing() as made:
        for start in range(0, BATCH * 20, BATCH):  # 500 a second
            made.add(*range(start, start + BATCH))
            await asyncio.sleep(0.2)
            assert made.writer.waiting == 0
        made.add(*range(BATCH * 20, BATCH * 22 + 10))
        await asyncio.sleep(INTERVAL / 10)
        assert made.writer.waiting == 10
        assert made.store.batches == [BATCH] * 22


@in_virtual_time
async def test_many_traces_are_written_in_batches() -> None:
    async with writing() as made:
        made.add(*range(BATCH * 2 + 10))
        await asyncio.sleep(INTERVAL * 5)
        assert made.store.batches == [BATCH, BATCH, 10]
        assert await made.store.ids() == ids(*range(BATCH * 2 + 10))


@in_virtual_time
async def test_what_the_store_does_not_take_is_written_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with writing() as made:
        made.store.away = True
        made.add(1)
        await asyncio.sleep(1)
        assert not made.writer.up
        made.add(*range(2, 500))
        await asyncio.sleep(100)
        made.store.away = False
        await asyncio.sleep(10)
        assert made.writer.up
        assert await made.store.ids() == ids(*range(1, 500))
        assert made.lost == 0
    assert [line.getMessage() for line in caplog.records] == ["trace store unavailable", "trace store is back"]


@in_virtual_time
async def test_a_suppression_does_not_wait_for_a_store_that_is_down() -> None:
    async with writing() as made:
        made.store.away = True
        await made.write(1)
        assert not made.writer.up
        before = asyncio.get_running_loop().time()
        await made.write(2)
        assert asyncio.get_running_loop().time() == before
        made.store.away = False
        await asyncio.sleep(2)
        assert await made.store.ids() == ids(1, 2)


@in_virtual_time
async def test_a_suppression_waits_for_a_store_that_hangs_no_longer_than_the_limit() -> None:
    async with writing(limit=3.0) as made:
        made.store.hangs.clear()
        before = asyncio.get_running_loop().time()
        await made.write(1)
        assert asyncio.get_running_loop().time() - before == pytest.approx(3.0)
        made.store.hangs.set()
        await asyncio.sleep(1)
        assert await made.store.ids() == ids(1)


@in_virtual_time
async def test_only_the_first_suppressions_wait_for_a_store_that_hangs() -> None:
    async with writing(limit=3.0) as made:
        clock = asyncio.get_running_loop().time
        made.store.hangs.clear()
        await made.write(1)
        assert not made.writer.up
        before = clock()
        await made.write(2)
        assert clock() == before
        made.store.hangs.set()
        await asyncio.sleep(2)
        assert made.writer.up
        assert await made.store.ids() == ids(1, 2)


@in_virtual_time
async def test_so_many_bytes_wait_and_the_oldest_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with writing(most_waiting=25_000) as made:
        made.store.away = True
        made.add(0)
        await asyncio.sleep(1)
        made.add(*range(1, 20))
        assert (made.writer.waiting, made.lost) == (10, 10)
        made.store.away = False
        await asyncio.sleep(2)
        assert await made.store.ids() == ids(0, *range(11, 20))
    assert caplog.text.count("too many traces wait for the store; the oldest are dropped") == 1


async def test_a_trace_of_many_recipients_counts_as_many_bytes() -> None:
    made = Writing(most_waiting=1_000_000)
    for number in range(3):
        made.writer.add(partial(trace, number), 1_000)
    assert (made.writer.waiting, made.lost) == (1, 2)


async def test_what_waits_is_written_at_the_end() -> None:
    async with writing() as made:
        made.add(*range(250))
    assert await made.store.ids() == ids(*range(250))
    assert made.lost == 0


async def test_what_cannot_be_written_at_the_end_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with writing() as made:
        made.store.away = True
        made.add(1, 2)
    assert made.lost == 2
    assert "traces are lost, because the store did not answer before the end" in caplog.text


@in_virtual_time
async def test_a_store_that_is_away_at_the_start_is_used_later() -> None:
    made = Writing()
    made.store.away = True
    await made.writer.start()
    assert not made.writer.up
    made.add(1)
    made.store.away = False
    await asyncio.sleep(2)
    assert await made.store.ids() == ids(1)
    await made.writer.close()


@in_virtual_time
async def test_a_fault_costs_the_trace_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Trace:
        raise ValueError("a fault")

    async with writing() as made:
        made.add(1)
        await made.writer.write(fail, 1)
        made.add(2)
        await asyncio.sleep(1)
        assert await made.store.ids() == ids(1, 2)
        assert made.lost == 1
        made.store.poison = True
        await made.write(3)
        made.store.poison = False
        await made.write(4)
        assert await made.store.ids() == ids(1, 2, 4)
        assert (made.lost, made.writer.up) == (2, True)
    assert caplog.text.count("traces could not be written") == 1, "one line a minute"


async def test_a_client_that_is_cancelled_loses_no_trace() -> None:
    async with writing() as made:
        made.store.hangs.clear()
        noting = asyncio.ensure_future(made.write(1))
        await asyncio.sleep(0)
        noting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await noting
        made.store.hangs.set()
        await made.write(2)
        assert await made.store.ids() == ids(1, 2)


@in_virtual_time
async def test_an_idle_store_is_asked_to_delete_what_is_too_old() -> None:
    async with writing() as made:
        await asyncio.sleep(SWEEP_EVERY * 2.5)
        assert made.store.batches == [0, 0]


async def test_transactions_without_a_message_are_traced_up_to_their_credit() -> None:
    now = 0.0
    async with writing(clock=lambda: now) as made:
        for _ in range(1_500):
            made.writer.add_unfinished(partial(trace, 1), 1)
        assert (made.writer.waiting, made.skipped) == (1_000, 500)
        now += 5
        made.add(1, 2)
        for _ in range(10):
            made.writer.add_unfinished(partial(trace, 1), 1)
        assert made.skipped == 503, "five seconds and two messages"


def test_a_transaction_with_many_recipients_costs_more() -> None:
    credit = Credit(lambda: 0.0)
    assert [credit.spend(16 * 400) for _ in range(4)] == [True, True, False, False]
    assert credit.spend(1)
