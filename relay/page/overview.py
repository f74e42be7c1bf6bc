"""The overview: whether mail flows, what happened in the last hour and day, and what needs attention."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from relay.core.errors import StoreError
from relay.core.outcome import Outcome
from relay.core.trace import TraceOutcome
from relay.page.plot import Plot, build_plot, start_of
from relay.page.sources import within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.core.trace import TraceStore
    from relay.page.site import Site
    from relay.page.sources import Sources

BLOCKS = ("state", "figures", "outcomes", "rules", "warnings")
"""The parts of the page that server-sent events renew. Each has its own template."""
_HOUR, _DAY = (60, 60.0), (96, 900.0)
"""Bars, and seconds of each."""
_MOST_RULES = 8
_OF_MESSAGES = [TraceOutcome(outcome.value) for outcome in Outcome]


class RuleCount(NamedTuple):
    """A rule, and how many recipients of repeats it had since the start."""

    name: str
    suppressed: int
    would_suppress: int


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the routes of the overview."""

    async def get(request: web.Request) -> web.Response:
        return site.renderer.page(request, "overview.html", blocks=BLOCKS, **await present_values(site.sources))

    return [web.get("/", site.guard.protect(get))]


async def present_values(sources: Sources) -> dict[str, Any]:
    """Returns what the templates of the overview show."""
    ready, parts = sources.state()
    return {
        "ready": ready,
        "parts": parts,
        "listening": sources.listening(),
        "load": sources.load(),
        "settings": sources.loaded().settings,
        "rules": top_rules(sources),
        "warnings": [line.partition(" ")[::2] for line in reversed(sources.warnings.lines)],
        **await _outcomes(sources),
    }


async def _outcomes(sources: Sources) -> dict[str, Any]:
    """Returns the plots, or why there are none."""
    if sources.traces is None:
        return {"plots": {}, "problem": "No traces are kept, so that nothing can be shown here."}
    try:
        plots = {
            "last hour": await _plot(sources, sources.traces, *_HOUR),
            "last day": await _plot(sources, sources.traces, *_DAY),
        }
    except StoreError as error:
        return {"plots": {}, "problem": f"The trace cannot be read now: {error}. Mail does not depend on it."}
    return {"plots": plots, "problem": "", "of_messages": {name: of_messages(plot) for name, plot in plots.items()}}


async def _plot(sources: Sources, traces: TraceStore, bars: int, step: float) -> Plot:
    start = start_of(sources.now(), bars, step)
    return build_plot(await within(sources.longest_query, traces.counts(start, step)), start, bars, step)


def of_messages(plot: Plot) -> int:
    """Returns the recipients of messages: those that were refused at RCPT, and aborted messages, do not count."""
    return sum(plot.totals[outcome] for outcome in _OF_MESSAGES)


def top_rules(sources: Sources) -> list[RuleCount]:
    """Returns the rules with the most repeats."""
    found: dict[str, Counter[str]] = {}
    for (rule, outcome), number in sources.metrics.repeats().items():
        found.setdefault(rule, Counter())[outcome] += number
    rules = [RuleCount(rule, each["suppressed"], each["would_suppress"]) for rule, each in found.items()]
    counted = [rule for rule in rules if rule.suppressed or rule.would_suppress]
    return sorted(counted, key=lambda rule: -(rule.suppressed + rule.would_suppress))[:_MOST_RULES]
