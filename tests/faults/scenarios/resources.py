"""The relay runs out of memory, descriptors or threads, or its log is not read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import aiohttp
from parts.client import RawClient
from parts.faults import Step

from faults.clients import Manner
from faults.hung_disk import hung_disk
from faults.rest import peak, reset_peak
from faults.run import PEOPLE
from faults.scenario import scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from parts.faults import Caller

    from faults.run import Run

GROUP = "A resource runs out"
MIB = 1 << 20
LINE = b"x" * 898 + b"\r\n"
LARGE = 8 * MIB
BUDGET = 64
"""MiB of `limits.memory`."""
FACTOR = 3
"""The most memory by which the process may grow, as a multiple of the budget: a message being analysed takes more."""
DESCRIPTORS = 256
IDLE = 400
"""Clients that are more than the descriptors allow."""
GREETED = 20
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
    "clients leave after the dot of 8 MiB messages, at an upstream that is slow after the dot",
    hears="250, or 452 4.3.1 at DATA while `limits.memory` is used up, and a retry hears 250",
    sees="`in_flight_bytes` at `limits.memory`; memory grows by a small multiple of it",
    settings={"limits.memory": f"{BUDGET}MiB"},
    messages=200,
)
async def memory(run: Run) -> None:
    # Every fourth message is small: other clients.
    run.clients.padding = lambda message: LINE * (LARGE // len(LINE)) if message % 4 else LINE
    run.clients.pause = 0.5
    relay = run.relays[0]
    before = reset_peak(relay)
    run.peer.now_and_then(Step.DOT, 1.0, _slow)
    manners = (Manner.LEAVE_AFTER_DOT, Manner.LEAVE_AFTER_DOT, Manner.PLAIN)
    async with run.load(copies=1, repeats=1, at_once=30, recipients=(1, 1), manners=manners):
        pass
    run.peer.forgive()
    grown = (peak(relay) - before) // 1024
    run.note(f"at most {grown} MiB more than at the start, with {BUDGET} MiB in `limits.memory`")
    if grown > FACTOR * BUDGET:
        run.complain(f"the process grew by {grown} MiB")
    _check_replies(run, {"250", "250 duplicate", "452 4.3.1", "connection closed"})


async def _slow(_: Caller) -> None:
    await asyncio.sleep(1)


def _check_replies(run: Run, allowed: set[str]) -> None:
    if others := {reply: count for reply, count in run.clients.heard.items() if reply not in allowed}:
        run.complain(f"clients heard {others}")


@_runs_out(
    "more clients than file descriptors",
    hears="421 4.3.2 instead of the greeting; a retry hears 250",
    sees='`sessions_refused{reason="descriptors"}`, and a warning that names the limit; `/livez` and `/readyz` 200',
    prefix=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"),
)
async def descriptors(run: Run) -> None:
    async with _health_is_watched(run):
        idle = await asyncio.gather(*(RawClient.open(run.relays[0].port) for _ in range(IDLE)))
        greetings = {(client.greeting.code, client.greeting.text[:5]) for client in idle}
        if strange := {each for each in greetings if each[0] != 220 and each != (421, b"4.3.2")}:
            run.complain(f"instead of a greeting: {strange}")
        if len({code for code, _ in greetings}) == 1:
            run.complain(f"all of {IDLE} clients were greeted, or none: {greetings}")
        # All places are taken: those who have one send their mail.
        for client in [each for each in idle if each.greeting.code == 220][:GREETED]:
            attempt = await run.clients.attempt(run.next_message(), PEOPLE[:2], 0, opened=client)
            if not attempt.promised:
                run.complain(f"a client with a place heard {attempt.code} {attempt.text}")
        # Most of the others leave, and more clients than places come and go.
        for client in idle[IDLE // 4 :]:
            await client.close()
        async with run.load(copies=2, repeats=1, at_once=100):
            pass
        for client in idle:
            await client.close()
    _check_replies(run, {"250", "250 duplicate", "421 4.3.2"})


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
    sees="`a copy could not be written` in the log; `records_lost`",
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
    sees="nothing in the log; `log_lines_lost` counts; SIGTERM ends the relay in time",
    log_is_read=False,
)
async def log_reader(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        pass
