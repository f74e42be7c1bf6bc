"""Many messages at once, clients that misbehave, and a relay that runs out of a resource."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

from parts.client import RawClient
from parts.faults import Step, wait

from faults.checker import STALLED
from faults.clients import Manner
from faults.receiver import received_fields
from faults.rest import see_that_all_heard
from faults.run import PEOPLE, Load
from faults.scenario import MUCH, scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.run import Run

GROUP = "Storms"
TWINS = 500
DOORS = {"limits.sessions": 5000}


def _storm(name: str, hears: str = "250", sees: str = "nothing", **rest: object) -> Callable[..., object]:
    return scenario(name, **{"group": GROUP, "hears": hears, "sees": sees, "alone": True, **rest})


async def _twins(run: Run) -> None:
    copies = min(TWINS, run.messages)
    for _ in range(max(1, run.messages // TWINS)):
        async with run.load(1, copies=copies, repeats=1, recipients=(3, 3)):
            pass


@_storm("500 twins at once, over 10 connections", messages=MUCH, settings=DOORS)
async def twins(run: Run) -> None:
    await _twins(run)


@_storm("500 twins at once at two relays", relays=2, messages=MUCH, settings=DOORS)
async def twins_at_two(run: Run) -> None:
    await _twins(run)


@_storm("500 twins at once at two relays on SQLite", relays=2, store="sqlite", settings=DOORS, messages=5_000)
async def twins_on_sqlite(run: Run) -> None:
    await _twins(run)


@_storm("1,000 connections at once", settings=DOORS, messages=2_000)
async def connections(run: Run) -> None:
    async with run.load(copies=2, repeats=0, at_once=TWINS):
        pass


@_storm("two 90-recipient mails in opposite order, at two relays", relays=2)
async def opposite(run: Run) -> None:
    async with run.load(copies=2, repeats=0, at_once=4, recipients=(90, 90), manners=(Manner.PIPELINED,)):
        pass


@_storm("overlapping lists of 1 to 60 recipients in any order", relays=2)
async def overlapping(run: Run) -> None:
    places = asyncio.Semaphore(4)
    people = PEOPLE[:60]

    async def one() -> None:
        async with places:
            message = run.next_message()
            lists = [run.chance.sample(people, run.chance.randint(1, 60)) for _ in range(3)]
            load = Load(copies=1, repeats=0, manners=(Manner.PIPELINED,))
            await asyncio.gather(*(run.send(message, some, load) for some in lists))

    await asyncio.gather(*(one() for _ in range(run.messages)))


async def _mannered(run: Run, *manners: Manner, at_once: int = 30) -> None:
    async with run.load(copies=2, repeats=1, at_once=at_once, manners=(Manner.PLAIN, *manners)):
        pass


@_storm("clients that trickle", alone=False)
async def trickle(run: Run) -> None:
    await _mannered(run, Manner.TRICKLE, at_once=100)


@_storm("clients that half-close after the dot", "250, and then the end of the connection", alone=False)
async def half_close(run: Run) -> None:
    await _mannered(run, Manner.HALF_CLOSE)
    see_that_all_heard(run)


@_storm("clients that break the connection right after the dot", "nothing; a retry hears 250", alone=False)
async def reset_after_dot(run: Run) -> None:
    await _mannered(run, Manner.RESET_AFTER_DOT)


@_storm("clients that leave before the dot", "nothing; a retry hears 250", "`aborted` counts them", alone=False)
async def leave_before_dot(run: Run) -> None:
    await _mannered(run, Manner.LEAVE_BEFORE_DOT)


@_storm("20 clients that hang in the middle of their envelope, on 10 connections", "250 within some seconds")
async def stuck(run: Run) -> None:
    idle = [await RawClient.open(run.relays[0].port) for _ in range(20)]
    for number, client in enumerate(idle):
        await client.send_raw(
            b"EHLO x\r\nMAIL FROM:<relay0@x.test>\r\nRCPT TO:<user%d@example.test>\r\n" % (number + 1)
        )
    async with run.load(copies=2, repeats=1):
        pass
    for client in idle:
        await client.close()


@_storm(
    "file descriptors running out",
    "a connection that is not answered, or closed, while there is none; a retry hears 250",
    "a line in the log",
    settings=DOORS,
    alone=False,
)
async def descriptors_run_out(run: Run) -> None:
    pid = run.relays[0].pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with run.load(copies=2, repeats=1, at_once=100):
        for point in run.points(run.messages // 300 + 1):
            await run.reached(point)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, usual[1]))
            await asyncio.sleep(run.chance.uniform(0.5, 2))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


@_storm(
    "one of two relays stands still longer than a lease",
    "250; from the one that stood still when it goes on",
    "`claims_lost` counts claims that another relay took; `another process took claims while we delivered`",
    relays=2,
    excuses=frozenset({STALLED}),
    messages=300,
)
async def stalled(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 100 + 1):
            await run.reached(point)
            async with run.stalled(run.chance.randrange(2)):
                await asyncio.sleep(run.history.lease + 1)


@_storm(
    "a relay stands still after its dot, and another one takes over",
    "250 from both",
    "`claims_lost` 1; `another process took claims while we delivered`",
    relays=2,
    excuses=frozenset({STALLED}),
    messages=5,
)
async def taken_over(run: Run) -> None:
    for number in range(min(run.messages, 5)):
        gate = asyncio.Event()
        run.peer.on(Step.DOT, wait(gate))
        message = run.next_message()
        first = asyncio.create_task(run.clients.attempt(message, PEOPLE[:1], 0))
        await run.peer.wait_waiting(Step.DOT)
        async with run.stalled(0):
            second = await run.clients.attempt(message, PEOPLE[:1], 1)
            await asyncio.sleep(0.5)
        gate.set()
        if not ((await first).promised and second.promised):
            run.complain(f"{message}: {first.result().text}, {second.text}")
        lost = (await run.relays[0].metrics()).value("smtp_dedup_claims_lost_total")
        if lost != number + 1:
            run.complain(f"{number + 1} claims were lost, {lost:g} are counted")


@_storm(
    "a mail that is routed back into the relay, round and round",
    "250 for each round, at last 554 5.4.6",
    "`exempt: loop mark` in the log; `exempt_messages` counts each round",
    alone=False,
)
async def routed_back(run: Run) -> None:
    run.peer.heads = {}
    hop = b"Received: from a.example.test by b.example.test; Sun, 1 Mar 2026 10:57:00 +0000\r\n"

    async def one() -> None:
        message = run.next_message()
        run.history.exempt.add(message)
        fields = hop * 94
        for rounds in range(20):
            attempt = await run.clients.attempt(message, PEOPLE[:2], 0, extra=fields)
            if "duplicate" in attempt.text:
                run.complain(f"round {rounds} of {message} was suppressed")
            if not attempt.promised:
                break
            fields = hop + received_fields(run.peer.heads.pop(attempt.id))
        if (attempt.code, attempt.text[:5], rounds) != (554, "5.4.6", 3):
            run.complain(f"message {message} ended after {rounds} rounds with {attempt.code} {attempt.text}")

    for _ in range(0, run.messages, 20):
        await asyncio.gather(*(one() for _ in range(20)))


@_storm(
    "nothing but repeats, in front of a Postfix that counts RSETs",
    "250, and none is slowed",
    "`suppressed`",
    upstream="postfix",
)
async def all_repeats(run: Run) -> None:
    async with run.load(4, copies=1, repeats=run.messages // 4, manners=(Manner.PLAIN,)):
        pass
    if run.clients.slowest > 5:
        run.complain(f"a client waited {run.clients.slowest:.1f} s")
    if complaints := [line for line in run.postfix.log().splitlines() if "too many errors" in line]:
        run.complain(complaints[0])
