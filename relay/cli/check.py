"""`relay check`: tests whether a relay with these settings would work on this host now."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import sys
from typing import TYPE_CHECKING

import click

from relay.cli.asking import asked_relay
from relay.cli.options import Target, print_warnings, settings_target_options
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from relay.admin.client import RunningRelay
    from relay.check.finding import Finding
    from relay.check.run import Checked


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
@settings_target_options
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
def check(target: Target, mail_from: str | None, rcpt_to: str | None) -> None:
    """Test whether the relay works, here and now.

    The running relay tests itself, with its user and its passwords; if its settings file has changed, the new settings
    too. If none runs, or with flags for settings, this command tests the settings that relay serve would have here.

    The settings must be valid, the listen addresses free or held by a relay, and the folders writable. The upstream
    must accept MAIL and RCPT; RSET follows, and never content. The store must accept a write. Each fault is shown with
    the words of the server, the step that failed and what to do about it. The test leaves nothing behind: it tries a
    missing store or Maildir under another name, in the folder where the relay would create it.
    """
    sys.exit(asyncio.run(_check(target, mail_from, rcpt_to)))


async def _check(target: Target, mail_from: str | None, rcpt_to: str | None) -> int:
    """Runs all tests, prints their findings and returns the exit status.

    If a test raises an exception the findings of the others are printed first.
    """
    from relay.check import run

    async with asked_relay(target) as relay:
        if relay is None:
            checked = await _check_here(target, mail_from, rcpt_to)
        else:
            checked = await _check_running(relay, mail_from, rcpt_to)
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


async def _check_here(target: Target, mail_from: str | None, rcpt_to: str | None) -> Checked:
    from relay.check import run
    from relay.check.upstream import TrialAddresses
    from relay.settings.passwords import upstream_password

    print_warnings(target.loaded)
    if target.socket and (warning := other_user()):
        click.echo(f"warning: {warning}", err=True)
    settings = target.loaded.settings
    return await run.check(settings, upstream_password(settings), TrialAddresses(mail_from, rcpt_to))


async def _check_running(relay: RunningRelay, mail_from: str | None, rcpt_to: str | None) -> Checked:
    from relay.admin.check import decode_checked
    from relay.admin.protocol import CHECK_LIMIT
    from relay.check.finding import Finding

    trial = {"mail_from": mail_from, "rcpt_to": rcpt_to}
    checked, warnings = await relay.read("POST", "/check", CHECK_LIMIT, decode_checked, json=trial)
    for warning in warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    click.echo(_shown(Finding("admin.socket", f"the running relay answers on {relay.path}: {relay.description}")))
    return checked


def other_user(service: str = "smtp-dedup-relay") -> str:
    """Returns a warning if there is a user for the service, and this process runs as another one; else empty."""
    try:
        number = pwd.getpwnam(service).pw_uid
        own = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
    if number == os.geteuid():
        return ""
    return f"checked as {own}; the service runs as {service}: sudo -u {service} relay check"


def _shown(finding: Finding) -> str:
    label = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level], bold=finding.fails)
    # The text may quote a server, which can send anything.
    lines = [f"{label}  {finding.key}: {printable(finding.text)}"]
    if finding.remedy:
        lines.append(f"to fix: {printable(finding.remedy)}")
    if finding.step:
        lines.append(f"failed step: {finding.step}")
    return "\n      ".join(lines)
