"""`relay suppressed`: lists the repeats, one per line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from relay.cli.asking import all_traces, open_records
from relay.cli.exit_status import run
from relay.cli.options import Target, target_options
from relay.cli.records import parse_duration, timestamp
from relay.cli.trace_json import json_line
from relay.core.quantities import counted, duration
from relay.core.trace import REPEATS, TraceQuery
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.core.trace import Trace


@click.command(
    short_help="List what was suppressed.",
    epilog="""\b
Examples:
  relay suppressed --since 1h
  relay suppressed --since 7d --json | jq .recipients[].rule
Exit status: 0 also if nothing was suppressed, 1 the store cannot be read,
78 the settings are wrong.""",
)
@target_options
@click.option(
    "--since",
    metavar="DURATION",
    callback=parse_duration,
    default="24h",
    show_default=True,
    help="How far to look back.",
)
@click.option("--json", "json_lines", is_flag=True, help="Write one JSON object per line, with the whole trace.")
def suppressed(target: Target, since: float, json_lines: bool) -> None:
    """List the messages that were suppressed, or would have been if the relay only observes. The latest is last.

    Each line shows the time, the ID (for `relay why ID`), the number of recipients, which earlier message it repeats
    and after how long, the outcome, and the rule.
    """
    run(_list(target, since, json_lines))


async def _list(target: Target, since: float, json_lines: bool) -> bool:
    async with open_records(target) as source:
        query = TraceQuery(outcomes=REPEATS, since=time.time() - since)
        found = [trace async for trace in all_traces(source, query)]
        retention = await source.retention()
    found.reverse()
    for line in map(json_line, found) if json_lines else _table(found):
        click.echo(line)
    period = f"in the last {duration(since)}"
    if found:
        recipients = sum(len(record.repeats) for record in found)
        summary = f"{counted(len(found), 'message')} to {counted(recipients, 'recipient')} {period}"
    else:
        summary = f"nothing was suppressed {period}" + (
            "" if retention.seconds else "; record.keep_for is 0, so no traces are kept"
        )
    click.echo(summary, err=True)
    return True


def _table(found: Sequence[Trace]) -> Iterator[str]:
    rows = [_cells(record) for record in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(record: Trace) -> tuple[str, ...]:
    originals = {repeat.original.id: repeat.age for repeat in record.repeats if repeat.original}
    if originals:
        original, age = next(iter(originals.items()))
        others = f" and {len(originals) - 1} more" if len(originals) > 1 else ""
        repeated = f"{duration(age)} after {printable(original)}{others}"
    else:
        repeated = "while its first copy was under way"
    return (
        timestamp(record.at),
        printable(record.id),
        counted(len(record.repeats), "recipient"),
        repeated,
        ",".join(dict.fromkeys(repeat.outcome.value for repeat in record.repeats)),
        "rule " + printable(", ".join(dict.fromkeys(repeat.rule for repeat in record.repeats))),
    )
