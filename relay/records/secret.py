"""The secret key of the pseudonyms in records. With it and a list of addresses, records can be read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from relay.core.errors import SettingsError
from relay.events.records import TEMPORARY_SECRET
from relay.runtime.files import remove, write_new

if TYPE_CHECKING:
    from pathlib import Path

_SHORTEST = 32
"""Characters: 16 bytes in hexadecimal."""
_KEY = "record.secret_file"


def ensure_secret(named: Path | None, default: Path | None) -> bytes:
    """Returns the secret from the file that the settings name, or else from the default file. Creates a missing file.

    Raises `SettingsError` if the named file cannot be used. If the default file cannot be used, logs a warning and
    returns a secret that this process alone uses.
    """
    if named:
        return _ensure(named)
    try:
        if default:
            return _ensure(default)
        reason = "there is no state folder"
    except SettingsError as error:
        reason = str(error)
    TEMPORARY_SECRET.log(error=reason)
    return secrets.token_bytes(32)


def find_secret(named: Path | None, default: Path | None) -> bytes | None:
    """Returns the secret if its file exists, or None. Raises `SettingsError` if it cannot be read."""
    path = named or default
    return _read(path) if path else None


def _ensure(path: Path) -> bytes:
    found = _read(path)
    if found is None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        except OSError as error:
            raise SettingsError(
                f"{_KEY} {path}: cannot be made: {error.strerror or error}; "
                "name a file in a folder that this user may write"
            ) from error
        found = _read(path)
    if found is None:
        raise SettingsError(f"{_KEY} {path}: was there and is gone; name a file that stays")
    return found


def _make(path: Path) -> None:
    """Creates the file atomically. If several processes start together, the first one's secret stays."""
    own = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_new(own, secrets.token_hex(32).encode() + b"\n")
    try:
        path.hardlink_to(own)
    except FileExistsError:
        pass
    finally:
        remove(own)


def _read(path: Path) -> bytes | None:
    try:
        secret = path.read_bytes().partition(b"\n")[0].strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f"{_KEY} {path}: {error.strerror or error}; name a file that this user may read, or run as the relay's user"
        ) from error
    if len(secret) < _SHORTEST:
        raise SettingsError(
            f"{_KEY} {path}: its first line is shorter than {_SHORTEST} characters; take the file away and a new "
            "secret is made, or copy that of another host"
        )
    return secret
