"""`relay check`: would this relay work here, now?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli.finding import Finding
from relay.cli.listening import addresses, held_by_relay, mend, obstacle
from relay.cli.options import EX_CONFIG, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.settings import Loaded, Settings
    from relay.settings.addresses import HostPort

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
    from relay.errors import SettingsError
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
    findings.append(await _upstream(settings, password))
    findings += await _store(settings)
    return findings


def _listening(key: str, address: HostPort) -> Finding:
    reason = obstacle(address)
    if not reason:
        return Finding(key, f"{address} is free")
    if held_by_relay(key, address, reason):
        return Finding(key, f"{address} is held by a relay")
    return Finding(key, f"{address} cannot be listened on: {reason}", mend(key, reason))


async def _upstream(settings: Settings, password: str | None) -> Finding:
    from relay.errors import UpstreamDown, UpstreamError
    from relay.service import build_upstream
    from relay.settings.urls import MaildirUrl

    url = settings.upstream.url
    with contextlib.ExitStack() as stack:
        if isinstance(url, MaildirUrl):
            try:
                path = stack.enter_context(_stand_in(url.path))
            except OSError as error:
                text = f"{url}: cannot be made: {error.strerror or error}"
                return Finding("upstream.url", text, "name a folder that this user may write")
            changed = settings.upstream.model_copy(update={"url": MaildirUrl(path)})
            settings = settings.model_copy(update={"upstream": changed})
        upstream = build_upstream(settings, password)
        try:
            await upstream.probe()
        except UpstreamDown as error:
            if isinstance(url, MaildirUrl):
                return Finding("upstream.url", f"{url}: {error}", "name a folder that this user may write")
            mends = _mend_name(error, "upstream.url") or "start it, or correct upstream.url"
            return Finding("upstream.url", f"{url}: {error}", mends)
        except UpstreamError as error:
            return Finding(
                "upstream.url", f"{url}: {error}", "correct upstream.url, its password, or what the upstream allows us"
            )
        finally:
            await upstream.close()
        size = upstream.size_limit()
    answer = "can be written" if isinstance(url, MaildirUrl) else "answers"
    return Finding("upstream.url", f"{url} {answer}" + (f" and takes messages up to {size} bytes" if size else ""))


async def _store(settings: Settings) -> list[Finding]:
    from relay.claims.redis import RedisStore
    from relay.cli.check_redis import findings
    from relay.errors import StoreError
    from relay.service import build_store
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    limit = settings.store.timeout * 3
    with contextlib.ExitStack() as stack:
        path = None
        if isinstance(url, SqliteUrl):
            try:
                path = stack.enter_context(_stand_in(url.path))
            except OSError as error:
                return [Finding("store.url", f"{url}: cannot be made: {error.strerror or error}", _MEND_FILE)]
            changed = settings.store.model_copy(update={"url": SqliteUrl(path)})
            settings = settings.model_copy(update={"store": changed})
        store = build_store(settings)
        try:
            async with asyncio.timeout(limit):
                await store.open()
                await store.identity()
                more = list(findings(await store.survey())) if isinstance(store, RedisStore) else []
        except (StoreError, TimeoutError) as error:
            reason = (str(error) or f"no answer within {limit:g} s").removeprefix(f"{path}: ")
            mends = _MEND_FILE if path else _mend_name(error, "store.url") or "start it, or correct store.url"
            return [Finding("store.url", f"{url}: {reason}", mends)]
        finally:
            await store.close()
    if isinstance(url, SqliteUrl) and path != url.path:
        return [Finding("store.url", f"{url} is not there yet and can be made")]
    return [Finding("store.url", f"{url} answers"), *more]


@contextlib.contextmanager
def _stand_in(path: Path) -> Iterator[Path]:
    """Give the path where it exists, else one beside where it would be made: a look leaves nothing behind."""
    if path.exists():
        yield path
        return
    folder = next((above for above in path.absolute().parents if above.exists()), Path("/"))
    with tempfile.TemporaryDirectory(prefix=".relay-check-", dir=folder) as trial:
        yield Path(trial, path.name)


def _mend_name(error: BaseException, key: str) -> str:
    """Say what is to be done where a host has no address; empty where that is not why."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return f"correct the host name in {key}" if cause else ""
