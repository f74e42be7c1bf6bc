"""How stores keep traces: in segments of some thousand lines, which are searched as text.

A segment fills up, and is deleted as a whole when it is too old or the store too large, so that nothing is searched for
to be deleted. Its lines are in pieces of up to some hundred. For each word a store keeps in which pieces it is: a
search reads only pieces that have all words of what is searched for, a few of the 10,000 of a million traces.

The index of a segment is bytes: for each word of each piece a record, of the word's hash and the number of the piece.
It is divided into buckets by the first byte of the hash.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from relay.core.trace import TraceCounts, TraceOutcome, TracePage
from relay.trace.codec import decode, encode, time_of
from relay.trace.names import matches, needles_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from relay.core.trace import Trace, TraceQuery

MOST_ENTRIES = 8192
"""Traces of a segment: few enough that a small store deletes little at a time, and that one can be read at once."""
PARTS = 16
"""A segment has at most this part of the bytes of the store, and this part of `keep_for`."""
MINUTE = 60
BUCKETS = 256
HASH_BYTES = 4
RECORD_BYTES = HASH_BYTES + 2
"""A hash and the number of a piece."""

# Every end of a name is the end of a word: in a line, names are between quotes and other characters than these.
_IN_WORDS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz+-."
_BETWEEN_WORDS = bytes(octet if octet in _IN_WORDS else ord(" ") for octet in range(256))
"""For `bytes.translate`: a blank for each octet that is in no word."""
_SHORTEST_WORD = 4
_MOST_SEGMENTS = 32
"""Segments whose indexes are read together. The first read is of one segment, the next of twice as many."""
_LINES_AT_ONCE = 20
"""Lines that are decoded without a pause: half a millisecond of the event loop."""
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

    async def indexes(
        self, segments: Sequence[Segment], buckets: Sequence[int]
    ) -> Sequence[Mapping[int, bytes] | None]:
        """Returns the records in these buckets of each segment; None if only its lines can say what is in it."""

    async def lines(
        self, segment: Segment, needles: Needles, pieces: Collection[int] | None, below: int, most: int
    ) -> Sequence[Line]:
        """Returns at most `most` lines that match, the newest first, of entries below a number.

        They are in these pieces; None: in any.
        """


class Needles:
    """The texts of which a line must contain one of each list, and their words."""

    def __init__(self, query: TraceQuery) -> None:
        self.texts = needles_of(query)
        self._hashes = [[_hashes_in(text) for text in texts] for texts in self.texts]
        self.buckets = sorted({found[0] for texts in self._hashes for hashes in texts for found in hashes})

    def pieces(self, index: Mapping[int, bytes] | None) -> Collection[int] | None:
        """Returns the pieces of a segment with this index that may have lines that match; None if any may."""
        if index is None:
            return None
        found: set[int] | None = None
        for texts in self._hashes:
            if not all(texts):
                continue  # a text without a word may be anywhere
            some = set().union(*(_pieces_with_all(index, words) for words in texts))
            found = some if found is None else found & some
        return found

    def lines_in(self, text: bytes) -> Iterator[Line]:
        """Yields the lines of a text that match, the newest first."""
        if not self.texts:
            lines = text.split(b"\n")
            yield from map(Line, range(len(lines) - 1, -1, -1), reversed(lines))
            return
        end = len(text)
        # Where each of the first texts is found last. Searched again only behind that: one may be in no line.
        last = dict.fromkeys(self.texts[0], end)
        while end > 0:
            for each, at in last.items():
                if at >= end:
                    last[each] = text.rfind(each, 0, end)
            at = max(last.values())
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


def hashes_of(text: bytes) -> bytes:
    """Returns the hashes of the words in a text, in ascending order."""
    # A stronger hash would cost more, and a collision only the reading of a piece.
    hashes = sorted({crc32(word) for word in _words_in(text)})
    return struct.pack(f">{len(hashes)}I", *hashes)


def index_of(pieces: Mapping[int, bytes]) -> dict[int, bytes]:
    """Returns the index of a segment by bucket. `pieces` are the texts of its pieces by number."""
    buckets: dict[int, list[bytes]] = {}
    for number, text in pieces.items():
        hashes, piece = hashes_of(text), number.to_bytes(RECORD_BYTES - HASH_BYTES, "big")
        for at in range(0, len(hashes), HASH_BYTES):
            buckets.setdefault(hashes[at], []).append(hashes[at : at + HASH_BYTES] + piece)
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
        indexes = await reader.indexes(some, needles.buckets) if needles.buckets else [None] * len(some)
        for segment, index in zip(some, indexes, strict=True):
            pieces = needles.pieces(index)
            if pieces != set() and await _read(reader, segment, needles, pieces, page):
                return page.full(segment.number)
        segments = segments[size:]
        size = min(size * 2, _MOST_SEGMENTS)
    return page.ended()


async def _read(
    reader: SegmentReader, segment: Segment, needles: Needles, pieces: Collection[int] | None, page: _Page
) -> bool:
    """Adds to the page what matches. Returns whether it is full."""
    below, most = segment.entries, page.room
    while below > 0:
        await asyncio.sleep(0)
        lines = await reader.lines(segment, needles, pieces, below, most)
        for number, line in enumerate(lines, start=1):
            if page.add(line):
                return True
            if not number % _LINES_AT_ONCE:
                await asyncio.sleep(0)  # mail first: a domain, for example, is in most lines, and a name in none
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
    return [crc32(word).to_bytes(HASH_BYTES, "big") for word in _words_in(text)]


def _words_in(text: bytes) -> set[bytes]:
    """Returns the words of a text, without the dots around them."""
    # A regular expression takes twice the time.
    words = {word.strip(b".") for word in set(text.translate(_BETWEEN_WORDS).split())}
    return {word for word in words if len(word) >= _SHORTEST_WORD}


def _pieces_with_all(index: Mapping[int, bytes], words: Sequence[bytes]) -> set[int]:
    """Returns the pieces that have all of these words, which are given by their hashes."""
    return set.intersection(*(set(_pieces(index.get(each[0], b""), each)) for each in words))


def _pieces(records: bytes, word: bytes) -> Iterator[int]:
    """Yields the pieces in which a word is."""
    at = records.find(word)
    while at >= 0:
        if at % RECORD_BYTES:
            at += 1
        else:
            yield int.from_bytes(records[at + HASH_BYTES : at + RECORD_BYTES], "big")
            at += RECORD_BYTES
        at = records.find(word, at)
