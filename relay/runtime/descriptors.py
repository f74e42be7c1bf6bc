"""The file descriptors of this process: every connection and every open file takes one."""

from __future__ import annotations

import contextlib
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
