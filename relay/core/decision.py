"""What to do with each recipient, and what to tell the client: decisions as data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.claim import Held, Sent, Won
from relay.core.outcome import DONE, Outcome, Result
from relay.core.reply import NO_VALID_RECIPIENTS, Reply

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from relay.core.envelope import Recipient


@dataclass(frozen=True, slots=True)
class Plan:
    """Each recipient stands in exactly one of `forward`, `suppress` and `wait`."""

    forward: tuple[Recipient, ...]
    suppress: Mapping[Recipient, Sent]
    wait: tuple[Recipient, ...]
    observed: Mapping[Recipient, Sent | Held]
    """Of those to forward, the repeats that are only observed: their claims are not ours to settle."""


def plan(verdicts: Mapping[Recipient, Won | Held | Sent], observe: Collection[Recipient] = frozenset()) -> Plan:
    """Forward what was won, suppress what was sent inside the window, wait for what somebody else is delivering.

    Those that are only observed are forwarded whatever holds, and never wait.
    """
    forward: list[Recipient] = []
    wait: list[Recipient] = []
    suppress: dict[Recipient, Sent] = {}
    observed: dict[Recipient, Sent | Held] = {}
    for recipient, verdict in verdicts.items():
        if isinstance(verdict, Won):
            forward.append(recipient)
        elif recipient in observe:
            forward.append(recipient)
            observed[recipient] = verdict
        elif isinstance(verdict, Sent):
            suppress[recipient] = verdict
        else:
            wait.append(recipient)
    return Plan(tuple(forward), suppress, tuple(wait), observed)


def suppressed(record: str, sent: Sent) -> Result:
    """Tell the client that an equal copy was accepted before, and under which id the log explains it."""
    reply = Reply.of(250, f"2.0.0 Ok: duplicate, record {record}, first sent {sent.age:.0f} s ago")
    return Result(Outcome.SUPPRESSED, reply, sent.original, sent.age)


def answered(reply: Reply, repeat: Sent | Held | None = None) -> Result:
    """Give the outcome that the upstream's reply means, 2yz being acceptance; `repeat` if it was only observed."""
    if reply.permanent:
        return Result(Outcome.REFUSED, reply)
    if not reply.positive:
        # 421 would close a session that is ours, and 3yz would ask for content that the client has sent already.
        return Result(Outcome.DEFERRED, reply.for_client() if reply.transient else Reply(451, reply.lines))
    accepted = reply.as_acceptance()
    if repeat is None:
        return Result(Outcome.FORWARDED, accepted)
    if isinstance(repeat, Sent):
        return Result(Outcome.WOULD_SUPPRESS, accepted, repeat.original, repeat.age)
    return Result(Outcome.WOULD_SUPPRESS, accepted)


def reply_for(results: Collection[Result]) -> Reply:
    """Fold the outcomes of all recipients into the one reply that SMTP has for them.

    250 only when each is done, in the upstream's own words if it was asked at all. Otherwise 4yz, so that the client
    tries again and only the rest is sent; 5yz when all of the rest were refused for good.
    """
    failed = [result for result in results if result.outcome not in DONE]
    if failed:
        transient = [result.reply for result in failed if result.outcome is not Outcome.REFUSED]
        return (transient or [result.reply for result in failed])[0]
    forwarded = [result.reply for result in results if result.outcome is not Outcome.SUPPRESSED]
    repeats = [result.reply for result in results if result.outcome is Outcome.SUPPRESSED]
    return next(iter(forwarded + repeats), NO_VALID_RECIPIENTS)
