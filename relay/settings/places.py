"""Where the relay keeps its files, and where commands look for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from relay.settings.urls import SqliteUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.settings.model import Settings

DEFAULT_FILE = Path("/etc/smtp-dedup-relay/relay.toml")
"""Read if it exists and no other file is named."""

SERVICE_FOLDER = Path("/var/lib/smtp-dedup-relay")
"""The state folder of the service."""

SERVICE_SOCKET = Path("/run/smtp-dedup-relay/admin.sock")
"""Where commands look for the service if `admin.socket` has no value."""

SECRET_FILE = "record.key"  # noqa: S105 - the name of a file

FILE_VARIABLE = "RELAY_CONFIG"
"""The environment variable that names a file."""

ADMIN_SOCKET = "admin.socket"
"""The key of the setting."""


def state_folder(environ: Mapping[str, str], user_id: int | None = None) -> Path | None:
    """Returns the default folder for persistent state, or None if there is none.

    This is the folder that systemd sets, else the service's folder for root, else a folder in the user's home.
    """
    # systemd separates several folders by colons; the first is the service's.
    if folder := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(folder)
    if (os.geteuid() if user_id is None else user_id) == 0:
        return SERVICE_FOLDER
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    # The XDG Base Directory specification says that relative paths must be ignored.
    if not state.startswith("/"):
        state = f"{home.rstrip('/')}/.local/state" if home else ""
    return Path(state, "smtp-dedup-relay") if state else None


def default_secret_file(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Returns the default of `record.secret_file`: beside the SQLite file, else in the state folder, else None."""
    if isinstance(settings.store.url, SqliteUrl):
        return settings.store.url.path.parent / SECRET_FILE
    folder = state_folder(environ)
    return folder / SECRET_FILE if folder else None


def self_signed_file(environ: Mapping[str, str]) -> Path | None:
    """Returns the file of the certificate that the relay makes for itself; None if there is no state folder."""
    folder = state_folder(environ)
    return folder / "self-signed.pem" if folder else None


def default_socket(environ: Mapping[str, str]) -> Path:
    """Returns where commands look for the service if no settings name its socket."""
    return Path(own_socket(environ) or SERVICE_SOCKET)


def own_socket(environ: Mapping[str, str]) -> str:
    """Returns the default of `admin.socket`; empty without a runtime folder."""
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"{folder}/admin.sock" if folder else ""


def default_store_url(environ: Mapping[str, str], user_id: int) -> str | None:
    """Returns the default of `store.url` if it differs from the model's default, else None."""
    folder = state_folder(environ, user_id)
    return f"sqlite:{folder}/relay.db" if folder and folder != SERVICE_FOLDER else None
