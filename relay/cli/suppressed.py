"""`relay suppressed`: the records, one a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.options import store_options
from relay.cli.records import seconds
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from relay.core.record import Record
    from relay.settings import Loaded, Settings

    Row: TypeAlias = tuple[str, ...]
    """The cells of a line."""


@click.command(
    short_help="List what was suppressed.",
    epilog="""\b
Examples:
  relay suppressed --since 1h
  relay suppressed --since 7d --json | jq .recipients[].rule
Exit status: 0 also where nothing was suppressed, 1 the store cannot be read,
78 the settings are wrong.""",
)
@store_options
@click.option(
    "--since", metavar="DURATION", callback=seconds, default="24h", show_default=True, help="How far to look back."
)
@click.option("--json", "json_lines", is_flag=True, help="One JSON object a line, with all that is recorded.")
def suppressed(loaded: Loaded, since: float, json_lines: bool) -> None:
    """List the messages that were suppressed, or would have been where the relay only observes; the latest last.

    Each line: time, id (relay why ID tells more), recipients, how long after the message that it repeats and that
    one's id, outcome, rule.
    """
    from relay.cli.store_access import run

    run(_list(loaded.settings, since, json_lines))


async def _list(settings: Settings, since: float, json_lines: bool) -> bool:
    import json

    from relay.cli.records import as_json, counted, span
    from relay.cli.store_access import reach, records

    objects: list[str] = []
    rows: list[Row] = []
    recipients = 0
    async with reach(settings) as reached:
        async for record in records(reached, since):
            if json_lines:
                objects.append(json.dumps(as_json(record)))
            else:
                rows.append(_row(record))
            recipients += len(record.repeats)
    lines = objects or list(_aligned(rows))
    for line in reversed(lines):
        click.echo(line)
    period = f"in the last {span(since)}"
    if lines:
        total = f"{counted(len(lines), 'message')} to {counted(recipients, 'recipient')} {period}"
    else:
        total = f"nothing was suppressed {period}" + (
            "" if settings.record.keep_for else "; record.keep_for is 0, so nothing is recorded"
        )
    click.echo(total, err=True)
    return True


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(record: Record) -> Row:
    from relay.cli.records import counted, span, timestamp

    originals = {repeat.original.id: repeat.age for repeat in record.repeats if repeat.original}
    if originals:
        original, age = next(iter(originals.items()))
        others = f" and {len(originals) - 1} more" if len(originals) > 1 else ""
        repeated = f"{span(age)} after {printable(original)}{others}"
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
