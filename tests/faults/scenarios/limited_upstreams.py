"""Upstreams that allow few messages for each session, or few connections, or that have a dead address."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from parts.faults import HangUpError, Step

from faults.scenario import scenario
from faults.scenarios.upstream_fails import AFTER, SHORT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from parts.faults import Action, Caller

    from faults.run import Run

GROUP = "The upstream has limits"
MESSAGES_A_SESSION = 3
CONNECTIONS = 5
LONGEST = 5.0
"""Seconds that a client may wait for its reply although a dead address is tried first."""


def _limited(name: str, sees: str, **rest: object) -> Callable[..., object]:
    words = {"group": GROUP, "hears": "250; no client notices the limit", "sees": sees}
    return scenario(f"an upstream {name}", **{**words, **rest})


def _check_that_none_was_refused(run: Run) -> None:
    refused = [attempt for attempt in run.history.attempts.values() if not attempt.promised]
    if refused:
        run.complain(f"{len(refused)} attempts were refused, such as: {refused[0].code} {refused[0].text}")


# Messages for each session


def _limit_messages(name: str, step: Step, reply: bytes, *, closes: bool) -> None:
    """Registers a scenario in which a session that has accepted some messages refuses further ones at `step`."""

    @_limited(
        f"that replies {name} after {MESSAGES_A_SESSION} messages in a session",
        "nothing",
        settings={"upstream.connections": 4},
    )
    async def play(run: Run) -> None:
        refused = _Count()
        run.peer.on(step, _refuse_after(run, reply, refused, closes=closes), times=None)
        async with run.load(copies=2, repeats=1):
            pass
        sessions = len(run.peer.sessions)
        run.note(f"{len(run.peer.taken):,} mails in {sessions:,} sessions of the upstream, {refused.value:,} refused")
        if not refused.value:
            run.complain("no session reached the limit")
        # A few sessions end for other reasons, such as their age.
        if sessions > 2 * (len(run.peer.taken) // MESSAGES_A_SESSION) + 20:
            run.complain(f"{sessions} sessions for {len(run.peer.taken)} mails")
        _check_that_none_was_refused(run)


def _refuse_after(run: Run, reply: bytes, refused: _Count, *, closes: bool) -> Action:
    async def action(caller: Caller) -> bytes | None:
        taken = run.peer.taken_in[caller.number]
        if taken < MESSAGES_A_SESSION:
            return None
        refused.value += 1
        if closes:
            caller.writer.write(reply + b"\r\n")
            await caller.writer.drain()
            raise HangUpError
        return reply

    return action


_limit_messages("421 at MAIL, and closes,", Step.MAIL, b"421 4.4.5 Too many messages in this session", closes=True)
_limit_messages("452 at RCPT", Step.RCPT, b"452 4.5.3 Too many messages sent", closes=False)
_limit_messages("452 at DATA", Step.DATA, b"452 4.4.5 Maximum number of messages per session exceeded", closes=False)


# Connections


def _limit_connections(name: str, reply: bytes) -> None:
    """Registers a scenario with an upstream that greets only some connections at a time."""

    @_limited(
        f"that allows {CONNECTIONS} connections and {name} the next ones",
        "never `upstream is down`; `pool_in_use` stays at the limit",
        settings={"upstream.patience": "20s"},
    )
    async def play(run: Run) -> None:
        refused = _Count()
        run.peer.on(Step.GREETING, _refuse_greeting(run, reply, refused), times=None)
        run.peer.on(Step.DOT, _slow, times=None)
        begun = time.monotonic()
        async with run.load(copies=2, repeats=1):
            pass
        seconds = time.monotonic() - begun
        sessions = len(run.peer.sessions)
        run.note(
            f"{sessions:,} connections in {seconds:.0f} s for {len(run.peer.taken):,} mails, {refused.value} refused"
        )
        # Some connections are retired after many abandoned transactions, and one more is tried now and then.
        if sessions > 20 + seconds / 2 + len(run.peer.taken) / 10:
            run.complain(f"{sessions} connections in {seconds:.0f} s")
        if "upstream is down" in run.relays[0].stderr():
            run.complain("the relay took a full upstream for one that is down")
        _check_that_none_was_refused(run)


class _Count:
    value = 0


def _refuse_greeting(run: Run, reply: bytes, refused: _Count) -> Action:
    async def action(caller: Caller) -> None:
        if len(run.peer.open_sessions) > CONNECTIONS:
            refused.value += 1
            if reply:
                caller.writer.write(reply + b"\r\n")
                await caller.writer.drain()
            raise HangUpError

    return action


async def _slow(_: Caller) -> None:
    # So that more transactions than the upstream has places are in progress at once.
    await asyncio.sleep(0.1)


_limit_connections("refuses with 421", b"421 4.7.0 Too many connections from your address")
_limit_connections("drops", b"")


# Addresses


@_limited(
    "whose name has two addresses, of which the first is dead",
    "`upstream is down`, `upstream is up`, where all connections end at once",
    hears=f"250; {AFTER}",
    upstream="two addresses",
    limit=300.0,
    settings={**SHORT_LIMITS, "upstream.connect_timeout": "10s"},
)
async def two_addresses(run: Run) -> None:
    # The first address refuses connections in one half of the run, and does not answer in the other.
    for context in (contextlib.nullcontext, run.name.unanswered):
        async with context(), run.load(run.messages // 2, copies=2, repeats=1):
            # Pooled connections end, so that new ones are needed.
            for point in run.points(run.messages // 50 + 1, run.messages // 2):
                await run.reached(point)
                run.peer.hang_up(farewell=b"421 4.4.2 Timeout exceeded")
    if run.clients.slowest > LONGEST:
        run.complain(f"a client waited {run.clients.slowest:.1f} s")
