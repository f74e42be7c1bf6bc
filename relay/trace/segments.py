"""How stores keep traces: in segments of some thousand lines, which are searched as text.

A segment fills up, and is deleted as a whole when it is too old or the store too large, so that nothing is searched for
to be deleted. To read one segment takes a millisecond. For each segment a store keeps the hashes of the words in it: a
search reads only segments that have all words of what is searched for, a few of the 120 of a million traces.

The hashes of a segment are divided into buckets by their first byte.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from relay.core.trace import TraceCounts, TraceOutcome, TracePage
from relay.trace.codec import decode, encode, time_of
from relay.trace.names import matches, needles_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from relay.core.trace import Trace, TraceQuery

MOST_ENTRIES = 8192
"""Traces of a segment: few enough that a small store deletes little at a time, and that one can be read at once."""
PARTS = 16
"""A segment has at most this part of the bytes of the store, and this part of `keep_for`."""
MINUTE = 60
BUCKETS = 256
HASH_BYTES = 4

# Every end of a name is the end of a word: in a line, names are between quotes and other characters than these.
_WORD = re.compile(rb"[\w+-]{4,}")
_MOST_SEGMENTS = 32
"""Segments whose words are read together. The first read is of one segment, the next of twice as many."""
_OUTCOMES = frozenset(TraceOutcome)


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
class Batch:
    """Traces that are stored together."""

    lines: Sequence[bytes]
    first_at: float
    last_at: float
    """The times of the oldest and the newest trace."""

    @classmethod
    def of(cls, traces: Sequence[Trace]) -> Batch:
        """Returns what a store keeps of traces; there must be some."""
        times = [trace.at for trace in traces]
        return cls([encode(trace).encode("ascii") for trace in traces], min(times), max(times))

    @property
    def text(self) -> bytes:
        """All lines."""
        return b"\n".join(self.lines)


class Segment(NamedTuple):
    """A segment that exists. `first_at` and `last_at` are the times of the oldest and the newest of its traces."""

    number: int
    entries: int
    first_at: float
    last_at: float


class Line(NamedTuple):
    """A trace in a segment, and its number there: 0 is the oldest."""

    entry: int
    text: bytes


class SegmentReader(Protocol):
    """What `find` reads of a store. All methods raise `StoreError`."""

    async def segments(self) -> Sequence[Segment]:
        """Returns the segments, the newest first."""

    async def hashes(self, segments: Sequence[Segment], buckets: Sequence[int]) -> Sequence[Mapping[int, bytes] | None]:
        """Returns the hashes in these buckets of each segment; None if only its lines can say what is in it."""

    async def lines(self, segment: Segment, needles: Needles, below: int, most: int) -> Sequence[Line]:
        """Returns at most `most` lines that match, the newest first, of entries below a number."""


class Needles:
    """The texts of which a line must contain one of each list, and their words."""

    def __init__(self, query: TraceQuery) -> None:
        self.texts = needles_of(query)
        self._hashes = [[_hashes_in(text) for text in texts] for texts in self.texts]
        self.buckets = sorted({found[0] for texts in self._hashes for hashes in texts for found in hashes})

    def may_be_in(self, hashes: Mapping[int, bytes] | None) -> bool:
        """Returns whether a segment with these hashes may have lines that match."""
        return hashes is None or all(
            any(all(_has(hashes.get(each[0], b""), each) for each in words) for words in texts)
            for texts in self._hashes
        )

    def lines_in(self, text: bytes) -> Iterator[Line]:
        """Yields the lines of a text that match, the newest first."""
        end = len(text)
        # Where each of the first texts is found last. Searched again only behind that: one may be in no line.
        last = dict.fromkeys(self.texts[0] if self.texts else (), end)
        while end > 0:
            for each, at in last.items():
                if at >= end:
                    last[each] = text.rfind(each, 0, end)
            at = max(last.values(), default=end - 1)
            if at < 0:
                return
            start = text.rfind(b"\n", 0, at) + 1
            stop = text.find(b"\n", at)
            line = text[start : stop if stop >= 0 else len(text)]
            if self.match(line):
                yield Line(text.count(b"\n", 0, start), line)
            end = start - 1

    def match(self, line: bytes) -> bool:
        """Returns whether a line contains one text of each list."""
        return all(any(text in line for text in texts) for texts in self.texts)


def hashes_of(texts: Iterable[bytes]) -> bytes:
    """Returns the hashes of the words in texts, in ascending order."""
    words: set[bytes] = set()
    for text in texts:
        words.update(_WORD.findall(text))
    # A stronger hash would cost more, and a collision only the reading of a segment.
    hashes = sorted({crc32(word) for word in words})
    return struct.pack(f">{len(hashes)}I", *hashes)


def by_bucket(hashes: bytes) -> dict[int, bytes]:
    """Divides hashes in ascending order into their buckets."""
    buckets: dict[int, list[bytes]] = {}
    for at in range(0, len(hashes), HASH_BYTES):
        buckets.setdefault(hashes[at], []).append(hashes[at : at + HASH_BYTES])
    return {bucket: b"".join(some) for bucket, some in buckets.items()}


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


async def find(reader: SegmentReader, query: TraceQuery, limit: int, start: str, oldest: float) -> TracePage:
    """Returns at most `limit` traces that match, newest first, from a position on. See `TraceStore.find`.

    None is from before `oldest`, in seconds since the Unix epoch.
    """
    query = replace(query, since=max(query.since, oldest))
    needles = Needles(query)
    page = _Page(query, limit)
    segments = [each for each in await reader.segments() if query.since <= each.last_at and each.first_at < query.until]
    if start:
        first, below = _parse(start)
        segments = [
            each._replace(entries=min(each.entries, below)) if each.number == first else each
            for each in segments
            if each.number <= first
        ]
    size = 1
    while some := segments[:size]:
        hashes = await reader.hashes(some, needles.buckets) if needles.buckets else [None] * len(some)
        for segment, found in zip(some, hashes, strict=True):
            if needles.may_be_in(found) and await _read(reader, segment, needles, page):
                return page.full(segment.number)
        segments = segments[size:]
        size = min(size * 2, _MOST_SEGMENTS)
    return page.ended()


async def _read(reader: SegmentReader, segment: Segment, needles: Needles, page: _Page) -> bool:
    """Adds to the page what matches. Returns whether it is full."""
    below, most = segment.entries, page.room
    while below > 0:
        lines = await reader.lines(segment, needles, below, most)
        for line in lines:
            if page.add(line):
                return True
        if len(lines) < most:
            break
        below = lines[-1].entry
        most = MOST_ENTRIES  # many do not match, such as those before an interval
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

    def add(self, line: Line) -> bool:
        """Adds the trace in a line if it matches. Returns whether the page is full."""
        self._last = line.entry
        if not self._query.since <= time_of(line.text) < self._query.until:
            return False
        trace = decode(line.text)
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


def _hashes_in(text: bytes) -> list[bytes]:
    """Returns the hash of each word in a short text."""
    return [crc32(word).to_bytes(HASH_BYTES, "big") for word in _WORD.findall(text)]


def _has(hashes: bytes, one: bytes) -> bool:
    at = hashes.find(one)
    while at >= 0 and at % HASH_BYTES:
        at = hashes.find(one, at + 1)
    return at >= 0
