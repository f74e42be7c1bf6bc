"""Redis on several servers, behind Sentinel and as a Cluster, which lose one server under load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from faults.checker import APART, RECOVERED_WITHIN
from faults.in_redis import sent
from faults.rest import all_is_written
from faults.scenario import scenario
from faults.scenarios.redis_fails import DEGRADED, NOTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faults.run import Run

GROUP = "Redis at scale fails"
MESSAGES_A_LOSS = 250


def _fails(name: str, **rest: object) -> Callable[..., object]:
    return scenario(name, **{"group": GROUP, "hears": NOTHING, "sees": DEGRADED, **rest})


async def _under_load(run: Run, lose: Callable[[], Awaitable[None]]) -> None:
    """Sends with all servers, while a server is lost and returns, and with all servers again."""
    rounds = run.messages // MESSAGES_A_LOSS + 1
    share = max(1, run.messages // (2 * rounds))
    for _ in range(rounds):
        async with run.load(share, copies=2, repeats=1):
            pass
        async with run.load(share, copies=2, repeats=1), run.outage():
            await lose()
        await run.store_is("up")
        if len(run.relays) > 1:
            # From here on the relays share their store again, and no duplicate is excused.
            await asyncio.sleep(RECOVERED_WITHIN)


@_fails("Sentinel: the master is killed, and the replica promoted", store="redis sentinel")
async def sentinel(run: Run) -> None:
    lost: list[int] = []

    async def lose() -> None:
        before = await asyncio.to_thread(sent, run.servers())
        await asyncio.to_thread(run.sentinels.fail_over)
        lost.append(before - await asyncio.to_thread(sent, run.servers()))
        await asyncio.to_thread(run.sentinels.rejoin)

    await _under_load(run, lose)
    run.note(
        f"failovers: {len(lost)}; {sum(max(0, each) for each in lost)} written acceptances were not on the replica"
    )
    await all_is_written(run)


@_fails(
    "Sentinel: the master is killed, and the replica promoted, with two relays",
    store="redis sentinel",
    relays=2,
    excuses=frozenset({APART}),
)
async def sentinel_two(run: Run) -> None:
    await sentinel(run)


@_fails("Cluster: one of three masters is killed, and comes back empty", store="redis cluster")
async def cluster(run: Run) -> None:
    async def lose() -> None:
        node = run.chance.choice(run.cluster.nodes)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(run.chance.uniform(0.5, 3))
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(run.cluster.wait_agreed)

    await _under_load(run, lose)


@_fails(
    "Cluster: one of three masters is killed, and comes back empty, with two relays",
    store="redis cluster",
    relays=2,
    excuses=frozenset({APART}),
)
async def cluster_two(run: Run) -> None:
    await cluster(run)
