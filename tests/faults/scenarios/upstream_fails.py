"""The upstream fails at each step, in each way. The limits are short here, so that hangs end soon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from parts.faults import Step, drop, hang, reset, say, say_and_drop

from faults.checker import UNCERTAIN
from faults.run import PEOPLE
from faults.scenario import FULL, MUCH, scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from parts.faults import Action, Caller

    from faults.run import Run

GROUP = "The upstream fails"
SHORT_LIMITS = {
    "upstream.connect_timeout": "1s",
    "upstream.reply_timeout": "1s",
    "upstream.dot_timeout": "20s",
    "upstream.patience": "5s",
}
SHORT_DOT = {"upstream.dot_timeout": "2s"}
"""Only for an upstream that hangs after the dot: one on a busy machine, whose reply is late, would cost a duplicate."""
BEFORE = "250: the relay connects again and begins anew; past `upstream.patience` 451 4.4.1, and a retry hears 250"
AFTER = "451 4.4.2 where the dot was out; a retry hears 250"
UNKNOWN = "`uncertain` counts each recipient; the log line of the message says so"
BEFORE_DOT = (Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA)
AFTER_DOT = (Step.DOT, Step.REPLY)


def _fails(name: str, hears: str, sees: str = "", **rest: object) -> Callable[..., object]:
    settings = {**SHORT_LIMITS, **rest.pop("settings", {})}  # type: ignore[dict-item]
    return scenario(
        f"upstream {name}",
        **{"group": GROUP, "hears": hears, "sees": sees or "`upstream_up`", "settings": settings, **rest},
    )


def _now_and_then(name: str, steps: Sequence[Step], action: Action, *, share: float = 0.04, **rest: object) -> None:
    """Registers a scenario in which this happens at a share of the visits to these steps."""
    after = any(step in AFTER_DOT for step in steps)

    async def play(run: Run) -> None:
        for step in steps:
            run.peer.now_and_then(step, share, action)
        async with run.load(copies=2, repeats=1):
            pass
        run.peer.forgive()

    excuses = frozenset({UNCERTAIN}) if Step.REPLY in steps else frozenset()
    words = {"hears": AFTER, "sees": UNKNOWN} if after else {"hears": BEFORE}
    _fails(name, **{"excuses": excuses, **words, **rest})(play)  # type: ignore[arg-type]


@_fails("refuses connections for a while", BEFORE, "`upstream is down`, `upstream is up`; `/readyz` 503 meanwhile")
async def refuses(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 200 + 1):
            await run.reached(point)
            await run.peer.stop()
            await asyncio.sleep(run.chance.uniform(0.2, 2))
            await run.peer.start()


@_fails(
    "cannot verify the logins of clients for a while (auth.mode = passthrough)",
    "250: the relay logs in again; past `upstream.patience` 454 4.7.0, and a retry hears 250",
    '`logins_total{outcome="unavailable"}`; the upstream counts as up',
    settings={"auth.mode": "passthrough"},
)
async def no_logins(run: Run) -> None:
    run.peer.users = {b"avideo": b"s3cret"}
    run.clients.logins = [(b"avideo", b"s3cret")]
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 200 + 1):
            await run.reached(point)
            run.peer.on(Step.AUTH, say(b"454 4.7.0 Temporary authentication failure"), times=None)
            run.peer.hang_up(farewell=b"421 4.3.2 the authentication service is away")
            await asyncio.sleep(run.chance.uniform(0.5, 8))
            run.peer.forgive()


_now_and_then("drops the connection before the dot", BEFORE_DOT, drop())
_now_and_then("resets the connection before the dot", BEFORE_DOT, reset())
_now_and_then("hangs before the dot", BEFORE_DOT, hang(), share=0.01)
_now_and_then("hangs after the dot, having dropped the message", [Step.DOT], hang(), share=0.02, settings=SHORT_DOT)
_now_and_then("takes the message, then hangs", [Step.REPLY], hang(), share=0.02, settings=SHORT_DOT)
_now_and_then("takes the message, then resets", [Step.REPLY], reset())
_now_and_then("takes the message, then closes", [Step.REPLY], drop())
_now_and_then("drops the connection after the dot", [Step.DOT], drop())
_now_and_then("says garbage before the dot", BEFORE_DOT, say(b"\x00\xff<html>no SMTP here</html>"))
_now_and_then("takes the message, then says garbage", [Step.REPLY], say(b"\x00\xff<html>no SMTP here</html>"))
_now_and_then("says an endless line before the dot", BEFORE_DOT, say(b"250 " + b"x" * 100_000))
_now_and_then("takes the message, then says an endless line", [Step.REPLY], say(b"250 " + b"x" * 100_000))
_now_and_then("says 421 before the dot", BEFORE_DOT, say_and_drop(b"421 4.3.2 Shutting down"))
_now_and_then(
    "says 421 to the dot",
    [Step.DOT],
    say_and_drop(b"421 4.3.2 Shutting down"),
    hears="451 4.3.2; a retry hears 250",
    sees="`deferred`",
)
_now_and_then(
    "says 451 at MAIL, RCPT, DATA",
    BEFORE_DOT[2:],
    say(b"451 4.3.0 Try later"),
    hears="451 4.3.0, as the upstream says it; a retry hears 250",
    sees="`deferred`, `rcpt_refused`",
)
_now_and_then(
    "says 452 to the dot",
    [Step.DOT],
    say(b"452 4.3.1 Disk full"),
    hears="452 4.3.1, as the upstream says it; a retry hears 250",
    sees="`deferred`",
)

_now_and_then(
    "says 554 to the dot of every other message",
    [Step.DOT],
    say(b"554 5.7.1 Looks like spam"),
    share=0.5,
    hears="554 5.7.1, as the upstream says it; another try is a new message",
    sees="`refused`",
)

_LINES = b"\r\n".join(b"250-2.0.0 line %d of many" % number for number in range(100)) + b"\r\n250 2.0.0 Ok"
_now_and_then(
    "answers the dot in a hundred lines",
    [Step.REPLY],
    say(_LINES),
    share=0.3,
    hears="250 in all its lines",
    sees="nothing",
    excuses=frozenset(),
)
_now_and_then("hangs at QUIT", [Step.QUIT], hang(), share=1.0, hears="250: the mail is out", sees="nothing")
_now_and_then(
    "fails at QUIT",
    [Step.QUIT],
    say_and_drop(b"500 5.5.2 What?"),
    share=1.0,
    hears="250: the mail is out",
    sees="nothing",
)
_now_and_then("resets at QUIT", [Step.QUIT], reset(), share=1.0, hears="250: the mail is out", sees="nothing")
_now_and_then("fails at RSET", [Step.RSET], say(b"500 5.5.2 What?"), share=0.5, hears="250", sees="nothing")


def _slow(most: float) -> Action:
    async def action(caller: Caller) -> None:
        # Each session has a different pace, so that first copies and their twins differ.
        await asyncio.sleep(most * (caller.number * 0.618 % 1) ** 3)

    return action


_now_and_then(
    "is slow after the dot (0 to 60 s)",
    [Step.DOT],
    _slow(60),
    share=0.05,
    hears="250, as late as the upstream says it; twins wait and hear 250 with it",
    sees="longer `smtp_dedup_message_seconds`",
    settings={"upstream.dot_timeout": "9m", "dedup.wait": "240s"},
)


async def _longer_than_a_lease(caller: Caller) -> None:
    await asyncio.sleep(4 + caller.number % 6)


_now_and_then(
    "is slow after the dot (4 to 9 s), with two relays whose leases are shorter",
    [Step.DOT],
    _longer_than_a_lease,
    share=0.08,
    hears="250, as late as the upstream says it; twins wait, at either relay, and hear 250 with it",
    sees="longer `smtp_dedup_message_seconds`; leases are renewed",
    settings={"upstream.dot_timeout": "9m"},
    relays=2,
)


@_fails("closes its idle connections", "250: the relay takes another connection", "nothing")
async def closes_idle(run: Run) -> None:
    ways = [{}, {"farewell": b"421 4.4.2 Timeout exceeded"}, {"broken": True}]
    for number in range(0, run.messages, 10):
        async with run.load(min(10, run.messages - number), copies=2, repeats=0):
            pass
        way = run.chance.choice(ways)
        # Idle: no message is in progress on any of them.
        run.peer.hang_up(**way)  # type: ignore[arg-type]


@_fails("hangs up in the middle of anything", AFTER, UNKNOWN, excuses=frozenset({UNCERTAIN}))
async def hangs_up(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 20 + 1):
            await run.reached(point)
            run.peer.hang_up(broken=run.chance.random() < 0.5)


@scenario(
    "Postfix stopped and started under load",
    group=GROUP,
    hears=f"{BEFORE}; {AFTER}",
    sees=f"`upstream is down`, `upstream is up`; {UNKNOWN}",
    upstream="postfix",
    messages=MUCH,
    settings={"upstream.patience": "20s"},
    excuses=frozenset({UNCERTAIN}),
    limit=1500.0,
)
async def postfix_restarted(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // 500 + 1):
            await run.reached(point)
            await run.postfix.bounce(run.chance.uniform(0, 3))
    refused = [attempt for attempt in run.history.attempts.values() if attempt.code // 100 == 4]
    if costly := [attempt.id for attempt in refused if not attempt.text.startswith("4.4.2")]:
        run.complain(f"a restart within `upstream.patience` cost a reply other than 451 4.4.2: {costly[:5]}")


@_fails(
    "is a Postfix that knows some recipients only",
    "550 5.1.1 for those, in its own words; 250 for the mail",
    "`rcpt_refused`",
    upstream="postfix",
    settings={"upstream.reply_timeout": "60s", "upstream.dot_timeout": "60s"},
    messages=FULL,
)
async def some_unknown(run: Run) -> None:
    for number in range(run.messages):
        known = run.chance.sample(PEOPLE, 2)
        people = [known[0], f"nobody{number}@example.test", known[1]]
        twins = [run.clients.attempt(message, people, 0) for message in [run.next_message()] for _ in range(2)]
        for attempt in await asyncio.gather(*twins):
            if not attempt.promised or len(attempt.recipients) != 2:
                run.complain(f"{attempt.id}: {attempt.code} {attempt.text} for {attempt.recipients}")
