"""Builds the parts of a relay from its settings."""

from __future__ import annotations

import functools
import os
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.claims.memory import MemoryStore
from relay.claims.redis.store import RedisStore
from relay.claims.sqlite.store import SqliteStore
from relay.core.errors import SettingsError
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret
from relay.settings.sources import default_secret_file, store_password
from relay.settings.urls import MaildirUrl, MemoryUrl, RedisUrl, Security, SmtpUrl, SqliteUrl
from relay.smtp.session import SessionLimits
from relay.transaction import Policy
from relay.upstream.connect import Target
from relay.upstream.maildir import MaildirUpstream
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core.delivery import Upstream
    from relay.core.store import Store
    from relay.settings import Settings


def build_store(settings: Settings) -> Store:
    """Returns the store, not opened yet. Raises `SettingsError` if its password cannot be read."""
    match settings.store.url:
        case SqliteUrl(path):
            # Shorter than the store client's limit, so that a locked file is reported as locked and not as hanging.
            return SqliteStore(path, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return MemoryStore()
        case RedisUrl(_, servers):
            password = store_password(settings) or servers.password
            servers = replace(servers, password=password, namespace=settings.store.namespace)
            return RedisStore(servers, timeout=settings.store.timeout)


def build_upstream(
    settings: Settings,
    password: str | None,
    report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005
) -> Upstream:
    """Returns the upstream. `report` receives whether it could be reached, after each attempt.

    Raises `SettingsError` if the certificate authorities cannot be read.
    """
    upstream = settings.upstream
    if isinstance(upstream.url, MaildirUrl):
        return MaildirUpstream(upstream.url.path)
    return SmtpUpstream(
        [_target(url, settings, password) for url in upstream.smtp_urls],
        connections=upstream.connections,
        reply_timeout=upstream.reply_timeout,
        dot_timeout=upstream.dot_timeout,
        patience=upstream.patience,
        report=report,
    )


def build_pseudonyms(settings: Settings) -> Pseudonyms:
    """Returns the pseudonyms of addresses in records. Raises `SettingsError` if the key file cannot be used."""
    if settings.record.addresses:
        return Pseudonyms(b"", plain=True)
    secret = ensure_secret(settings.record.secret_file, default_secret_file(settings, os.environ))
    return Pseudonyms(secret, plain=False)


def build_policy(settings: Settings) -> Policy:
    """Returns the settings of transactions."""
    return Policy(
        wait=settings.dedup.wait,
        keep_uncertain=settings.dedup.on_uncertain == "keep",
        recipients=settings.limits.recipients,
        hostname=_hostname(),
        received_field=settings.upstream.received_field,
    )


def build_session_limits(settings: Settings) -> SessionLimits:
    """Returns the limits of client sessions."""
    return SessionLimits(
        networks=settings.listen.networks,
        message_size=settings.limits.message_size,
        sessions=settings.limits.sessions,
        session_idle=settings.limits.session_idle,
    )


def _target(url: SmtpUrl, settings: Settings, password: str | None) -> Target:
    return Target(
        host=url.address.host,
        port=url.address.port,
        starttls=url.security is Security.STARTTLS,
        implicit_tls=url.security is Security.TLS,
        user=url.user or "",
        password=(password or "") if url.user else "",
        tls=None if url.security is Security.NONE else _tls_context(settings),
        helo_name=_hostname(),
        limit=settings.upstream.connect_timeout,
    )


def _tls_context(settings: Settings) -> ssl.SSLContext:
    authorities = settings.upstream.ca_file
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise SettingsError(
            f'upstream.ca_file = "{authorities}": {error.strerror or error}; name a readable PEM file'
        ) from error
    if not settings.upstream.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@functools.cache
def _hostname() -> str:
    """Returns the host's full name. Cached, because it may need a DNS lookup."""
    return socket.getfqdn()
