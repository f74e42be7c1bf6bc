"""The contract of a store of traces, tested on all of them."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts import trace_backends
from parts.traces import AT, ORIGINAL, recipient, repeat, some_traces, trace

from relay.core.trace import Trace, TraceCounts, TraceOutcome, TraceQuery
from relay.trace.names import matches
from relay.trace.segments import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parts.trace_backends import TraceBackend

    from relay.core.trace import TraceStore

ALL = TraceQuery()
SMALL = Limits(keep_for=30 * 86400.0, size=160 * 1024)
"""A segment of this store has some 25 traces."""


@pytest.fixture(scope="module", params=trace_backends.NAMES)
def any_backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceBackend]:
    with trace_backends.trace_backend(request.param, tmp_path_factory.mktemp("trace")) as backend:
        yield backend


@pytest.fixture
def backend(any_backend: TraceBackend) -> TraceBackend:
    any_backend.clear()
    return any_backend


@pytest_asyncio.fixture
async def store(backend: TraceBackend) -> AsyncIterator[TraceStore]:
    store = backend.store()
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def small(backend: TraceBackend) -> AsyncIterator[TraceStore]:
    store = backend.store(SMALL)
    await store.open()
    yield store
    await store.close()


async def find(store: TraceStore, query: TraceQuery = ALL, limit: int = 1000) -> list[Trace]:
    """Reads all pages."""
    found: list[Trace] = []
    start = ""
    while True:
        page = await store.find(query, limit, start)
        assert len(page.traces) <= limit
        assert page.damaged == 0
        found += page.traces
        if not page.next:
            return found
        start = page.next


async def test_a_new_store_is_empty(store: TraceStore) -> None:
    assert await find(store) == []
    assert await find(store, TraceQuery(names=frozenset({"x"}))) == []
    assert list(await store.counts(AT, 60)) == []


async def test_traces_are_found_as_they_were_stored_newest_first(store: TraceStore) -> None:
    unjudged = trace(3, recipients=(), reply="", steps={}, seconds=0.0, upstream="")
    await store.append([trace(1), repeat(2)])
    await store.append([unjudged])
    assert await find(store) == [unjudged, repeat(2), trace(1)]


@pytest.mark.parametrize(
    "name",
    ["000000000001", "1@example.test", "h:00000000000000aa", "h:cc", "h:0000000000000001", "0123456789ab", "4FIRST1"],
)
async def test_a_message_is_found_by_each_of_its_names(store: TraceStore, name: str) -> None:
    other = trace(7, sender="h:07", message_id="<other@example.test>")
    await store.append([repeat(1), other])
    assert await find(store, TraceQuery(names=frozenset({name}))) == [repeat(1)]
    assert await find(store, TraceQuery(names=frozenset({name, "h:07"}))) == [other, repeat(1)]


async def test_id_finds_the_message_itself_and_not_its_copies(store: TraceStore) -> None:
    first = trace(1, id=ORIGINAL.id)
    await store.append([first, repeat(2)])
    assert await find(store, TraceQuery(names=frozenset({first.id}))) == [repeat(2), first]
    assert await find(store, TraceQuery(ids=frozenset({first.id, trace(9).id}))) == [first]


async def test_search_that_reads_all_lines_lets_mail_go_on(store: TraceStore) -> None:
    for start in range(0, 400, 100):
        await store.append([trace(number) for number in range(start, start + 100)])
    steps = 0

    async def handle_mail() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    mail = asyncio.create_task(handle_mail())
    assert await find(store, TraceQuery(names=frozenset({"example.test"}))) == []
    mail.cancel()
    assert steps >= 400 / 20


@pytest.mark.parametrize("limit", [3, 1000])
async def test_each_query_finds_what_matches_and_nothing_else(small: TraceStore, limit: int) -> None:
    traces = some_traces(300)
    for start in range(0, 300, 40):
        await small.append(traces[start : start + 40])
    queries = [
        ALL,
        TraceQuery(since=AT + 70, until=AT + 200),
        TraceQuery(since=AT + 1000),
        TraceQuery(rule="rare"),
        TraceQuery(rule="codes", outcomes=frozenset({TraceOutcome.SUPPRESSED})),
        TraceQuery(outcomes=frozenset({TraceOutcome.FORWARDED})),
        TraceQuery(outcomes=frozenset({TraceOutcome.REFUSED, TraceOutcome.ABORTED})),
        TraceQuery(names=frozenset({"h:0000000000000001"})),
        TraceQuery(names=frozenset({"h:0000000000000001"}), outcomes=frozenset({TraceOutcome.DEFERRED}), rule="codes"),
        TraceQuery(names=frozenset({"h:0000000000000007", "4Q0123"}), since=AT + 100),
        TraceQuery(names=frozenset({"nowhere"})),
    ]
    for query in queries:
        assert await find(small, query, limit) == [each for each in reversed(traces) if matches(query, each)], query


async def test_new_traces_do_not_shift_the_later_pages(small: TraceStore) -> None:
    traces = some_traces(100)
    await small.append(traces)
    page = await small.find(ALL, 10)
    await small.append([trace(1000 + number) for number in range(50)])
    rest = await small.find(ALL, 1000, page.next)
    assert [*page.traces, *rest.traces] == traces[::-1]


@pytest.mark.parametrize("position", ["x", "1-", "-1-2", "99999999999999999999-1", "é-1"])
async def test_a_foreign_position_is_no_fault(store: TraceStore, position: str) -> None:
    await store.append([trace(1)])
    page = await store.find(ALL, 10, position)
    assert list(page.traces) in ([], [trace(1)])


async def test_what_is_older_than_keep_for_is_not_found(store: TraceStore, backend: TraceBackend) -> None:
    day = 86400.0
    await store.append([trace(1), trace(2, at=AT + 20 * day)])
    backend.now = AT + 31 * day
    assert [each.id for each in await find(store)] == [trace(2).id]
    assert await find(store, TraceQuery(names=frozenset({trace(1).id}))) == []
    backend.now = AT + 51 * day
    assert await find(store) == []
    await store.append([])
    await store.append([trace(3, at=backend.now)])
    assert [each.id for each in await find(store)] == [trace(3).id]


async def test_the_oldest_are_deleted_beyond_the_size(small: TraceStore) -> None:
    for start in range(0, 4_000, 50):
        await small.append([trace(number) for number in range(start, start + 50)])
    left = await find(small)
    assert left == [trace(number) for number in range(3_999, 3_999 - len(left), -1)]
    assert 100 < len(left) < 700
    assert await find(small, TraceQuery(names=frozenset({trace(1).id}))) == []


async def test_a_trace_of_a_thousand_recipients_is_stored(store: TraceStore) -> None:
    many = trace(1, recipients=tuple(recipient(f"h:{number:016x}") for number in range(1_000)))
    await store.append([many])
    assert await find(store, TraceQuery(names=frozenset({"h:" + f"{999:016x}"}))) == [many]


async def test_recipients_are_counted_by_minute_and_outcome(store: TraceStore) -> None:
    await store.append([trace(0), trace(1), repeat(61)])
    await store.append([trace(62), trace(3_700)])
    minute = AT // 60 * 60
    counts = await store.counts(minute, 60)
    assert list(counts) == [
        TraceCounts(minute, {TraceOutcome.FORWARDED: 2}),
        TraceCounts(
            minute + 60,
            {
                TraceOutcome.SUPPRESSED: 1,
                TraceOutcome.WOULD_SUPPRESS: 1,
                TraceOutcome.RCPT_REFUSED: 1,
                TraceOutcome.FORWARDED: 1,
            },
        ),
        TraceCounts(minute + 3_720, {TraceOutcome.FORWARDED: 1}),
    ]
    assert [math.fsum(each.counts.values()) for each in await store.counts(minute, 3_600)] == [6, 1]
    assert [each.start for each in await store.counts(minute + 60, 3_600)] == [minute + 60, minute + 3_660]


async def test_counts_survive_the_traces(small: TraceStore) -> None:
    for start in range(0, 2_000, 50):
        await small.append([trace(number) for number in range(start, start + 50)])
    assert await find(small, TraceQuery(names=frozenset({trace(1).id}))) == []
    assert sum(sum(each.counts.values()) for each in await small.counts(AT // 60 * 60, 60)) == 2_000


async def test_two_stores_share_their_traces(store: TraceStore, backend: TraceBackend) -> None:
    second = backend.store()
    await second.open()
    await store.append([trace(1)])
    await second.append([trace(2)._replace(host="mx2")])
    assert [each.host for each in await find(store)] == ["mx2", "mx1.example.test"]
    assert await find(store) == await find(second)
    await second.close()


async def test_a_store_may_be_opened_and_closed_again_and_again(store: TraceStore) -> None:
    await store.open()
    await store.open()
    await store.append([trace(1)])
    await store.close()
    await store.close()
