"""`relay explain`: what counts in a message, and whether two are equal."""

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
    from relay.settings.loaded import Loaded

_STDIN = Path("-")
_EDITS = 20
_EDITS_IN_FULL = 10_000
_JSON_VERSION = 1
EQUAL, DIFFERENT, UNREADABLE = 0, 1, 2


@click.command(
    short_help="Show what counts in a message, or whether two are equal.",
    epilog="""\b
Examples:
  relay explain notice.eml
  relay explain first.eml second.eml --recipient alice@example.org
  relay explain - --json < notice.eml
Exit status: 0 equal (or one file), 1 different, 2 unreadable, 78 the settings are wrong.""",
)
@click.argument("files", nargs=-1, metavar="A.eml [B.eml]", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--recipient",
    metavar="ADDRESS",
    help="The recipient whose rule and fingerprint to show.  [default: no recipient]",
)
@click.option(
    "--reverse-path",
    metavar="ADDRESS",
    help="The envelope sender; <> for none.  [default: from the Return-Path field]",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, in which no value is shortened.")
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

    The file - is standard input. docs/explain.md explains the output.
    """
    from relay.settings.rules import build_judge

    _check_arguments(files, recipient)
    judge = build_judge(loaded.settings)
    limit = loaded.settings.limits.message_size
    messages = [_read(path, judge, recipient, reverse_path, limit) for path in files]
    (_write_json if as_json else _write_text)(messages, judge, full=full)
    if len({message.fingerprint for message in messages}) > 1:
        sys.exit(DIFFERENT)


def _check_arguments(files: tuple[Path, ...], recipient: str | None) -> None:
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
    from relay.explain.message_file import UnreadableError, read_message
    from relay.runtime.terminal import printable

    sender = None
    if reverse_path is not None:
        sender = reverse_path.strip().removeprefix("<").removesuffix(">").encode("utf-8", "surrogateescape")
    try:
        message = read_message(path, judge, recipient=recipient, reverse_path=sender, limit=limit)
    except UnreadableError as error:
        click.echo(f"error: {printable(str(path))}: {error}", err=True)
        sys.exit(UNREADABLE)
    if not message.content:
        click.echo(f"warning: {printable(str(path))}: empty; judged as a message of no bytes", err=True)
    return message


def _write_text(messages: list[ExplainedMessage], judge: Judge, *, full: bool) -> None:
    from relay.explain.comparison import compare_messages
    from relay.explain.explanation import explain_message
    from relay.explain.text_report import TextReport

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    report = TextReport(full=full, colour=colour)
    explanations = [explain_message(message, judge) for message in messages]
    if len(messages) == 1:
        lines = report.one_message(explanations[0])
    else:
        lines = report.two_messages(compare_messages(*messages, limit=_edit_limit(full=full)), *explanations)
    for line in lines:
        click.echo(line, color=colour)


def _write_json(messages: list[ExplainedMessage], judge: Judge, *, full: bool) -> None:
    from dataclasses import asdict

    from relay.explain.comparison import compare_messages
    from relay.explain.explanation import explain_message

    several = len(messages) > 1
    answer = {
        "version": _JSON_VERSION,
        "messages": [asdict(explain_message(message, judge)) for message in messages],
        "comparison": asdict(compare_messages(*messages, limit=_edit_limit(full=full))) if several else None,
    }
    click.echo(json.dumps(answer, indent=2))


def _edit_limit(*, full: bool) -> int:
    return _EDITS_IN_FULL if full else _EDITS
