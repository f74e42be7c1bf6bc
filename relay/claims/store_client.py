"""The only caller of a store: sends commands in batches, one round trip at a time.

Each command gets an answer. While the store is down, the answer is `Unknown`, and mail is forwarded. A down store is
probed once a second. An idle store is checked once a second too: if it was restarted, it must get back at once what it
has lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.claims.circuit_breaker import CircuitBreaker
from relay.core.claim import Confirm, Unknown
from relay.core.errors import StoreError
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.claim import Answer, Command
    from relay.core.store import Store

BATCH = 2_000
"""Commands in one round trip: as many as every store can answer well within its limit."""
MOST_REQUESTS = 10_000
"""Requests that may wait. One more is answered `Unknown`. A waiting transaction has one, so that few ever wait."""


@dataclass(slots=True, eq=False)
class _Request:
    """The commands of one caller."""

    commands: Sequence[Command]
    answers: asyncio.Future[list[Answer]]
    queued_at: float

    def aged(self, now: float) -> list[Command]:
        """Returns the commands as of `now`: an acceptance has grown older while it was queued."""
        waited = now - self.queued_at
        return [
            replace(command, age=command.age + waited) if isinstance(command, Confirm) else command
            for command in self.commands
        ]


class BatchingStoreClient:
    """Asks a store. In seconds: `limit` of each round trip, `probe_every` while down, `check_every` while idle."""

    def __init__(
        self,
        store: Store,
        *,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
        probe_every: float = 1.0,
        check_every: float = 1.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._probe_every = probe_every
        self._check_every = check_every
        self._breaker = CircuitBreaker(store, limit)
        self._queue: deque[_Request] = deque()
        self._queued = asyncio.Event()
        self._tasks = Tasks()
        self._worker: asyncio.Task[None] | None = None
        self.subscribe(self._state_changed)

    @property
    def up(self) -> bool:
        """Whether the store is being asked."""
        return self._breaker.up

    @property
    def identity(self) -> str | None:
        """The store's random id, as last reported. None before the store has answered for the first time."""
        return self._breaker.identity

    @property
    def data_losses(self) -> int:
        """How often the store was found to have lost data."""
        return self._breaker.data_losses

    def subscribe(self, callback: Callable[[bool], None]) -> None:
        """Has `callback(up)` called at each change of `up`, and when the store may have lost data."""
        self._breaker.subscribe(callback)

    async def start(self) -> None:
        """Opens the store, and goes on without it if that fails. Returns within the limit."""
        await self._breaker.open()
        self._worker = self._tasks.start(self._work(), "store client")

    async def close(self) -> None:
        """Answers all waiting callers with `Unknown` and closes the store."""
        self._breaker.up, self._breaker.reason = False, "the relay is ending"
        await self._tasks.cancel()
        self._answer_queue()
        await self._breaker.close()

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Returns one answer for each command, `Unknown` where the store could not be asked. Never raises.

        The cancellation of a caller does not disturb the others. Its commands may be carried out or not.
        """
        if not self.up:
            return self._unknown(commands)
        if len(self._queue) >= MOST_REQUESTS:
            return [Unknown("too many requests wait for the store")] * len(commands)
        requests = [self._enqueue(commands[start : start + BATCH]) for start in range(0, len(commands), BATCH)]
        try:
            return [answer for request in requests for answer in await request.answers]
        finally:
            for request in requests:
                request.answers.cancel()

    def _enqueue(self, commands: Sequence[Command]) -> _Request:
        request = _Request(commands, asyncio.get_running_loop().create_future(), self._clock())
        self._queue.append(request)
        self._queued.set()
        return request

    async def _work(self) -> None:
        """Calls the store: one task, so that no two calls overlap. If this ended, all mail would wait for ever."""
        try:
            while True:
                try:
                    await self._step()
                except asyncio.CancelledError as error:
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise
                    self._breaker.fail(error)  # a stray cancellation: this task was not cancelled
                except Exception as error:  # noqa: BLE001 - see the docstring
                    self._breaker.fail(error)
        finally:
            self._breaker.up = False
            self._answer_queue()

    async def _step(self) -> None:
        if not self.up:
            await asyncio.sleep(self._probe_every)
            await self._breaker.probe()
            return
        if not await self._has_requests():
            await self._breaker.call(self._store.open())
        elif batch := self._next_batch():
            await self._send(batch)
        await self._breaker.check_for_restart()

    async def _has_requests(self) -> bool:
        """Waits for a request. Returns False if the store is idle for too long."""
        try:
            async with asyncio.timeout(self._check_every):
                await self._queued.wait()
        except TimeoutError:
            return False
        return True

    def _next_batch(self) -> list[_Request]:
        """Takes the requests that were queued during the last round trip, as many as fit into one batch."""
        batch: list[_Request] = []
        count = 0
        while self._queue and count + len(self._queue[0].commands) <= BATCH:
            request = self._queue.popleft()
            if not request.answers.done():  # its caller may have been cancelled
                batch.append(request)
                count += len(request.commands)
        if not self._queue:
            self._queued.clear()
        return batch

    async def _send(self, batch: list[_Request]) -> None:
        """Makes one round trip. Every request is answered, whatever happens."""
        answers: list[Answer] | None = None
        try:
            now = self._clock()
            answers = await self._breaker.call(self._execute([each for request in batch for each in request.aged(now)]))
        finally:
            self._answer(batch, answers)

    async def _execute(self, commands: Sequence[Command]) -> list[Answer]:
        answers = await self._store.execute(commands)
        if len(answers) != len(commands):
            raise StoreError(f"{len(answers)} answers to {len(commands)} commands")
        return list(answers)

    def _answer(self, batch: Sequence[_Request], answers: Sequence[Answer] | None) -> None:
        """Answers all requests of a batch, with `Unknown` if there are no answers."""
        start = 0
        for request in batch:
            end = start + len(request.commands)
            if not request.answers.done():
                request.answers.set_result(
                    self._unknown(request.commands) if answers is None else [*answers[start:end]]
                )
            start = end

    def _state_changed(self, up: bool) -> None:
        if not up:
            self._answer_queue()

    def _answer_queue(self) -> None:
        """Answers all queued requests with `Unknown`."""
        batch = list(self._queue)
        self._queue.clear()
        self._queued.clear()
        self._answer(batch, None)

    def _unknown(self, commands: Sequence[Command]) -> list[Answer]:
        return [Unknown(self._breaker.reason)] * len(commands)
