"""`relay demo`: everything in one go, on this machine alone, with nothing installed beside the package."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.demo.scenario import Row

LIMIT = 60.0
"""Seconds. It takes some two; a busy machine may take its time."""


@click.command(
    short_help="Show all of it at work, on this machine alone.",
    epilog="""\b
Example:
  relay demo
Exit status: 0 every count is right, 1 one is not. Leaves nothing behind.""",
)
def demo() -> None:
    """Start a relay and a catching upstream, send what AVideo sends under load, and show what came of it."""
    sys.exit(0 if run() else 1)


def run(limit: float = LIMIT) -> bool:
    """Play the scenario and tell what came of it. False when a count is wrong, or when it takes over `limit` s."""
    from relay.demo.scenario import play

    click.echo(
        "A relay with an embedded store; in front of it AVideo's mails, behind it an upstream that counts.", err=True
    )
    try:
        rows = asyncio.run(asyncio.wait_for(play(), limit))
    except TimeoutError:
        click.echo(f"error: not over within {limit:g} s; is the machine very busy? Try again.", err=True)
        return False
    return tell(rows)


def tell(rows: Sequence[Row]) -> bool:
    """Show what came of each step. False when a count is wrong."""
    _show(rows)
    wrong = [row for row in rows if not row.right]
    for row in wrong:
        click.echo(
            f"error: {row.what}: of {row.came_in} mails {row.expected} had to be forwarded and the others suppressed",
            err=True,
        )
    if not wrong:
        ours = _this_command()
        click.echo(f"Each recipient got each mail once. Next: {ours} check, then {ours} serve.", err=True)
    return not wrong


def _this_command() -> str:
    """Give what was typed to come here: `relay` of a virtual environment is on no search path."""
    command = Path(sys.argv[0])
    if command.name != "relay":
        return "relay"
    return "relay" if shutil.which("relay") == str(command) else str(command)


def _show(rows: Sequence[Row]) -> None:
    table = [("what AVideo did", "came in", "forwarded", "suppressed", "why")]
    table += [(row.what, str(row.came_in), str(row.forwarded), str(row.suppressed), row.why) for row in rows]
    totals = [str(sum(getattr(row, name) for row in rows)) for name in ("came_in", "forwarded", "suppressed")]
    table.append(("mails to one recipient, in all", totals[0], totals[1], totals[2], ""))
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    rule = "─" * (sum(widths) + 8 + max(len(line[4]) for line in table))
    for number, line in enumerate(table):
        if number in (1, len(table) - 1):
            click.echo(rule)
        first = line[0].ljust(widths[0])
        counts = [line[column].rjust(widths[column]) for column in range(1, 4)]
        text = "  ".join([first, *counts, line[4]]).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
