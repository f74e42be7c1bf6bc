"""`relay check`: tests whether a relay with these settings would work on this host now."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from relay.cli.check_files import check_kept_copies, check_maildir, check_secret, check_users
from relay.cli.finding import Finding
from relay.cli.listening import addresses, bind_error, held_by_relay, listen_remedy
from relay.cli.options import settings_options
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from relay.cli.check_upstream import TrialAddresses
    from relay.settings import Loaded, Settings
    from relay.settings.addresses import HostPort, UnixAddress
    from relay.settings.urls import SmtpUrl

FILE_LIMIT = 10.0
"""Seconds for a test that may hang on a disk, a network file system or the resolver. An address takes 5 s at most."""
_SERVER_LIMIT = 180.0
"""Seconds for the test of a server. Each step of it has a shorter limit, with a better message."""


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
    from relay.cli.check_upstream import TrialAddresses
    from relay.settings.sources import upstream_password

    password = upstream_password(loaded.settings)
    sys.exit(asyncio.run(_check(loaded.settings, password, TrialAddresses(mail_from, rcpt_to))))


async def _check(settings: Settings, password: str | None, trial: TrialAddresses) -> int:
    """Runs all tests at the same time, prints their findings in order and returns the exit status.

    If a test raises an exception the findings of the others are printed first.
    """
    results = await asyncio.gather(*_tests(settings, password, trial), return_exceptions=True)
    findings = [finding for result in results if not isinstance(result, BaseException) for finding in result]
    for finding in findings:
        click.echo(str(finding))
    for result in results:
        if isinstance(result, BaseException):
            raise result
    status = 1 if any(finding.fails for finding in findings) else 0
    if any(isinstance(finding, _Overdue) for finding in findings):
        # Python would wait for the thread that hangs.
        sys.stdout.flush()
        os._exit(status)
    return status


class _Overdue(Finding):
    """A test that did not end. It may have left a thread that hangs."""


def _tests(
    settings: Settings, password: str | None, trial: TrialAddresses
) -> Iterator[Coroutine[None, None, Iterable[Finding]]]:
    from relay.cli.check_certificate import check_certificate
    from relay.cli.check_store import check_store

    for key, address in addresses(settings).items():
        yield _in_thread(key, partial(_check_address, key, address, settings))
    yield from _upstream_tests(settings, password, trial)
    yield _within(_SERVER_LIMIT, "store.url", check_store(settings))
    yield _in_thread("record.keep", lambda: [*check_kept_copies(settings)])
    yield _in_thread("tls.certificate", lambda: [*check_certificate(settings)])
    yield _in_thread("auth.users_file", lambda: [*check_users(settings)])
    yield _in_thread("record.secret_file", lambda: [*check_secret(settings)])


def _upstream_tests(
    settings: Settings, password: str | None, trial: TrialAddresses
) -> Iterator[Coroutine[None, None, Iterable[Finding]]]:
    """Yields a test for each upstream alone: together they work as long as one does."""
    from relay.cli.check_upstream import UpstreamTest
    from relay.service.build import build_target
    from relay.settings.urls import MaildirUrl

    upstream = settings.upstream

    async def test(url: SmtpUrl) -> Iterable[Finding]:
        target = build_target(url, settings, password)
        key, limit = upstream.key_of(url), upstream.reply_timeout
        is_judge = settings.auth.mode == "passthrough"
        return await UpstreamTest(key, url, target, trial, limit, verifies_logins=is_judge).run()

    maildir = upstream.url
    if isinstance(maildir, MaildirUrl):
        yield _in_thread("upstream.url", lambda: [check_maildir(maildir)])
    for url in upstream.smtp_urls:
        yield _within(_SERVER_LIMIT, upstream.key_of(url), test(url))


def _in_thread(key: str, test: Callable[[], list[Finding]]) -> Coroutine[None, None, Iterable[Finding]]:
    return _within(FILE_LIMIT, key, Executor(key, 1).run(test))


async def _within(limit: float, key: str, test: Coroutine[None, None, Iterable[Finding]]) -> Iterable[Finding]:
    """Returns the findings of a test, or a fault if it does not end within `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            return await test
    except TimeoutError:
        remedy = f"see why the disk, network file system or server that {key} names hangs"
        return [_Overdue(key, f"no answer within {limit:g} s", remedy)]


def _check_address(key: str, address: HostPort | UnixAddress, settings: Settings) -> list[Finding]:
    reason = bind_error(address, settings)
    if not reason:
        return [Finding(key, f"{address} is free")]
    if held_by_relay(key, address, reason, settings):
        return [Finding(key, f"{address} is held by a relay (fine if it is this one)")]
    return [Finding(key, f"{address} cannot be listened on: {reason}", listen_remedy(key, reason))]
