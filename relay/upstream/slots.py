"""How many connections may be in use at a time, and which client gets the next one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamBusy

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.errors import UpstreamError

TRY_MORE_AFTER = 30.0
"""Seconds after a refusal until one connection more than the learned limit is tried: there may be room again."""
TRY_AGAIN_AFTER = 1.0
"""Seconds until the next one is tried, if the last one was not refused."""


class Slots:
    """At most `size` slots, and no more than the upstream was seen to allow. Waiting clients take turns.

    `clock` gives monotonic seconds. `on_wait` is called when a transaction begins to wait.
    """

    def __init__(self, size: int, clock: Callable[[], float], on_wait: Callable[[], None] = lambda: None) -> None:
        self.in_use = 0
        self.limit = size
        """How many the upstream allows, as far as it is known: at most `size`."""
        self._size = size
        self._clock = clock
        self._on_wait = on_wait
        self._grow_at = 0.0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Those who wait, by client. The client whose turn is next comes first."""

    @property
    def waiting(self) -> bool:
        """Whether a transaction waits for a slot."""
        return bool(self._queues)

    def acquire_now(self) -> bool:
        """Takes a slot. Returns False if none is free or others wait for one."""
        self._grow()
        if self.in_use >= self.limit or self._queues:
            return False
        self.in_use += 1
        return True

    async def acquire(self, client: str, longest: float, *, first: bool = False) -> None:
        """Waits up to `longest` seconds for a slot; in front of all others if `first`.

        Raises `UpstreamBusy`, or what `fail` was given meanwhile.
        """
        turn = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(client, deque())
        if first:
            queue.appendleft(turn)
            self._queues.move_to_end(client, last=False)
        else:
            queue.append(turn)
        self._hand_over()
        self._on_wait()
        try:
            async with asyncio.timeout(longest):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()  # it was handed over at the same time
            else:
                self._leave(client, turn)
            if isinstance(error, TimeoutError):
                raise UpstreamBusy(f"all connections were in use for {longest:g} s") from None
            raise

    def release(self) -> None:
        """Gives a slot back. The next client in turn receives it."""
        self.in_use -= 1
        self._hand_over()

    def fail(self, error: UpstreamError) -> None:
        """Ends the waiting of all: the upstream cannot be reached, and each would wait for its own time limit."""
        queues, self._queues = self._queues, OrderedDict()
        for turn in (turn for queue in queues.values() for turn in queue if not turn.done()):
            turn.set_exception(type(error)(*error.args))

    def learn_limit(self, established: int) -> None:
        """Notes that the upstream refused a further connection while it kept `established` ones."""
        self.limit = min(max(established, 1), self._size)
        self._grow_at = self._clock() + TRY_MORE_AFTER

    def note_connected(self, established: int) -> None:
        """Notes that the upstream took a connection and keeps `established` now."""
        self.limit = min(max(established, self.limit), self._size)
        self._hand_over()

    def _grow(self) -> None:
        if self.in_use >= self.limit < self._size and self._clock() >= self._grow_at:
            self.limit += 1
            self._grow_at = self._clock() + TRY_AGAIN_AFTER

    def _hand_over(self) -> None:
        self._grow()
        while self._queues and self.in_use < self.limit:
            client, queue = next(iter(self._queues.items()))
            turn = queue.popleft()
            if queue:
                self._queues.move_to_end(client)
            else:
                del self._queues[client]
            if not turn.done():
                self.in_use += 1
                turn.set_result(None)

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[client]
