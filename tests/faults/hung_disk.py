"""A folder whose disk hangs: the kernel lets no process open a file in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# From <linux/fanotify.h>.
_CLASS_CONTENT, _CLOEXEC, _NONBLOCK = 0x4, 0x1, 0x2
_MARK_ADD = 0x1
_OPEN_PERMISSION, _EVENT_ON_CHILD = 0x10000, 0x08000000
_HERE = -100
"""AT_FDCWD, which an absolute path ignores."""


@contextlib.contextmanager
def hung_disk(folder: Path) -> Iterator[None]:
    """Blocks each `open` of a file in the folder until the block ends, as a disk or an NFS server that hangs does.

    The kernel waits for a permission that never arrives (fanotify(7), for root only). Closing the group permits all.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    group = _checked(kernel.fanotify_init(_CLASS_CONTENT | _CLOEXEC | _NONBLOCK, os.O_RDONLY))
    try:
        events = ctypes.c_uint64(_OPEN_PERMISSION | _EVENT_ON_CHILD)
        _checked(kernel.fanotify_mark(group, _MARK_ADD, events, _HERE, bytes(folder)))
        yield
    finally:
        os.close(group)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"fanotify: {os.strerror(error)}")
    return result
