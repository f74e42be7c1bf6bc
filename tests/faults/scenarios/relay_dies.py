"""The relay is killed, or told to end, at each step of a message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from parts.faults import HangUpError, Step
from parts.waiting import until

from faults.checker import KILLED
from faults.rest import see_that_all_heard, send_again
from faults.scenario import MUCH, scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from parts.faults import Action, Caller

    from faults.run import Run

GROUP = "The relay dies"
STEPS = 9
"""The scenarios that share the large number of messages."""
EACH = -(-MUCH // STEPS)
MESSAGES_A_DEATH = 100
AFTER_A_DEATH = 3
"""Messages that are sent again to a restarted relay."""

HEARS = "no reply, then refused connections while it is down; a retry hears 250"
SEES = "systemd restarts it; the relay itself logs nothing about it"
WAITS = "a retry waits for the dead process's lease to run out, at most `dedup.lease`"


def _kills(name: str, **rest: object) -> Callable[..., object]:
    return scenario(
        f"kill -9 {name}",
        **{
            "group": GROUP,
            "messages": EACH,
            "excuses": frozenset({KILLED}),
            "hears": f"{HEARS}; {WAITS}",
            "sees": SEES,
            **rest,
        },
    )


async def _strike(run: Run, arm: Callable[[int, asyncio.Event], None]) -> None:
    """Sends everything, and repeatedly kills a relay at the step that `arm` waits for."""
    again = 0
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // MESSAGES_A_DEATH + 1):
            await run.reached(point)
            dead = asyncio.Event()
            relay = run.chance.randrange(len(run.relays))
            arm(relay, dead)
            # The last messages may have passed the step already.
            await until(lambda dead=dead: dead.is_set() or run.done >= run.messages, "a death", seconds=120)
            if dead.is_set():
                await run.revive(relay)
                # These were sent before, within the window.
                again += await send_again(run, AFTER_A_DEATH, relay)
    run.peer.forgive()
    if hasattr(run, "wire"):
        run.wire.before = run.wire.after = None
    if len(run.history.deaths) == 0:
        run.complain("nothing was killed")
    run.note(f"deaths: {len(run.history.deaths)}; {again} messages sent before a death came again after it")


def _killing(run: Run, relay: int, dead: asyncio.Event) -> Action:
    async def action(_: Caller) -> None:
        if not dead.is_set():
            await run.kill(relay)
            dead.set()

    return action


def _at_step(run: Run, step: Step, *then: Action) -> Callable[[int, asyncio.Event], None]:
    def arm(relay: int, dead: asyncio.Event) -> None:
        matching = b"" if step is Step.DATA else b"relay%d@" % relay if step is Step.MAIL else b""
        run.peer.on(step, _killing(run, relay, dead), *then, matching=matching, skip=run.chance.randrange(8))

    return arm


@_kills("at MAIL")
async def at_mail(run: Run) -> None:
    await _strike(run, _at_step(run, Step.MAIL))


@_kills("at RCPT")
async def at_rcpt(run: Run) -> None:
    await _strike(run, _at_step(run, Step.RCPT))


@_kills("at DATA")
async def at_data(run: Run) -> None:
    await _strike(run, _at_step(run, Step.DATA))


async def _drop(_: Caller) -> None:
    raise HangUpError


@_kills("at the dot, and the upstream drops the message")
async def at_dot(run: Run) -> None:
    await _strike(run, _at_step(run, Step.DOT, _drop))


@_kills("at the dot, and the upstream takes the message")
async def at_dot_taken(run: Run) -> None:
    await _strike(run, _at_step(run, Step.REPLY))


@_kills("right after the upstream's reply")
async def after_reply(run: Run) -> None:
    def arm(relay: int, dead: asyncio.Event) -> None:
        async def action(caller: Caller) -> bytes:
            # The reply is sent first. Then a random number of milliseconds passes.
            caller.writer.write(b"250 2.0.0 Ok: queued\r\n")
            await caller.writer.drain()
            await asyncio.sleep(run.chance.random() * 0.004)
            await run.kill(relay)
            dead.set()
            raise HangUpError

        run.peer.on(Step.REPLY, action, skip=run.chance.randrange(8))

    await _strike(run, arm)


def _at_request(run: Run, holding: bytes, passes: bool) -> Callable[[int, asyncio.Event], None]:
    """Waits for a request to the store, and kills the relay after it has been passed on, or before."""

    def arm(relay: int, dead: asyncio.Event) -> None:
        skip = run.chance.randrange(8)

        async def look(octets: bytes) -> bool:
            nonlocal skip
            skip -= holding in octets
            if skip >= 0 or holding not in octets or dead.is_set():
                return False
            await run.kill(relay)
            dead.set()
            return True

        async def before(octets: bytes) -> int | None:
            return 0 if await look(octets) else None

        async def after(octets: bytes) -> None:
            await look(octets)

        run.wire.before, run.wire.after = (None, after) if passes else (before, None)

    return arm


_CLAIMS, _CONFIRMS = b"'NX', 'PXAT'", b"\r\ns3600000 "


@_kills("when it has claimed and not heard so", store="wired redis")
async def claimed(run: Run) -> None:
    await _strike(run, _at_request(run, _CLAIMS, passes=True))


@_kills("before the acceptance is written", store="wired redis")
async def before_confirm(run: Run) -> None:
    await _strike(run, _at_request(run, _CONFIRMS, passes=False))


@_kills("of one of two relays, at the dot", relays=2)
async def one_of_two(run: Run) -> None:
    def arm(relay: int, dead: asyncio.Event) -> None:
        run.peer.on(Step.REPLY, _killing(run, relay, dead), matching=b"@client", skip=run.chance.randrange(8))

    await _strike(run, arm)


@scenario(
    "SIGTERM under load, again and again",
    group=GROUP,
    hears="421 4.3.2 at MAIL and at the greeting, refused connections while it is down; what has begun hears its reply",
    sees="`draining`, `ended`; exit status 0; `/readyz` 503 while it drains",
)
async def terminated(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // MESSAGES_A_DEATH + 1):
            await run.reached(point)
            await run.restart(run.chance.randrange(len(run.relays)))
    see_that_all_heard(run)


@scenario(
    "SIGTERM of one of two relays, again and again",
    group=GROUP,
    relays=2,
    hears="as above; the other relay goes on",
    sees="as above",
)
async def one_of_two_terminated(run: Run) -> None:
    await terminated(run)


@scenario(
    "kill -9 with SQLite as the store",
    group=GROUP,
    store="sqlite",
    hears=f"{HEARS}; {WAITS}",
    sees=SEES,
    excuses=frozenset({KILLED}),
)
async def with_sqlite(run: Run) -> None:
    await _strike(run, _at_step(run, Step.REPLY))
