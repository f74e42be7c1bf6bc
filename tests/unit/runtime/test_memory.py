"""The memory budget: what fits, who waits, and what a control group allows."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from relay.runtime.memory import MemoryBudget, usable_memory

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
NEVER = 20.0
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def start_wait(budget: MemoryBudget, amount: int) -> asyncio.Task[object]:
    task = asyncio.ensure_future(budget.wait(amount, NEVER))
    await asyncio.sleep(0)
    return task


def test_what_fits_is_reserved_and_given_back() -> None:
    budget = MemoryBudget(100)
    first = budget.reserve(60)
    assert first
    assert budget.reserve(41) is None
    assert budget.used == 60
    with budget.reserve(40) or pytest.fail("it fits"):
        assert budget.used == 100
    first.release()
    first.release()
    assert budget.used == 0


def test_a_reservation_grows_while_there_is_room_and_then_holds_nothing() -> None:
    budget = MemoryBudget(100)
    other = budget.reserve(20)
    upload = budget.reserve(10)
    assert other
    assert upload
    assert upload.grow(5)
    assert upload.grow(80)
    assert budget.used == 100
    assert not upload.grow(81)
    assert budget.used == 20, "a half upload that is not kept holds up no other"


def test_a_moved_reservation_is_given_back_once() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(60) or pytest.fail("it fits") as upload:
        message = upload.move()
    assert budget.used == 60
    message.release()
    assert budget.used == 0


async def test_a_waiter_is_served_when_there_is_room() -> None:
    budget = MemoryBudget(100)
    first = budget.reserve(100)
    waiting = await start_wait(budget, 50)
    assert first
    assert not waiting.done()
    first.release()
    assert await waiting
    assert budget.used == 50


async def test_a_large_waiter_does_not_hold_up_a_small_one() -> None:
    budget = MemoryBudget(100)
    first, second = budget.reserve(80), budget.reserve(20)
    assert first
    assert second
    large = await start_wait(budget, 90)
    small = await start_wait(budget, 20)
    second.release()
    assert await small
    assert not large.done()
    first.release()
    (await small).release()
    assert await large
    assert budget.used == 90


async def test_a_wait_ends_without_room() -> None:
    budget = MemoryBudget(100)
    assert budget.reserve(100)
    assert await budget.wait(1, 0.01) is None
    assert budget.used == 100


async def test_a_cancelled_waiter_takes_nothing() -> None:
    budget = MemoryBudget(100)
    first = budget.reserve(100)
    early, late = await start_wait(budget, 60), await start_wait(budget, 60)
    assert first
    early.cancel()
    await asyncio.wait([early])
    first.release()  # serves `late`, which is cancelled before it runs
    late.cancel()
    await asyncio.wait([late])
    assert budget.used == 0


@pytest.mark.parametrize(
    ("groups", "files", "usable"),
    [
        ("0::/a/b", {"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": f"{64 * MIB}"}, 64 * MIB),
        ("0::/host/path", {"sys/fs/cgroup/memory.max": f"{32 * MIB}\n"}, 32 * MIB),
        (
            "5:cpu,memory:/docker/1\n1:cpu:/docker/1",
            {"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{16 * MIB}"},
            16 * MIB,
        ),
        ("4:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("0::/", {"sys/fs/cgroup/memory.max": "max"}, MACHINE),
        (None, {}, MACHINE),
    ],
    ids=["version 2", "version 2 without a namespace", "version 1", "version 1 unlimited", "unlimited", "no groups"],
)
def test_the_usable_memory_is_that_of_the_control_group(
    tmp_path: Path, groups: str | None, files: dict[str, str], usable: int
) -> None:
    for name, text in {**files, **({"proc/self/cgroup": groups} if groups else {})}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_memory(tmp_path) == usable
