"""Files that are there as a whole or not at all, and that nobody else reads."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


MAILDIR = ("tmp", "new", "cur")
"""The folders of a Maildir (https://cr.yp.to/proto/maildir.html), in the order in which they are made."""


def make_maildir(path: Path) -> None:
    """Make the folders that are not there yet, for nobody else to read. Raises `OSError`."""
    for folder in (path, *(path / name for name in MAILDIR)):
        if folder.is_dir():
            continue
        if folder.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def try_maildir(path: Path) -> None:
    """Make it and see that mail can be written into it. Leaves no file behind. Raises `OSError`."""
    make_maildir(path)
    trial = f".trial-{secrets.token_hex(8)}"
    write_new(path / "tmp" / trial, b"")
    try:
        (path / "tmp" / trial).rename(path / "new" / trial)
    finally:
        remove(path / "tmp" / trial)
        remove(path / "new" / trial)


def write_new(path: Path, octets: bytes) -> None:
    """Write a file that is not there yet, down to the disk. Leaves none behind where it fails: raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        remove(path)
        raise


def remove(path: Path) -> None:
    """Take a file away if it is there and can be."""
    with contextlib.suppress(OSError):
        path.unlink()
