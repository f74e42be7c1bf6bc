"""The list of messages: search, filters, and pages of traces, newest first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from relay.core.errors import StoreError
from relay.core.ruling import DEFAULT
from relay.page.message_search import PERIODS, read_position, read_search
from relay.page.text import OUTCOME_WORDS
from relay.settings import effective

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.core.trace import Trace, TraceOutcome
    from relay.page.message_search import MessageSearch
    from relay.page.site import Site
    from relay.page.sources import Sources

MOST_ROWS = 50
NO_TRACES = "No traces are kept, because record.keep_for is 0."


@dataclass(frozen=True, slots=True)
class Row:
    """A message in the list."""

    trace: Trace
    outcomes: Sequence[tuple[TraceOutcome, int]]
    """Recipients of each outcome."""
    rules: Sequence[str]
    """Those that decided, each once."""
    reply: str
    """The reply after the final dot, or else the first one to a recipient."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the list, or why there is none."""

    rows: Sequence[Row] = ()
    next: str = ""
    """The address of the page with older messages."""
    damaged: int = 0
    problem: str = ""

    @property
    def totals(self) -> Sequence[tuple[TraceOutcome, int]]:
        """The recipients of all rows, by outcome."""
        counter: Counter[TraceOutcome] = Counter()
        for row in self.rows:
            counter.update(dict(row.outcomes))
        return _in_order(counter)


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the route of the list."""

    async def get(request: web.Request) -> web.Response:
        search, position = read_search(request.query), read_position(request.query)
        listed = await _list(site.sources, search, position)
        return site.renderer.page(
            request,
            "messages.html",
            status=400 if search.problem else 503 if listed.problem else 200,
            search=search,
            listed=listed,
            position=position,
            periods=PERIODS,
            rule_names=rule_names(site.sources),
            settings=site.sources.loaded().settings,
        )

    return [web.get("/messages", site.guard.protect(get))]


def rule_names(sources: Sources) -> list[str]:
    """Returns the names of the rules in force, in their order."""
    return [*(each.table.name for each in effective.rules(sources.loaded().settings)), DEFAULT]


def build_row(trace: Trace) -> Row:
    """Returns what the list shows of a message."""
    return Row(
        trace=trace,
        outcomes=_in_order(Counter(to.outcome for to in trace.recipients)),
        rules=list(dict.fromkeys(to.rule for to in trace.recipients if to.rule)),
        reply=trace.reply or next((to.reply for to in trace.recipients), ""),
    )


async def _list(sources: Sources, search: MessageSearch, position: str) -> Listed:
    if search.problem:
        return Listed()
    if sources.traces is None:
        return Listed(problem=NO_TRACES)
    query, find = search.query(sources.pseudonyms(), sources.now()), sources.traces.find
    try:
        page = await sources.search(lambda: find(query, MOST_ROWS, position))
    except StoreError as error:
        return Listed(problem=f"The trace cannot be read now: {error}. Mail does not depend on it.")
    return Listed([*map(build_row, page.traces)], search.path(page.next) if page.next else "", page.damaged)


def _in_order(counter: Counter[TraceOutcome]) -> list[tuple[TraceOutcome, int]]:
    return [(outcome, counter[outcome]) for outcome in OUTCOME_WORDS if counter[outcome]]
