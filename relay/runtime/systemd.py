"""What systemd offers a service: sockets that it holds, and notifications (sd_listen_fds(3), sd_notify(3)).

The protocols are stable, and a few lines each; the libraries for them need a compiler or are no longer maintained.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FIRST_DESCRIPTOR = 3
NAMES = ("smtp", "smtps", "http", "admin")
"""The names of sockets that the relay takes (`FileDescriptorName=` in a socket unit)."""


def inherited_sockets(environ: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """Returns the listening sockets that the service manager passed, by name, and removes its variables.

    Empty if they are meant for another process. Raises `ValueError` for a name that the relay does not know.
    """
    given = [environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES")]
    if given[0] != str(os.getpid()) or not given[1].isdigit():
        return {}
    number = int(given[1])
    names = given[2].split(":") if given[2] else ["unknown"] * number
    found: dict[str, list[socket.socket]] = {}
    for descriptor, name in zip(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + number), names, strict=False):
        if name not in NAMES:
            raise ValueError(
                f'a socket that the service manager passed is called "{name}"; write FileDescriptorName= in its socket '
                f"unit, with one of {', '.join(NAMES)}"
            )
        found.setdefault(name, []).append(_listening(descriptor, name))
    return found


def _listening(descriptor: int, name: str) -> socket.socket:
    """Returns the listening socket of a descriptor. Raises `ValueError` if it is none."""
    try:
        os.set_inheritable(descriptor, False)
        listening = socket.socket(fileno=descriptor)
        if listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listening
    except OSError:
        pass
    raise ValueError(
        f'descriptor {descriptor} ("{name}"), which the service manager passed, does not listen for connections; write '
        "ListenStream= and Accept=no in its socket unit"
    )


class ServiceManager:
    """The service manager, which wants to know about the relay. Without one, nothing is sent."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if self._path and microseconds.isdigit() and is_for_us else 0.0
        """Seconds within which `notify("WATCHDOG=1")` is expected again and again; 0 means never."""

    def notify(self, *lines: str) -> None:
        """Sends lines such as `READY=1` or `STATUS=text`. A service manager that does not read is no reason to wait."""
        if not self._path:
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """Says that a reload has begun; `notify("READY=1")` ends it."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
