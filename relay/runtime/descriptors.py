"""The file descriptors of this process: how many it may have, and the three standard ones."""

from __future__ import annotations

import contextlib
import os
import resource
import sys


def raise_descriptor_limit() -> None:
    """Raises the soft limit to the hard limit. The usual soft limit, 1024, is less than the default limits.sessions."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses an infinite limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """Returns the number of file descriptors that the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def hold_standard_descriptors() -> None:
    """Opens the null device for each of the descriptors 0, 1 and 2 that is closed (`<&- >&- 2>&-`).

    Otherwise a socket or the store's file would take its number: text for stderr would go there, and uvloop aborts.
    Writes to a stdout that was closed fail with EBADF; text to a stderr that was closed is discarded.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
