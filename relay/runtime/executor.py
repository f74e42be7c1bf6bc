"""Threads for work that would hold up the event loop. Each purpose has its own executor.

A disk that hangs then holds up the kept copies only, not the judgement of mail. `asyncio.to_thread` is not used: all of
its callers share one pool, and the interpreter waits for its threads when it ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Executor:
    """At most `threads` daemon threads, started when needed. A process can end while one of them hangs.

    `limit` is the time in seconds that `run` waits for a result, the time in the queue included; None for no limit.
    """

    def __init__(self, purpose: str, threads: int, limit: float | None = None) -> None:
        self._purpose = purpose
        self._most_threads = threads
        self._limit = limit
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle_threads = 0
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread and returns its result. Raises what `work` raises, or `TimeoutError`.

        After a time limit or a cancellation, work that has not started is dropped, with all that it refers to. Work
        that has started ends unnoticed.
        """
        job = _Job(work)
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) > self._idle_threads and self._threads < self._most_threads:
                self._start_thread(job)
            self._changed.notify()
        try:
            async with asyncio.timeout(self._limit):
                result: T = await asyncio.wrap_future(job.future)
                return result
        finally:
            if job.future.cancelled():
                self._drop(job)
            del job, work  # the traceback of a time limit may keep this frame, and with it a whole message

    def close(self) -> None:
        """Ends the threads when they have no more work. A thread that hangs is left behind.

        Work may still be given to `run`: parts that a reload replaces serve what began with them.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _start_thread(self, job: _Job) -> None:
        """Starts a thread. Raises `RuntimeError` if the system has none left and no other thread can do the job."""
        try:
            threading.Thread(target=self._serve, name=self._purpose, daemon=True).start()
        except RuntimeError:
            if not self._threads:
                self._jobs.remove(job)
                raise
        else:
            self._threads += 1

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle_threads += 1
                while not self._jobs and not self._closed:
                    self._changed.wait()
                self._idle_threads -= 1
                if not self._jobs:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            job.run()
            del job  # or an idle thread would keep the last message in memory


class _Job:
    """One piece of work and the future of its result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - the caller in the event loop raises it
            self.future.set_exception(error)
