"""`relay check`: tests whether a relay with these settings would work on this host now."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from relay.cli.check_files import check_kept_copies, check_maildir, check_secret, trial_path
from relay.cli.finding import Finding
from relay.cli.listening import addresses, bind_error, held_by_relay, listen_remedy
from relay.cli.options import settings_options
from relay.cli.remedies import store_remedy, upstream_remedy
from relay.core.errors import StoreError, UpstreamDown, UpstreamError
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.redis.server_info import ServerInfo
    from relay.settings import Loaded, Settings
    from relay.settings.addresses import HostPort
    from relay.settings.urls import SmtpUrl, SqliteUrl

_FILE_REMEDY = "name a file in a folder that this user may write, or correct store.url"


@click.command(
    short_help="Test whether the relay would work here, now.",
    epilog="""\b
Example:
  relay check -c /etc/smtp-dedup-relay/relay.toml
Exit status: 0 all is well, perhaps with warnings, 1 something does not work,
78 the settings are wrong.""",
)
@settings_options
def check(loaded: Loaded) -> None:
    """Test whether the relay would work with these settings, here and now.

    The settings must be valid, the listen addresses free or held by a relay, the upstream and the store must answer,
    and the folders must be writable. Each fault is shown with what to do about it. The test leaves nothing behind:
    it tries a missing store or Maildir under another name, in the folder where the relay would create it.
    """
    from relay.settings.sources import upstream_password

    findings = asyncio.run(_check(loaded.settings, upstream_password(loaded.settings)))
    for finding in findings:
        click.echo(str(finding))
    sys.exit(1 if any(finding.fails for finding in findings) else 0)


async def _check(settings: Settings, password: str | None) -> list[Finding]:
    findings = [_check_address(key, address) for key, address in addresses(settings).items()]
    findings += await _check_upstreams(settings, password)
    findings += await _check_store(settings)
    findings += await Executor("files", 1).run(lambda: [*check_kept_copies(settings), *check_secret(settings)])
    return findings


def _check_address(key: str, address: HostPort) -> Finding:
    reason = bind_error(address)
    if not reason:
        return Finding(key, f"{address} is free")
    if held_by_relay(key, address, reason):
        return Finding(key, f"{address} is held by a relay (fine if it is this one)")
    return Finding(key, f"{address} cannot be listened on: {reason}", listen_remedy(key, reason))


async def _check_upstreams(settings: Settings, password: str | None) -> list[Finding]:
    """Tests each upstream alone: together they work as long as one does."""
    from relay.settings.urls import MaildirUrl

    upstream = settings.upstream
    if isinstance(upstream.url, MaildirUrl):
        return [await Executor("files", 1).run(partial(check_maildir, upstream.url))]
    return [
        await _check_server(upstream.key_of(url), _with_upstream(settings, url), password) for url in upstream.smtp_urls
    ]


async def _check_server(key: str, settings: Settings, password: str | None) -> Finding:
    from relay.service import build_upstream

    url = settings.upstream.url
    upstream = build_upstream(settings, password)
    try:
        await upstream.probe()
    except UpstreamDown as error:
        return Finding(key, f"{url}: {error}", upstream_remedy(error, key))
    except UpstreamError as error:
        return Finding(key, f"{url}: {error}", f"correct {key} or its password, or allow the relay on that server")
    finally:
        await upstream.close()
    size = upstream.size_limit()
    return Finding(key, f"{url} answers" + (f" and takes messages up to {size} bytes" if size else ""))


def _with_upstream(settings: Settings, url: SmtpUrl) -> Settings:
    """Returns settings with this upstream alone."""
    changed = settings.upstream.model_copy(update={"url": url, "fallback_urls": ()})
    return settings.model_copy(update={"upstream": changed})


async def _check_store(settings: Settings) -> list[Finding]:
    from relay.cli.check_redis import findings
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    if isinstance(url, SqliteUrl):
        return [await _check_sqlite(settings, url)]
    try:
        servers = await _open_store(settings)
    except StoreError as error:
        return [Finding("store.url", f"{url}: {error}", store_remedy(error))]
    return [Finding("store.url", f"{url} answers"), *findings(servers, str(url))]


async def _check_sqlite(settings: Settings, url: SqliteUrl) -> Finding:
    try:
        with trial_path(url.path) as path:
            changed = settings.store.model_copy(update={"url": replace(url, path=path)})
            try:
                await _open_store(settings.model_copy(update={"store": changed}))
            except StoreError as error:
                return Finding("store.url", f"{url}: {str(error).removeprefix(f'{path}: ')}", _FILE_REMEDY)
    except OSError as error:
        return Finding("store.url", f"{url}: cannot be made: {error.strerror or error}", _FILE_REMEDY)
    return Finding("store.url", f"{url} answers" if path == url.path else f"{url} is not there yet and can be made")


async def _open_store(settings: Settings) -> Sequence[ServerInfo]:
    """Opens the store and returns what its Redis servers say of themselves, if any. Raises `StoreError`."""
    from relay.claims.redis.store import RedisStore
    from relay.service import build_store

    store = build_store(settings)
    limit = settings.store.timeout * 3
    try:
        async with asyncio.timeout(limit):
            await store.open()
            await store.identity()
            return await store.survey() if isinstance(store, RedisStore) else ()
    except TimeoutError:
        raise StoreError(f"no answer within {limit:g} s") from None
    finally:
        await store.close()
