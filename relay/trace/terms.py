"""The terms of a trace: what an index holds of it, so that a search need not read all traces.

A term is a hash of a name of the message, of an outcome or of a rule. Two names may have the same hash, so whoever finds
a trace by its terms compares it with the query too.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.core.trace import TraceOutcome
from relay.records.selection import bare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.core.trace import Trace, TraceQuery

TERM_BYTES = 6
# What follows `queued as`, and other words with a digit: a queue id is `4XYZ12` in Postfix, `1rAbcD-000001-2x` in Exim,
# the first word in sendmail's reply and one of the last in Gmail's. `2.0.0` is too short for one.
_QUEUE_ID = re.compile(r"(?<=queued as )\w[\w.+-]{2,98}\w|(?<![\w.+-])(?=[\w.+-]*\d)\w[\w.+-]{4,98}\w", re.ASCII)
_MOST_QUEUE_IDS = 4
"""Queue ids of one reply. Exchange's names a host and an internal id too."""


@lru_cache(maxsize=10_000)
def term(name: str) -> bytes:
    """Returns the term of a name."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=TERM_BYTES).digest()


def terms_of(trace: Trace) -> list[bytes]:
    """Returns all terms of a trace."""
    found = {term(name) for name in names_of(trace) if name}
    for to in trace.recipients:
        found.add(_outcome_term(to.outcome))
        found.add(_rule_term(to.rule))
    return list(found)


def terms_in(query: TraceQuery) -> list[list[bytes]]:
    """Returns the terms of which a trace must have one of each list."""
    alternatives = [
        [term(name) for name in query.names if name],
        [_outcome_term(outcome) for outcome in query.outcomes],
        [_rule_term(query.rule)] if query.rule else [],
    ]
    return [terms for terms in alternatives if terms]


def matches(query: TraceQuery, trace: Trace) -> bool:
    """Returns whether a trace is selected by the query."""
    return (
        query.since <= trace.at < query.until
        and (not query.names or not query.names.isdisjoint(names_of(trace)))
        and (not query.outcomes or any(to.outcome in query.outcomes for to in trace.recipients))
        and (not query.rule or any(to.rule == query.rule for to in trace.recipients))
    )


def names_of(trace: Trace) -> set[str]:
    """Returns the names by which a message can be searched; see `TraceQuery.names`."""
    names = {trace.id, bare(trace.message_id), trace.sender}
    replies = {trace.reply}
    for to in trace.recipients:
        names.add(to.recipient)
        replies.add(to.reply)
        if to.original is not None:
            names |= {to.original.id, bare(to.original.message_id)}
    for reply in replies:
        names.update(queue_ids(reply))
    names.discard("")
    return names


def queue_ids(reply: str) -> Iterator[str]:
    """Yields the words in an upstream's reply that may be the queue id of the message."""
    for _, found in zip(range(_MOST_QUEUE_IDS), _QUEUE_ID.finditer(reply), strict=False):
        yield found[0]


def _outcome_term(outcome: TraceOutcome) -> bytes:
    return _OUTCOME_TERMS[outcome._value_]


_OUTCOME_TERMS = {outcome.value: term(f"outcome {outcome}") for outcome in TraceOutcome}


def _rule_term(rule: str) -> bytes:
    return term(f"rule {rule}")
