"""Runs the tests of `relay check`, all at the same time."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from relay.check.certificate import check_certificate
from relay.check.files import check_kept_copies, check_maildir, check_secret, check_users
from relay.check.finding import Finding
from relay.check.listening import addresses, bind_error, held_by_relay, listen_remedy
from relay.check.store import check_store
from relay.check.upstream import UpstreamTest
from relay.runtime.executor import Executor
from relay.service.build_upstream import build_target
from relay.settings.urls import MaildirUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence

    from relay.check.upstream import TrialAddresses
    from relay.settings import Settings
    from relay.settings.addresses import HostPort, UnixAddress
    from relay.settings.urls import SmtpUrl

FILE_LIMIT = 10.0
"""Seconds for a test that may hang on a disk, a network file system or the resolver. An address takes 5 s at most."""
SERVER_LIMIT = 180.0
"""Seconds for the test of a server. Each step of it has a shorter limit, with a better message."""


class Overdue(Finding):
    """A test that did not end. It may have left a thread that hangs."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings of all tests that ended, in order, and the error of the first that could not be made."""

    findings: Sequence[Finding]
    error: BaseException | None = None


async def check(
    settings: Settings, password: str | None, trial: TrialAddresses, held: Mapping[str, Finding] | None = None
) -> Checked:
    """Tests the settings, with the upstream's password.

    `held` has the findings about the addresses on which this process listens. The others are tested.
    """
    tests = [*_address_tests(settings, held or {}), *_tests(settings, password, trial)]
    results = await asyncio.gather(*tests, return_exceptions=True)
    findings = [finding for result in results if not isinstance(result, BaseException) for finding in result]
    errors = (result for result in results if isinstance(result, BaseException))
    return Checked([*(held or {}).values(), *findings], next(errors, None))


def _address_tests(
    settings: Settings, held: Mapping[str, Finding]
) -> Iterator[Coroutine[None, None, Iterable[Finding]]]:
    for key, address in addresses(settings).items():
        if key not in held:
            yield _in_thread(key, partial(_check_address, key, address, settings))


def _tests(
    settings: Settings, password: str | None, trial: TrialAddresses
) -> Iterator[Coroutine[None, None, Iterable[Finding]]]:
    yield from _upstream_tests(settings, password, trial)
    yield _within(SERVER_LIMIT, "store.url", check_store(settings))
    yield _in_thread("record.keep", lambda: [*check_kept_copies(settings)])
    yield _in_thread("tls.certificate", lambda: [*check_certificate(settings)])
    yield _in_thread("auth.users_file", lambda: [*check_users(settings)])
    yield _in_thread("record.secret_file", lambda: [*check_secret(settings)])


def _upstream_tests(
    settings: Settings, password: str | None, trial: TrialAddresses
) -> Iterator[Coroutine[None, None, Iterable[Finding]]]:
    """Yields a test for each upstream alone: together they work as long as one does."""
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
        yield _within(SERVER_LIMIT, upstream.key_of(url), test(url))


@functools.cache
def _thread(key: str) -> Executor:
    """Returns the thread for one test. A service that is checked again and again has no more threads that hang."""
    return Executor(key, 1)


def _in_thread(key: str, test: Callable[[], list[Finding]]) -> Coroutine[None, None, Iterable[Finding]]:
    return _within(FILE_LIMIT, key, _thread(key).run(test))


async def _within(limit: float, key: str, test: Coroutine[None, None, Iterable[Finding]]) -> Iterable[Finding]:
    """Returns the findings of a test, or a fault if it does not end within `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            return await test
    except TimeoutError:
        remedy = f"see why the disk, network file system or server that {key} names hangs"
        return [Overdue(key, f"no answer within {limit:g} s", remedy)]


def _check_address(key: str, address: HostPort | UnixAddress, settings: Settings) -> list[Finding]:
    reason = bind_error(address, settings)
    if not reason:
        return [Finding(key, f"{address} is free")]
    if held_by_relay(key, address, reason, settings):
        return [Finding(key, f"{address} is held by a relay (fine if it is this one)")]
    return [Finding(key, f"{address} cannot be listened on: {reason}", listen_remedy(key, reason))]
