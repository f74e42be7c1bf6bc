"""The records of version 0.1: stores read them, and the service copies them into its traces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest_asyncio
from parts.old_records import OldRecord, write_to_redis, write_to_sqlite
from parts.redis_server import RedisServer
from parts.waiting import until_told

from relay.core.claim import Claim, Fingerprint, Token, Won
from relay.core.errors import StoreError
from relay.core.trace import TraceOutcome, TraceQuery
from relay.service import Service, build_store
from relay.service.build_stores import build_old_records, build_trace_store
from relay.settings.sources import load
from relay.trace.memory import MemoryTraceStore
from relay.trace.segments import Limits
from relay.trace.takeover import take_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import pytest

    from relay.core.store import OldRecords
    from relay.core.trace import Trace, TraceStore
    from relay.settings.loaded import Loaded

KEEP_FOR = 30 * 86400.0


@dataclass
class Place:
    """A file or a server that version 0.1 used."""

    url: str
    path: Path
    server: RedisServer | None

    def write(self, *records: OldRecord) -> None:
        if self.server:
            write_to_redis(self.server, records)
        else:
            write_to_sqlite(self.path, records)

    def stored(self) -> int:
        """Returns how many records are there."""
        if self.server:
            with self.server.client() as client:
                return int(client.xlen("smtp-dedup:records"))
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])

    def loaded(self) -> Loaded:
        flags = {
            "store.url": self.url,
            "listen.address": "127.0.0.1:0",
            "http.address": "127.0.0.1:0",
            "upstream.url": "smtp://127.0.0.1:1",
            "record.addresses": "true",
        }
        return load(None, flags, {}, user_id=0)

    def open(self) -> OldRecords:
        records = build_old_records(self.loaded().settings)
        assert records
        return records

    def traces(self) -> TraceStore:
        traces = build_trace_store(self.loaded().settings)
        assert traces
        return traces


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    path = tmp_path / "relay.db"
    with RedisServer() if request.param == "redis" else contextlib.nullcontext() as server:
        found = Place(server.url if server else f"sqlite:{path}", path, server)
        store = build_store(found.loaded().settings)
        await store.open()  # version 0.1 has used it
        await store.close()
        yield found


@contextlib.asynccontextmanager
async def reading(place: Place, age: float = KEEP_FOR) -> AsyncIterator[AsyncIterator[str]]:
    records = place.open()
    try:
        yield records.records(age)
    finally:
        await records.close()


async def texts(place: Place, age: float = KEEP_FOR) -> list[str]:
    async with reading(place, age) as found:
        return [text async for text in found]


def ago(number: int, age: float, keep_for: float = KEEP_FOR, size: int = 0) -> OldRecord:
    return OldRecord(f"rec-{number}", f"{number}".ljust(size), time.time() - age, keep_for)


async def test_a_new_store_has_no_records(place: Place) -> None:
    assert await texts(place) == []


async def test_records_are_read_newest_first_up_to_an_age(place: Place) -> None:
    place.write(ago(0, 300), ago(1, 200, size=2_000), ago(2, 100))
    assert await texts(place) == ["2", "1".ljust(2_000), "0"]
    assert await texts(place, 250) == ["2", "1".ljust(2_000)]
    assert await texts(place, 50) == []


async def test_a_record_is_read_for_its_time(place: Place) -> None:
    place.write(ago(0, 300, keep_for=200), ago(1, 200, keep_for=300))
    assert await texts(place) == ["1"]


async def test_many_records_are_read_page_by_page(place: Place) -> None:
    place.write(*(ago(number, 2_000 - number) for number in range(1_700)))
    async with reading(place) as found:
        assert [await anext(found) for _ in range(3)] == ["1699", "1698", "1697"]
        # A slow reader blocks no relay that claims.
        store = build_store(place.loaded().settings)
        assert await store.execute([Claim(Fingerprint("v1:0"), Token("mine"), 30, 600)]) == [Won()]
        await store.close()
        assert [text async for text in found] == [f"{number}" for number in range(1_696, -1, -1)]


async def test_forgetting_leaves_the_records(place: Place) -> None:
    place.write(ago(1, 100))
    store = build_store(place.loaded().settings)
    await store.forget(lambda _: True)
    await store.close()
    assert await texts(place) == ["1"]


# The copy into the traces


def suppression(number: int, age: float) -> OldRecord:
    at = time.time() - age
    fields = {
        "id": f"{number:012x}",
        "at": at,
        "message_id": f"<{number}@example.test>",
        "sender": "a@example.test",
        "originals": [["0123456789ab", "<0@example.test>", "2.0.0 Ok: queued as 4XYZ", at - 34]],
        "repeats": [["b@example.test", "suppressed", "default", "v1:0a", 34.0, 0]],
        "forms": {"default": ["Subject 0a"]},
        "ignored": {"default": []},
        "kept": "",
    }
    return OldRecord(f"{number:012x}", json.dumps(fields), at, KEEP_FOR)


async def found(traces: TraceStore) -> Sequence[Trace]:
    return (await traces.find(TraceQuery(), 1_000)).traces


async def ids(place: Place) -> list[str]:
    traces = place.traces()
    try:
        return [trace.id for trace in await found(traces)]
    finally:
        await traces.close()


@contextlib.asynccontextmanager
async def started(place: Place) -> AsyncIterator[Service]:
    service = Service(place.loaded())
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def test_records_become_traces_and_stay_where_they_are(place: Place) -> None:
    old = [suppression(number, 1_000 - number) for number in range(250)]
    place.write(*old[:100], ago(7, 900.5, size=8), *old[100:])  # one of them is damaged
    before = place.stored()
    traces = place.traces()
    await take_over(place.open(), traces, KEEP_FOR)
    copied = await found(traces)
    await traces.close()
    assert [trace.id for trace in copied] == [record.id for record in reversed(old)]
    assert {(each.outcome, each.reply) for trace in copied for each in trace.recipients} == {
        (TraceOutcome.SUPPRESSED, "2.0.0 Ok: queued as 4XYZ")
    }
    assert place.stored() == before


async def test_what_is_older_than_traces_are_kept_is_not_copied(place: Place) -> None:
    place.write(suppression(1, 300), suppression(2, 100))
    traces = place.traces()
    await take_over(place.open(), traces, 200)
    await traces.close()
    assert await ids(place) == [f"{2:012x}"]


async def test_the_first_start_copies_the_records_and_the_second_does_not(place: Place) -> None:
    place.write(suppression(1, 300), suppression(2, 100))
    copied = [f"{2:012x}", f"{1:012x}"]
    async with started(place) as service:
        await until_told(lambda: ids(place), "the traces of the records")
        assert await ids(place) == copied
        assert service.store.up
    place.write(suppression(3, 50))  # version 0.1 was started again for a while
    async with started(place):
        assert "take over records" not in {task.get_name() for task in asyncio.all_tasks()}
    assert await ids(place) == copied
    assert place.stored() == 3


async def test_of_too_many_records_the_newest_are_copied(place: Place) -> None:
    place.write(*(suppression(number, 1_000 - number) for number in range(250)))
    traces = place.traces()
    await take_over(place.open(), traces, KEEP_FOR, most=120)
    assert [trace.id for trace in await found(traces)] == [f"{number:012x}" for number in range(249, 129, -1)]
    await traces.close()


class _Broken:
    """Records whose store does not answer."""

    closed = False

    async def records(self, age: float) -> AsyncIterator[str]:
        raise StoreError(f"no records of the last {age} s")
        yield ""

    async def close(self) -> None:
        self.closed = True


async def test_a_store_that_does_not_answer_is_reported_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    records = _Broken()
    await take_over(records, MemoryTraceStore(Limits(KEEP_FOR, 1 << 20)), KEEP_FOR)
    assert records.closed
    [line] = caplog.records
    assert line.getMessage() == "records of an earlier version could not be copied to the traces"
