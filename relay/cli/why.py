"""`relay why`: the time line of a mail and its copies, and why each repeat is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.admin.protocol import MOST_TRACES
from relay.cli.asking import open_records
from relay.cli.exit_status import run
from relay.cli.options import Target, target_options
from relay.cli.records import parse_search
from relay.cli.story_text import Asked, story_lines
from relay.cli.trace_json import json_line
from relay.core.quantities import counted
from relay.core.trace import TraceQuery
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from relay.admin.records import Records, Retention
    from relay.trace.story import Stories

_MOST_STORIES = 20
"""Mails that are shown; --json shows all that were read."""


@click.command(
    short_help="Tell what happened to a message, and why.",
    epilog="""\b
Examples:
  relay why 3f9c0a1b2c4d
  relay why '<1b2c3d@tube.example.org>'
  relay why alice@example.org
  relay why 4XYZ12abcd
Exit status: 0 found, 1 nothing is known or the traces cannot be read,
78 the settings are wrong.""",
)
@target_options
@click.argument("what", metavar="ID|MESSAGE-ID|ADDRESS|QUEUE-ID", callback=parse_search)
@click.option("--json", "json_lines", is_flag=True, help="Write one JSON object per line, with the whole trace.")
def why(target: Target, what: str, json_lines: bool) -> None:
    """Tell what happened to a message and to its copies: when each came, where it went, and why.

    The ID is in the reply to the client, in the log line, and in the output of `relay log`. The QUEUE-ID is in the
    upstream's reply. An ADDRESS shows the latest messages to this recipient or from this sender. For a repeat it shows
    the message that it repeats, what was compared, and what was ignored.
    """
    run(_explain(target, what, json_lines))


async def _explain(target: Target, what: str, json_lines: bool) -> bool:
    from relay.trace.story import find_stories

    async with open_records(target) as source:
        asked = await source.names(what)
        found = await find_stories(source, TraceQuery(names=asked.names), MOST_TRACES)
        if not found.stories:
            _report_none(what, await source.retention(), hashed=asked.hashed)
            return False
        if json_lines:
            lines = [json_line(trace) for story in found.stories for trace in story]
        else:
            lines = await _lines(found, Asked(what.strip(), asked.names), source)
    if found.damaged:
        click.echo(f"warning: {counted(found.damaged, 'trace')} cannot be read and are left out", err=True)
    for line in lines:
        click.echo(line)
    return True


def _report_none(what: str, retention: Retention, *, hashed: bool) -> None:
    from relay.settings.units import format_duration

    kept = "record.keep_for is 0: none are kept"
    if seconds := retention.seconds:
        kept = f"traces are kept for {format_duration(seconds)}"
        kept += ', and only of repeats (record.trace = "repeats")' if retention.repeats_only else ""
    click.echo(f"error: no message {printable(what.strip())} is known; {kept}", err=True)
    if not hashed:
        click.echo(
            "note: there is no record.secret_file here yet, so addresses that were hashed elsewhere are not found",
            err=True,
        )


async def _lines(found: Stories, asked: Asked, source: Records) -> list[str]:
    shown = found.stories[-_MOST_STORIES:]
    lines = []
    if found.more or len(shown) < len(found.stories):
        which = len(shown) if len(shown) > 1 else "copies"
        lines.append(f"The latest {which}; relay log --to ADDRESS lists all.")
    for story in shown:
        copies = {trace.id: await source.describe_copy(trace.id, trace.kept) for trace in story if trace.repeats}
        lines += [*([""] if lines else []), *story_lines(story, asked, copies)]
    return lines
