"""Checks a whole run for losses and duplicates.

Only a named exception of the design excuses a duplicate, and only if the receiver, the clients or the scenario recorded
its cause. The checker verifies what the relay reports and does not rely on it.
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
"""Seconds after an acceptance in which a kill can still prevent its write to the store: the limit of one round trip,
doubled for a slow machine."""
RECOVERED_WITHIN = 4.0
"""Seconds in which all relays find a store that returned, with one probe a second, and write back to it."""


@dataclass
class Verdict:
    """What the checker found. `wrong` has a sentence for each finding that is neither a loss nor a duplicate."""

    messages: int = 0
    recipients: int = 0
    """The number of pairs of message and recipient that arrived."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, every duplicate is a named exception, and nothing else is wrong."""
        return not (self.lost or self.doubled or self.wrong)


def check(history: History) -> Verdict:
    """Checks a run."""
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
    """Returns the most duplicates that relays without a common store can cause.

    That is one for each further relay that received the same message for the same recipient in that time.
    """
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


# Duplicates


def _count_doubles(history: History, verdict: Verdict, what: str, copies: list[Copy]) -> None:
    for number, later in enumerate(copies[1:], 1):
        causes = [_excuse(history, earlier, later) for earlier in copies[:number]]
        if None in causes:
            earlier = copies[causes.index(None)]
            verdict.doubled.append(f"{what}: {earlier.attempt} ({earlier.record}), {later.attempt} ({later.record})")
        else:
            verdict.excused[str(causes[-1])] += 1


def _excuse(history: History, earlier: Copy, later: Copy) -> str | None:
    """Returns the named exception that allows the later copy after an accepted one, or None."""
    if earlier.attempt == later.attempt:
        return None  # only the client may repeat a message, never the relay
    overlapping = later.came < earlier.taken
    own = _unknown(history, earlier) or (_unknown(history, later) if overlapping else None)
    return own or _apart(history, earlier, later)


def _apart(history: History, earlier: Copy, later: Copy) -> str | None:
    """Returns why the relay of the later copy could not know what another relay had sent."""
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
    """Returns why the relay of this copy could not know, or could not record, that it was accepted."""
    attempt = history.attempts[copy.attempt]
    for death in history.deaths:
        if death.relay == attempt.relay and _died_meanwhile(attempt, copy, death.at):
            return KILLED
    if not copy.confirmed and not history.keep_uncertain:
        return UNCERTAIN
    return None


def _died_meanwhile(attempt: Attempt, copy: Copy, at: float) -> bool:
    # The relay replies 250 after it has written the acceptance, or has tried to once.
    return not attempt.promised and attempt.begun < at < copy.taken + WRITTEN_WITHIN


# What the relay reports


def _unbalanced(history: History, account: Account) -> Iterator[str]:
    """Checks that the outcomes add up to the recipients sent, and that the receiver has what counts as forwarded."""
    name = f"relay {account.relay}"
    attempts = [attempt for attempt in history.attempts.values() if attempt.relay == account.relay and attempt.sent]
    # A dot without a reply may never have arrived, for example if the client reset the connection after it.
    most = sum(len(attempt.recipients) for attempt in attempts)
    least = sum(len(attempt.recipients) for attempt in attempts if attempt.code)
    killed = any(death.relay == account.relay for death in history.deaths)
    total = account.log.total()
    if total > most or (total < least and not killed):
        yield f"{name} logged outcomes of {total} recipients, {least} to {most} were sent: {dict(account.log)}"
    if account.metrics is not None and account.metrics != account.log:
        yield f"{name}: /metrics says {dict(account.metrics)}, its log {dict(account.log)}"
    if killed:
        return
    sent = sum(len(copy.recipients) for copy in history.copies if history.attempts[copy.attempt].relay == account.relay)
    forwarded = account.log["forwarded"] + account.log["would_suppress"]
    if not forwarded <= sent <= forwarded + account.log["uncertain"]:
        yield f"{name} forwarded {forwarded} and is uncertain of {account.log['uncertain']}; {sent} came from it"


def _unfounded(history: History, account: Account) -> Iterator[str]:
    """Checks that each suppression names an original that the receiver has."""
    held: dict[str, list[Copy]] = defaultdict(list)
    for copy in history.copies:
        held[copy.record].append(copy)
    for suppression in account.suppressions:
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


def _unknown_records(history: History, account: Account) -> Iterator[str]:
    """Checks that the log has each record that a reply named, unless the relay was killed or its log is not read."""
    if not account.log_is_complete or any(death.relay == account.relay for death in history.deaths):
        return
    for attempt in history.attempts.values():
        if attempt.relay == account.relay and ": duplicate, record " in attempt.text:
            record = attempt.text.partition(": duplicate, record ")[2].partition(",")[0]
            if record not in account.records:
                yield f"{attempt.id} heard of record {record}, which is not in the log"
