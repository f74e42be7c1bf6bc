"""`relay log`: lists the trace of every message, one per line."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from relay.cli.asking import all_traces, open_records
from relay.cli.exit_status import run
from relay.cli.options import Target, target_options
from relay.cli.records import parse_duration, parse_search, timestamp
from relay.cli.trace_json import json_line
from relay.core.errors import AdminError, StoreError
from relay.core.quantities import counted, duration
from relay.core.trace import TraceOutcome, TraceQuery
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.admin.records import Records
    from relay.core.trace import Trace

_FOLLOW_EVERY = 1.0
"""Seconds between two looks for new messages. Traces are written up to a second after the reply."""
_LATE = 600.0
"""Seconds for which `--follow` waits for the trace of a message: it is stored under the time of its MAIL command."""


@click.command(
    name="log",
    short_help="List what happened to each message.",
    epilog="""\b
Examples:
  relay log --since 10m
  relay log --to alice@example.org --outcome refused --outcome deferred
  relay log --follow --json | jq 'select(.size_bytes > 1000000)'
Exit status: 0 also if there was no message, 1 the traces cannot be read,
78 the settings are wrong.""",
)
@target_options
@click.option(
    "--since",
    metavar="DURATION",
    callback=parse_duration,
    default="1h",
    show_default=True,
    help="How far to look back.",
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([outcome.value for outcome in TraceOutcome]),
    help="Only messages with this outcome for at least one recipient. Can be repeated.",
)
@click.option(
    "--to", metavar="ADDRESS", callback=parse_search, help="Only messages for this recipient, or from this sender."
)
@click.option("--rule", default="", metavar="NAME", help="Only messages that this rule decided on.")
@click.option("--follow", is_flag=True, help="Go on with new messages until Ctrl-C.")
@click.option("--json", "json_lines", is_flag=True, help="Write one JSON object per line, with the whole trace.")
def log(
    target: Target, *, since: float, outcomes: Sequence[str], to: str | None, rule: str, follow: bool, json_lines: bool
) -> None:
    """List the messages that came in, and what happened to each. The latest is last.

    Each line shows the time, the ID (for `relay why ID`), the client, the size, the outcome for each recipient, and the
    reply to the client.
    """
    query = TraceQuery(outcomes=frozenset(map(TraceOutcome, outcomes)), rule=rule, since=time.time() - since)
    run(_list(target, query, to, json_lines=json_lines, follow=follow))


async def _list(target: Target, query: TraceQuery, to: str | None, *, json_lines: bool, follow: bool) -> bool:
    write = json_line if json_lines else line
    async with open_records(target) as source:
        if to is not None:
            query = replace(query, names=(await source.names(to)).names)
        # The latest come first, and are written last. Their texts take a tenth of the memory of the traces.
        texts: list[str] = []
        seen: dict[str, float] = {}
        async for trace in all_traces(source, query):
            texts.append(write(trace))
            if trace.at >= time.time() - 2 * _LATE:
                seen[trace.id] = trace.at
        for text in reversed(texts):
            click.echo(text)
        retention = await source.retention()
        nothing = "; only repeats leave a trace (record.trace)" if retention.repeats_only else ""
        nothing = nothing if retention.seconds else "; record.keep_for is 0, so no traces are kept"
        period = f"in the last {duration(time.time() - query.since)}"
        click.echo(f"{counted(len(texts), 'message')} {period}{nothing}", err=True)
        if follow:
            async for trace in new_traces(source, query, seen):
                click.echo(write(trace))
    return True


async def new_traces(
    source: Records, query: TraceQuery, seen: dict[str, float], every: float = _FOLLOW_EVERY
) -> AsyncIterator[Trace]:
    """Yields traces that were not seen before, for ever. Says so, and goes on, when the relay is away and is back."""
    looked, away = time.time(), False
    while True:
        await asyncio.sleep(every)
        now = time.time()
        since = max(query.since, min(looked, now) - _LATE)
        try:
            found = [trace async for trace in all_traces(source, replace(query, since=since))]
        except (AdminError, StoreError) as error:
            if not away:
                click.echo(f"note: {printable(str(error))}; waiting until it does", err=True)
            away = True
            continue
        if away:
            click.echo("note: the traces can be read again", err=True)
        looked, away = now, False
        for trace in reversed(found):
            if trace.id not in seen:
                yield trace
        seen.update((trace.id, trace.at) for trace in found)
        for name in [name for name, at in seen.items() if at < since - _LATE]:
            del seen[name]


def line(trace: Trace) -> str:
    """Returns a trace as one line of text."""
    outcomes = Counter(to.outcome for to in trace.recipients)
    outcome = ", ".join(f"{count} {name}" for name, count in outcomes.items()) or "no recipients"
    cells = (
        timestamp(trace.at),
        printable(trace.id),
        f"{printable(trace.peer):<15}",
        f"{trace.size:>9} B",
        outcome,
        printable(
            trace.reply or next((to.reply for to in trace.recipients if to.outcome is TraceOutcome.RCPT_REFUSED), "")
        ),
    )
    return "  ".join(cells).rstrip()
