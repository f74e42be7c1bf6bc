"""One message: the time line of it and of its copies, and for a repeat the original beside it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from relay.core.trace import Step, TraceOutcome, TraceQuery
from relay.page.kept import Kept, kept_copy
from relay.trace.story import find_stories, originals_of
from relay.trace.timeline import STEP_WORDS, same_decisions, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from relay.core.claim import Original
    from relay.core.trace import RecipientTrace, Trace
    from relay.page.site import Site
    from relay.page.sources import Sources
    from relay.trace.timeline import Event

MOST_TRACES = 100
"""Copies of a mail that are read; twice as many are shown at most."""
MOST_RECIPIENTS = 20
"""Recipients of one decision that are named."""
MOST_EVENTS = 400
"""Events of a time line. Each copy may have one for each recipient."""
MOST_ORIGINALS = 20
"""Originals beside which a message is shown."""
_ID = re.compile(r"[0-9a-f]{12}")


class StepTime(NamedTuple):
    """How long a step took, and its bar in a drawing 100 wide."""

    step: Step
    words: str
    seconds: float
    x: float
    width: float


class Fact(NamedTuple):
    """Something that is known about a repeat and about its original. What differs did not count."""

    name: str
    kind: str
    """How the template writes it: `text`, `time` or `size`."""
    own: str | float
    other: str | float | None
    """The value of the original; None if it is not known."""

    @property
    def differs(self) -> bool:
        """Whether both are known and not equal."""
        return self.other not in {None, self.own}


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared under a rule."""

    rule: str
    fields: Sequence[tuple[str, str]]
    """Labels of the fields, each with the digest of its value, which was equal in both messages."""
    ignored: Sequence[str]
    """The names of the ignores that applied."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """An earlier message that this one repeats."""

    original: Original
    recipients: int
    age: float
    """Seconds from the acceptance of the original."""
    has_trace: bool
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Shown:
    """A message and all that is known about it."""

    trace: Trace
    events: Sequence[Event]
    more: bool
    """Whether there are further copies, which were not read."""
    steps: Sequence[StepTime]
    repeated: Sequence[Repeated]
    """The first ones of its originals."""
    originals: int
    compared: Sequence[Compared]

    @property
    def copies(self) -> int:
        """The number of messages in the time line."""
        return len({event.trace.id for event in self.events})

    @property
    def other_kept(self) -> Trace | None:
        """Another message of the time line of which a copy was kept, if one of this message was kept too."""
        others = (event.trace for event in self.events if event.trace.kept and event.trace.id != self.trace.id)
        return next(others, None) if self.trace.kept else None

    @property
    def is_suppressed(self) -> bool:
        """Whether the message was withheld from at least one recipient."""
        return any(to.outcome is TraceOutcome.SUPPRESSED for to in self.trace.recipients)

    @property
    def is_repeat(self) -> bool:
        """Whether the message is a repeat for at least one recipient."""
        return bool(self.trace.repeats)


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the route of a message."""

    async def get(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        shown = await find_message(site.sources, name)
        settings = site.sources.loaded().settings
        if shown is None:
            return site.renderer.page(request, "message_unknown.html", status=404, name=name[:100], settings=settings)
        return site.renderer.page(
            request,
            "message.html",
            shown=shown,
            kept=await kept_copy(site, name) if shown.is_repeat else Kept(),
            settings=settings,
            most_recipients=MOST_RECIPIENTS,
        )

    return [web.get("/messages/{id}", site.guard.protect(get))]


async def find_message(sources: Sources, name: str) -> Shown | None:
    """Returns a message by its id, or None if there is no trace of it. Raises `StoreError`."""
    if sources.traces is None or not _ID.fullmatch(name):
        return None
    store, query = sources.traces, TraceQuery(names=frozenset((name,)))
    found = await sources.search(lambda: find_stories(store, query, MOST_TRACES))
    for story in found.stories:
        traces = {trace.id: trace for trace in story}
        if name in traces:
            trace = traces[name]
            return Shown(
                trace=trace,
                events=(events := _bounded(timeline(story), name)),
                more=found.more or len(events) == MOST_EVENTS,
                steps=step_times(trace),
                repeated=[*itertools.islice(_repeated(trace, traces), MOST_ORIGINALS)],
                originals=len(originals_of(trace)),
                compared=[
                    Compared(rule, [split_digest(each) for each in fields], trace.ignored.get(rule, ()))
                    for rule, fields in trace.forms.items()
                ],
            )
    return None


def _bounded(events: Sequence[Event], name: str) -> Sequence[Event]:
    """Returns at most `MOST_EVENTS`: half of them of the message itself, if there are so many."""
    if len(events) <= MOST_EVENTS:
        return events
    own = [event for event in events if event.trace.id == name][: MOST_EVENTS // 2]
    others = [event for event in events if event.trace.id != name][: MOST_EVENTS - len(own)]
    return sorted((*own, *others), key=lambda event: event.at)


def step_times(trace: Trace) -> list[StepTime]:
    """Returns the times of all steps that a trace holds, in order."""
    total = sum(trace.steps.values())
    found, x = [], 0.0
    for step, words in STEP_WORDS.items():
        if seconds := trace.steps.get(step, 0.0):
            width = 100 * seconds / total
            found.append(StepTime(step, words, seconds, round(x, 2), round(width, 2)))
            x += width
    return found


def split_digest(field: str) -> tuple[str, str]:
    """Returns label and digest of a field in `Trace.forms`."""
    label, _, digest = field.rpartition(" ")
    return label, digest


def _repeated(trace: Trace, traces: dict[str, Trace]) -> Iterator[Repeated]:
    found: dict[Original, list[RecipientTrace]] = {}
    for same in same_decisions(trace):
        if same[0].original:
            found.setdefault(same[0].original, []).extend(same)
    for original, recipients in found.items():
        other = traces.get(original.id)
        facts = [*_facts(trace, other)] if other else [*_known_facts(trace, original)]
        yield Repeated(original, len(recipients), recipients[0].age, other is not None, facts)


def _facts(trace: Trace, other: Trace) -> Iterator[Fact]:
    yield Fact("Came in", "time", trace.at, other.at)
    yield Fact("Message-ID", "text", trace.message_id, other.message_id)
    if trace.subject or other.subject:
        yield Fact("Subject", "text", trace.subject, other.subject)
    yield Fact("Size", "size", trace.size, other.size)
    yield Fact("From", "text", trace.sender or "<>", other.sender or "<>")
    yield Fact("Client", "text", trace.peer or "local", other.peer or "local")
    yield Fact("HELO", "text", trace.helo, other.helo)
    if trace.login or other.login:
        yield Fact("Login", "text", trace.login, other.login)
    yield Fact("Host", "text", trace.host, other.host)


def _known_facts(trace: Trace, original: Original) -> Iterator[Fact]:
    yield Fact("Came in", "time", trace.at, None)
    yield Fact("Message-ID", "text", trace.message_id, original.message_id)
    yield Fact("Size", "size", trace.size, None)
