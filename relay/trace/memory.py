"""Traces in a process's own memory, for `store.url = "memory:"`. They end with it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from relay.trace.segments import MINUTE, Batch, Limits, Line, Segment, counts_of, find, sum_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from relay.core.trace import Trace, TraceCounts, TracePage, TraceQuery
    from relay.trace.segments import Needles


class _MemorySegment:
    def __init__(self, now: float) -> None:
        self.begun = now
        self.lines: list[bytes] = []
        self.first_at, self.last_at = float("inf"), 0.0
        self.size = 0

    def add(self, batch: Batch) -> None:
        self.lines += batch.lines
        self.first_at, self.last_at = min(self.first_at, batch.first_at), max(self.last_at, batch.last_at)
        self.size += sum(map(len, batch.lines))

    def matching(self, needles: Needles, below: int) -> Iterator[Line]:
        for entry in range(min(below, len(self.lines)) - 1, -1, -1):
            if needles.match(self.lines[entry]):
                yield Line(entry, self.lines[entry])


class MemoryTraceStore:
    """A `TraceStore`. `now` is the wall clock."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self._now = now
        self._segments: OrderedDict[int, _MemorySegment] = OrderedDict()
        """By number, the newest last."""
        self._last = 0
        self._counts: dict[int, Counter[str]] = {}
        """By minute."""

    async def open(self) -> None:
        """There is nothing to open."""

    async def append(self, traces: Sequence[Trace]) -> None:
        """Stores traces, and deletes the oldest segments beyond the limits."""
        now = self._now()
        if traces:
            self._open_segment(now).add(Batch.of(traces))
        for (minute, outcome), count in counts_of(traces).items():
            self._counts.setdefault(minute, Counter())[outcome] += count
        self._delete_oldest(now - self.limits.keep_for)

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """See `TraceStore.find`."""
        return await find(self, query, limit, start, self._now() - self.limits.keep_for)

    async def counts(self, since: float, step: float) -> Sequence[TraceCounts]:
        """See `TraceStore.counts`."""
        minutes = ((minute, outcome, n) for minute, counts in self._counts.items() for outcome, n in counts.items())
        return sum_up(minutes, since, step)

    async def close(self) -> None:
        """There is nothing to close."""

    # For `find`

    async def segments(self) -> Sequence[Segment]:
        """See `SegmentReader`."""
        return [
            Segment(number, len(each.lines), each.first_at, each.last_at)
            for number, each in reversed(self._segments.items())
        ]

    async def indexes(
        self, segments: Sequence[Segment], buckets: Sequence[int]
    ) -> Sequence[Mapping[int, bytes] | None]:
        """Returns None for each: the lines are in memory."""
        del buckets
        return [None] * len(segments)

    async def lines(
        self, segment: Segment, needles: Needles, pieces: Collection[int] | None, below: int, most: int
    ) -> Sequence[Line]:
        """See `SegmentReader`."""
        del pieces
        found = self._segments.get(segment.number)
        return list(islice(found.matching(needles, below), most)) if found else []

    def _open_segment(self, now: float) -> _MemorySegment:
        last = self._segments.get(self._last)
        if last is None or self.limits.is_full(len(last.lines), last.size, now - last.begun):
            self._last += 1
            last = self._segments[self._last] = _MemorySegment(now)
        return last

    def _delete_oldest(self, before: float) -> None:
        size = sum(each.size for each in self._segments.values())
        for number, each in list(self._segments.items()):
            if each.last_at >= before and (size <= self.limits.size or number == self._last):
                break
            size -= self._segments.pop(number).size
        self._counts = {minute: counts for minute, counts in self._counts.items() if minute * MINUTE >= before}
