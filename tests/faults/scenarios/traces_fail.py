"""The store of traces fails: locked, full, removed, refused by Redis. Mail does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

from parts.waiting import until

from faults.scenario import scenario
from faults.scenarios.sqlite_fails import lock_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults.run import Run

GROUP = "The store of traces fails"
DEGRADED = (
    "`trace_up` 0 meanwhile, `/readyz` 200 with `trace` degraded; one log line at each end of it; no trace is lost"
)
WAITS = "250 as ever; when it begins, a repeat up to `store.timeout` (1 s) later"
SIZE = 1 << 20
LONGEST = 3.0
"""Seconds that a reply may take while the traces cannot be stored."""
ENDS_WITHIN = 10.0
"""Seconds from SIGTERM to the end of a relay whose traces cannot be stored."""


def _fails(name: str, store: str, **rest: object) -> Callable[..., object]:
    return scenario(
        f"traces: {name}", **{"group": GROUP, "hears": "250 as ever", "sees": DEGRADED, "store": store, **rest}
    )


@_fails("the file is locked by another process", "sqlite", hears=WAITS)
async def locked(run: Run) -> None:
    path = _traces(run)
    slowest: list[float] = []
    async with run.load(copies=2, repeats=1):
        for point in run.points(3):
            await run.reached(point)
            with _measured(run, slowest), lock_file(path):
                await asyncio.sleep(run.chance.uniform(1.5, 3))
    _check_replies(run, slowest)
    await _check_recovered(run)
    metrics = await run.relays[0].metrics()
    messages = sum(metrics.value("smtp_dedup_messages_total", reply=reply) for reply in ("2xx", "4xx", "5xx"))
    await until(lambda: _count(path) >= messages, f"{messages:g} traces in the file", seconds=20)


@_fails(
    "the file is locked when the relay is stopped and started",
    "sqlite",
    hears="421 4.3.2 and refused connections while it is down; a retry hears 250",
    sees="`traces are lost, because the store did not answer before the end`; exit status 0",
)
async def restarted(run: Run) -> None:
    path = _traces(run)
    slowest = 0.0
    async with run.load(copies=2, repeats=1):
        for point in run.points(3):
            await run.reached(point)
            with lock_file(path):
                begun = time.monotonic()
                await run.restart(0)
                slowest = max(slowest, time.monotonic() - begun)
    run.note(f"stopped and started again in {slowest:.1f} s at most")
    if slowest > ENDS_WITHIN:
        run.complain(f"to stop and start took {slowest:.1f} s")
    await run.part_is("trace", "up")
    if "store unavailable, working without it" in run.relays[0].stderr():
        run.complain("the store of claims was affected")


@_fails("Redis refuses them", "redis")
async def refused(run: Run) -> None:
    key = "smtp-dedup:{trace}:segments"
    slowest: list[float] = []
    async with run.load(copies=2, repeats=1):
        for point in run.points(3, run.messages // 2):
            await run.reached(max(point, run.messages // 4))  # there is a key
            with _measured(run, slowest), run.redis.client() as client:
                client.rename(key, key + ":kept")
                client.set(key, "not a hash")
                await asyncio.sleep(run.chance.uniform(1.5, 3))
                client.rename(key + ":kept", key)
    _check_replies(run, slowest)
    await _check_recovered(run)


@_fails(
    "they reach their size under load",
    "sqlite",
    sees="the file stays at its size; the newest traces are found",
    messages=4_000,
    settings={"record.size": "1MiB"},
)
async def full(run: Run) -> None:
    path = _traces(run)
    async with run.load(copies=2, repeats=1):
        pass
    metrics = await run.relays[0].metrics()
    messages = sum(metrics.value("smtp_dedup_messages_total", reply=reply) for reply in ("2xx", "4xx", "5xx"))
    size, kept = _size(path), _count(path)
    run.note(f"{size / 2**20:.1f} MiB with {kept:,} of {messages:,.0f} traces")
    if size > 3 * SIZE:
        run.complain(f"the traces take {size} bytes")
    if kept >= messages:
        run.complain("no trace was deleted: the size was not reached")


@_fails("the file is removed", "sqlite", sees="a new file, in which `relay why` finds the messages from then on")
async def removed(run: Run) -> None:
    path = _traces(run)
    async with run.load(copies=2, repeats=1):
        for point in run.points(3):
            await run.reached(point)
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
    relay = run.relays[0]
    await run.part_is("trace", "up")
    await until(lambda: path.exists() and _count(path) > 0, "traces in the new file", seconds=20)
    if "store unavailable, working without it" in relay.stderr():
        run.complain("the store of claims was affected")


@contextlib.contextmanager
def _measured(run: Run, slowest: list[float]) -> Iterator[None]:
    """Appends the seconds of the slowest reply that a client receives in the block."""
    before, run.clients.slowest = run.clients.slowest, 0.0
    yield
    slowest.append(run.clients.slowest)
    run.clients.slowest = max(before, run.clients.slowest)


def _check_replies(run: Run, slowest: list[float]) -> None:
    run.note(f"slowest reply while they could not be stored {max(slowest):.1f} s")
    if max(slowest) > LONGEST:
        run.complain(f"a client waited {max(slowest):.1f} s")


async def _check_recovered(run: Run) -> None:
    relay = run.relays[0]
    await run.part_is("trace", "up")
    if "trace store unavailable" not in relay.stderr():
        run.complain("the log does not say that the traces were not stored")
    if "store unavailable, working without it" in relay.stderr():
        run.complain("the store of claims was affected")
    lost = (await relay.metrics()).value("smtp_dedup_records_lost_total")
    if lost:
        run.complain(f"{lost:g} traces were lost")


def _traces(run: Run) -> Path:
    return run.sqlite.with_name(f"{run.sqlite.stem}.trace.db")


def _count(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("SELECT coalesce(sum(entries), 0) FROM segments").fetchone()[0]
        return found


def _size(path: Path) -> int:
    """Returns the bytes of the database, also of what is only in its -wal yet."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        size: int = connection.execute("PRAGMA page_size").fetchone()[0]
        return pages * size
