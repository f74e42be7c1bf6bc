"""A busy machine: other processes use all cores, as video transcoding does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from faults.scenario import MUCH, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.run import Run

GROUP = "A starved machine"
GOAL = 5.0
"""The longest wait of a client in seconds, with a healthy upstream."""
LONGEST = 3 * GOAL
"""Seconds from which a run is not clean. The machine may have had other work beside this harness."""
HEARS = f"250 within {GOAL:g} s (a run is not clean from {LONGEST:g} s on)"
LEASES = {"dedup.lease": "30s"}


@contextlib.contextmanager
def burning() -> Iterator[None]:
    """Runs two busy processes for each core. The harness has priority, because it measures the time of the relay."""
    command = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, usual - 5)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)
        for burner in burners:
            burner.kill()
            burner.wait()


async def _starve(run: Run) -> None:
    with burning():
        async with run.load(copies=2, repeats=0, at_once=8):
            pass
    run.note(f"slowest reply while starved {run.clients.slowest:.1f} s")
    if run.clients.slowest > LONGEST:
        run.complain(f"a client waited {run.clients.slowest:.1f} s")
    for number, relay in enumerate(run.relays):
        if lost := (await relay.metrics()).value("smtp_dedup_claims_lost_total"):
            run.complain(f"relay {number} lost {lost:g} claims")
        if "store unavailable" in relay.stderr():
            run.complain(f"relay {number} took its own slowness for the store's")


@scenario("both cores burnt", group=GROUP, alone=True, hears=HEARS, sees="nothing", messages=MUCH, settings=LEASES)
async def one(run: Run) -> None:
    await _starve(run)


@scenario(
    "both cores burnt, two relays", group=GROUP, alone=True, hears=HEARS, sees="nothing", relays=2, settings=LEASES
)
async def two(run: Run) -> None:
    await _starve(run)


@scenario(
    "both cores burnt, SQLite", group=GROUP, alone=True, hears=HEARS, sees="nothing", store="sqlite", settings=LEASES
)
async def on_sqlite(run: Run) -> None:
    await _starve(run)
