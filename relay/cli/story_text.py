"""Writes the story of a mail for a terminal: its time line, and why each repeat is one."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from relay.cli.records import timestamp
from relay.core.quantities import counted, duration, size
from relay.core.trace import REPEATS, TraceOutcome
from relay.runtime.terminal import printable
from relay.trace.timeline import STEP_WORDS, timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from relay.core.trace import RecipientTrace, Trace
    from relay.trace.timeline import Event

_WIDTH = 120
_MOST_NAMED = 5
"""Recipients that are named; --json names all."""
_DETAIL = 48
"""The column of details: that of the text about an event."""
_ANSWERED = {TraceOutcome.FORWARDED, TraceOutcome.REFUSED}
"""The outcomes whose reply is that of the upstream to the content."""
_OUTCOMES = {
    TraceOutcome.FORWARDED: "forwarded to",
    TraceOutcome.SUPPRESSED: "suppressed for",
    TraceOutcome.WOULD_SUPPRESS: "forwarded, because it was only observed, to",
    TraceOutcome.REFUSED: "refused for",
    TraceOutcome.DEFERRED: "deferred for",
    TraceOutcome.UNCERTAIN: "uncertain for",
    TraceOutcome.RCPT_REFUSED: "refused at RCPT:",
    TraceOutcome.ABORTED: "ended by the client before the content, for",
}
_SLOW = 0.5
"""Seconds from which the time of a step is shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user searched for. Its recipients come first, and are called as the user has written them."""

    written: str
    names: frozenset[str]


def story_lines(story: Sequence[Trace], asked: Asked, copies: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines about one mail.

    `copies` says for each repeat, by its id,
    where its kept copy is.
    """
    first = story[0]
    yield click.style(_title(first), bold=True)
    for event in timeline(story):
        yield from _event_lines(event, asked, copies)


def _title(trace: Trace) -> str:
    subject = f", subject {printable(trace.subject)}" if trace.subject else ""
    message_id = f"Message-ID {printable(trace.message_id)}" if trace.message_id else "no Message-ID"
    return f"{message_id}, from {printable(trace.sender) or '<>'}{subject}"


def _event_lines(event: Event, asked: Asked, copies: Mapping[str, str]) -> Iterator[str]:
    trace = event.trace
    if event.outcome is None:
        login = f" as {printable(trace.login)}" if trace.login else ""
        helo = f" ({printable(trace.helo)})" if trace.helo else ""
        recipients = counted(len(trace.recipients), "recipient")
        peer = printable(trace.peer) or "an unknown client"
        yield from _row(event, f"came from {peer}{helo}{login}, {size(trace.size)}, for {recipients}")
        return
    yield from _row(event, f"{_OUTCOMES[event.outcome]} {_names(event.recipients, asked)}")
    to = event.recipients[0]
    if event.outcome in REPEATS:
        yield from _repeat_details(to, trace)
    elif event.outcome is not TraceOutcome.ABORTED:
        yield from _detail("reply", f"{to.reply or 'none'}{_author(to, trace)}")
    if to.rule:
        yield from _detail("rule", to.rule)
    if event.outcome in REPEATS:
        yield from _detail("copy", copies.get(trace.id, "unknown"))
    if slow := [f"{STEP_WORDS[step]} {seconds:.1f} s" for step, seconds in trace.steps.items() if seconds >= _SLOW]:
        yield from _detail("took", ", ".join(slow))


def _author(to: RecipientTrace, trace: Trace) -> str:
    return f" (from {trace.upstream})" if trace.upstream and to.outcome in _ANSWERED else ""


def _repeat_details(to: RecipientTrace, trace: Trace) -> Iterator[str]:
    original = to.original
    if original is None:
        yield from _detail("repeats", "a message that was under way at that moment")
    else:
        yield from _detail("repeats", f"{original.id}, accepted {duration(to.age)} before")
        yield from _detail("reply", f"{original.reply or 'unknown'} (to {original.id})")
    yield from _detail("equal in", ", ".join(trace.forms.get(to.rule, ())) or "not recorded")
    if ignored := trace.ignored.get(to.rule):
        yield from _detail("ignored", ", ".join(ignored))


def _names(recipients: Sequence[RecipientTrace], asked: Asked) -> str:
    found = any(to.recipient in asked.names for to in recipients)
    names = [
        *([asked.written] if found else []),
        *(to.recipient for to in recipients if to.recipient not in asked.names),
    ]
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _row(event: Event, text: str) -> list[str]:
    after = f"+{duration(event.after)}" if event.after >= 1 else ""
    return _fill(f"  {timestamp(event.at)}  {after:<8}  {printable(event.trace.id)}  ", text)


def _detail(label: str, text: str) -> list[str]:
    return _fill(f"{'':{_DETAIL}}{label:<10}", printable(text))


def _fill(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
