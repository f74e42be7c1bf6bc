"""What the form above the list of messages asks for. The whole question is in the address of the page."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from relay.core.trace import TraceOutcome, TraceQuery
from relay.trace.search import LONGEST, names_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multidict import MultiMapping

    from relay.records.pseudonyms import Pseudonyms

PERIODS = {"hour": ("last hour", 3600.0), "day": ("last day", 86400.0), "week": ("last week", 7 * 86400.0)}
"""The quick choices of a time: their words, and seconds."""
_LONGEST_RULE = 200
"""Characters."""
_LONGEST_POSITION = 500
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?")


@dataclass(frozen=True, slots=True)
class MessageSearch:
    """The fields of the form, as the user wrote them."""

    text: str = ""
    """An address, a Message-ID, an id or a queue id."""
    outcomes: tuple[TraceOutcome, ...] = ()
    rule: str = ""
    period: str = ""
    """One of `PERIODS`, or empty."""
    since: str = ""
    until: str = ""
    """Times in UTC as a browser sends them, or empty."""
    problem: str = ""
    """What is wrong with the fields, and the remedy."""

    @property
    def is_empty(self) -> bool:
        """Whether all messages are asked for."""
        return not (self.text or self.outcomes or self.rule or self.period or self.since or self.until)

    def query(self, pseudonyms: Pseudonyms | None, now: float) -> TraceQuery:
        """Returns the question for the store. `now` in seconds since the Unix epoch."""
        begins = [_seconds(self.since) or 0.0, now - PERIODS[self.period][1] if self.period else 0.0]
        until = _seconds(self.until)
        return TraceQuery(
            names=names_for(self.text, pseudonyms),
            outcomes=frozenset(self.outcomes),
            rule=self.rule,
            since=max(begins),
            until=float("inf") if until is None else until,
        )

    def path(self, position: str = "") -> str:
        """Returns the address of the list, from a position on that an earlier page gave."""
        fields = [*self._fields(), *([("start", position)] if position else [])]
        return "/messages" + (f"?{urlencode(fields)}" if fields else "")

    def _fields(self) -> Iterator[tuple[str, str]]:
        yield from (("q", self.text),) if self.text else ()
        yield from (("outcome", outcome.value) for outcome in self.outcomes)
        for name in ("rule", "period", "since", "until"):
            if value := getattr(self, name):
                yield name, value


def read_search(fields: MultiMapping[str]) -> MessageSearch:
    """Returns what the fields of an address ask for."""
    text, since, until = (fields.get(name, "").strip() for name in ("q", "since", "until"))
    known = set(TraceOutcome)
    wanted = set(fields.getall("outcome", ()))
    problem = ""
    if len(text) > LONGEST:
        problem = f"The text to search for is longer than {LONGEST:,} characters."
    for name, value in (("From", since), ("To", until)):
        if value and _seconds(value) is None:
            problem = f"{name}: not a time; write it as 2026-09-21 14:13, in UTC."
    if since and until and not problem and (_seconds(since) or 0.0) >= (_seconds(until) or 0.0):
        problem = "From is not before To."
    period = fields.get("period", "")
    return MessageSearch(
        text=text[:LONGEST],
        outcomes=tuple(outcome for outcome in TraceOutcome if outcome.value in wanted and outcome in known),
        rule=fields.get("rule", "").strip()[:_LONGEST_RULE],
        period=period if period in PERIODS else "",
        since=since,
        until=until,
        problem=problem,
    )


def read_position(fields: MultiMapping[str]) -> str:
    """Returns where the list begins."""
    return fields.get("start", "")[:_LONGEST_POSITION]


def _seconds(written: str) -> float | None:
    """Returns seconds since the Unix epoch; None if it is not a time."""
    if not _TIME.fullmatch(written):
        return None
    try:
        return dt.datetime.fromisoformat(written).replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return None
