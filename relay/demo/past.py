"""A made-up day before the demo began, so that the plots of its page are not empty."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome
from relay.demo.messages import SITE
from relay.demo.scenario import SUBSCRIBERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = 86400
_MESSAGES = 3500
_OUTCOMES = {
    TraceOutcome.FORWARDED: 70,
    TraceOutcome.SUPPRESSED: 24,
    TraceOutcome.DEFERRED: 3,
    TraceOutcome.REFUSED: 2,
    TraceOutcome.RCPT_REFUSED: 1,
}
_REPLIES = {
    TraceOutcome.DEFERRED: "451 4.3.2 Try again in a minute",
    TraceOutcome.REFUSED: "554 5.7.1 Content rejected",
    TraceOutcome.RCPT_REFUSED: "550 5.1.1 User unknown",
}


def past_traces(now: float, messages: int = _MESSAGES) -> Iterator[Trace]:
    """Yields traces of the day before `now`, oldest first: more of them by day than by night."""
    chance = random.Random(now)  # noqa: S311 - not a secret
    times = sorted(chance.uniform(now - _DAY, now - 1) for _ in range(2 * messages))
    for at in times:
        if chance.random() < 0.5 + 0.45 * math.sin(2 * math.pi * (at % _DAY / _DAY - 0.3)):
            yield _trace(at, chance)


def _trace(at: float, chance: random.Random) -> Trace:
    outcome = chance.choices(list(_OUTCOMES), list(_OUTCOMES.values()))[0]
    number = chance.randrange(1, 10**6)
    queued = f"250 2.0.0 Ok: queued as 4{chance.getrandbits(40):010X}"
    reply = _REPLIES.get(outcome, queued)
    age = chance.uniform(0.1, 300) if outcome is TraceOutcome.SUPPRESSED else 0.0
    original = (
        Original(f"{chance.getrandbits(48):012x}", f"{number - 1}@videos.example", queued, at - age) if age else None
    )
    steps = {Step.UPLOAD: 0.004, Step.JUDGE: 0.002, Step.CLAIM: 0.001, Step.DELIVER: chance.uniform(0.01, 0.4)}
    recipients = chance.sample(SUBSCRIBERS, chance.choice((1, 1, 2, 4)))
    return Trace(
        id=f"{chance.getrandbits(48):012x}",
        at=at,
        seconds=sum(steps.values()),
        host="demo",
        peer="127.0.0.1",
        helo="videos.example",
        login="",
        sender=SITE,
        message_id=f"{number}@videos.example",
        subject=f"New video: Storks {number} - Example Videos",
        size=chance.randrange(1500, 9000),
        upstream="127.0.0.1:25" if outcome is TraceOutcome.FORWARDED else "",
        reply=reply,
        recipients=tuple(RecipientTrace(each, outcome, reply, "default", "", age, original) for each in recipients),
        steps=steps,
    )
