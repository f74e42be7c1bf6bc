"""`relay forget`: frees acceptances, so that the next copy of a message is forwarded."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from relay.cli.asking import all_traces, open_records
from relay.cli.exit_status import CommandError, after_work, run
from relay.cli.options import Target, target_options
from relay.cli.records import parse_duration, parse_query
from relay.core.quantities import counted

if TYPE_CHECKING:
    from relay.admin.records import Records
    from relay.records.selection import Selection


@click.command(
    short_help="Forget what was sent, so that it can be sent again.",
    epilog="""\b
Examples:
  relay forget 3f9c0a1b2c4d
  relay forget alice@example.org
  relay forget --since 10m --dry-run
Exit status: 0 done, 1 nothing was found or the store cannot be reached,
78 the settings are wrong.""",
)
@target_options
@click.argument("what", metavar="[ID|MESSAGE-ID|ADDRESS]", required=False, callback=parse_query)
@click.option(
    "--since", metavar="DURATION", callback=parse_duration, help="All that was accepted within this time, such as 10m."
)
@click.option("--all", "everything", is_flag=True, help="All that was accepted.")
@click.option("--dry-run", is_flag=True, help="Change nothing; only show the number of acceptances.")
def forget(target: Target, what: str | None, since: float | None, everything: bool, dry_run: bool) -> None:
    """Forget that messages were accepted: the relay forwards the next copy of each. Running relays obey at once.

    The ID or Message-ID of an accepted message frees it for all its recipients. That of a suppressed message frees
    what it repeats, for the recipients who did not get it. Traces stay. An acceptance is one message for one
    recipient.
    """
    if (what is not None) + (since is not None) + everything != 1:
        raise click.UsageError("Give one of these: ID, MESSAGE-ID or ADDRESS; or --since DURATION; or --all.")
    run(_forget(target, what, float("inf") if everything else since, dry_run))


async def _forget(target: Target, what: str | None, within: float | None, dry_run: bool) -> bool:
    from relay.records.selection import Selection

    async with open_records(target) as source:
        selection = Selection(within=within) if within is not None else await _select(source, what or "")
        number = await (source.preview(selection) if dry_run else source.forget(selection))
    if what is not None and not number:
        raise CommandError(
            f"nothing that was sent is remembered for {what}: it was not accepted here, its window is over, "
            "or it was forgotten before"
        )
    done = f"{'would forget' if dry_run else 'forgot'} {counted(number, 'acceptance')}"
    with nullcontext() if dry_run else after_work(f"{done}; do not repeat the command"):
        click.echo(done)
    return True


async def _select(source: Records, what: str) -> Selection:
    from relay.core.trace import TraceQuery
    from relay.records.selection import Selection, bare

    names = (await source.names(what)).names
    keys: set[str] = set()
    async for trace in all_traces(source, TraceQuery(names=names)):
        if not names.isdisjoint((trace.id, bare(trace.message_id))):
            keys.update(repeat.fingerprint for repeat in trace.repeats)
    return Selection(records=names, message_ids=names, recipients=names, keys=frozenset(keys))
