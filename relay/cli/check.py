"""`relay check`: would this relay work here, now?"""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from relay.cli.options import EX_CONFIG, settings_options

if TYPE_CHECKING:
    from relay.settings import Loaded, Settings
    from relay.settings.addresses import HostPort

_ANSWER_WAIT = 5.0
_OUR_NAME = b"smtp-dedup-relay"
"""Stands in the greeting of a relay and in the `Server` field of its HTTP answers."""


@dataclass(frozen=True)
class Finding:
    """What one look gave: the setting it is about, what was found, and how to mend it (empty when it is well)."""

    key: str
    text: str
    mend: str = ""


@click.command(
    short_help="Look whether this relay would work here, now.",
    epilog="""\b
Example:
  relay check -c /etc/smtp-dedup-relay/relay.toml
Exit status: 0 all well, 1 something does not answer, 78 the settings are wrong.""",
)
@settings_options
def check(loaded: Loaded) -> None:
    """Check that settings are valid, the listen addresses free or held by a relay, upstream and store answering."""
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
        word = click.style("FAIL", fg="red", bold=True) if finding.mend else click.style("ok  ", fg="green")
        click.echo(
            f"{word}  {finding.key}: {finding.text}" + (f"\n      to mend: {finding.mend}" if finding.mend else "")
        )
    sys.exit(1 if any(finding.mend for finding in findings) else 0)


async def _look(settings: Settings, password: str | None) -> list[Finding]:
    findings = [_listening("listen.address", settings.listen.address, b"")]
    if settings.http.address is not None:
        request = b"GET /livez HTTP/1.0\r\n\r\n"
        findings.append(_listening("http.address", settings.http.address, request))
    findings.append(await _upstream(settings, password))
    findings.append(await _store(settings))
    return findings


def _listening(key: str, address: HostPort, request: bytes) -> Finding:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the relay itself does: connections that ended a moment ago are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if _held_by_relay(address, request):
                return Finding(key, f"{address} is held by a relay")
            return Finding(
                key,
                f"{address} cannot be listened on: {error.strerror or error}",
                f"choose another {key}, or end what holds it",
            )
    return Finding(key, f"{address} is free")


def _held_by_relay(address: HostPort, request: bytes) -> bool:
    said = b""
    try:
        with socket.create_connection((address.host, address.port), timeout=_ANSWER_WAIT) as line:
            line.sendall(request)
            while b"\n" not in said if not request else b"\r\n\r\n" not in said:
                more = line.recv(512)
                if not more:
                    break
                said += more
    except OSError:
        return False
    return _OUR_NAME in said


async def _upstream(settings: Settings, password: str | None) -> Finding:
    from relay.errors import UpstreamDown, UpstreamError
    from relay.service import build_upstream
    from relay.settings.urls import MaildirUrl

    upstream = build_upstream(settings, password)
    url = settings.upstream.url
    try:
        await upstream.probe()
    except UpstreamDown as error:
        if isinstance(url, MaildirUrl):
            return Finding("upstream.url", f"{url}: {error}", "name a folder that this user may write")
        return Finding("upstream.url", f"{url}: {error}", "start it, or correct upstream.url")
    except UpstreamError as error:
        return Finding(
            "upstream.url", f"{url}: {error}", "correct upstream.url, its password, or what the upstream allows us"
        )
    finally:
        await upstream.close()
    size = upstream.size_limit()
    return Finding("upstream.url", f"{url} answers" + (f" and takes messages up to {size} bytes" if size else ""))


async def _store(settings: Settings) -> Finding:
    from relay.errors import StoreError
    from relay.service import build_store
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    store = build_store(settings)
    limit = settings.store.timeout * 3
    try:
        async with asyncio.timeout(limit):
            await store.open()
            await store.identity()
    except (StoreError, TimeoutError) as error:
        reason = str(error) or f"no answer within {limit:g} s"
        mend = "name a file in a folder that this user may write" if isinstance(url, SqliteUrl) else "start it"
        return Finding("store.url", f"{url}: {reason}", f"{mend}, or correct store.url")
    finally:
        await store.close()
    return Finding("store.url", f"{url} answers")
