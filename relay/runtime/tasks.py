"""Background tasks and time limits. No other module creates tasks: a task without an owner may be garbage-collected."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from relay.events.service import LOOP_FAILED, TASK_FAILED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

K = TypeVar("K")
T = TypeVar("T")

CANCEL_AGAIN = 2.0
"""Seconds after which a task that still runs is cancelled again. Until Python 3.12 `asyncio.wait_for` loses a
cancellation that arrives as its awaitable ends. Longer than a store may take: a task that settles can finish."""
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0
"""Seconds of pause after a failed step of a background loop; the pause doubles with each failure in a row."""
LATE = 0.05
"""Seconds by which a timer may fire late before the event loop counts as held up."""


class Tasks:
    """The running tasks of one owner. A failure that no caller awaits is logged."""

    def __init__(
        self, *, cancel_again: float = CANCEL_AGAIN, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._cancel_again = cancel_again
        self._sleep = sleep
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Returns the number of running tasks."""
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Starts `work` as a task. The task goes on if the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_loop(self, step: Callable[[], Awaitable[bool | None]], name: str) -> asyncio.Task[None]:
        """Starts a task that awaits `step` again and again, until `step` returns True.

        `step` contains its own waiting. An exception is logged, and the next step follows after a pause.
        """
        return self.start(self._loop(step, name), name)

    async def _loop(self, step: Callable[[], Awaitable[bool | None]], name: str) -> None:
        pause = FIRST_BACKOFF
        done: bool | None = False
        while not done:
            try:
                done = await step()
                pause = FIRST_BACKOFF
            except Exception as error:  # noqa: BLE001 - logged, and the loop goes on
                LOOP_FAILED.log(error, task=name, seconds=pause)
                await self._sleep(pause)
                pause = min(pause * 2, LONGEST_BACKOFF)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            TASK_FAILED.log(error, task=task.get_name())

    async def finished(self) -> None:
        """Waits until no task runs."""
        while self._running:
            await asyncio.wait(self._running)

    async def cancel(self) -> None:
        """Cancels all tasks and waits until they have ended."""
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=self._cancel_again)


async def run_within(limit: float, work: Mapping[K, Coroutine[Any, Any, T]]) -> dict[K, T | BaseException]:
    """Runs coroutines concurrently and returns the result or the exception of each one.

    A coroutine that has not ended after `limit` seconds is cancelled; its result is `TimeoutError`. All have ended when
    this returns. If the event loop itself was held up, the coroutines get half the limit more: an answer may already
    be in a socket, unread.
    """
    loop = asyncio.get_running_loop()
    tasks = {key: loop.create_task(each) for key, each in work.items()}
    if not tasks:
        return {}
    due = loop.time() + limit
    try:
        _, late = await asyncio.wait(tasks.values(), timeout=limit)
        if late and loop.time() > due + LATE:
            _, late = await asyncio.wait(late, timeout=limit / 2)
    finally:
        if running := [task for task in tasks.values() if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
    return {key: _result_of(task, is_late=task in late) for key, task in tasks.items()}


def _result_of(task: asyncio.Task[T], *, is_late: bool) -> T | BaseException:
    if is_late:
        return TimeoutError()
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()
