"""Threads for one purpose: bounded, with a limit, and never in the way of another purpose or of the end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Iterator

_HANGS_AND_ENDS = """
import asyncio, threading
from relay.runtime.executor import Executor
async def main():
    try:
        await Executor("disk", 1, limit=0.01).run(threading.Event().wait)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds up threads until the test ends."""
    event = threading.Event()
    yield event
    event.set()


async def test_it_returns_results_and_raises_exceptions() -> None:
    executor = Executor("test", 1)
    assert await executor.run(lambda: threading.current_thread().name) == "test"
    with pytest.raises(ZeroDivisionError):
        await executor.run(lambda: 1 // 0)
    assert await executor.run(lambda: 3) == 3
    executor.close()


async def test_no_more_threads_run_than_allowed(gate: threading.Event) -> None:
    executor, running, both = Executor("test", 2), [], threading.Barrier(3)

    def work(number: int) -> int:
        if number < 2:
            both.wait(20)
        running.append(threading.current_thread().ident)
        gate.wait()
        return number

    jobs = [asyncio.ensure_future(executor.run(lambda number=number: work(number))) for number in range(5)]
    await asyncio.sleep(0)
    both.wait(20)
    assert executor._threads == 2
    gate.set()
    assert await asyncio.gather(*jobs) == list(range(5))
    assert len(set(running)) == 2


async def test_a_hung_thread_holds_up_no_other_purpose(gate: threading.Event) -> None:
    disk, judging = Executor("disk", 1, limit=0.01), Executor("judging", 1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await disk.run(gate.wait)
    assert await judging.run(lambda: "judged") == "judged"


async def times_out(task: asyncio.Future[None]) -> bool:
    """Gives a task a short time. A function, so that the traceback with its frames is gone when it returns."""
    try:
        await asyncio.wait_for(task, 0.01)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("how", ["limit", "cancelled"])
async def test_work_that_was_given_up_in_the_queue_is_dropped_with_what_it_refers_to(
    gate: threading.Event, how: str
) -> None:
    class Message:
        def read(self) -> None:
            raise AssertionError("nobody waits for it")

    executor = Executor("disk", 1)
    hung = asyncio.ensure_future(executor.run(gate.wait))
    await asyncio.sleep(0)
    message = Message()
    reference = weakref.ref(message)
    waiting = asyncio.ensure_future(executor.run(message.read))
    await asyncio.sleep(0)
    if how == "limit":
        assert await times_out(waiting)
    else:
        waiting.cancel()
        await asyncio.wait([waiting])
    del message, waiting
    gc.collect()
    assert reference() is None
    assert not executor._jobs
    gate.set()
    assert await hung


async def test_an_idle_thread_keeps_nothing() -> None:
    class Message:
        def read(self) -> None:
            pass

    executor, message = Executor("test", 1), Message()
    reference = weakref.ref(message)
    await executor.run(message.read)
    await executor.run(lambda: None)
    del message
    gc.collect()
    assert reference() is None
    executor.close()


def test_a_process_ends_while_a_thread_hangs() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HANGS_AND_ENDS], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == "gave up\n"


async def test_work_that_comes_after_the_close_is_done_all_the_same() -> None:
    executor = Executor("test", 1)
    assert await executor.run(lambda: 1) == 1
    executor.close()
    assert [await executor.run(lambda: 2), await executor.run(lambda: 3)] == [2, 3]
