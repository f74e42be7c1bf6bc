"""Writes the traces of a process to their store: in batches, off the path of mail. No failure here affects mail.

What the store does not take waits in a bounded queue. The trace of a suppression is stored before the client hears the
reply, as long as the store answers. A process that is killed loses the others of its last half second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.errors import StoreError
from relay.events.limit import LogLimit
from relay.events.records import TRACE_DOWN, TRACE_LOST, TRACE_UP, TRACES_DROPPED, TRACES_LOST
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.trace import Trace, TraceStore

    Build = Callable[[], Trace]

INTERVAL = 0.5
"""Seconds between two writes, unless a client waits or a batch is full."""
RETRY_EVERY = 1.0
"""Seconds between two attempts while the store is down."""
SWEEP_EVERY = 60.0
"""Seconds without traces after which the store is asked to delete what is too old."""
MOST_WAITING = 16 * 1024 * 1024
"""Bytes of the traces that wait, roughly."""
BATCH = 100
"""Traces of one write. To build and encode more would hold up the event loop."""
_BASIC_WEIGHT, _RECIPIENT_WEIGHT = 2_000, 500
"""Bytes of a trace that waits, and of each of its recipients."""
_MOST_CREDIT = 1000.0
_RECIPIENTS_PER_CREDIT = 16


@dataclass(slots=True, eq=False)
class _Waiting:
    """A trace that waits. It is built when it is written."""

    build: Build
    weight: int
    written: asyncio.Future[None] | None = None
    """Done when it was written, or could not be. None if no client waits."""

    def release(self) -> None:
        """Lets the client go on."""
        if self.written is not None and not self.written.done():
            self.written.set_result(None)


class Credit:
    """Bounds the traces of transactions that brought no message.

    A client may begin transactions as fast as it likes, but must not push the traces of messages out of the store: each
    message and each second is worth one such trace of up to 16 recipients, and some 1000 can be saved up.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = _MOST_CREDIT
        self._at = clock()

    def earn(self) -> None:
        """Counts a message."""
        self._left += 1

    def spend(self, recipients: int) -> bool:
        """Returns whether a trace of so many recipients may be written, and counts it if so."""
        now = self._clock()
        left = min(_MOST_CREDIT, self._left + now - self._at)
        cost = 1 + recipients // _RECIPIENTS_PER_CREDIT
        self._at, self._left = now, left - cost if cost <= left else left
        return cost <= left


class TraceWriter:
    """Writes to `store`. `limit` is the time in seconds that a client waits for it; `clock` is monotonic.

    `on_lost` receives the number of traces that could not be written, `on_skipped` is called for one that the credit
    did not allow.
    """

    def __init__(
        self,
        store: TraceStore,
        *,
        limit: float = 1.0,
        on_lost: Callable[[int], object] = lambda lost: None,  # noqa: ARG005
        on_skipped: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.up = True
        """Whether the store took the last batch."""
        self._store = store
        self._limit = limit
        self._on_lost = on_lost
        self._on_skipped = on_skipped
        self._most_waiting = most_waiting
        self._credit = Credit(clock)
        self._log_limit = LogLimit(clock)
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0
        self._batch: list[_Waiting] = []
        """What is being written."""
        self._traces: list[Trace] = []
        """The traces of the batch that are built."""
        self._queued, self._urgent, self._ending = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks = Tasks()

    @property
    def waiting(self) -> int:
        """The number of traces that are not written yet."""
        return len(self._waiting) + len(self._batch)

    async def start(self) -> None:
        """Opens the store, and starts to write. Never raises."""
        try:
            async with asyncio.timeout(self._limit):
                await self._store.open()
        except (StoreError, TimeoutError) as error:
            self._set_down(error)
        self._tasks.start_loop(self._step, "write traces")

    async def close(self) -> None:
        """Writes what waits if the store answers, and ends."""
        for event in (self._ending, self._queued, self._urgent):
            event.set()
        try:
            await self._tasks.finished()
            await self._store.close()  # not if this is cancelled: a disk that hangs would keep the process
        finally:
            await self._tasks.cancel()
            if lost := self.waiting:
                TRACES_LOST.log(traces=lost)
                self._on_lost(lost)
            self._waiting.clear()
            self._batch.clear()

    def add(self, build: Build, recipients: int) -> None:
        """Queues the trace of a message."""
        self._credit.earn()
        self._add(_Waiting(build, _BASIC_WEIGHT + _RECIPIENT_WEIGHT * recipients))

    def add_unfinished(self, build: Build, recipients: int) -> None:
        """Queues the trace of a transaction without a message, if there are not too many."""
        if self._credit.spend(recipients):
            self._add(_Waiting(build, _BASIC_WEIGHT + _RECIPIENT_WEIGHT * recipients))
        else:
            self._on_skipped()

    async def write(self, build: Build, recipients: int) -> None:
        """Queues the trace of a suppression, and returns when it is stored, after the limit at the latest."""
        self._credit.earn()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(_Waiting(build, _BASIC_WEIGHT + _RECIPIENT_WEIGHT * recipients, written))
        if self.up:
            self._urgent.set()
            _, late = await asyncio.wait((written,), timeout=self._limit)
            if late:  # a disk that hangs raises nothing; only the first client waits for it
                self._set_down(StoreError(f"no answer within {self._limit:g} s"))

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._weight += waiting.weight
        if self._weight > self._most_waiting:
            self._drop_oldest()
        self._queued.set()
        if len(self._waiting) >= BATCH:  # else no more than 200 messages a second could be traced
            self._urgent.set()

    def _drop_oldest(self) -> None:
        dropped = 0
        while self._weight > self._most_waiting and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._weight -= oldest.weight
            oldest.release()
            dropped += 1
        self._on_lost(dropped)
        if count := self._log_limit.count(TRACES_DROPPED, dropped):
            TRACES_DROPPED.log(traces=count)

    async def _step(self) -> bool:
        """Writes what was queued since the last step. Returns whether this was the last one."""
        if self._ending.is_set():
            while self.waiting and await self._write():
                pass
            return True
        if not await _is_set(self._queued, SWEEP_EVERY):
            await self._append(())
            return False
        if not self._batch:
            await _is_set(self._urgent, INTERVAL)
        if not await self._write():
            await _is_set(self._ending, RETRY_EVERY)
        return False

    async def _write(self) -> bool:
        """Writes a batch. Returns whether the store took it. If not, it is written again, before all others."""
        if not self._batch:
            self._take()
        while len(self._traces) < len(self._batch):
            self._build(self._batch[len(self._traces)])
            if len(self._traces) % 10 == 0:
                await asyncio.sleep(0)  # mail first
        taken = not self._traces or await self._append(self._traces)
        for each in self._batch:
            each.release()
        if taken:
            self._weight -= sum(each.weight for each in self._batch)
            self._batch, self._traces = [], []
            if not self._waiting:
                self._queued.clear()
        return taken

    def _take(self) -> None:
        count = min(BATCH, len(self._waiting))
        self._batch = [self._waiting.popleft() for _ in range(count)]
        if len(self._waiting) < BATCH and not any(each.written for each in self._waiting):
            self._urgent.clear()

    def _build(self, waiting: _Waiting) -> None:
        try:
            self._traces.append(waiting.build())
        except Exception as error:  # noqa: BLE001 - a trace less is better than a mail less
            self._batch.remove(waiting)
            self._weight -= waiting.weight
            waiting.release()
            self._lose(error, 1)

    async def _append(self, traces: Sequence[Trace]) -> bool:
        try:
            await self._store.append(traces)
        except (StoreError, OSError) as error:
            self._set_down(error)
            return False
        except Exception as error:  # noqa: BLE001 - the same traces would fail again, and hold up all others
            self._lose(error, len(traces))
            return True
        if not self.up:
            self.up = True
            TRACE_UP.log()
        return True

    def _lose(self, error: Exception, number: int) -> None:
        self._on_lost(number)
        if count := self._log_limit.count(TRACE_LOST, number):
            TRACE_LOST.log(error=repr(error), traces=count)

    def _set_down(self, error: Exception) -> None:
        if self.up:
            self.up = False
            TRACE_DOWN.log(error=str(error) or repr(error))


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event, and returns whether it was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
