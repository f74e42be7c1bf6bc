"""Traces for tests."""

from __future__ import annotations

import random

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome

AT = 1_700_000_000.0
ORIGINAL = Original("0123456789ab", "<1@example.test>", "2.0.0 Ok: queued as 4FIRST1 \udce4", AT - 34)
ACCEPTED = "250 2.0.0 Ok: queued as 4XYZ12"


def trace(number: int = 0, **fields: object) -> Trace:
    """Returns the trace of a forwarded message with one recipient. Others are a second apart."""
    made = Trace(
        id=f"{number:012x}",
        at=AT + number,
        seconds=0.031,
        host="mx1.example.test",
        peer="192.0.2.1",
        helo="app",
        login="",
        sender="h:0000000000000001",
        message_id=f"<{number}@example.test>",
        subject="",
        size=9120,
        upstream="mta:25",
        reply=ACCEPTED,
        recipients=(recipient(f"h:{number:016x}"),),
        steps={Step.UPLOAD: 0.25, Step.DELIVER: 0.03},
    )
    return made._replace(**fields)  # type: ignore[arg-type]


def recipient(
    name: str = "h:0000000000000002",
    outcome: TraceOutcome = TraceOutcome.FORWARDED,
    reply: str = ACCEPTED,
    rule: str = "default",
) -> RecipientTrace:
    """Returns what happened for a recipient."""
    return RecipientTrace(name, outcome, reply, rule)


def repeat(number: int = 1) -> Trace:
    """Returns the trace of a message that was a repeat for one recipient, and not for two others."""
    suppressed = RecipientTrace(
        "h:00000000000000aa",
        TraceOutcome.SUPPRESSED,
        "250 2.0.0 Ok: queued as 4FIRST1 \udce4",
        "codes",
        "v4:3f",
        34.0,
        ORIGINAL,
    )
    observed = suppressed._replace(recipient="h:bb", outcome=TraceOutcome.WOULD_SUPPRESS, age=0.0, original=None)
    refused = recipient("h:cc", TraceOutcome.RCPT_REFUSED, "550 5.1.1 unknown", "")
    return trace(
        number,
        recipients=(suppressed, observed, refused),
        subject="Grüße",
        login="alice",
        forms={"codes": ("Subject 1c9f03a2", "text 00")},
        ignored={"codes": ("avideo: image cache",)},
        kept="1700000000.R0U0.host",
    )


def some_traces(count: int, seed: int = 1) -> list[Trace]:
    """Returns traces that differ in all that can be searched, in the order of their times."""
    chance = random.Random(seed)
    outcomes = tuple(TraceOutcome)
    made = []
    for number in range(count):
        chosen = [
            recipient(
                f"h:{chance.randrange(20):016x}",
                chance.choice(outcomes) if chance.random() < 0.2 else TraceOutcome.FORWARDED,
                f"250 2.0.0 Ok: queued as 4Q{number:04}",
                chance.choice(("default", "codes", "rare")),
            )
            for _ in range(chance.randint(1, 3))
        ]
        recipients = tuple(sorted(chosen, key=lambda to: (to.outcome, to.rule)))
        made.append(trace(number, recipients=recipients, sender=f"h:{chance.randrange(3):016x}"))
    return made
