"""Reads passwords from the files that settings name, and other small files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from relay.settings.model import Settings
    from relay.settings.urls import SmtpUrl


def upstream_password(settings: Settings) -> str | None:
    """Returns the upstream's password from the environment or from the first line of its file, or None.

    Raises `SettingsError` if the file holds none.
    """
    upstream = settings.upstream
    if upstream.password or not upstream.password_file:
        return upstream.password.get_secret_value() if upstream.password else None
    return _first_line(upstream.password_file, "upstream.password_file")


def fallback_password(settings: Settings, url: SmtpUrl) -> str | None:
    """Returns the password for one of `upstream.fallback_urls` from the first line of its own file, or None.

    Raises `SettingsError` if the file holds none.
    """
    path = settings.upstream.fallback_password_file(url)
    return _first_line(path, "upstream.fallback_password_files") if path else None


def store_password(settings: Settings) -> str | None:
    """Returns the password of the store from the first line of its file; None if no file is named.

    Raises `SettingsError` if the file holds none.
    """
    path = settings.store.password_file
    return _first_line(path, "store.password_file") if path else None


def _first_line(path: Path, key: str) -> str:
    password = read_text(path, key).partition("\n")[0].removesuffix("\r")
    if not password:
        raise SettingsError(f"{key} {path}: its first line is empty; write the password there")
    return password


def read_text(path: Path, what: str) -> str:
    """Returns the text of a file. Raises `SettingsError` that says `what` the file is."""
    try:
        return path.read_text("utf-8-sig")  # Some editors add a byte order mark.
    except OSError as error:
        raise SettingsError(
            f"{what} {path}: {error.strerror}; name a file that exists and that this user may read"
        ) from None
    except ValueError:
        raise SettingsError(f"{what} {path}: not UTF-8 text; save it as UTF-8") from None
