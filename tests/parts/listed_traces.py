"""A trace store that keeps its traces in a list, for tests of the page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from relay.core.errors import StoreError
from relay.core.trace import RecipientTrace, Step, Trace, TraceCounts, TraceOutcome, TracePage, TraceQuery
from relay.records.selection import bare

if TYPE_CHECKING:
    from collections.abc import Sequence


class ListedTraces:
    """Implements `relay.core.trace.TraceStore`. While `broken` has a text, all questions fail with it."""

    def __init__(self, *traces: Trace) -> None:
        self.traces = list(traces)
        self.broken = ""
        self.damaged = 0
        self.limits: list[int] = []
        """The limit of each call of `find`."""
        self.questions = 0

    async def open(self) -> None:
        pass

    async def append(self, traces: Sequence[Trace]) -> None:
        self._check()
        self.traces += traces

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        self._check()
        self.limits.append(limit)
        found = [trace for trace in sorted(self.traces, key=lambda each: -each.at) if _matches(trace, query)]
        first = int(start or 0)
        rest = len(found) > first + limit
        return TracePage(tuple(found[first : first + limit]), str(first + limit) if rest else "", self.damaged)

    async def counts(self, since: float, step: float) -> Sequence[TraceCounts]:
        self._check()
        found: dict[int, Counter[TraceOutcome]] = {}
        for trace in self.traces:
            if trace.at >= since:
                counter = found.setdefault(int((trace.at - since) // step), Counter())
                counter.update(recipient.outcome for recipient in trace.recipients)
        return [TraceCounts(since + number * step, counter) for number, counter in sorted(found.items())]

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        self.questions += 1
        if self.broken:
            raise StoreError(self.broken)


def _matches(trace: Trace, query: TraceQuery) -> bool:
    names = {trace.id, bare(trace.message_id), trace.sender, *(each.recipient for each in trace.recipients)}
    for each in trace.recipients:
        names.update((each.original.id, bare(each.original.message_id)) if each.original else ())
    return (
        (not query.names or bool(names & query.names))
        and (not query.ids or trace.id in query.ids)
        and (not query.outcomes or any(each.outcome in query.outcomes for each in trace.recipients))
        and (not query.rule or any(each.rule == query.rule for each in trace.recipients))
        and query.since <= trace.at < query.until
    )


def trace(number: int, at: float, *outcomes: TraceOutcome, **values: object) -> Trace:
    """A message with a recipient for each outcome."""
    recipients = tuple(
        RecipientTrace(f"user{place}@example.org", outcome, "250 2.0.0 Ok: queued as 4XYZ12", rule="default")
        for place, outcome in enumerate(outcomes)
    )
    given: dict[str, object] = {
        "id": f"{number:012x}",
        "at": at,
        "seconds": 0.034,
        "host": "relay.example.com",
        "peer": "192.0.2.7",
        "helo": "app.example.com",
        "login": "",
        "sender": "contact@videos.example",
        "message_id": f"{number}@videos.example",
        "subject": "",
        "size": 4096,
        "upstream": "127.0.0.1:25",
        "reply": "250 2.0.0 Ok: queued as 4XYZ12",
        "recipients": recipients,
        "steps": {Step.JUDGE: 0.002, Step.DELIVER: 0.03},
    }
    return Trace(**(given | values))  # type: ignore[arg-type]
