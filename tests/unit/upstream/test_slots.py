"""Who gets the next connection, and how many there may be."""

from __future__ import annotations

import asyncio

import pytest

from relay.core.errors import UpstreamBusy, UpstreamDown
from relay.upstream.slots import TRY_AGAIN_AFTER, TRY_MORE_AFTER, Slots


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_waiting_clients_take_turns() -> None:
    slots = Slots(1, Clock())
    assert slots.acquire_now()
    served: list[str] = []

    async def use(client: str) -> None:
        await slots.acquire(client, 60)
        served.append(client)
        slots.release()

    tasks = []
    for client in ["greedy"] * 20 + ["modest"] * 2:
        tasks.append(asyncio.create_task(use(client)))
        await asyncio.sleep(0)
    slots.release()
    await asyncio.gather(*tasks)
    assert served[:5] == ["greedy", "modest", "greedy", "modest", "greedy"]
    assert len(served) == 22
    assert slots.in_use == 0


async def test_who_was_refused_by_a_full_upstream_goes_first() -> None:
    slots = Slots(1, Clock())
    assert slots.acquire_now()
    last = asyncio.create_task(slots.acquire("client", 60))
    await asyncio.sleep(0)
    first = asyncio.create_task(slots.acquire("other", 60, first=True))
    await asyncio.sleep(0)
    slots.release()
    await asyncio.wait_for(first, 5)
    assert not last.done()
    slots.release()
    await asyncio.wait_for(last, 5)


async def test_a_learned_limit_is_kept_and_tested_later() -> None:
    clock = Clock()
    slots = Slots(20, clock)
    assert all(slots.acquire_now() for _ in range(3))
    slots.learn_limit(3)
    assert not slots.acquire_now()
    clock.now += TRY_MORE_AFTER - 0.1
    assert not slots.acquire_now()
    clock.now += 0.1
    assert slots.acquire_now()
    assert not slots.acquire_now()
    clock.now += TRY_AGAIN_AFTER
    assert slots.acquire_now()
    slots.learn_limit(3)
    for _ in range(5):
        slots.release()
    assert [slots.acquire_now() for _ in range(5)] == [True, True, True, False, False]


async def test_a_limit_learned_too_low_follows_the_connections() -> None:
    slots = Slots(20, Clock())
    slots.learn_limit(0)
    assert slots.limit == 1
    slots.note_connected(3)
    assert slots.limit == 3
    slots.note_connected(30)
    assert slots.limit == 20


async def test_waiting_ends_with_the_time_limit_or_with_a_failure() -> None:
    slots = Slots(1, Clock())
    assert slots.acquire_now()
    with pytest.raises(UpstreamBusy, match=r"for 0\.01 s"):
        await slots.acquire("client", 0.01)
    assert not slots.waiting
    tasks = [asyncio.create_task(slots.acquire(client, 60)) for client in "aab"]
    await asyncio.sleep(0)
    slots.fail(UpstreamDown("gone"))
    assert [str(end) for end in await asyncio.gather(*tasks, return_exceptions=True)] == ["gone"] * 3
    assert not slots.waiting
    slots.release()
    assert slots.in_use == 0


async def test_a_slot_that_is_handed_over_to_a_cancelled_task_is_free_again() -> None:
    slots = Slots(1, Clock())
    assert slots.acquire_now()
    task = asyncio.create_task(slots.acquire("client", 60))
    await asyncio.sleep(0)
    slots.release()
    task.cancel()
    await asyncio.wait([task])
    assert slots.in_use == 0
    assert slots.acquire_now()
