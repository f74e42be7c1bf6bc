"""Builds the parts of a relay from its settings."""

from __future__ import annotations

import datetime as dt
import functools
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.claims.memory import MemoryStore
from relay.claims.redis.store import RedisStore
from relay.claims.sqlite.store import SqliteStore
from relay.core.errors import SettingsError
from relay.core.login import AnyLogin
from relay.dependencies import Executors, Policy
from relay.logins.users import FileAuthenticator
from relay.page.access import Access
from relay.page.site import Site
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret
from relay.runtime.descriptors import descriptor_limit
from relay.runtime.executor import Executor
from relay.runtime.memory import usable_memory
from relay.settings.sources import default_secret_file, self_signed_file, store_password
from relay.settings.urls import MemoryUrl, RedisUrl, SqliteUrl
from relay.smtp.certificate import ServerCertificate
from relay.smtp.self_signed import SelfSignedCertificate
from relay.smtp.session_table import SessionLimits
from relay.trace.memory import MemoryTraceStore
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from relay.claims.redis.servers import RedisServers
    from relay.core.delivery import Upstream
    from relay.core.login import Authenticator
    from relay.core.store import OldRecords, Store
    from relay.core.trace import TraceStore
    from relay.page.sources import Sources
    from relay.settings import Settings

_OTHER_DESCRIPTORS = 100
"""File descriptors that are kept for the store, HTTP clients, kept copies, the log and the event loop (20 at rest)."""
_LONGEST_JUDGEMENT = 30.0
"""Seconds that a message waits for its judgement. 50 MB take one second; messages made to take long take longer."""


def build_store(settings: Settings) -> Store:
    """Returns the store, not opened yet. Raises `SettingsError` if its password cannot be read."""
    return _build_lasting_store(settings) or MemoryStore()


def build_old_records(settings: Settings) -> OldRecords | None:
    """Returns the store as the reader of what version 0.1 recorded, or None if nothing survives a restart."""
    return _build_lasting_store(settings)


def _build_lasting_store(settings: Settings) -> SqliteStore | RedisStore | None:
    match settings.store.url:
        case SqliteUrl(path):
            # Shorter than the store client's limit, so that a locked file is reported as locked and not as hanging.
            return SqliteStore(path, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return None
        case RedisUrl() as url:
            return RedisStore(_redis_servers(settings, url), timeout=settings.store.timeout)


def build_trace_store(settings: Settings) -> TraceStore | None:
    """Returns the store of traces, not opened yet; None if none are kept. Raises `SettingsError` as `build_store`."""
    if not settings.record.keep_for:
        return None
    limits = Limits(settings.record.keep_for, settings.record.size)
    match settings.store.url:
        case SqliteUrl(path):
            file = path.with_name(f"{path.stem}.trace.db")
            return SqliteTraceStore(file, limits, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return MemoryTraceStore(limits)
        case RedisUrl() as url:
            return RedisTraceStore(_redis_servers(settings, url), limits, timeout=settings.store.timeout)


def _redis_servers(settings: Settings, url: RedisUrl) -> RedisServers:
    """Returns the servers of a URL with what other settings say of them."""
    password = store_password(settings) or url.servers.password
    return replace(url.servers, password=password, namespace=settings.store.namespace)


def build_pseudonyms(settings: Settings) -> Pseudonyms:
    """Returns the pseudonyms of addresses in records. Raises `SettingsError` if the key file cannot be used."""
    if settings.record.addresses:
        return Pseudonyms(b"", plain=True)
    secret = ensure_secret(settings.record.secret_file, default_secret_file(settings, os.environ))
    return Pseudonyms(secret, plain=False)


def memory_size(settings: Settings) -> int:
    """Returns the memory budget in bytes. The default is smaller where the relay may use little memory."""
    limits = settings.limits
    is_default = "memory" not in limits.model_fields_set
    return min(limits.memory, usable_memory() // 4) if is_default else limits.memory


def build_executors() -> Executors:
    """Returns the threads of transactions."""
    # Python code runs in one thread at a time: with more threads the event loop waits longer for its turn.
    return Executors(judging=Executor("judging", 2, _LONGEST_JUDGEMENT), content=Executor("content", 1))


def build_policy(settings: Settings) -> Policy:
    """Returns the settings of transactions."""
    return Policy(
        wait=settings.dedup.wait,
        keep_uncertain=settings.dedup.on_uncertain == "keep",
        explain_repeats=settings.dedup.reply == "explain",
        recipients=settings.limits.recipients,
        hostname=hostname(),
        received_field=settings.upstream.received_field,
        traces_all=settings.record.trace == "all",
        traces_subjects=settings.record.subjects,
    )


def build_certificate(settings: Settings) -> ServerCertificate | None:
    """Returns the certificate of the listeners, or None. Raises `SettingsError` if it cannot be used."""
    tls = settings.tls
    if tls.self_signed:
        return build_self_signed(self_signed_file(os.environ))
    if tls.certificate is None:
        return None
    key = tls.key or tls.certificate
    try:
        return ServerCertificate(tls.certificate, key)
    except OSError as error:
        raise SettingsError(
            f"tls.certificate {tls.certificate} with the key {key}: {error.strerror or error}; name a PEM file with "
            "the chain and its key, readable for the relay's user"
        ) from error


def build_self_signed(file: Path | None) -> SelfSignedCertificate:
    """Returns the certificate that the relay makes for itself. Raises `SettingsError` if the file cannot be written."""
    remedy = "run the relay as a user who may write there, or name a certificate in tls.certificate"
    if file is None:
        raise SettingsError(f"tls.self_signed: there is no state folder (STATE_DIRECTORY, HOME); {remedy}")
    try:
        return SelfSignedCertificate(file, hostname(), lambda: dt.datetime.now(dt.UTC))
    except OSError as error:
        raise SettingsError(f"tls.self_signed {file}: {error.strerror or error}; {remedy}") from error


def build_session_limits(settings: Settings, memory: int) -> SessionLimits:
    """Returns the limits of client sessions. No message may be larger than the memory of all, in bytes."""
    return SessionLimits(
        networks=settings.listen.networks,
        proxy_networks=settings.listen.proxy_networks,
        message_size=min(settings.limits.message_size, memory),
        sessions=settings.limits.sessions,
        session_idle=settings.limits.session_idle,
        client_sessions=settings.limits.client_sessions,
        message_rate=settings.limits.message_rate,
        recipient_rate=settings.limits.recipient_rate,
        session_time=settings.limits.session_time,
        min_data_rate=settings.limits.min_data_rate,
        bare_line_ends=settings.listen.bare_line_ends == "pass",
        commands=settings.limits.commands,
        logins=settings.auth.mode in {"file", "passthrough"},
        descriptors=_session_descriptors(settings),
    )


def _session_descriptors(settings: Settings) -> int:
    """Returns the file descriptors that sessions may have. The rest is for the upstream, the store, HTTP and files.

    If there are very few, an eighth of them.
    """
    limit = descriptor_limit()
    return max(1, limit // 8, limit - settings.upstream.connections - _OTHER_DESCRIPTORS)


def build_authenticator(
    settings: Settings, upstream: Upstream, users: FileAuthenticator | None
) -> Authenticator | None:
    """Returns what verifies the logins of clients."""
    match settings.auth.mode:
        case "file":
            return users
        case "passthrough" if isinstance(upstream, SmtpUpstream):
            return upstream
        case "any":
            return AnyLogin()
    return None


def build_users(settings: Settings) -> FileAuthenticator | None:
    """Returns the users of `auth.users_file` if logins need it. Raises `SettingsError` if it cannot be read."""
    path = settings.auth.users_file
    if settings.auth.mode != "file" or path is None:
        return None
    return _users_in(path, "auth.users_file")


def _users_in(path: Path, key: str) -> FileAuthenticator:
    try:
        return FileAuthenticator(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"{key} {path}: {reason}; write it with relay user add, readable for the relay's user"
        ) from error


def build_site(settings: Settings, sources: Sources) -> Site:
    """Returns the web page. Raises `SettingsError` if its users file cannot be read."""
    http = settings.http
    users = _users_in(http.users_file, "http.users_file") if http.users_file else None
    own_name = (http.address.host.lower(),) if http.address else ()
    access = Access(users is not None, frozenset((*http.host_names, *own_name)), http.proxy_networks)
    return Site(sources, access, users)


@functools.cache
def hostname() -> str:
    """Returns the host's full name. Cached, because it may need a DNS lookup."""
    return socket.getfqdn()
