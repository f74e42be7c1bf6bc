"""The time line of a mail: one event when each copy came in, and one for each outcome of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from relay.core.trace import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.core.trace import RecipientTrace, Trace, TraceOutcome

STEP_WORDS = {
    Step.UPLOAD: "upload",
    Step.JUDGE: "analysis",
    Step.CLAIM: "store",
    Step.WAIT: "wait for an equal message",
    Step.DELIVER: "upstream",
}
"""What people call the steps."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a time line."""

    at: float
    """Seconds since the Unix epoch."""
    after: float
    """Seconds since the first event."""
    trace: Trace
    recipients: tuple[RecipientTrace, ...] = ()
    """Recipients with the same outcome for the same reason; none if the message came in."""

    @property
    def outcome(self) -> TraceOutcome | None:
        """The outcome for these recipients; None if the message came in."""
        return self.recipients[0].outcome if self.recipients else None


def timeline(story: Sequence[Trace]) -> list[Event]:
    """Returns the events of a story (`relay.trace.story`), in the order of their times."""
    events = sorted((pair for trace in story for pair in _events(trace)), key=lambda pair: pair[0])
    return [Event(at, at - events[0][0], trace, recipients) for at, trace, recipients in events]


def ended_at(trace: Trace) -> float:
    """Returns when a message was answered, or its transaction ended, in seconds since the Unix epoch."""
    return trace.at + trace.steps.get(Step.UPLOAD, 0.0) + trace.seconds


def same_decisions(trace: Trace) -> list[tuple[RecipientTrace, ...]]:
    """Returns the recipients of a message, those together for whom the same was decided for the same reason."""
    return [tuple(same) for _, same in groupby(sorted(trace.recipients, key=_decision), _decision)]


def _events(trace: Trace) -> Iterator[tuple[float, Trace, tuple[RecipientTrace, ...]]]:
    yield trace.at, trace, ()
    for same in same_decisions(trace):
        yield ended_at(trace), trace, same


def _decision(to: RecipientTrace) -> tuple[str, str, str, str]:
    return to.outcome.value, to.rule, to.reply, to.original.id if to.original else ""
