"""Tasks that outlive their caller. Nobody else in the relay calls `create_task`: a task without an owner may vanish."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger("relay.tasks")

T = TypeVar("T")

ASK_AGAIN = 2.0
"""Seconds after which a task that goes on is cancelled again: until Python 3.12 `wait_for` swallows a cancellation that
meets the end of what it waits for. Longer than a store may take, so that nobody is disturbed who still settles."""


class Tasks:
    """A set of running tasks that have an owner; a failure that nobody awaits is logged."""

    def __init__(self, *, ask_again: float = ASK_AGAIN) -> None:
        self._ask_again = ask_again
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Give the number of tasks that have not ended."""
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` on its own; it goes on when the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def finished(self) -> None:
        """Wait until none is left."""
        while self._running:
            await asyncio.wait(self._running)

    async def cancel(self) -> None:
        """End all of them."""
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=self._ask_again)
