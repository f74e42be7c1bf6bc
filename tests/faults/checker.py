"""The accounting: one judgement over a whole run.

A second copy is excused only by a cause that `docs/design` names and that the receiver, the clients or the one who
breaks things wrote down themselves. What the relay says is checked, never believed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.history import Account, Attempt, Copy, History, Outage

UNCERTAIN = "uncertain: the upstream took it and its reply never arrived"
KILLED = "killed before the acceptance was written"
APART = "several relays, each alone while the store was away"
STALLED = "several relays, one stalled longer than a lease"

WRITTEN_WITHIN = 2.0
"""Seconds after an acceptance within which a kill may still come before the acceptance was written: the limit of one
round trip to the store, and as much again for a slow machine."""
RECOVERED_WITHIN = 4.0
"""Seconds after the store's return within which all relays have found it and written back: a probe a second."""


@dataclass
class Verdict:
    """What the checker found. `wrong` are sentences for people, everything that is not simply lost or doubled."""

    messages: int = 0
    recipients: int = 0
    """Pairs of message and recipient that arrived."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing doubled without a name, nothing else wrong."""
        return not (self.lost or self.doubled or self.wrong)


def check(history: History) -> Verdict:
    """Judge a run."""
    verdict = Verdict(messages=history.messages)
    arrived = _arrived(history)
    verdict.recipients = len(arrived)
    verdict.lost += _lost(history, arrived)
    for (message, recipient), copies in arrived.items():
        if message not in history.exempt:
            _count_doubles(history, verdict, f"message {message} for {recipient}", copies)
    verdict.wrong += history.left_over
    for account in history.accounts:
        verdict.wrong += _unbalanced(history, account)
        verdict.wrong += _unfounded(history, account)
        verdict.wrong += _unknown_records(history, account)
    verdict.wrong += [f"never delivered: {text}" for text in history.given_up]
    return verdict


def exposed(history: History) -> int:
    """Count the second copies that may come at most because relays were without each other: one for each other relay
    that was handed the same message for the same recipient meanwhile."""
    handed: dict[tuple[int, str], dict[int, Attempt]] = defaultdict(dict)
    for attempt in history.attempts.values():
        for recipient in attempt.recipients:
            handed[attempt.message, recipient].setdefault(attempt.relay, attempt)
    return sum(
        len(relays) - 1
        for relays in handed.values()
        if any(_meanwhile(attempt, outage) for attempt in relays.values() for outage in history.outages)
    )


def _meanwhile(attempt: Attempt, outage: Outage) -> bool:
    return (attempt.dot_at or attempt.begun) < outage.ended + RECOVERED_WITHIN and attempt.ended > outage.begun


def _arrived(history: History) -> dict[tuple[int, str], list[Copy]]:
    arrived: dict[tuple[int, str], list[Copy]] = defaultdict(list)
    for copy in sorted(history.copies, key=lambda copy: copy.taken):
        for recipient in copy.recipients:
            arrived[copy.message, recipient].append(copy)
    return arrived


def _lost(history: History, arrived: dict[tuple[int, str], list[Copy]]) -> Iterator[str]:
    for attempt in history.attempts.values():
        if attempt.promised:
            for recipient in attempt.recipients:
                if (attempt.message, recipient) not in arrived:
                    yield f"message {attempt.message} for {recipient}: {attempt.id} heard 250 {attempt.text}"


# Doubles


def _count_doubles(history: History, verdict: Verdict, what: str, copies: list[Copy]) -> None:
    for number, later in enumerate(copies[1:], 1):
        causes = [_excuse(history, earlier, later) for earlier in copies[:number]]
        if None in causes:
            earlier = copies[causes.index(None)]
            verdict.doubled.append(f"{what}: {earlier.attempt} ({earlier.record}), {later.attempt} ({later.record})")
        else:
            verdict.excused[str(causes[-1])] += 1


def _excuse(history: History, earlier: Copy, later: Copy) -> str | None:
    """Name the cause for which the later copy went out although the earlier one was taken; None where there is none."""
    if earlier.attempt == later.attempt:
        return None  # it is for the client to send again, never for the relay
    overlapping = later.came < earlier.taken
    own = _unknown(history, earlier) or (_unknown(history, later) if overlapping else None)
    return own or _apart(history, earlier, later)


def _apart(history: History, earlier: Copy, later: Copy) -> str | None:
    """Say why the relay that sent the later copy could not know what another relay had sent."""
    one, other = (history.attempts[copy.attempt] for copy in (earlier, later))
    if history.relays < 2 or one.relay == other.relay:
        return None
    since = min(one.dot_at or one.begun, other.dot_at or other.begun)
    if any(outage.begun < later.came and since < outage.ended + RECOVERED_WITHIN for outage in history.outages):
        return APART
    for stall in history.stalls:
        long = stall.who in (one.relay, other.relay, "store") and stall.ended - stall.begun > history.lease
        if long and stall.begun < later.taken and since < stall.ended + RECOVERED_WITHIN:
            return STALLED
    return None


def _unknown(history: History, copy: Copy) -> str | None:
    """Say why the relay that sent this copy could not know, or could not write down, that it was taken."""
    attempt = history.attempts[copy.attempt]
    for death in history.deaths:
        if death.relay == attempt.relay and _died_meanwhile(attempt, copy, death.at):
            return KILLED
    if not copy.told and not history.keep_uncertain:
        return UNCERTAIN
    return None


def _died_meanwhile(attempt: Attempt, copy: Copy, at: float) -> bool:
    # Who heard 250 was answered after the acceptance was written, or after one try to.
    return not attempt.promised and attempt.begun < at < copy.taken + WRITTEN_WITHIN


# What the relay says


def _unbalanced(history: History, told: Account) -> Iterator[str]:
    """Recipients sent are the sum of all outcomes; what counts as forwarded is what the receiver has."""
    name = f"relay {told.relay}"
    attempts = [attempt for attempt in history.attempts.values() if attempt.relay == told.relay and attempt.sent]
    # A dot without a reply may have been lost on its way, as when the client broke the connection right after it.
    most = sum(len(attempt.recipients) for attempt in attempts)
    least = sum(len(attempt.recipients) for attempt in attempts if attempt.code)
    killed = any(death.relay == told.relay for death in history.deaths)
    total = told.log.total()
    if total > most or (total < least and not killed):
        yield f"{name} logged outcomes of {total} recipients, {least} to {most} were sent: {dict(told.log)}"
    if told.metrics is not None and told.metrics != told.log:
        yield f"{name}: /metrics says {dict(told.metrics)}, its log {dict(told.log)}"
    if killed:
        return
    sent = sum(len(copy.recipients) for copy in history.copies if history.attempts[copy.attempt].relay == told.relay)
    forwarded = told.log["forwarded"] + told.log["would_suppress"]
    if not forwarded <= sent <= forwarded + told.log["uncertain"]:
        yield f"{name} forwarded {forwarded} and is uncertain of {told.log['uncertain']}; {sent} came from it"


def _unfounded(history: History, told: Account) -> Iterator[str]:
    """Each suppression names an original that the receiver really holds."""
    held: dict[str, list[Copy]] = defaultdict(list)
    for copy in history.copies:
        held[copy.record].append(copy)
    for suppression in told.suppressions:
        attempt = history.attempts[suppression.attempt]
        named: set[str] = set()
        for record in suppression.originals:
            if record not in held:
                yield f"{attempt.id} was suppressed for {record}, which never arrived"
            for copy in held.get(record, []):
                named |= set(copy.recipients)
                if copy.message != attempt.message:
                    yield f"{attempt.id} of message {attempt.message} was suppressed for message {copy.message}"
        if len(named & set(attempt.recipients)) < suppression.count:
            yield f"{attempt.id}: {suppression.count} suppressed, its originals went to {sorted(named)}"


def _unknown_records(history: History, told: Account) -> Iterator[str]:
    """Each record that a client heard of stands in the log, unless the relay was killed before it could write."""
    if any(death.relay == told.relay for death in history.deaths):
        return
    for attempt in history.attempts.values():
        if attempt.relay == told.relay and ": duplicate, record " in attempt.text:
            record = attempt.text.partition(": duplicate, record ")[2].partition(",")[0]
            if record not in told.records:
                yield f"{attempt.id} heard of record {record}, which is not in the log"
