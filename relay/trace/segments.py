"""How stores keep traces: in segments of some thousand entries, each with an index of its terms.

A segment fills up, and is deleted as a whole when it is too old or the store too large, so that nothing is searched for
to be deleted. A segment's index is read by one term at a time: some 100 small reads for a million traces.

The index is bytes: for each term of each entry, a record of the term and the entry's number in its segment. It is
divided into buckets by the first byte of the term. Records are in the order of the entries.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from relay.core.trace import TraceCounts, TraceOutcome, TracePage
from relay.trace.codec import decode, encode, time_of
from relay.trace.terms import TERM_BYTES, matches, terms_in, terms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from relay.core.trace import Trace, TraceQuery

MOST_ENTRIES = 8192
"""Entries of a segment: few enough that a small store deletes little at a time, and its index is written in memory."""
PARTS = 16
"""A segment has at most this part of the bytes of the store, and this part of `keep_for`."""
MINUTE = 60
_OUTCOMES = frozenset(TraceOutcome)

_NUMBER_BYTES = 2
RECORD_BYTES = TERM_BYTES + _NUMBER_BYTES
_FEW = 64
"""Entries that are looked up one by one in the indexes of the other criteria, rather than all of those compared."""
_MOST_SEGMENTS = 32
"""Segments whose indexes are read together. The first read is of one segment, the next of twice as many."""
_MOST_LINES = 512
"""Lines that are read together if many of them do not match, such as those before an interval."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store keeps: seconds, and bytes of all segments."""

    keep_for: float
    size: int

    @property
    def segment_size(self) -> int:
        """The bytes after which a segment is full."""
        return self.size // PARTS

    @property
    def segment_time(self) -> float:
        """The seconds after which a segment is full."""
        return self.keep_for / PARTS

    def is_full(self, entries: int, size: int, age: float) -> bool:
        """Returns whether a segment takes no more: its entries, bytes, and seconds since its beginning are given."""
        return entries >= MOST_ENTRIES or size >= self.segment_size or age >= self.segment_time


@dataclass(frozen=True, slots=True)
class Entry:
    """A trace as a store keeps it."""

    at: float
    line: bytes
    terms: Sequence[bytes]

    @property
    def weight(self) -> int:
        """Bytes in the store, roughly."""
        return len(self.line) + len(self.terms) * (RECORD_BYTES + 2)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that exists. `first_at` and `last_at` are the times of the oldest and the newest of its traces."""

    number: int
    entries: int
    first_at: float
    last_at: float


class SegmentReader(Protocol):
    """What `find` reads of a store. All methods raise `StoreError`."""

    async def segments(self) -> Sequence[Segment]:
        """Returns the segments, the newest first."""

    async def indexes(self, segments: Sequence[Segment], buckets: Sequence[int]) -> Sequence[Mapping[int, bytes]]:
        """Returns, for each segment, the records of these buckets. More records than asked for are no fault."""

    async def lines(self, segment: Segment, entries: Sequence[int]) -> Sequence[bytes | None]:
        """Returns the line of each of these entries, which are in descending order; None for one that is gone."""


def entries_of(traces: Iterable[Trace]) -> list[Entry]:
    """Returns what a store keeps of traces."""
    return [Entry(trace.at, encode(trace).encode("ascii"), terms_of(trace)) for trace in traces]


def counts_of(traces: Iterable[Trace]) -> Counter[tuple[int, str]]:
    """Returns the number of recipients by minute since the Unix epoch and outcome."""
    return Counter((int(trace.at // MINUTE), to.outcome._value_) for trace in traces for to in trace.recipients)


def sum_up(minutes: Iterable[tuple[int, str, int]], since: float, step: float) -> list[TraceCounts]:
    """Returns the counts of each `step` seconds since a time, from those of minutes (minute, outcome, recipients)."""
    intervals: dict[int, Counter[TraceOutcome]] = {}
    for minute, outcome, count in minutes:
        interval = (minute * MINUTE - since) // step
        if interval >= 0 and outcome in _OUTCOMES:
            intervals.setdefault(int(interval), Counter())[TraceOutcome(outcome)] += count
    return [TraceCounts(since + number * step, intervals[number]) for number in sorted(intervals)]


def record(term: bytes, entry: int) -> bytes:
    """Returns the record of a term of the entry with this number in its segment."""
    return term + entry.to_bytes(_NUMBER_BYTES, "big")


def bucket_of(term: bytes) -> int:
    """Returns the bucket of a term or a record."""
    return term[0]


async def find(reader: SegmentReader, query: TraceQuery, limit: int, start: str, oldest: float) -> TracePage:
    """Returns at most `limit` traces that match, newest first, from a position on. See `TraceStore.find`.

    None is from before `oldest`, in seconds since the Unix epoch.
    """
    query = replace(query, since=max(query.since, oldest))
    page = _Page(query, limit)
    segments = [each for each in await reader.segments() if query.since <= each.last_at and each.first_at < query.until]
    first, below = _parse(start)
    if start:
        segments = [each for each in segments if each.number <= first]
    terms = terms_in(query)
    buckets = sorted({bucket_of(term) for alternatives in terms for term in alternatives})
    at = 0
    for number in itertools.count():
        some = segments[at : at + min(1 << number, _MOST_SEGMENTS)]
        if not some:
            return page.ended()
        indexes = await reader.indexes(some, buckets) if terms else [{}] * len(some)
        for segment, index in zip(some, indexes, strict=True):
            most = min(segment.entries, below) if start and segment.number == first else segment.entries
            if await _read(reader, segment, _candidates(index, terms, most), page):
                return page.full(segment.number)
        at += len(some)


async def _read(reader: SegmentReader, segment: Segment, candidates: Iterator[int], page: _Page) -> bool:
    """Adds to the page what matches. Returns whether it is full."""
    size = page.room
    while entries := list(itertools.islice(candidates, size)):
        for entry, line in zip(entries, await reader.lines(segment, entries), strict=True):
            if page.add(entry, line):
                return True
        size = min(size * 2, _MOST_LINES)
    return False


class _Page:
    """The traces found so far."""

    def __init__(self, query: TraceQuery, limit: int) -> None:
        self._query = query
        self._limit = limit
        self._found: dict[str, Trace] = {}
        self._damaged = 0
        self._last = 0

    @property
    def room(self) -> int:
        return self._limit - len(self._found)

    def add(self, entry: int, line: bytes | None) -> bool:
        """Adds the trace in a line if it matches. Returns whether the page is full."""
        self._last = entry
        if line is None or not self._query.since <= time_of(line) < self._query.until:
            return False
        trace = decode(line)
        if trace is None:
            self._damaged += 1
        elif matches(self._query, trace):
            self._found.setdefault(trace.id, trace)
        return not self.room

    def ended(self) -> TracePage:
        """Returns the last page."""
        return TracePage(tuple(self._found.values()), "", self._damaged)

    def full(self, segment: int) -> TracePage:
        """Returns a page that others may follow."""
        return TracePage(tuple(self._found.values()), f"{segment}-{self._last}", self._damaged)


def _parse(start: str) -> tuple[int, int]:
    """Returns the segment and the entry in a position. A foreign one is the end of all."""
    segment, _, entry = start.partition("-")
    return (int(segment), int(entry)) if segment.isdecimal() and entry.isdecimal() else (-1, 0)


def _candidates(index: Mapping[int, bytes], terms: Sequence[Sequence[bytes]], most: int) -> Iterator[int]:
    """Yields the entries below `most` that may have one term of each list, in descending order."""
    if not terms:
        return iter(range(most - 1, -1, -1))
    lists = [[(index.get(bucket_of(term), b""), term) for term in alternatives] for alternatives in terms]
    # The rarest criterion first. `count` is an estimate: it also counts what is not at the start of a record.
    lists.sort(key=lambda pairs: sum(records.count(term) for records, term in pairs))
    found = {entry for entry in _all_entries(lists[0]) if entry < most}
    if len(found) <= _FEW:
        return (entry for entry in sorted(found, reverse=True) if all(_has(pairs, entry) for pairs in lists[1:]))
    for pairs in lists[1:]:
        found.intersection_update(_all_entries(pairs))
    return iter(sorted(found, reverse=True))


def _all_entries(pairs: Sequence[tuple[bytes, bytes]]) -> Iterator[int]:
    return itertools.chain.from_iterable(_entries(records, term) for records, term in pairs)


def _entries(records: bytes, term: bytes) -> Iterator[int]:
    """Yields the entries with this term."""
    at = records.find(term)
    while at >= 0:
        if at % RECORD_BYTES:
            at += 1
        else:
            yield int.from_bytes(records[at + TERM_BYTES : at + RECORD_BYTES], "big")
            at += RECORD_BYTES
        at = records.find(term, at)


def _has(pairs: Sequence[tuple[bytes, bytes]], entry: int) -> bool:
    return any(record(term, entry) in records for records, term in pairs)
