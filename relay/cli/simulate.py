"""`relay simulate`: what would have been suppressed in an archive of mail."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli.options import file_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from relay.settings import Loaded
    from relay.simulate.archive import Archive

READ, READ_IN_PART, NOTHING_READ, INTERRUPTED = 0, 1, 2, 130
_SHOWN = 20
"""Problems that are told one by one."""
_STEP = 500
"""Messages between two looks of the progress at a terminal."""


@click.command(
    short_help="Show what would have been suppressed in an archive of mail.",
    epilog="""\b
Examples:
  relay simulate /var/mail/alice
  relay simulate --window 1h --top 20 ~/Maildir ~/old-mail.mbox
  relay simulate -c relay.toml --json sent/ > found.json
Exit status: 0 all was read, 1 something could not be read, 2 nothing was, also where
there is no message, 78 the settings are wrong, 130 interrupted.""",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@file_options
@click.option(
    "--window",
    metavar="DURATION",
    help="How long a message suppresses its repeats, such as 10m.  [dedup.window]",
)
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="How many of the most repeated messages, and of the kinds of near misses, to show.",
)
def simulate(loaded: Loaded, paths: tuple[Path, ...], as_json: bool, top: int) -> None:
    """Play the messages of an archive by their dates through the judgement of the relay.

    A PATH is an mbox file, a Maildir, a message in a file of its own, or a folder of any of these. Nothing is
    changed, sent or remembered.
    """
    from relay.simulate.archive import Archive
    from relay.simulate.findings import lines

    with Archive() as archive:
        found = _play(loaded, archive, paths, top)
        _tell(archive)
    if not found["messages"]:
        if not archive.problems:
            click.echo(
                "error: no message to play was found; name an mbox, a Maildir, a file of one message or a folder",
                err=True,
            )
        sys.exit(NOTHING_READ)
    for line in [json.dumps(found, indent=2)] if as_json else lines(found):
        click.echo(line)
    sys.exit(READ_IN_PART if archive.problems else READ)


def _play(loaded: Loaded, archive: Archive, paths: tuple[Path, ...], top: int) -> dict[str, Any]:
    """Index, then play. Ends the process when it is interrupted: half a result would mislead."""
    from relay.settings.rules import build_judge
    from relay.simulate.replay import Replay
    from relay.simulate.report import report

    judge = build_judge(loaded.settings)
    replay = None
    try:
        _look(archive.index(paths))
        replay = Replay(judge, archive, loaded.settings.dedup.window)
        for number in _watched(archive.in_order()):
            replay.play(number)
        return report(archive, replay, top=top)
    except KeyboardInterrupt:
        played = replay.totals.messages if replay else 0
        click.echo(f"\ninterrupted: {played:,} of {len(archive):,} messages were played; there is no result", err=True)
        sys.exit(INTERRUPTED)


def _look(counts: Iterator[int]) -> None:
    """Go through the index; on a terminal, a long way is shown."""
    shown = False
    for count in counts:
        if count % _STEP == 0 and count and sys.stderr.isatty():
            click.echo(f"\rlooking for messages: {count:,}", nl=False, err=True)
            shown = True
    if shown:
        click.echo("", err=True)


def _watched(numbers: list[int]) -> Iterator[int]:
    if len(numbers) < _STEP or not sys.stderr.isatty():
        yield from numbers
        return
    with click.progressbar(numbers, label="playing them", file=sys.stderr, update_min_steps=_STEP // 10) as bar:
        yield from bar


def _tell(archive: Archive) -> None:
    """Tell people what is not in the result."""
    from relay.runtime.terminal import printable
    from relay.simulate.archive import UNDATED
    from relay.simulate.findings import many

    for problem in archive.problems[:_SHOWN]:
        click.echo(f"error: {printable(problem.place)}: {printable(problem.reason)}", err=True)
    if len(archive.problems) > _SHOWN:
        click.echo(f"error: and {len(archive.problems) - _SHOWN:,} more", err=True)
    if undated := archive.date_sources[UNDATED]:
        click.echo(f"warning: {many(undated, 'message')} without a usable date, left out", err=True)
    places = archive.places
    if places.skipped:
        such = printable(os.fsdecode(places.skipped_such))
        click.echo(f"skipped, being no mail: {many(places.skipped, 'file')}, such as {such}", err=True)
    if places.repeated:
        click.echo(f"reached a second time, but read once: {many(places.repeated, 'file')}", err=True)
