"""Traces on the Redis or Valkey servers of the claim store, shared by all relays that use them.

    smtp-dedup:{trace}:segments       a hash: of each segment its entries, bytes and times; `last`: its number
    smtp-dedup:{trace}:N:lines        a list: the batches of segment N, each the number of its first trace and its lines
    smtp-dedup:{trace}:N:words        a hash: the index of segment N, by bucket; a piece is an element of the list
    smtp-dedup:{trace}:counts:DAY     a hash: recipients, by minute and outcome
    smtp-dedup:{trace}:writer:NAME    the last batch of one relay, by which a repetition is recognised

With `store.namespace = "NAME"` each key begins with `smtp-dedup.NAME:`. The hash tag keeps all keys on one node of a
Cluster, so that a script can write them together. All of them expire.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from relay.claims.redis.commands import Keys
from relay.claims.redis.topologies import new_deployment
from relay.core.claim import Unknown
from relay.core.errors import StoreError
from relay.trace.segments import (
    MOST_ENTRIES,
    Batch,
    Limits,
    Line,
    Segment,
    counts_of,
    find,
    hashes_of,
    sum_up,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.server_clock import ServerClock
    from relay.claims.redis.servers import RedisServers
    from relay.core.trace import Trace, TraceCounts, TracePage, TraceQuery
    from relay.trace.segments import Needles

_Write: TypeAlias = "Callable[[int], Request]"
"""Writes a request at a time by the server's clock (ms)."""

_DAY = 86400
_ANY_KEY = "{trace}"
"""For the choice of the node: all keys have this hash tag."""
_MOST_BATCHES = 100
"""Batches of one reply."""

# ARGV: writer, batch, now and keep_for (ms); entries, bytes and time (ms) of a full segment; bytes of all; the number
# of traces, the times of the oldest and the newest, their lines, the hashes of their words; minute, outcome and
# recipients of each count. A segment in the hash: entries, bytes, when it began (ms), the times of its oldest and its
# newest trace, when it was written (ms).
_APPEND = """
local prefix, now, keep = string.sub(KEYS[1], 1, -9), tonumber(ARGV[3]), tonumber(ARGV[4])
local writer = prefix .. 'writer:' .. ARGV[1]
if redis.call('GET', writer) == ARGV[2] then return 0 end

local segments, total, last = {}, 0, 0
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local number, values = tonumber(flat[i]), {}
  for word in string.gmatch(flat[i + 1], '%S+') do values[#values + 1] = tonumber(word) end
  if number and #values == 6 then
    segments[#segments + 1] = {number, values}
    total = total + values[2]
  elseif flat[i] == 'last' then
    last = values[1] or 0
  end
end
table.sort(segments, function(a, b) return a[1] < b[1] end)

local current = segments[#segments]
local values = current and current[2]
local full = values and (values[1] >= tonumber(ARGV[5]) or values[2] >= tonumber(ARGV[6]))
if not values or full or now - values[3] >= tonumber(ARGV[7]) then
  last = last + 1
  redis.call('HSET', KEYS[1], 'last', last)
  values = {0, 0, now, tonumber(ARGV[10]), tonumber(ARGV[11]), now}
  current = {last, values}
  segments[#segments + 1] = current
end
local key, at, size = prefix .. current[1], 14, #ARGV[12] + #ARGV[13] * 1.5
redis.call('RPUSH', key .. ':lines', values[1] .. '\\n' .. ARGV[12])
local piece = redis.call('LLEN', key .. ':lines') - 1
piece = string.char(math.floor(piece / 256), piece % 256)
local hashes, records = ARGV[13], {}
for i = 1, #hashes, 4 do
  records[#records + 1] = string.sub(hashes, i, i + 3) .. piece
  local bucket = string.byte(hashes, i)
  if string.byte(hashes, i + 4) ~= bucket then
    local before = redis.call('HGET', key .. ':words', bucket) or ''
    redis.call('HSET', key .. ':words', bucket, before .. table.concat(records))
    records = {}
  end
end
redis.call('PEXPIREAT', key .. ':lines', now + keep)
redis.call('PEXPIREAT', key .. ':words', now + keep)
total = total + size
local text = string.format('%d %d %d %.3f %.3f %d', values[1] + ARGV[9], values[2] + size, values[3],
  math.min(values[4], ARGV[10]), math.max(values[5], ARGV[11]), now)
redis.call('HSET', KEYS[1], current[1], text)

while #segments > 1 and (segments[1][2][6] + keep <= now or total > tonumber(ARGV[8])) do
  local oldest = table.remove(segments, 1)
  total = total - oldest[2][2]
  redis.call('DEL', prefix .. oldest[1] .. ':lines', prefix .. oldest[1] .. ':words')
  redis.call('HDEL', KEYS[1], oldest[1])
end
while ARGV[at] do
  local day = prefix .. 'counts:' .. math.floor(ARGV[at] / 1440)
  redis.call('HINCRBY', day, ARGV[at] .. ' ' .. ARGV[at + 1], ARGV[at + 2])
  redis.call('PEXPIREAT', day, now + keep + 86400000)
  at = at + 3
end
redis.call('PEXPIREAT', KEYS[1], now + keep + 86400000)
redis.call('SET', writer, ARGV[2], 'PX', 3600000)
return 1"""
# ARGV: entries below this number, how many batches, texts of which a batch contains one. Returns the newest ones.
_SEARCH = """
local found, stop = {}, redis.call('LLEN', KEYS[1]) - 1
while stop >= 0 do
  local batches = redis.call('LRANGE', KEYS[1], math.max(0, stop - 63), stop)
  for i = #batches, 1, -1 do
    local batch = batches[i]
    local first = tonumber(string.match(batch, '^%d+'))
    if first and first < tonumber(ARGV[1]) then
      local matches = not ARGV[3]
      for n = 3, #ARGV do matches = matches or string.find(batch, ARGV[n], 1, true) end
      if matches then found[#found + 1] = batch end
      if #found >= tonumber(ARGV[2]) then return found end
    end
  end
  stop = stop - 64
end
return found"""


class RedisTraceStore:
    """A `TraceStore` on the given servers. `timeout` (s) limits each request; `now` is the wall clock."""

    def __init__(
        self,
        servers: RedisServers,
        limits: Limits,
        *,
        timeout: float = 1.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._now = now
        self._prefix = Keys(servers.namespace).prefix + "{trace}:"
        self._writer = secrets.token_hex(8)
        self._writing = _Access(servers, timeout, clock)
        # A search does not delay those who write.
        self._reading = _Access(servers, timeout, clock)

    async def open(self) -> None:
        """Checks that the servers answer."""
        await self._writing.ask([("EXISTS", self._segments)])

    async def append(self, traces: Sequence[Trace]) -> None:
        """Stores traces by one script."""
        if not traces:
            return
        try:
            await self._writing.write(self._append(traces[0].id, Batch.of(traces), counts_of(traces)))
        except StoreError:
            # Without a search, the connection to a server that is gone would stay open.
            await self._reading.disconnect()
            raise

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """See `TraceStore.find`."""
        return await find(self, query, limit, start, self._now() - self.limits.keep_for)

    async def counts(self, since: float, step: float) -> Sequence[TraceCounts]:
        """See `TraceStore.counts`."""
        days = range(int(since // _DAY), int(self._now() // _DAY) + 2)
        replies = await self._reading.ask([("HGETALL", f"{self._prefix}counts:{day}") for day in days])
        return sum_up((count for reply in replies for count in _read_counts(reply)), since, step)

    async def close(self) -> None:
        """Disconnects."""
        await self._writing.close()
        await self._reading.close()

    # For `find`

    async def segments(self) -> Sequence[Segment]:
        """See `SegmentReader`."""
        [reply] = await self._reading.ask([("HGETALL", self._segments)])
        found = (_read_segment(*pair) for pair in _pairs(reply))
        return sorted((each for each in found if each), key=lambda each: -each.number)

    async def indexes(
        self, segments: Sequence[Segment], buckets: Sequence[int]
    ) -> Sequence[Mapping[int, bytes] | None]:
        """See `SegmentReader`."""
        replies = await self._reading.ask([("HMGET", self._key(each.number, "words"), *buckets) for each in segments])
        return [
            {bucket: records for bucket, records in zip(buckets, reply, strict=True) if isinstance(records, bytes)}
            if isinstance(reply, list)
            else {}
            for reply in replies
        ]

    async def lines(
        self, segment: Segment, needles: Needles, pieces: Collection[int] | None, below: int, most: int
    ) -> Sequence[Line]:
        """See `SegmentReader`."""
        found: list[Line] = []
        key = self._key(segment.number, "lines")
        if pieces is not None:
            replies = await self._reading.ask([("LINDEX", key, piece) for piece in sorted(pieces, reverse=True)])
            batches = [_read_batch(reply) for reply in replies if isinstance(reply, bytes)]
            return [*islice(_lines_below(needles, batches, below), most)]
        while len(found) < most:
            number = min(most - len(found), _MOST_BATCHES)
            first_texts = needles.texts[0] if needles.texts else []
            [reply] = await self._reading.ask([("EVAL", _SEARCH, 1, key, below, number, *first_texts)])
            batches = [_read_batch(each) for each in reply] if isinstance(reply, list) else []
            found += _lines_below(needles, batches, below)
            if len(batches) < number:
                break
            below = batches[-1][0]
        return found[:most]

    @property
    def _segments(self) -> str:
        return self._prefix + "segments"

    def _key(self, segment: int, kind: str) -> str:
        return f"{self._prefix}{segment}:{kind}"

    def _append(self, name: str, batch: Batch, counts: Mapping[tuple[int, str], int]) -> _Write:
        """Returns the request that stores a batch."""
        limits = self.limits
        text = batch.text
        values: list[str | bytes | int] = [len(batch.lines), repr(batch.first_at), repr(batch.last_at), text]
        values.append(hashes_of(text))
        for (minute, outcome), number in counts.items():
            values += (minute, outcome, number)

        def write(now: int) -> Request:
            keep_for, longest = int(limits.keep_for * 1000), int(limits.segment_time * 1000)
            head = (self._writer, name, now, keep_for, MOST_ENTRIES, limits.segment_size, longest, limits.size)
            return ("EVAL", _APPEND, 1, self._segments, *head, *values)

        return write


class _Access:
    """The servers, for one request at a time. Its methods raise `StoreError`."""

    def __init__(self, servers: RedisServers, timeout: float, clock: Callable[[], float]) -> None:
        self._servers = new_deployment(servers, timeout, clock)
        self._timeout = timeout
        self._clock = clock
        self._lock = asyncio.Lock()
        self.close = self._servers.close

    async def ask(self, requests: Sequence[Request]) -> list[object]:
        """Sends requests and returns all replies."""
        return await self._ask([lambda _, request=request: request for request in requests])  # type: ignore[misc]

    async def write(self, request: _Write) -> None:
        """Sends a request that contains the time."""
        await self._ask([request])

    async def disconnect(self) -> None:
        """Closes the connections when the request that runs has ended. The next request connects again."""
        async with self._lock:
            await self._servers.close()

    async def _ask(self, requests: Sequence[_Write]) -> list[object]:
        def write(some: Sequence[_Write], clock: ServerClock) -> list[Request]:
            now = int(clock.at(self._clock()) * 1000)
            return [each(now) for each in some]

        try:
            async with self._lock, asyncio.timeout(self._timeout):
                replies = await self._servers.ask(requests, lambda _: _ANY_KEY, write)
        except TimeoutError:
            raise self._servers.error(f"no answer within {self._timeout:g} s") from None
        for reply in replies:
            if isinstance(reply, Unknown):
                raise self._servers.error(reply.reason)
        return replies


def _pairs(reply: object) -> Iterator[tuple[bytes, bytes]]:
    """Yields the fields and values in a reply to HGETALL."""
    flat = reply if isinstance(reply, list) else []
    for field, value in zip(flat[::2], flat[1::2], strict=False):
        if isinstance(field, bytes) and isinstance(value, bytes):
            yield field, value


def _read_segment(number: bytes, value: bytes) -> Segment | None:
    """Returns a segment; None for the other field of the hash, and for what no relay wrote."""
    try:
        entries, _, _, first_at, last_at, _ = map(float, value.split())
        return Segment(int(number), int(entries), first_at, last_at)
    except (ValueError, OverflowError):
        return None


def _read_batch(element: bytes) -> tuple[int, bytes]:
    first, _, text = element.partition(b"\n")
    return (int(first), text) if first.isdigit() else (0, b"")


def _lines_below(needles: Needles, batches: Iterable[tuple[int, bytes]], below: int) -> Iterator[Line]:
    for first, text in batches:
        for entry, line in needles.lines_in(text):
            if first + entry < below:
                yield Line(first + entry, line)


def _read_counts(reply: object) -> Iterator[tuple[int, str, int]]:
    for field, value in _pairs(reply):
        minute, _, outcome = field.decode("ascii", "replace").partition(" ")
        if minute.isdecimal() and value.isdigit():
            yield int(minute), outcome, int(value)
