"""What a user searches for: the names that a text may mean, and a query as JSON for the admin API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from relay.core.trace import TraceOutcome, TraceQuery
from relay.records.pseudonyms import address
from relay.records.selection import bare

if TYPE_CHECKING:
    from relay.records.pseudonyms import Pseudonyms

LONGEST = 1000
"""Characters of a text that is searched for. An address and a Message-ID are shorter (RFC 5321 section 4.5.3.1)."""
_MOST_NAMES = 10_000


def names_for(written: str, pseudonyms: Pseudonyms | None) -> frozenset[str]:
    """Returns the names that a text may mean: an id, a Message-ID, a queue id or an address.

    Their forms overlap, so that one text may mean several. Without `pseudonyms` an address is found only in traces that
    hold it unhashed.
    """
    text = written.strip()
    if not text or len(text) > LONGEST:
        return frozenset()
    addresses = pseudonyms.find(text) if pseudonyms else frozenset((str(address(text)),))
    return frozenset((text, bare(text), text.lower())) | addresses


def encode_query(query: TraceQuery) -> dict[str, object]:
    """Returns the query as an object of JSON."""
    return {
        "names": sorted(query.names),
        "ids": sorted(query.ids),
        "outcomes": sorted(query.outcomes),
        "rule": query.rule,
        "since": query.since,
        "until": None if math.isinf(query.until) else query.until,
    }


def decode_query(fields: object) -> TraceQuery:
    """Returns the query that an object of JSON describes. Raises `ValueError`."""
    if not isinstance(fields, dict):
        raise ValueError("not a query")  # noqa: TRY004 - what callers catch
    names, ids, outcomes = (fields.get(name, []) for name in ("names", "ids", "outcomes"))
    if not all(isinstance(each, list) and len(each) <= _MOST_NAMES for each in (names, ids, outcomes)):
        raise ValueError("not a query")
    until = fields.get("until")
    return TraceQuery(
        names=frozenset(map(str, names)),
        ids=frozenset(map(str, ids)),
        outcomes=frozenset(TraceOutcome(outcome) for outcome in outcomes),
        rule=str(fields.get("rule", "")),
        since=_seconds(fields.get("since", 0.0)),
        until=math.inf if until is None else _seconds(until),
    )


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a time")
    return float(value)
