"""A long, even load: memory stays flat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from faults.rest import resident
from faults.scenario import scenario

if TYPE_CHECKING:
    from faults.run import Run

MINUTES = 12
GROWTH = 1.25
"""The factor by which memory may grow between a tenth of the run and its end. The allocator is not exact."""


@scenario(
    "a soak of 200,000 messages, 12 minutes at most",
    group="Soak",
    hears="250",
    sees="nothing; memory stays flat",
    messages=200_000,
    settings={"dedup.window": "20s"},
    forgets=True,
    alone=True,
)
async def soak(run: Run) -> None:
    deadline = time.monotonic() + 60 * MINUTES
    early = 0
    while run.done < run.messages and time.monotonic() < deadline:
        async with run.load(max(1, run.messages // 100), copies=1, repeats=0):
            pass
        if not early and run.done * 10 >= run.messages:
            early = resident(run.relays[0])
    late = resident(run.relays[0])
    run.note(f"{run.done:,} messages; {early // 1024} MiB after the first tenth, {late // 1024} MiB at the end")
    if early and late > early * GROWTH:
        run.complain(f"memory grew from {early} to {late} KiB between the first tenth of the run and its end")
