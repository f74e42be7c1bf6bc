"""The relay runs out of memory, descriptors or threads, or its log is not read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
from parts.faults import Step, wait

from faults.clients import Manner, connect
from faults.hung_disk import hung_disk
from faults.rest import check_replies, peak, reset_peak
from faults.run import PEOPLE
from faults.scenario import FULL, scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from faults.run import Run

GROUP = "A resource runs out"
MIB = 1 << 20
LINE = b"x" * 898 + b"\r\n"
LARGE = 8 * MIB
HELD = 4
"""Large messages that the upstream does not answer for a while. Their twins wait in memory."""
MOST_LARGE = 100
"""Large messages that are sent. More of them would hold the memory for longer than the other clients retry."""
MARK = b"large\r\n"
AT_ONCE = 8
"""Large messages that clients send at the same time."""
BUDGET = 64
"""MiB of `limits.memory`."""
FACTOR = 3
"""The most memory by which the process may grow, as a multiple of the budget: a message being analysed takes more."""
DESCRIPTORS = 256
IDLE = 400
"""Idle clients: more than the descriptors allow."""
SENDING = 20
"""Idle clients that send a message while the others hold all places."""
HUNG_FOR = 12.0
"""Seconds. A relay waits 10 s for a copy to be saved."""
NEW = 30
"""Messages that are sent anew while the disk hangs."""
LONGEST = 4.0
"""Seconds that a new message may take while the disk of the kept copies hangs."""


def _runs_out(name: str, **rest: object) -> Callable[..., object]:
    return scenario(name, **{"group": GROUP, "alone": True, **rest})


@_runs_out(
    "clients leave after the dot of 8 MiB messages, which the upstream does not answer for a while",
    hears="250, or 452 4.3.1 at DATA while `limits.memory` is used up, and a retry hears 250",
    sees="`memory_refused`; `in_flight_bytes` up to `in_flight_limit_bytes`; the process grows by a multiple of it",
    settings={"limits.memory": f"{BUDGET}MiB"},
    messages=100,
    limit=300.0,
)
async def memory(run: Run) -> None:
    gate = asyncio.Event()
    run.peer.on(Step.DOT, wait(gate), matching=MARK, times=None)
    # Fewer than the upstream's connections, so that small mail of other clients finds one.
    large = {run.next_message(): run.chance.sample(PEOPLE, 1) for _ in range(HELD)}
    run.clients.padding = lambda message: MARK + LINE * (LARGE // len(LINE)) if message in large else LINE
    relay = run.relays[0]
    before = reset_peak(relay)
    async with run.load(copies=2, repeats=1):
        twins = [*large] * (min(run.messages, MOST_LARGE) // HELD)
        await _each(twins, lambda message: run.clients.attempt(message, large[message], 0, Manner.LEAVE_AFTER_DOT))
        gate.set()
    await _each(large, lambda message: run.clients.insist(message, large[message], 0))
    refused = (await relay.metrics()).value("smtp_dedup_memory_refused_total")
    run.note(f"{refused:,.0f} messages found no memory")
    if not refused:
        run.complain("`limits.memory` was never used up")
    grown = (peak(relay) - before) // 1024
    run.note(f"at most {grown} MiB more than at the start, with {BUDGET} MiB in `limits.memory`")
    if grown > FACTOR * BUDGET:
        run.complain(f"the process grew by {grown} MiB")
    check_replies(run, {"250", "250 duplicate", "452 4.3.1", "connection closed"})


async def _each(messages: Iterable[int], send: Callable[[int], Awaitable[object]]) -> None:
    """Sends some messages at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(message: int) -> None:
        async with places:
            await send(message)

    await asyncio.gather(*(one(message) for message in messages))


@_runs_out(
    "more clients than file descriptors",
    hears="421 4.3.2 instead of the greeting; a retry hears 250",
    sees='`sessions_refused{reason="descriptors"}`, and a warning that names the limit; `/livez` and `/readyz` 200',
    prefix=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"),
)
async def descriptors(run: Run) -> None:
    # From many addresses, because one client may not have all places.
    run.clients.addresses = [f"127.0.0.{number}" for number in range(1, 51)]
    async with _health_is_watched(run):
        idle = [await connect(run.relays[0].port, run.chance.choice(run.clients.addresses)) for _ in range(IDLE)]
        greetings = await asyncio.gather(*(client.read_reply() for client in idle))
        heard = Counter(f"{greeting.code} {greeting.text[:5].decode()}" for greeting in greetings)
        if heard.keys() != {"220 " + greetings[0].text[:5].decode(), "421 4.3.2"}:
            run.complain(f"{IDLE} clients were greeted with {dict(heard)}")
        # The others hold all places: a client that has one can send its mail.
        greeted = [client for client, greeting in zip(idle, greetings, strict=True) if greeting.code == 220]
        for client in greeted[:SENDING]:
            attempt = await run.clients.attempt(run.next_message(), PEOPLE[:2], 0, opened=client)
            if not attempt.promised:
                run.complain(f"a client with a place heard {attempt.code} {attempt.text}")
        # Half of the places become free for more clients than that, which come and go.
        for client in {*idle}.difference(greeted[len(greeted) // 2 :]):
            await client.close()
        async with run.load(copies=2, repeats=1, at_once=100):
            pass
        for client in idle:
            await client.close()
    refused = (await run.relays[0].metrics()).value("smtp_dedup_sessions_refused_total", reason="descriptors")
    run.note(f"{len(greeted)} places with {DESCRIPTORS} descriptors; {refused:,.0f} sessions were refused")
    check_replies(run, {"250", "250 duplicate", "421 4.3.2"})


@contextlib.asynccontextmanager
async def _health_is_watched(run: Run) -> AsyncIterator[None]:
    """Complains if the relay does not answer a request for its health while the block runs."""

    async def watch() -> None:
        while True:
            for path in ("/livez", "/readyz"):
                try:
                    status, _ = await run.relays[0].get(path)
                except (aiohttp.ClientError, OSError) as error:
                    run.complain(f"{path} fails: {type(error).__name__} {error}")
                    return
                if status != 200:
                    run.complain(f"{path} says {status}")
                    return
            await asyncio.sleep(0.2)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@_runs_out(
    "the disk of the kept copies hangs while large mail arrives",
    hears="250; a repeat up to 10 s later, because its copy is being saved",
    sees="`a copy could not be kept`; `records_lost`",
    settings={"record.keep": "maildir:{folder}/kept"},
    messages=300,
)
async def threads(run: Run) -> None:
    run.clients.padding = lambda _: LINE * 100
    for name in ("tmp", "new", "cur"):
        (run.folder / "kept" / name).mkdir(parents=True, exist_ok=True)
    slowest = 0.0

    async def send_new() -> None:
        nonlocal slowest
        begun = time.monotonic()
        await run.clients.insist(run.next_message(), PEOPLE[:1], 0)
        slowest = max(slowest, time.monotonic() - begun)

    async with run.load(copies=2, repeats=1), asyncio.TaskGroup() as group:
        for point in run.points(run.messages // 150 + 1):
            await run.reached(point)
            with hung_disk(run.folder / "kept" / "tmp"):
                for _ in range(NEW):
                    group.create_task(send_new())
                    await asyncio.sleep(HUNG_FOR / NEW)
    run.note(f"new mail took {slowest:.1f} s at most while the disk hung")
    if slowest > LONGEST:
        run.complain(f"new mail took {slowest:.1f} s while the disk hung")


@_runs_out(
    "the log is a pipe that is not read",
    hears="250",
    sees="`log_lines_dropped` counts what exceeds the buffer; SIGTERM ends the relay in time",
    log_is_read=False,
)
async def log_reader(run: Run) -> None:
    async with run.load(copies=4, repeats=2):
        pass
    dropped = (await run.relays[0].metrics()).value("smtp_dedup_log_lines_dropped_total")
    run.note(f"{dropped:,.0f} log lines were dropped")
    if run.messages >= FULL and not dropped:
        run.complain("no log line was dropped")
