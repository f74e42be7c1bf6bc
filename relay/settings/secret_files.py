"""Warnings about files with secrets that every user of the host can read."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from relay.settings.model import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.settings.model import Settings

SECRET_KEY = "record.secret_file"  # noqa: S105 - the name of the key


def secret_file_warnings(
    settings: Settings, default_secret: Path | None, with_store_password: Path | None = None
) -> Iterator[str]:
    """Yields one sentence for each readable file. It begins with the key that names the file.

    `default_secret` is the file that `record.secret_file` stands for if it is empty. `with_store_password` is the
    settings file if it contains a password in `store.url`.
    """
    if with_store_password and _readable_by_all(with_store_password):
        yield (
            f"settings file {with_store_password}: every user of this host can read it and the password in store.url; "
            f"run chmod o-r {with_store_password}, as its owner; the relay's user must still be able to read it"
        )
    for key, path in _secret_files(settings, default_secret).items():
        if path and _readable_by_all(path):
            yield f"{key} {path}: every user of this host can read it; run chmod 600 {path}, as its owner"


def _secret_files(settings: Settings, default_secret: Path | None) -> dict[str, Path | None]:
    files: dict[str, Path | None] = {}
    for key in KEYS:
        section, _, name = key.partition(".")
        if name.endswith(("password_file", "secret_file", "users_file", "token_file")):
            files[key] = getattr(getattr(settings, section), name)
    for number, path in enumerate(settings.upstream.fallback_password_files, 1):
        files[f"upstream.fallback_password_files {number}"] = path
    if settings.record.addresses:
        del files[SECRET_KEY]  # not used
    else:
        files[SECRET_KEY] = files[SECRET_KEY] or default_secret
    return files


def _readable_by_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # reading the file will report this
        return False
