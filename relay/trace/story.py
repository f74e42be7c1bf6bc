"""The story of a mail: its first copy and the copies that repeat it, in the order of their arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relay.core.trace import TracePage, TraceQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.core.trace import Trace

MOST_TRACES = 200
"""Traces that are read for one search. Twice as many if copies of them are found."""


class Finder(Protocol):
    """What finds traces: a `TraceStore`, or a running relay. Raises `RelayError`."""

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """Returns traces, newest first."""


@dataclass(frozen=True, slots=True)
class Stories:
    """What is known about the mails that were searched for."""

    stories: Sequence[Sequence[Trace]]
    """The copies of each mail, the first copy first; the mail whose last copy is the newest stands last."""
    more: bool
    """Whether there are older traces that were not read."""
    damaged: int
    """Traces that could not be read."""


async def find_stories(finder: Finder, query: TraceQuery, most: int = MOST_TRACES) -> Stories:
    """Returns the stories in which at least one message matches. `most` traces that match are read.

    The first copy of each is among them, although a mail may have more copies than are read.
    """
    page = await finder.find(query, most)
    related = frozenset(name for trace in page.traces for name in (trace.id, *originals_of(trace)))
    copies = await finder.find(TraceQuery(names=related), most) if related else page
    unread = _originals((*copies.traces, *page.traces))
    firsts = await finder.find(TraceQuery(ids=unread), most) if unread else TracePage(())
    # Oldest first, so that those of one moment stay in their order.
    traces = {trace.id: trace for found in (firsts, copies, page) for trace in reversed(found.traces)}
    return Stories(
        stories=_grouped(traces.values()),
        more=bool(page.next or copies.next),
        damaged=page.damaged + copies.damaged,
    )


def _originals(traces: Sequence[Trace]) -> frozenset[str]:
    """Returns the ids of the messages that are repeated, and are not among these."""
    return frozenset(name for trace in traces for name in originals_of(trace)) - {trace.id for trace in traces}


def originals_of(trace: Trace) -> list[str]:
    """Returns the ids of the messages that a message repeats, each once."""
    return list(dict.fromkeys(to.original.id for to in trace.recipients if to.original is not None))


def _grouped(traces: Iterable[Trace]) -> list[list[Trace]]:
    """Groups messages of which one repeats the other. A message may repeat several, each for other recipients."""
    stories: dict[str, list[Trace]] = {}
    for trace in sorted(traces, key=lambda trace: trace.at):
        # A dict of them, since several names may lead to one story. A repeat may have begun before what it repeats: its
        # client was slower, or the clock of its host is behind.
        names = (trace.id, *originals_of(trace))
        known = [*{id(stories[name]): stories[name] for name in names if name in stories}.values()]
        story = known[0] if known else []
        for other in known[1:]:
            story += other
            stories |= dict.fromkeys((name for each in other for name in (each.id, *originals_of(each))), story)
        if len(known) > 1:
            story.sort(key=lambda each: each.at)
        story.append(trace)
        stories |= dict.fromkeys(names, story)
    distinct = {id(story): story for story in stories.values()}
    return sorted(distinct.values(), key=lambda story: story[-1].at)
