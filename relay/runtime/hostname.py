"""The name of this host."""

from __future__ import annotations

import functools
import socket


@functools.cache
def hostname() -> str:
    """Returns the host's full name. Cached, because it may need a DNS lookup."""
    return socket.getfqdn()
