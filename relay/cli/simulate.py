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
_SHOWN_PROBLEMS = 20
_PROGRESS_STEP = 500
"""Messages between two updates of the progress on a terminal."""


@click.command(
    short_help="Show what would have been suppressed in an archive of mail.",
    epilog="""\b
Examples:
  relay simulate /var/mail/alice
  relay simulate --window 1h --top 20 ~/Maildir ~/old-mail.mbox
  relay simulate -c relay.toml --json sent/ > result.json
Exit status: 0 everything was read, 1 something could not be read, 2 nothing was read
or there is no message, 78 the settings are wrong, 130 interrupted.""",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path, readable=False))
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
    help="How many of the most repeated messages, and of the near misses, to show.",
)
def simulate(loaded: Loaded, paths: tuple[Path, ...], as_json: bool, top: int) -> None:
    """Replay an archive of mail by date, and count what the relay would have suppressed.

    A PATH is an mbox file, a Maildir, a file with one message, or a folder of any of these. The command changes
    nothing, sends nothing and keeps nothing.
    """
    from relay.simulate.archive import Archive
    from relay.simulate.text_report import report_lines

    with Archive() as archive:
        result = _replay(loaded, archive, paths, top)
        _report_problems(archive)
    if not result["messages"]:
        if not archive.problems:
            click.echo(
                "error: no message was found; name an mbox, a Maildir, a file with one message or a folder",
                err=True,
            )
        sys.exit(NOTHING_READ)
    for line in [json.dumps(result, indent=2)] if as_json else report_lines(result):
        click.echo(line)
    sys.exit(READ_IN_PART if archive.problems else READ)


def _replay(loaded: Loaded, archive: Archive, paths: tuple[Path, ...], top: int) -> dict[str, Any]:
    """Indexes and replays the archive. Ends the process if it is interrupted: half a result would mislead."""
    from relay.settings.rules import build_judge
    from relay.simulate.replay import Replay
    from relay.simulate.result import build_result

    judge = build_judge(loaded.settings)
    replay = None
    try:
        _index(archive, paths)
        replay = Replay(judge, archive, loaded.settings.dedup.window)
        for number in _with_progress(archive.in_order()):
            replay.play(number)
        return build_result(archive, replay, top=top)
    except KeyboardInterrupt:
        played = replay.totals.messages if replay else 0
        click.echo(
            f"\ninterrupted: {played:,} of {len(archive):,} messages were replayed; there is no result", err=True
        )
        sys.exit(INTERRUPTED)


def _index(archive: Archive, paths: tuple[Path, ...]) -> None:
    """Indexes the archive. On a terminal a large one shows its progress."""
    shown = False
    for count in archive.index(paths):
        if count % _PROGRESS_STEP == 0 and count and sys.stderr.isatty():
            click.echo(f"\rlooking for messages: {count:,}", nl=False, err=True)
            shown = True
    if shown:
        click.echo("", err=True)


def _with_progress(numbers: list[int]) -> Iterator[int]:
    """Yields the numbers. On a terminal many of them show a progress bar."""
    if len(numbers) < _PROGRESS_STEP or not sys.stderr.isatty():
        yield from numbers
        return
    step = _PROGRESS_STEP // 10
    with click.progressbar(numbers, label="replaying them", file=sys.stderr, update_min_steps=step) as bar:
        yield from bar


def _report_problems(archive: Archive) -> None:
    """Writes to stderr what the result does not include."""
    from relay.core.quantities import counted
    from relay.runtime.terminal import printable
    from relay.simulate.archive import UNDATED

    for problem in archive.problems[:_SHOWN_PROBLEMS]:
        click.echo(f"error: {printable(problem.place)}: {printable(problem.reason)}", err=True)
    if len(archive.problems) > _SHOWN_PROBLEMS:
        click.echo(f"error: and {len(archive.problems) - _SHOWN_PROBLEMS:,} more", err=True)
    if undated := archive.date_sources[UNDATED]:
        click.echo(f"warning: {counted(undated, 'message')} without a usable date, left out", err=True)
    files = archive.files
    if files.skipped:
        example = printable(os.fsdecode(files.first_skipped))
        click.echo(f"skipped {counted(files.skipped, 'file')} without mail, such as {example}", err=True)
    if files.repeated:
        click.echo(f"reached {counted(files.repeated, 'file')} again, and read each only once", err=True)
