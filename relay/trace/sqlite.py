"""Traces in an SQLite file of their own, beside that of the claims: claims never wait for traces.

A batch is one row, and a piece of its segment. When a segment is full, its index is written: a row for each word would
cost ten times as much.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from relay.claims.sqlite.commands import used_bytes
from relay.claims.sqlite.file import Schema, SqliteFile, transaction
from relay.claims.sqlite.thread import SqliteThread
from relay.events.store import TRACES_SET_ASIDE
from relay.trace.segments import (
    BUCKETS,
    MINUTE,
    MOST_ENTRIES,
    Batch,
    Limits,
    Line,
    Segment,
    counts_of,
    find,
    index_of,
    sum_up,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from relay.core.trace import Trace, TraceCounts, TracePage, TraceQuery
    from relay.trace.segments import Needles

_TABLES = """
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    entries INTEGER NOT NULL,
    size INTEGER NOT NULL,      -- bytes
    begun REAL NOT NULL,
    first_at REAL NOT NULL,     -- the times of the oldest and the newest trace
    last_at REAL NOT NULL
);
CREATE TABLE batches (
    number INTEGER PRIMARY KEY, -- of the first entry
    lines BLOB NOT NULL
);
CREATE TABLE words (            -- the indexes of all segments but the newest
    number INTEGER PRIMARY KEY, -- of the bucket
    records BLOB NOT NULL
);
CREATE TABLE minutes (
    minute INTEGER,
    outcome TEXT,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (minute, outcome)
) WITHOUT ROWID
"""
_SCHEMA = Schema((_TABLES,), b"CREATE TABLE batches", TRACES_SET_ASIDE)

_ENTRIES = 1 << 16
"""Numbers of entries that a segment reserves: its own number is in the bits above. More than a batch takes it to."""
_MOST_LINES = 100
"""Lines of one row."""
_MOST_ROWS = 200
"""Rows of a segment that is full. More are written again as fewer, because each is read by itself."""
_DELETED = 50
"""Rows of each table that a batch deletes at most: more than it adds, and less than takes long."""

_SEGMENTS = "SELECT number, entries, first_at, last_at FROM segments ORDER BY number DESC"
_NEWEST = "SELECT number, entries, size, begun FROM segments ORDER BY number DESC LIMIT 1"
_OLDEST = "SELECT number, last_at, (SELECT max(number) FROM segments) FROM segments ORDER BY number LIMIT 1"
_FIRST_NUMBER = """
SELECT coalesce((SELECT min(number) FROM segments), (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'segments'), 0)
"""
_NO_SEGMENT = (0, MOST_ENTRIES, 0, 0.0)
_BEGIN = "INSERT INTO segments VALUES (NULL, 0, 0, ?, 1e999, 0)"
_GROW = """
UPDATE segments SET entries = entries + ?, size = size + ?, first_at = min(first_at, ?), last_at = max(last_at, ?)
WHERE number = ?
"""
_COUNT = """
INSERT INTO minutes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients
"""
_LINES = "SELECT number, lines FROM batches WHERE number >= ? AND number < ? ORDER BY number DESC"
_PIECES = """
SELECT number, lines FROM batches WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number DESC
"""
_WORDS = """
SELECT number, records FROM words WHERE number IN (SELECT value FROM json_each(?))
"""
_DELETIONS = (
    ("DELETE FROM batches WHERE number IN (SELECT number FROM batches WHERE number < ? LIMIT ?)", _ENTRIES),
    ("DELETE FROM words WHERE number IN (SELECT number FROM words WHERE number < ? LIMIT ?)", BUCKETS),
)
_MINUTES = "SELECT minute, outcome, recipients FROM minutes WHERE minute >= ?"


class SqliteTraceStore:
    """A `TraceStore` for the processes of one host. `now` is the wall clock."""

    def __init__(
        self, path: Path, limits: Limits, *, now: Callable[[], float] = time.time, busy_timeout: float = 1.0
    ) -> None:
        self.limits = limits
        self._now = now
        self._file = SqliteFile(path, time.monotonic, _SCHEMA)
        self._read_file = SqliteFile(path, time.monotonic, _SCHEMA)
        self._changes = 0
        self._thread = SqliteThread(self._file, busy_timeout, "sqlite-traces")
        # A search does not delay those who write.
        self._reading = SqliteThread(self._read_file, busy_timeout, "sqlite-traces-read")

    async def open(self) -> None:
        """Creates the file if there is none, and checks that it is a relay's."""
        await self._thread.run(self._file.open)
        await self._reading.run(self._read_file.open)

    async def append(self, traces: Sequence[Trace]) -> None:
        """Stores traces in one transaction, in a new file if this one is damaged."""
        await self._thread.run_or_replace_file(partial(self._append, traces))
        if self._changes != self._file.changes:
            self._changes = self._file.changes
            # Without a search, the file before would stay open, and keep its space if it was removed.
            await self._reading.run(self._read_file.close)

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """See `TraceStore.find`."""
        return await find(self, query, limit, start, self._now() - self.limits.keep_for)

    async def counts(self, since: float, step: float) -> Sequence[TraceCounts]:
        """See `TraceStore.counts`."""
        minutes = await self._read(_MINUTES, int(since // MINUTE))
        return sum_up(minutes, since, step)

    async def close(self) -> None:
        """Closes the file and ends the threads."""
        await self._thread.close()
        await self._reading.close()

    # For `find`

    async def segments(self) -> Sequence[Segment]:
        """See `SegmentReader`."""
        return [Segment(*row) for row in await self._read(_SEGMENTS)]

    async def indexes(
        self, segments: Sequence[Segment], buckets: Sequence[int]
    ) -> Sequence[Mapping[int, bytes] | None]:
        """See `SegmentReader`."""
        return await self._reading.run(lambda: self._indexes([each.number for each in segments], buckets))

    async def lines(
        self, segment: Segment, needles: Needles, pieces: Collection[int] | None, below: int, most: int
    ) -> Sequence[Line]:
        """See `SegmentReader`."""
        return await self._reading.run(lambda: list(islice(self._lines(segment.number, needles, pieces, below), most)))

    async def _read(self, statement: str, *values: object) -> list[Any]:
        return await self._reading.run(lambda: self._read_file.open().execute(statement, values).fetchall())

    # The methods below run in a thread.

    def _indexes(self, segments: Sequence[int], buckets: Sequence[int]) -> list[Mapping[int, bytes] | None]:
        connection = self._read_file.open()
        newest = (connection.execute(_NEWEST).fetchone() or _NO_SEGMENT)[0]
        numbers = [segment * BUCKETS + bucket for segment in segments for bucket in buckets]
        found: dict[int, dict[int, bytes]] = {segment: {} for segment in segments}
        for number, records in connection.execute(_WORDS, (str(numbers),)):
            found[number // BUCKETS][number % BUCKETS] = records
        return [found[segment] if segment < newest else None for segment in segments]

    def _lines(self, segment: int, needles: Needles, pieces: Collection[int] | None, below: int) -> Iterator[Line]:
        first, connection = segment * _ENTRIES, self._read_file.open()
        if pieces is None:
            rows = connection.execute(_LINES, (first, first + below))
        else:
            chosen = [first + piece for piece in pieces if piece < below]
            rows = connection.execute(_PIECES, (str(chosen),))
        for number, lines in rows:
            for entry, text in needles.lines_in(lines):
                if number - first + entry < below:
                    yield Line(number - first + entry, text)

    def _append(self, traces: Sequence[Trace]) -> None:
        batches = [Batch.of(traces[at : at + _MOST_LINES]) for at in range(0, len(traces), _MOST_LINES)]
        now = self._now()
        connection = self._file.open()
        with transaction(connection):
            for batch in batches:
                _write(connection, *self._open_segment(connection, now), batch)
            counts = counts_of(traces)
            connection.executemany(_COUNT, [(minute, outcome, n) for (minute, outcome), n in counts.items()])
            self._delete_oldest(connection, now - self.limits.keep_for)

    def _open_segment(self, connection: sqlite3.Connection, now: float) -> tuple[int, int]:
        """Returns the number of the segment for the next entries, and how many it has."""
        number, entries, size, begun = connection.execute(_NEWEST).fetchone() or _NO_SEGMENT
        if not self.limits.is_full(entries, size, now - begun):
            return number, entries
        if number:
            _finish(connection, number)
        return connection.execute(_BEGIN, (now,)).lastrowid or 0, 0

    def _delete_oldest(self, connection: sqlite3.Connection, before: float) -> None:
        """Deletes some of the rows of a segment that is too old, or beyond the size of the store."""
        (first,) = connection.execute(_FIRST_NUMBER).fetchone()
        if not connection.execute("SELECT 1 FROM batches WHERE number < ?", (first * _ENTRIES,)).fetchone():
            number, last_at, newest = connection.execute(_OLDEST).fetchone() or (0, before, 0)
            if last_at < before or (number < newest and used_bytes(connection) > self.limits.size):
                connection.execute("DELETE FROM segments WHERE number = ?", (number,))
                first = number + 1
        for statement, numbers in _DELETIONS:
            connection.execute(statement, (first * numbers, _DELETED))
        connection.execute("DELETE FROM minutes WHERE minute < ?", (int(before // MINUTE),))


def _write(connection: sqlite3.Connection, segment: int, taken: int, batch: Batch) -> None:
    """Writes a batch to a segment that has `taken` entries."""
    text = batch.text
    connection.execute("INSERT INTO batches VALUES (?, ?)", (segment * _ENTRIES + taken, text))
    connection.execute(_GROW, (len(batch.lines), len(text), batch.first_at, batch.last_at, segment))


def _finish(connection: sqlite3.Connection, segment: int) -> None:
    """Writes the index of a full segment, and its lines in fewer rows if there were many small batches."""
    first = segment * _ENTRIES
    rows = connection.execute(_LINES, (first, first + _ENTRIES)).fetchall()[::-1]
    pieces = {number - first: text for number, text in rows}
    if len(pieces) > _MOST_ROWS:
        lines = b"\n".join(pieces.values()).split(b"\n")
        pieces = {at: b"\n".join(lines[at : at + _MOST_LINES]) for at in range(0, len(lines), _MOST_LINES)}
        connection.execute("DELETE FROM batches WHERE number >= ? AND number < ?", (first, first + _ENTRIES))
        rows = [(first + number, text) for number, text in pieces.items()]
        connection.executemany("INSERT INTO batches VALUES (?, ?)", rows)
    index = [(segment * BUCKETS + bucket, records) for bucket, records in index_of(pieces).items()]
    connection.executemany("INSERT INTO words VALUES (?, ?)", index)
