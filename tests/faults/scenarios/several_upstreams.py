"""Two upstreams in order of preference. The second is used while the first is down, and never for the same mail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from parts.faults import drop, hang, reset, say, say_and_drop
from parts.waiting import until

from faults.checker import UNCERTAIN
from faults.run import PEOPLE
from faults.scenario import scenario
from faults.scenarios.upstream_fails import AFTER, AFTER_DOT, BEFORE_DOT, SHORT_DOT, SHORT_LIMITS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from parts.faults import Action, Step

    from faults.run import Run

GROUP = "The preferred one of two upstreams fails"
LEFT = "is left alone for a while"
USED = "is used again"
SEES = f"`upstream {LEFT}`, `upstream {USED}`; `/readyz` 200"
AGAIN_WITHIN = 90.0
"""Seconds within which the preferred upstream must be tried again: three times the longest pause of its breaker."""


def _fails(name: str, hears: str = "250: the next one takes the mail", **rest: object) -> Callable[..., object]:
    settings = {**SHORT_LIMITS, **rest.pop("settings", {})}  # type: ignore[dict-item]
    words = {"group": GROUP, "hears": hears, "sees": SEES, "upstream": "two peers", "settings": settings}
    return scenario(f"the preferred upstream {name}", **{**words, **rest})


async def _see_used_again(run: Run) -> None:
    """Sends until the preferred upstream accepts mail again."""
    before = len(run.peer.taken)

    async def taken() -> None:
        while len(run.peer.taken) == before:
            await run.clients.insist(run.next_message(), run.chance.sample(PEOPLE, 1), 0)

    try:
        await asyncio.wait_for(taken(), AGAIN_WITHIN)
    except TimeoutError:
        run.complain(f"the preferred upstream is not used again after {AGAIN_WITHIN:g} s")


async def _finish(run: Run) -> None:
    first, second = len(run.peer.taken), len(run.second.taken)
    run.note(f"{first:,} mails went to the preferred one, {second:,} to the other")
    if not second:
        run.complain("the second upstream was never used")
    # A relay writes its log outside of the event loop, so the client may receive its reply first.
    try:
        await until(lambda: {LEFT, USED} <= _said(run), "both in the log")
    except TimeoutError:
        run.complain("the log does not say that an upstream was left alone and used again")


def _said(run: Run) -> set[str]:
    said = run.relays[0].stderr()
    return {words for words in (LEFT, USED) if words in said}


@_fails("refuses connections for a while")
async def refuses(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 200 + 1):
            await run.reached(point)
            await run.peer.stop()
            await asyncio.sleep(run.chance.uniform(0.5, 2))
            # A relay without CPU time has not noticed yet.
            await until(lambda: run.second.taken or run.done >= run.messages, "a mail at the other one")
            await run.peer.start()
    await _see_used_again(run)
    await _finish(run)


@_fails("is away, and then the other one too", "250, or 451 4.4.1 past `upstream.patience`, and a retry hears 250")
async def both(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 200 + 1):
            await run.reached(point)
            await run.peer.stop()
            await asyncio.sleep(run.chance.uniform(0.2, 1))
            await run.second.stop()
            await asyncio.sleep(run.chance.uniform(0.2, 2))
            await run.chance.choice([run.peer, run.second]).start()
            await asyncio.sleep(run.chance.uniform(0.2, 1))
            for peer in (run.peer, run.second):
                await peer.stop()
                await peer.start()
    await _see_used_again(run)
    await _finish(run)


def _now_and_then(name: str, steps: Sequence[Step], action: Action, *, share: float = 0.05, **rest: object) -> None:
    """Registers a scenario in which the preferred upstream does this at a share of the visits to these steps."""

    async def play(run: Run) -> None:
        for step in steps:
            run.peer.now_and_then(step, share, action)
        if steps is not BEFORE_DOT:
            # Only a failure before the dot makes the relay use the other upstream.
            for step in BEFORE_DOT:
                run.peer.now_and_then(step, 0.05, drop())
        async with run.load(copies=2, repeats=1):
            pass
        run.peer.forgive()
        await _see_used_again(run)
        await _finish(run)

    _fails(name, **rest)(play)  # type: ignore[arg-type]


_now_and_then("drops the connection before the dot", BEFORE_DOT, drop())
_now_and_then("resets the connection before the dot", BEFORE_DOT, reset())
_now_and_then("hangs before the dot", BEFORE_DOT, hang(), share=0.02)
_now_and_then("says garbage before the dot", BEFORE_DOT, say(b"\x00\xff<html>no SMTP here</html>"))
_now_and_then("says 421 before the dot", BEFORE_DOT, say_and_drop(b"421 4.3.2 Shutting down"))
_after = {"hears": AFTER, "sees": f"{SEES}; {UNKNOWN}"}
_now_and_then("drops the connection after the dot", AFTER_DOT[:1], drop(), **_after)
_now_and_then("takes the message, then resets", AFTER_DOT[1:], reset(), excuses=frozenset({UNCERTAIN}), **_after)
_now_and_then(
    "takes the message, then hangs",
    AFTER_DOT[1:],
    hang(),
    share=0.02,
    excuses=frozenset({UNCERTAIN}),
    settings=SHORT_DOT,
    **_after,
)
