"""The process's file descriptors: their number, and the three standard ones."""

from __future__ import annotations

import os
import resource


def raise_descriptor_limit() -> int:
    """Raises the soft limit on open files (RLIMIT_NOFILE) to the hard limit. Returns the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


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
