"""A disk that hangs: every call on the folder blocks until the test ends it."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung_disk(folder: Path) -> Iterator[Path]:
    """Mounts a FUSE file system on the folder that no process serves. Needs root."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if _LIBC.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), "cannot mount a FUSE file system")
        try:
            yield folder
        finally:
            _LIBC.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        os.close(device)  # all calls that hang fail now
