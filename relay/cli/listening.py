"""Can the addresses of the settings be listened on, and if not, is it a relay that holds them?"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.settings.addresses import HostPort

_ANSWER_WAIT = 5.0
"""Seconds."""
_OUR_NAME = b"smtp-dedup-relay"
"""Stands in the greeting of a relay and in the `Server` field of its HTTP answers."""
_REQUESTS = {"listen.address": b"", "http.address": b"GET /livez HTTP/1.0\r\n\r\n"}
_IN_USE = os.strerror(errno.EADDRINUSE)


def addresses(settings: Settings) -> dict[str, HostPort]:
    """Give the addresses to listen on, by their keys."""
    both = {"listen.address": settings.listen.address, "http.address": settings.http.address}
    return {key: address for key, address in both.items() if address is not None}


def obstacle(address: HostPort) -> str:
    """Say why it cannot be listened on; empty when it can."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the relay itself does: connections that ended a moment ago are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def held_by_relay(key: str, address: HostPort, reason: str) -> bool:
    """Say whether a relay answers there, where the obstacle is that somebody holds it."""
    if reason != _IN_USE:
        return False
    request, said = _REQUESTS[key], b""
    end = b"\r\n\r\n" if request else b"\n"
    try:
        with socket.create_connection((address.host, address.port), timeout=_ANSWER_WAIT) as line:
            line.sendall(request)
            while end not in said:
                more = line.recv(512)
                if not more:
                    break
                said += more
    except OSError:
        return False
    return _OUR_NAME in said


def mend(key: str, reason: str) -> str:
    """Say what is to be done about an obstacle."""
    return f"choose another {key}" + (", or end what holds it" if reason == _IN_USE else "")
