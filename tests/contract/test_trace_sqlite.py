"""Traces in SQLite: the file, its segments and its size."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.traces import AT, trace

from relay.core.errors import StoreError
from relay.core.trace import TraceQuery
from relay.trace import segments
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.core.trace import Trace

DAY = 86400.0
LIMITS = Limits(30 * DAY, 100 << 20)
SMALL = Limits(30 * DAY, 1 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.trace.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteTraceStore]:
    store = SqliteTraceStore(path, LIMITS, now=lambda: AT, busy_timeout=0.05)
    await store.open()
    yield store
    await store.close()


async def ids(store: SqliteTraceStore, *names: str) -> list[str]:
    return [each.id for each in (await store.find(TraceQuery(names=frozenset(names)), 100_000)).traces]


def rows(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


def opened_but_removed(path: Path) -> list[str]:
    """Returns which of the files that this process has open were a database at this path."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return [each for each in found if each.startswith(str(path)) and each.endswith(" (deleted)")]


def numbered(*numbers: int) -> list[Trace]:
    return [trace(number, at=AT + number / 1000) for number in numbers]


async def test_only_the_user_of_the_relay_can_read_the_file(store: SqliteTraceStore, path: Path) -> None:
    await store.append([trace(1)])
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


async def test_a_full_segment_has_the_hashes_of_its_words_and_few_rows(store: SqliteTraceStore, path: Path) -> None:
    for number in range(0, segments.MOST_ENTRIES, 16):
        await store.append(numbered(*range(number, number + 16)))
    assert rows(path, "batches") == segments.MOST_ENTRIES / 16
    assert rows(path, "words") == 0
    await store.append(numbered(10_000))
    assert rows(path, "batches") == segments.MOST_ENTRIES // 100 + 2
    assert rows(path, "words") == 256
    for number in (0, 99, 100, 8191, 10_000):
        assert await ids(store, trace(number).id) == [trace(number).id]
    page = await store.find(TraceQuery(), 9_000)
    assert page.traces == (*numbered(10_000), *reversed(numbered(*range(segments.MOST_ENTRIES))))


async def test_the_file_does_not_grow_beyond_its_size(path: Path) -> None:
    store = SqliteTraceStore(path, SMALL, now=lambda: AT)
    sizes = []
    for number in range(0, 20_000, 100):
        await store.append(numbered(*range(number, number + 100)))
        sizes.append(path.stat().st_size)  # noqa: ASYNC240 - at once
    assert SMALL.size / 2 < max(sizes) < SMALL.size * 1.5
    assert max(sizes[100:]) == sizes[-1] <= max(sizes[:100]) * 1.1, "free pages are used again"
    assert (await ids(store))[:3] == [trace(number).id for number in (19_999, 19_998, 19_997)]
    await store.close()


async def test_old_traces_are_deleted_in_small_steps(path: Path) -> None:
    now = AT
    store = SqliteTraceStore(path, Limits(DAY, 100 << 20), now=lambda: now)
    for number in range(300):
        await store.append(numbered(number))
    now += 2 * DAY
    before = rows(path, "batches")
    await store.append([])
    assert before - 50 <= rows(path, "batches") < before
    assert await ids(store) == []
    for _ in range(10):
        await store.append([])
    assert rows(path, "batches") == rows(path, "segments") == rows(path, "minutes") == 0
    await store.append([trace(1, at=now)])
    assert await ids(store) == [trace(1).id]
    await store.close()


async def test_a_locked_file_is_an_error_and_reading_goes_on(store: SqliteTraceStore, path: Path) -> None:
    await store.append([trace(1)])
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process keeps it locked"):
            await store.append([trace(2)])
        assert await ids(store) == [trace(1).id]
        other.execute("ROLLBACK")
    other.close()
    await store.append([trace(2)])
    assert await ids(store) == [trace(2).id, trace(1).id]


async def test_another_process_that_closes_the_file_leaves_it_to_the_relay(store: SqliteTraceStore, path: Path) -> None:
    """Closing a descriptor ends all locks of a process on a file: the other one would delete the -wal in use."""
    await store.append([trace(1)])
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM segments'); c.close()"
    for number in range(2, 5):
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)  # noqa: ASYNC221 - at once
        await store.append([trace(number)])
    assert rows(path, "batches") == 4


async def test_a_full_disk_is_an_error_and_loses_only_what_is_new(store: SqliteTraceStore) -> None:
    await store.append([trace(1)])
    await store._thread.run(lambda: store._file.open().execute("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreError, match="the disk is full"):
        await store.append(numbered(*range(2, 500)))
    assert await ids(store) == [trace(1).id]


async def test_a_damaged_file_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"\0" * 4096 + b"CREATE TABLE batches")  # noqa: ASYNC240 - at once
    store = SqliteTraceStore(path, LIMITS, now=lambda: AT)
    await store.append([trace(1)])
    assert await ids(store) == [trace(1).id]
    assert "damaged database of traces set aside" in caplog.text
    assert [each.name for each in path.parent.glob("*damaged*")]
    await store.close()


async def test_a_file_that_was_removed_is_not_kept_open(store: SqliteTraceStore, path: Path) -> None:
    await store.append([trace(1)])
    for end in ("-wal", "-shm", ""):
        path.with_name(path.name + end).unlink()
    await store.append([trace(2)])
    assert not opened_but_removed(path)
    assert await ids(store) == [trace(2).id]


async def test_a_line_that_cannot_be_read_is_left_out_and_counted(store: SqliteTraceStore, path: Path) -> None:
    await store.append([trace(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE batches SET lines = CAST(lines || ? AS BLOB)", (b'\n[1700000000000,"x"',))
        connection.execute("UPDATE segments SET entries = entries + 1")
    connection.close()
    page = await store.find(TraceQuery(), 10)
    assert (page.traces, page.damaged) == ((trace(1),), 1)
