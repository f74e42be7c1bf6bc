"""`relay check`: tests whether a relay with these settings would work on this host now."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import TYPE_CHECKING

import click

from relay.cli.options import settings_options
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from relay.check.finding import Finding
    from relay.check.upstream import TrialAddresses
    from relay.settings import Loaded, Settings


_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}


def _address(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[!-;=?-~]*", value):
        raise click.BadParameter(f"write {option.opts[0]} USER@HOST, in ASCII and without < and >")
    return value


@click.command(
    short_help="Test whether the relay would work here, now.",
    epilog="""\b
Example:
  relay check -c /etc/smtp-dedup-relay/relay.toml --rcpt-to me@example.org
Exit status: 0 all is well, perhaps with warnings, 1 something does not work,
78 the settings are wrong.""",
)
@settings_options
@click.option(
    "--mail-from",
    metavar="ADDRESS",
    callback=_address,
    help='The sender that the upstream is asked to accept; "" is the null sender.  [default: the user in the '
    "upstream's URL if it is an address, else the null sender]",
)
@click.option(
    "--rcpt-to",
    metavar="ADDRESS",
    callback=_address,
    help="The recipient that the upstream is asked to accept. No mail is sent to it.  [default: the sender, else "
    "postmaster at the upstream]",
)
def check(loaded: Loaded, mail_from: str | None, rcpt_to: str | None) -> None:
    """Test whether the relay would work with these settings, here and now.

    The settings must be valid, the listen addresses free or held by a relay, and the folders writable. The upstream
    must accept MAIL and RCPT; RSET follows, and never content. The store must accept a write. Each fault is shown with
    the words of the server, the step that failed and what to do about it. The test leaves nothing behind: it tries a
    missing store or Maildir under another name, in the folder where the relay would create it.
    """
    from relay.check.upstream import TrialAddresses
    from relay.settings.sources import upstream_password

    password = upstream_password(loaded.settings)
    sys.exit(asyncio.run(_check(loaded.settings, password, TrialAddresses(mail_from, rcpt_to))))


async def _check(settings: Settings, password: str | None, trial: TrialAddresses) -> int:
    """Runs all tests, prints their findings and returns the exit status.

    If a test raises an exception the findings of the others are printed first.
    """
    from relay.check import run

    checked = await run.check(settings, password, trial)
    for finding in checked.findings:
        click.echo(_shown(finding))
    if checked.error:
        raise checked.error
    status = 1 if any(finding.fails for finding in checked.findings) else 0
    if any(isinstance(finding, run.Overdue) for finding in checked.findings):
        # Python would wait for the thread that hangs.
        sys.stdout.flush()
        os._exit(status)
    return status


def _shown(finding: Finding) -> str:
    label = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level], bold=finding.fails)
    # The text may quote a server, which can send anything.
    lines = [f"{label}  {finding.key}: {printable(finding.text)}"]
    if finding.remedy:
        lines.append(f"to fix: {printable(finding.remedy)}")
    if finding.step:
        lines.append(f"failed step: {finding.step}")
    return "\n      ".join(lines)
