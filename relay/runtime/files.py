"""Files that only this user can read, and that exist completely or not at all; and the folders of a Maildir."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAILDIR = ("tmp", "new", "cur")
"""The folders of a Maildir (https://cr.yp.to/proto/maildir.html), in the order in which they are created."""


def read_error(error: OSError) -> str:
    """Returns why a file of the user's cannot be read, and the remedy if permission is missing."""
    remedy = "; run this as a user who may read it" if isinstance(error, PermissionError) else ""
    return f"{error.strerror or error}{remedy}"


def make_maildir(path: Path) -> None:
    """Creates the missing folders of a Maildir, with mode 700. Raises `OSError`."""
    for folder in (path, *(path / name for name in MAILDIR)):
        if folder.is_dir():
            continue
        if folder.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def try_maildir(path: Path) -> None:
    """Creates a Maildir and tests that mail can be written into it. Leaves no file behind. Raises `OSError`."""
    make_maildir(path)
    trial = f".trial-{secrets.token_hex(8)}"
    write_new(path / "tmp" / trial, b"")
    try:
        (path / "tmp" / trial).rename(path / "new" / trial)
    finally:
        remove(path / "tmp" / trial)
        remove(path / "new" / trial)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder. Waits while another process holds it. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_new(path: Path, octets: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Writes a new file, and syncs it to the disk. Leaves no file behind if it fails. `owner` is a user and a group id.

    Raises `FileExistsError` if the file exists, or another `OSError`.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # By descriptor: the owner of the folder may have put another file in this one's place.
            if owner is not None:
                os.fchown(descriptor, *owner)
            if mode != 0o600:  # noqa: PLR2004 - the mode of a new file
                os.fchmod(descriptor, mode)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        remove(path)
        raise


def remove(path: Path) -> None:
    """Removes a file. Ignores errors, such as a file that does not exist."""
    with contextlib.suppress(OSError):
        path.unlink()
