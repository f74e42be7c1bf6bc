"""`relay forget`: let a message through once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.options import store_options
from relay.cli.records import seconds, something
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from relay.cli.store_access import Reached
    from relay.records.selection import Selection
    from relay.settings import Loaded, Settings


@click.command(
    short_help="Forget what was sent, so that it may be sent again.",
    epilog="""\b
Examples:
  relay forget 3f9c0a1b2c4d
  relay forget alice@example.org
  relay forget --since 10m --dry-run
Exit status: 0 done, 1 nothing was found or the store cannot be reached,
78 the settings are wrong.""",
)
@store_options
@click.argument("what", metavar="[ID|MESSAGE-ID|ADDRESS]", required=False, callback=something)
@click.option("--since", metavar="DURATION", callback=seconds, help="All that was accepted this long ago or later.")
@click.option("--all", "everything", is_flag=True, help="All that was accepted.")
@click.option("--dry-run", is_flag=True, help="Only say how many that would be.")
def forget(loaded: Loaded, what: str | None, since: float | None, everything: bool, dry_run: bool) -> None:
    """Forget that messages were accepted: the next copy of each is forwarded. Running relays obey at once.

    ID or MESSAGE-ID of an accepted message frees it for all its recipients; that of a suppressed one frees what it
    was suppressed as, for those who missed it. Records stay.
    """
    from relay.cli.store_access import run

    if (what is not None) + (since is not None) + everything != 1:
        raise click.UsageError("Give one of these: ID, MESSAGE-ID or ADDRESS; or --since DURATION; or --all.")
    run(_forget(loaded.settings, what, float("inf") if everything else since, dry_run))


async def _forget(settings: Settings, what: str | None, within: float | None, dry_run: bool) -> bool:
    from relay.cli.records import counted
    from relay.cli.store_access import reach
    from relay.records.selection import Selection

    async with reach(settings) as reached:
        selection = Selection(within=within) if within is not None else await _select(settings, reached, what or "")
        number = await (reached.preview(selection) if dry_run else reached.forget(selection))
    if what is not None and not number:
        click.echo(
            f"error: nothing that was sent is remembered for {printable(what)}: it was not accepted here, or its "
            "window is over",
            err=True,
        )
        return False
    # An acceptance is one message for one recipient.
    click.echo(f"{'would forget' if dry_run else 'forgot'} {counted(number, 'acceptance')}")
    return True


async def _select(settings: Settings, reached: Reached, what: str) -> Selection:
    from relay.cli.records import Wanted, names_of
    from relay.cli.store_access import EVER, records
    from relay.records.selection import Selection

    wanted = Wanted.read(what, names_of(settings))
    keys: set[str] = set()
    async for record in records(reached, EVER):
        if wanted.is_record(record):
            keys.update(repeat.fingerprint for repeat in record.repeats)
    return Selection(
        records=frozenset((wanted.record,)) - {""},
        message_ids=frozenset((wanted.message_id,)) - {""},
        recipients=wanted.recipients,
        keys=frozenset(keys),
    )
