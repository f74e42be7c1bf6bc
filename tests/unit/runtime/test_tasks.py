"""Tasks that outlive their caller end all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.runtime.tasks import Tasks, run_within

if TYPE_CHECKING:
    import pytest
from parts.logged import events


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                swallowed += 1

    some = Tasks(cancel_again=0.01)
    some.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await some.cancel()
    assert swallowed == 3
    assert len(some) == 0


async def test_a_failure_that_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("oh")

    some = Tasks()
    some.start(fail(), "failing")
    async with asyncio.timeout(5):
        await some.finished()
    await asyncio.sleep(0)
    assert events(caplog) == [("ERROR", "task failed", {"task": "failing"})]
    assert caplog.records[0].exc_info


async def test_a_background_loop_goes_on_after_a_failure_with_longer_pauses(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    outcomes = iter([ValueError("one"), ValueError("two"), None, ValueError("three"), True])

    async def step() -> bool | None:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    tasks = Tasks(sleep=sleep)
    async with asyncio.timeout(5):
        await tasks.start_loop(step, "probe")
    assert pauses == [1.0, 2.0, 1.0]
    assert events(caplog) == [
        ("ERROR", "background loop failed", {"task": "probe", "seconds": seconds}) for seconds in (1, 2, 1)
    ]
    assert all(record.exc_info for record in caplog.records)


async def test_run_within_returns_results_exceptions_and_timeouts() -> None:
    async def give() -> int:
        return 7

    async def fail() -> int:
        raise ValueError("oh")

    async def hang() -> int:
        return await asyncio.get_running_loop().create_future()

    found = await run_within(0.01, {"give": give(), "fail": fail(), "hang": hang()})
    assert found["give"] == 7
    assert isinstance(found["fail"], ValueError)
    assert isinstance(found["hang"], TimeoutError)
    assert await run_within(0.01, {}) == {}
