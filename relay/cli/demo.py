"""`relay demo`: a complete demonstration on one machine, with nothing but the package installed."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.demo.scenario import StepResult

LIMIT = 60.0
"""Seconds. The demo takes about two; a busy machine may need more."""


@click.command(
    short_help="Show the relay at work, on this machine alone.",
    epilog="""\b
Example:
  relay demo
  relay demo --page
Exit status: 0 every count is right, 1 a count is wrong. Leaves nothing behind.""",
)
@click.option("--page", is_flag=True, help="Go on sending mail, and serve a web page to look at, until Ctrl-C.")
def demo(*, page: bool) -> None:
    """Start a relay and an upstream that counts, send what AVideo sends under load, and show the result."""
    if page:
        _run_page()
    sys.exit(0 if run_demo() else 1)


def _run_page() -> NoReturn:
    from relay.demo.living import run_living

    def show(url: str) -> None:
        click.echo(f"The page, with a made-up day before now and mail that goes on: {url}", err=True)
        click.echo("Ctrl-C ends it.", err=True)

    asyncio.run(run_living(show))
    raise KeyboardInterrupt


def run_demo(limit: float = LIMIT) -> bool:
    """Runs the scenario and shows the results. Returns False if a count is wrong, or after `limit` seconds."""
    from relay.demo.scenario import run_scenario

    click.echo("AVideo's mail goes to a relay with an embedded store, then to an upstream that counts it.", err=True)
    try:
        results = asyncio.run(asyncio.wait_for(run_scenario(), limit))
    except TimeoutError:
        click.echo(f"error: not finished within {limit:g} s; is the machine very busy? Try again.", err=True)
        return False
    return show_results(results)


def show_results(results: Sequence[StepResult]) -> bool:
    """Shows the result of each step. Returns False if a count is wrong."""
    _show_table(results)
    wrong = [result for result in results if not result.is_expected]
    for result in wrong:
        click.echo(
            f"error: {result.what}: of {result.received} mails {result.expected} had to be forwarded and the others "
            "suppressed",
            err=True,
        )
    if not wrong:
        command = _this_command()
        click.echo("Each recipient got each mail once.", err=True)
        click.echo(f"Next, without an MTA: make run. Beside one: {command} check, then {command} serve.", err=True)
    return not wrong


def _this_command() -> str:
    """Returns the command as the user typed it: the `relay` of a virtual environment is not on the search path."""
    command = Path(sys.argv[0])
    if command.name != "relay":
        return "relay"
    return "relay" if shutil.which("relay") == str(command) else str(command)


def _show_table(results: Sequence[StepResult]) -> None:
    table = [("what AVideo did", "came in", "forwarded", "suppressed", "why")]
    table += [(each.what, str(each.received), str(each.forwarded), str(each.suppressed), each.why) for each in results]
    totals = [str(sum(getattr(each, name) for each in results)) for name in ("received", "forwarded", "suppressed")]
    table.append(("mails to one recipient, in all", totals[0], totals[1], totals[2], ""))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = "─" * (sum(widths) + 8)
    for number, row in enumerate(table):
        if number in (1, len(table) - 1):
            click.echo(rule)
        counts = [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:4], strict=True)]
        text = "  ".join([row[0].ljust(widths[0]), *counts, row[4]]).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
