"""Builds parts of a relay from its settings. The stores are in `build_stores`, the upstream in `build_upstream`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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
from relay.runtime.hostname import hostname
from relay.runtime.memory import usable_memory
from relay.settings.places import default_secret_file
from relay.smtp.session_table import SessionLimits
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from relay.core.delivery import Upstream
    from relay.core.login import Authenticator
    from relay.page.sources import Sources
    from relay.settings import Settings

_OTHER_DESCRIPTORS = 100
"""File descriptors that are kept for the store, HTTP clients, kept copies, the log and the event loop (20 at rest)."""
_LONGEST_JUDGEMENT = 30.0
"""Seconds that a message waits for its judgement. 50 MB take one second; messages made to take long take longer."""


def build_pseudonyms(settings: Settings) -> Pseudonyms:
    """Returns the pseudonyms of addresses in records. Raises `SettingsError` if the key file cannot be used."""
    # With unhashed addresses too: digests need the key, and traces from before may have hashed ones.
    secret = ensure_secret(settings.record.secret_file, default_secret_file(settings, os.environ))
    return Pseudonyms(secret, plain=settings.record.addresses)


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
