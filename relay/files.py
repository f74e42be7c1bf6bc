"""Files that are there as a whole or not at all, and that nobody else reads."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


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
