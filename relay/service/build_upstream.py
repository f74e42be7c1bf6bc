"""Builds the upstream from the settings."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.errors import SettingsError
from relay.runtime.hostname import hostname
from relay.settings.passwords import fallback_password
from relay.settings.urls import MaildirUrl, Security
from relay.upstream.connect import Target
from relay.upstream.maildir import MaildirUpstream
from relay.upstream.smtp import SmtpUpstream
from relay.upstream.token import token_from_command, token_from_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from relay.core.delivery import Upstream
    from relay.settings import Settings
    from relay.settings.sections.upstream import UpstreamSection
    from relay.settings.urls import SmtpUrl
    from relay.upstream.token import AccessToken


@dataclass(frozen=True)
class UpstreamPlan:
    """All that an upstream is made of. Two plans are equal if the connections of the one serve the other."""

    settings: UpstreamSection
    most_idle_of_client: int
    authorities: bytes
    """The content of `upstream.ca_file`."""
    passwords: tuple[str | bytes, ...] = field(repr=False)
    targets: Sequence[Target] = field(compare=False)


def plan_upstream(settings: Settings, password: str | None) -> UpstreamPlan:
    """Reads what an upstream needs. Raises `SettingsError` if a password or the authorities cannot be read."""
    upstream = settings.upstream
    targets = [build_target(url, settings, password) for url in upstream.smtp_urls]
    return UpstreamPlan(
        upstream,
        settings.limits.client_upstream_connections,
        _authorities(upstream.ca_file) if upstream.ca_file else b"",
        tuple(target.password for target in targets),
        targets,
    )


def build_upstream(
    plan: UpstreamPlan,
    report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005
    observe: Callable[[str, float], None] = lambda step, seconds: None,  # noqa: ARG005
) -> Upstream:
    """Returns the upstream. `report` receives whether it could be reached, after each attempt; `observe` the seconds of
    each step of its connections and transactions.
    """
    upstream = plan.settings
    if isinstance(upstream.url, MaildirUrl):
        return MaildirUpstream(upstream.url.path)
    return SmtpUpstream(
        plan.targets,
        connections=upstream.connections,
        reply_timeout=upstream.reply_timeout,
        dot_timeout=upstream.dot_timeout,
        patience=upstream.patience,
        most_idle_of_client=plan.most_idle_of_client,
        report=report,
        observe=observe,
    )


def build_target(url: SmtpUrl, settings: Settings, password: str | None) -> Target:
    """Returns where and how to connect to one of the upstreams.

    Raises `SettingsError` if the certificate authorities cannot be read.
    """
    return Target(
        host=url.address.host,
        port=url.address.port,
        starttls=url.security is Security.STARTTLS,
        implicit_tls=url.security is Security.TLS,
        user=url.user or "",
        password=(fallback_password(settings, url) or password or "") if url.user else "",
        token=_token(settings) if url.user and url == settings.upstream.url else None,
        tls=None if url.security is Security.NONE else _tls_context(settings),
        helo_name=settings.upstream.helo_name or public_name(hostname()),
        limit=settings.upstream.connect_timeout,
        greeting_limit=settings.upstream.greeting_timeout,
    )


def _token(settings: Settings) -> AccessToken | None:
    upstream = settings.upstream
    if upstream.token_file:
        return token_from_file(upstream.token_file, time.monotonic)
    if upstream.token_command:
        return token_from_command(upstream.token_command, time.monotonic)
    return None


def public_name(hostname: str) -> str:
    """Returns the host's name for EHLO, or an empty string if other hosts could not look it up (no dot, localhost)."""
    last_label = hostname.rpartition(".")[2].lower()
    return hostname if "." in hostname and last_label not in {"localhost", "localdomain", "arpa", "local"} else ""


def _tls_context(settings: Settings) -> ssl.SSLContext:
    authorities = settings.upstream.ca_file
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise _wrong_authorities(authorities, error) from error
    if not settings.upstream.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _authorities(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong_authorities(path, error) from error


def _wrong_authorities(path: Path | None, error: OSError) -> SettingsError:
    return SettingsError(f'upstream.ca_file = "{path}": {error.strerror or error}; name a readable PEM file')
