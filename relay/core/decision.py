"""Decides what to do for each recipient, and the reply to the client. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.claim import Held, Sent, Won
from relay.core.outcome import DONE, Outcome, Result
from relay.core.reply import NO_VALID_RECIPIENTS, Reply

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from relay.core.envelope import Recipient


_LONGEST_TEXT = 500
"""Octets of the text of a reply: a line has 512 octets at most (RFC 5321 section 4.5.3.1.5)."""
_NOT_A_SUCCESS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}\b")
_QUEUED = Reply.of(250, "2.0.0 Ok: queued")


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step for each recipient. Each one is in exactly one of `forward`, `suppress` and `wait`."""

    forward: tuple[Recipient, ...]
    suppress: Mapping[Recipient, Sent]
    wait: tuple[Recipient, ...]
    observed: Mapping[Recipient, Sent | Held]
    """The repeats in `forward` that are only observed. Their claims belong to others and must not be settled."""


def plan(verdicts: Mapping[Recipient, Won | Held | Sent], observe: Collection[Recipient] = frozenset()) -> Plan:
    """Returns the plan: won claims are forwarded, repeats suppressed, claims that others hold awaited.

    Recipients in `observe` are always forwarded and never wait.
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


def suppressed(record: str, sent: Sent, *, explain: bool) -> Result:
    """Returns the result for a repeat.

    Its reply has the words that the first copy received, as far as the acceptance keeps them. With `explain` it names
    the record that explains the repeat, and the age of the first copy.
    """
    if explain:
        reply = Reply.of(250, f"2.0.0 Ok: duplicate, record {record}, first sent {sent.age:.0f} s ago")
    else:
        reply = _first_reply(sent.original.reply)
    return Result(Outcome.SUPPRESSED, reply, sent.original, sent.age)


def _first_reply(text: str) -> Reply:
    """Returns the reply of the first copy, or a neutral one.

    The text may be missing after a fault, or be that of a transient reply if an unclear outcome counts as sent. The
    store is foreign, so a line end in the text must not end the reply.
    """
    if not text.isprintable() or not text or _NOT_A_SUCCESS.match(text):
        return _QUEUED
    return Reply(250, (text.encode()[:_LONGEST_TEXT],))


def answered(reply: Reply, repeat: Sent | Held | None = None) -> Result:
    """Returns the result of the upstream's reply after the dot. `repeat` is given if a repeat was only observed."""
    if reply.permanent:
        return Result(Outcome.REFUSED, reply)
    if not reply.positive:
        # 421 would close the client's session, and 3yz would ask for content that the client has already sent.
        return Result(Outcome.DEFERRED, reply.for_client() if reply.transient else Reply(451, reply.lines))
    accepted = reply.as_acceptance()
    if repeat is None:
        return Result(Outcome.FORWARDED, accepted)
    if isinstance(repeat, Sent):
        return Result(Outcome.WOULD_SUPPRESS, accepted, repeat.original, repeat.age)
    return Result(Outcome.WOULD_SUPPRESS, accepted)


def reply_for(results: Collection[Result]) -> Reply:
    """Returns the one reply for all recipients.

    It is 250 only if every outcome is in `DONE`, with the upstream's text if any copy was forwarded. Otherwise it is
    4yz, so that the client tries again and only the rest is sent; 5yz if all of the rest were refused permanently.
    """
    failed = [result for result in results if result.outcome not in DONE]
    if failed:
        transient = [result.reply for result in failed if result.outcome is not Outcome.REFUSED]
        return (transient or [result.reply for result in failed])[0]
    forwarded = [result.reply for result in results if result.outcome is not Outcome.SUPPRESSED]
    repeats = [result.reply for result in results if result.outcome is Outcome.SUPPRESSED]
    return next(iter(forwarded + repeats), NO_VALID_RECIPIENTS)
