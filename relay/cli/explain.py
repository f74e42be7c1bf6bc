"""`relay explain`: what counts of a message, and whether two are equal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli.options import file_options

if TYPE_CHECKING:
    from relay.explain.message_file import ExplainedMessage
    from relay.judge.judge import Judge
    from relay.settings.sources import Loaded

_STDIN = Path("-")
_MOST_EDITS = 20
_MOST_IN_FULL = 10_000
_JSON_VERSION = 1
EQUAL, DIFFERENT, UNREADABLE = 0, 1, 2


@click.command(
    short_help="Show what counts of a message, or whether two are equal.",
    epilog="""\b
Examples:
  relay explain notice.eml
  relay explain first.eml second.eml --recipient alice@example.org
  relay explain - --json < notice.eml
Exit status: 0 equal (or one file), 1 different, 2 unreadable, 78 the settings are wrong.""",
)
@click.argument("files", nargs=-1, metavar="A.eml [B.eml]", type=click.Path(path_type=Path))
@click.option("--recipient", metavar="ADDRESS", help="Whose rule and fingerprint to show; without it nobody's.")
@click.option(
    "--reverse-path",
    metavar="ADDRESS",
    help="The envelope sender; <> for none.  [default: what the Return-Path field says]",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, in which nothing is shortened.")
@click.option("--full", is_flag=True, help="Shorten nothing, and show every difference.")
@file_options
def explain(
    loaded: Loaded,
    files: tuple[Path, ...],
    recipient: str | None,
    reverse_path: str | None,
    *,
    as_json: bool,
    full: bool,
) -> None:
    """Show the parts, the rule, the normalised form and the fingerprint of a message, or say why two are equal or not.

    The file - is standard input. docs/explain.md tells how to read the output.
    """
    from relay.settings.rules import build_judge

    _check(files, recipient)
    judge = build_judge(loaded.settings)
    exhibits = [_read(path, judge, recipient, reverse_path, loaded.settings.limits.message_size) for path in files]
    (_write_json if as_json else _write)(exhibits, judge, full=full)
    if len(exhibits) > 1 and len({exhibit.judged.fingerprint(exhibit.folded) for exhibit in exhibits}) > 1:
        sys.exit(DIFFERENT)


def _check(files: tuple[Path, ...], recipient: str | None) -> None:
    if not files:
        raise click.UsageError("Missing argument 'A.eml'.")
    if len(files) > 2 or files.count(_STDIN) > 1:  # noqa: PLR2004 - A and B
        raise click.UsageError("one or two files, not more; one of them may be -, which is standard input")
    if recipient is None:
        return
    name, at, domain = recipient.rpartition("@")
    # RFC 5321 section 4.1.1.3: the one address that needs no domain.
    if not (name and at and domain) and recipient.lower() != "postmaster":
        raise click.BadParameter(f"'{recipient}' is no address; write NAME@DOMAIN", param_hint="'--recipient'")


def _read(path: Path, judge: Judge, recipient: str | None, reverse_path: str | None, limit: int) -> ExplainedMessage:
    from relay.explain.message_file import UnreadableError, read
    from relay.runtime.terminal import printable

    sender = None
    if reverse_path is not None:
        sender = reverse_path.strip().removeprefix("<").removesuffix(">").encode("utf-8", "surrogateescape")
    try:
        exhibit = read(path, judge, recipient=recipient, reverse_path=sender, limit=limit)
    except UnreadableError as error:
        click.echo(f"error: {printable(str(path))}: {error}", err=True)
        sys.exit(UNREADABLE)
    if not exhibit.content:
        click.echo(f"warning: {printable(str(path))}: empty; judged as a message of no bytes", err=True)
    return exhibit


def _write(exhibits: list[ExplainedMessage], judge: Judge, *, full: bool) -> None:
    from relay.explain.comparison import comparison
    from relay.explain.explanation import explanation
    from relay.explain.paint import Painter

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    painter = Painter(full=full, colour=colour)
    found = [explanation(exhibit, judge) for exhibit in exhibits]
    if len(exhibits) == 1:
        lines = painter.one(found[0])
    else:
        lines = painter.two(comparison(*exhibits, most=_most(full=full)), *found)
    for line in lines:
        click.echo(line, color=colour)


def _write_json(exhibits: list[ExplainedMessage], judge: Judge, *, full: bool) -> None:
    from dataclasses import asdict

    from relay.explain.comparison import comparison
    from relay.explain.explanation import explanation

    compared = asdict(comparison(*exhibits, most=_most(full=full))) if len(exhibits) > 1 else None
    said = {
        "version": _JSON_VERSION,
        "messages": [asdict(explanation(exhibit, judge)) for exhibit in exhibits],
        "comparison": compared,
    }
    click.echo(json.dumps(said, indent=2))


def _most(*, full: bool) -> int:
    return _MOST_IN_FULL if full else _MOST_EDITS
