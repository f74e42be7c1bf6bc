"""Which settings a running relay can change. The others need a restart: docs/settings.md marks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings.model import KEYS, TABLES
from relay.settings.sources import from_values

if TYPE_CHECKING:
    from relay.settings.loaded import Loaded
    from relay.settings.model import Settings

RESTART = frozenset(
    {
        # Sockets, which clients may wait on.
        "listen.address",
        "listen.socket_mode",
        "listen.socket_group",
        "listen.tls_address",
        "listen.reuse_port",
        "http.address",
        "http.users_file",
        "http.tls",
        "http.proxy_networks",
        "http.host_names",
        "http.open_paths",
        "admin.socket",
        # Claims: those that are held would have two leases, or would be in two stores.
        "dedup.lease",
        "store.url",
        "store.timeout",
        "store.password_file",
        "store.namespace",
        # Where records and copies are that were written before.
        "record.keep_for",
        "record.size",
        "record.keep",
    }
)
"""Settings that only a restart changes."""

RELOAD = frozenset(
    {
        "listen.networks",
        "listen.proxy_networks",
        "listen.bare_line_ends",
        "tls.certificate",
        "tls.key",
        "tls.self_signed",
        "auth.mode",
        "auth.users_file",
        "upstream.url",
        "upstream.fallback_urls",
        "upstream.password",
        "upstream.password_file",
        "upstream.fallback_password_files",
        "upstream.token_file",
        "upstream.token_command",
        "upstream.ca_file",
        "upstream.verify_certificate",
        "upstream.connections",
        "upstream.connect_timeout",
        "upstream.greeting_timeout",
        "upstream.helo_name",
        "upstream.reply_timeout",
        "upstream.dot_timeout",
        "upstream.patience",
        "upstream.received_field",
        "dedup.window",
        "dedup.mode",
        "dedup.wait",
        "dedup.presets",
        "dedup.key_header",
        "dedup.on_uncertain",
        "dedup.reply",
        "record.trace",
        "record.subjects",
        "record.secret_file",
        "record.addresses",
        "limits.message_size",
        "limits.memory",
        "limits.recipients",
        "limits.sessions",
        "limits.client_sessions",
        "limits.client_upstream_connections",
        "limits.message_rate",
        "limits.recipient_rate",
        "limits.session_idle",
        "limits.session_time",
        "limits.min_data_rate",
        "limits.commands",
        "limits.drain",
        "log.format",
        "log.level",
        "log.addresses",
        *TABLES,
    }
)
"""Settings that a reload changes. A new setting belongs to one of the two sets."""


def in_force_after(running: Loaded, new: Loaded) -> Loaded:
    """Returns the settings in force after a reload of `new`: without what only a restart changes.

    Raises `SettingsError` if the new values do not go together with those that stay.
    """
    given = {key: value for key, value in new.given.items() if key not in RESTART}
    return from_values(given | {key: value for key, value in running.given.items() if key in RESTART})


def changed_keys(before: Settings, after: Settings) -> list[str]:
    """Returns the keys of the settings that differ, in the order of the reference page."""
    changed = [key for key in KEYS if value(before, key) != value(after, key)]
    return changed + [name for name in TABLES if getattr(before, name) != getattr(after, name)]


def value(settings: Settings, key: str) -> object:
    """Returns the value of a setting by its dotted key."""
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)
