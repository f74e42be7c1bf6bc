"""Redis fails in all its ways. One relay alone must send no duplicate, because of its local table."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from faults.checker import APART, STALLED
from faults.rest import all_is_written
from faults.scenario import MUCH, scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from faults.run import Run

GROUP = "Redis fails"
MESSAGES_A_FAILURE = 150
ROOM = 4_000
"""Octets that an evicting Redis has left."""
ENOUGH = 4
"""The number of failures, at least one of which a relay must notice."""
LONGEST = 1.5
"""The longest failure in seconds."""
DEGRADED = "`store_degraded` 1 and `store_up` 0 meanwhile; `/readyz` 200, for mail flows; it says so in the log"
NOTHING = "250 as ever; a copy waits at most `store.timeout` for its claim, and a repeat as long again for its trace"


def _fails(name: str, sees: str = DEGRADED, **rest: object) -> Callable[..., object]:
    return scenario(f"Redis {name}", **{"group": GROUP, "hears": NOTHING, "sees": sees, **rest})


async def _again_and_again(
    run: Run, fail: Callable[[], Awaitable[None]], *, seen: bool = True, forgets: bool = False
) -> None:
    """Makes Redis fail at times while twins arrive, and checks that the relay reports it."""
    # Several relays need time between two failures to find their store, or all duplicates would be excused.
    apart = MESSAGES_A_FAILURE * (2 * len(run.relays) - 1)
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // apart + 1):
            await run.reached(point)
            async with run.outage():
                await fail()
    await run.store_is("up")
    # A short failure may fall between two requests.
    if (
        seen
        and len(run.history.outages) >= ENOUGH
        and not any("store unavailable" in relay.stderr() for relay in run.relays)
    ):
        run.complain("no relay has noticed that its store failed")
    if len(run.relays) == 1 and not forgets:
        await all_is_written(run)


def _a_while(run: Run) -> Awaitable[None]:
    return asyncio.sleep(run.chance.uniform(0.2, LONGEST))


@_fails("refuses connections for a while", store="wired redis")
async def refused(run: Run) -> None:
    async def fail() -> None:
        await run.wire.refuse()
        await _a_while(run)
        await run.wire.listen()

    await _again_and_again(run, fail)


@_fails("hangs (stopped process)")
async def hangs(run: Run) -> None:
    async def fail() -> None:
        run.redis.pause()
        # Some are shorter than `store.timeout`, some so long that the relay becomes degraded.
        await asyncio.sleep(run.chance.uniform(0.2, 5))
        run.redis.resume()

    await _again_and_again(run, fail)


@_fails("killed and restarted empty, in a stream of twins", messages=MUCH)
async def killed_empty(run: Run) -> None:
    async def fail() -> None:
        await asyncio.to_thread(run.redis.kill)
        if run.chance.random() < 0.5:
            await _a_while(run)
        await asyncio.to_thread(run.redis.start)

    await _again_and_again(run, fail)


@_fails("restarted empty while nobody asks it anything", "nothing; the acceptances stand in it again at once")
async def emptied_unnoticed(run: Run) -> None:
    # The relay finds its connection closed and opens another. Only the new id of the server shows that it is empty.
    for _ in range(run.messages // MESSAGES_A_FAILURE + 1):
        async with run.load(min(run.messages, MESSAGES_A_FAILURE), copies=2, repeats=0):
            pass
        await asyncio.to_thread(run.redis.restart)
    async with run.load(1):
        pass
    await all_is_written(run)


@_fails("killed and restarted empty, with two relays", relays=2, excuses=frozenset({APART}))
async def killed_empty_two(run: Run) -> None:
    await killed_empty(run)


@_fails("hangs, with two relays", relays=2, excuses=frozenset({APART, STALLED}))
async def hangs_two(run: Run) -> None:
    await hangs(run)


@_fails("is LOADING after a restart")
async def loading(run: Run) -> None:
    async def fail() -> None:
        await asyncio.to_thread(run.redis.load_slowly, 2000)
        await asyncio.to_thread(run.redis.wait_loaded)

    await _again_and_again(run, fail)


def _state(name: str, state: Callable[[Run], AbstractContextManager[None]]) -> None:
    async def play(run: Run) -> None:
        async def fail() -> None:
            async with AsyncExitStack() as stack:
                context = state(run)
                await asyncio.to_thread(context.__enter__)
                stack.push_async_callback(asyncio.to_thread, context.__exit__, None, None, None)
                await _a_while(run)

        await _again_and_again(run, fail)

    _fails(name)(play)


_state("answers READONLY (a replica without its master)", lambda run: run.redis.read_only())
_state("answers OOM (no memory left)", lambda run: run.redis.out_of_memory())
_state("answers NOAUTH (a password was set)", lambda run: run.redis.with_password())


@_fails(
    "evicts keys at random",
    "nothing, unless memory is so short that it answers OOM; `relay check` warns of an `allkeys-*` policy",
)
async def evicts(run: Run) -> None:
    async def fail() -> None:
        with run.redis.evicting(ROOM):
            await _a_while(run)

    await _again_and_again(run, fail, seen=False, forgets=True)
    evicted = await asyncio.to_thread(run.redis.evicted)
    run.note(f"{evicted:,} keys thrown away")
    if not evicted:
        run.complain("Redis threw no key away")


@_fails("holds values of a wrong type at some keys", "nothing: such a key counts as unknown, and its mail is forwarded")
async def wrong_type(run: Run) -> None:
    async def fail() -> None:
        for _ in range(5):
            await asyncio.to_thread(run.redis.spoil, 0.3, run.chance)
            await asyncio.sleep(0.05)

    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // MESSAGES_A_FAILURE + 1):
            await run.reached(point)
            await fail()


@_fails("is slow (5 s an answer)", store="wired redis")
async def slow(run: Run) -> None:
    async def fail() -> None:
        run.wire.delay = 2.5
        await asyncio.sleep(run.chance.uniform(1, 6))
        run.wire.delay = 0.0

    await _again_and_again(run, fail)


@_fails(
    "a little slow (0.1 s an answer)",
    "longer `smtp_dedup_message_seconds`; if the relay is busy too, a trace may take longer than `store.timeout`",
    store="wired redis",
)
async def a_little_slow(run: Run) -> None:
    run.wire.delay = 0.05
    async with run.load(copies=2, repeats=1):
        pass
    run.wire.delay = 0.0


async def _cut(run: Run) -> None:
    async with run.outage(), run.load(copies=2, repeats=1):
        pass
    run.wire.before = run.wire.answer = None
    await run.store_is("up")
    await all_is_written(run)


def _somewhere(run: Run) -> Callable[[bytes], Awaitable[int | None]]:
    """Cuts one piece in twenty at a random octet, possibly before the first."""

    async def most(octets: bytes) -> int | None:
        return run.chance.randrange(len(octets)) if run.chance.random() < 0.05 else None

    return most


@_fails("connection cut in the middle of a pipeline, before Redis has all of it", store="wired redis")
async def cut_before(run: Run) -> None:
    run.wire.before = _somewhere(run)
    await _cut(run)


@_fails("connection cut in the middle of the answers, when Redis has done all of it", store="wired redis")
async def cut_after(run: Run) -> None:
    run.wire.answer = _somewhere(run)
    await _cut(run)
