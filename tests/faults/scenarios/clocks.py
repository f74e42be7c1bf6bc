"""The wall clock of a relay or of Redis is set while mail flows."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from faults.rest import send_again
from faults.scenario import scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.run import Run

GROUP = "The clock jumps"
DAY = 24 * 3600
OFFSETS = (DAY, -DAY, 2 * 3600, -2 * 3600, 10, -10, 0)
"""Successive offsets of a clock in seconds; negative is before the true time."""
WITHIN_THE_WINDOW = (-DAY, 600, -2 * 3600, 0, 10, -10)
MESSAGES_A_JUMP = 100


def _jumps(name: str, **rest: object) -> Callable[..., object]:
    return scenario(name, **{"group": GROUP, "hears": "250", "sees": "nothing but the times of the log lines", **rest})


async def _jump_about(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for number, point in enumerate(run.points(max(len(OFFSETS), run.messages // MESSAGES_A_JUMP))):
            await run.reached(point)
            run.chance.choice(run.clocks).jump(OFFSETS[number % len(OFFSETS)])
    # And once with the clocks on opposite sides of the window.
    for number, clock in enumerate(run.clocks):
        clock.jump(DAY if number % 2 else -DAY)
    async with run.load(max(1, run.messages // 10), copies=2, repeats=1):
        pass
    _see_that_they_jumped(run)


def _see_that_they_jumped(run: Run) -> None:
    lines = [line for relay in run.relays for line in relay.stderr().splitlines() if line.startswith("{")]
    times = [datetime.fromisoformat(json.loads(line)["time"]).timestamp() for line in lines]
    if max(times) - min(times) < DAY:
        run.complain("no clock has jumped")


@_jumps("the relay's wall clock jumps up to a day, forwards and back", clocks=True)
async def on_redis(run: Run) -> None:
    await _jump_about(run)


@_jumps("the wall clocks of two relays jump, each by itself", clocks=True, relays=2)
async def two_on_redis(run: Run) -> None:
    await _jump_about(run)


@_jumps("the wall clock of two relays on one SQLite file jumps", clocks=True, relays=2, store="sqlite")
async def two_on_sqlite(run: Run) -> None:
    await _jump_about(run)


@_jumps(
    "the wall clock is set while the relay is restarted",
    hears="250 (set forward by more than a window, the clock ends it for what SQLite alone remembers)",
    clocks=True,
    store="sqlite",
)
async def over_a_restart(run: Run) -> None:
    for offset in WITHIN_THE_WINDOW:
        async with run.load(max(1, run.messages // len(WITHIN_THE_WINDOW)), copies=2, repeats=0):
            pass
        run.clocks[0].jump(offset)
        await run.restart(0)
        await send_again(run)
    _see_that_they_jumped(run)
