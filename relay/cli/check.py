"""`relay check`: would this relay work here, now?"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import click

from relay.cli.check_files import kept_copies, maildir, secret, stand_in
from relay.cli.exit_status import EX_CONFIG
from relay.cli.finding import Finding
from relay.cli.listening import addresses, held_by_relay, mend, obstacle
from relay.cli.options import settings_options
from relay.cli.remedies import mend_store, mend_upstream

if TYPE_CHECKING:
    from relay.settings import Loaded, Settings
    from relay.settings.addresses import HostPort
    from relay.settings.urls import SmtpUrl

_MEND_FILE = "name a file in a folder that this user may write, or correct store.url"


@click.command(
    short_help="Look whether this relay would work here, now.",
    epilog="""\b
Example:
  relay check -c /etc/smtp-dedup-relay/relay.toml
Exit status: 0 all well or only warnings, 1 something does not answer, 78 the settings are wrong.""",
)
@settings_options
def check(loaded: Loaded) -> None:
    """Check that settings are valid, the listen addresses free or held by a relay, upstream and store answering.

    Nothing is left behind: a store or Maildir that is not there yet is tried out beside its place.
    """
    from relay.core.errors import SettingsError
    from relay.settings.sources import upstream_password

    settings = loaded.settings
    try:
        password = upstream_password(settings)
        findings = asyncio.run(_look(settings, password))
    except SettingsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EX_CONFIG)
    for finding in findings:
        click.echo(str(finding))
    sys.exit(1 if any(finding.fails for finding in findings) else 0)


async def _look(settings: Settings, password: str | None) -> list[Finding]:
    findings = [_listening(key, address) for key, address in addresses(settings).items()]
    findings += await _upstreams(settings, password)
    findings += await _store(settings)
    findings += await asyncio.to_thread(lambda: [*kept_copies(settings), *secret(settings)])
    return findings


def _listening(key: str, address: HostPort) -> Finding:
    reason = obstacle(address)
    if not reason:
        return Finding(key, f"{address} is free")
    if held_by_relay(key, address, reason):
        return Finding(key, f"{address} is held by a relay (fine if it is this one)")
    return Finding(key, f"{address} cannot be listened on: {reason}", mend(key, reason))


async def _upstreams(settings: Settings, password: str | None) -> list[Finding]:
    """Look at each by itself: all together work as long as one does."""
    from relay.settings.urls import MaildirUrl

    upstream = settings.upstream
    if isinstance(upstream.url, MaildirUrl):
        return [await asyncio.to_thread(maildir, upstream.url)]
    return [await _server(upstream.key_of(url), _with_upstream(settings, url), password) for url in upstream.smtp_urls]


async def _server(key: str, settings: Settings, password: str | None) -> Finding:
    from relay.core.errors import UpstreamDown, UpstreamError
    from relay.service import build_upstream

    url = settings.upstream.url
    upstream = build_upstream(settings, password)
    try:
        await upstream.probe()
    except UpstreamDown as error:
        return Finding(key, f"{url}: {error}", mend_upstream(error, key))
    except UpstreamError as error:
        return Finding(key, f"{url}: {error}", f"correct {key}, its password, or what the upstream allows us")
    finally:
        await upstream.close()
    size = upstream.size_limit()
    return Finding(key, f"{url} answers" + (f" and takes messages up to {size} bytes" if size else ""))


def _with_upstream(settings: Settings, url: SmtpUrl) -> Settings:
    """Give settings with this upstream and no other."""
    changed = settings.upstream.model_copy(update={"url": url, "fallback_urls": ()})
    return settings.model_copy(update={"upstream": changed})


async def _store(settings: Settings) -> list[Finding]:
    from relay.claims.redis.store import RedisStore
    from relay.cli.check_redis import findings
    from relay.core.errors import StoreError
    from relay.service import build_store
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    limit = settings.store.timeout * 3
    with contextlib.ExitStack() as stack:
        path = None
        if isinstance(url, SqliteUrl):
            try:
                path = stack.enter_context(stand_in(url.path))
            except OSError as error:
                return [Finding("store.url", f"{url}: cannot be made: {error.strerror or error}", _MEND_FILE)]
            changed = settings.store.model_copy(update={"url": SqliteUrl(path)})
            settings = settings.model_copy(update={"store": changed})
        store = build_store(settings)
        try:
            async with asyncio.timeout(limit):
                await store.open()
                await store.identity()
                more = list(findings(await store.survey(), str(url))) if isinstance(store, RedisStore) else []
        except (StoreError, TimeoutError) as error:
            reason = (str(error) or f"no answer within {limit:g} s").removeprefix(f"{path}: ")
            mends = _MEND_FILE if path else mend_store(error)
            return [Finding("store.url", f"{url}: {reason}", mends)]
        finally:
            await store.close()
    if isinstance(url, SqliteUrl) and path != url.path:
        return [Finding("store.url", f"{url} is not there yet and can be made")]
    return [Finding("store.url", f"{url} answers"), *more]
