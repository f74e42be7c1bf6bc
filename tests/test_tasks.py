"""Tasks that outlive their caller end all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.tasks import Tasks

if TYPE_CHECKING:
    import pytest


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                swallowed += 1

    some = Tasks(ask_again=0.01)
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
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["task failing failed"]
