"""Free TCP ports on the loopback address."""

from __future__ import annotations

import itertools
import os
import socket

from parts.waiting import until

HOST = "127.0.0.1"
# Below the range of the kernel for outgoing connections, so that a server that restarts finds its port free. A process
# uses no port twice, and processes start at different ports.
_FIRST, _COUNT = 20000, 12000
_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Returns a port that no server listens on."""
    for number in itertools.islice(_numbers, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port left on the loopback address")


def answers(port: int, host: str = HOST) -> bool:
    """Returns whether a server listens on the port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


async def wait_for_port(port: int, host: str = HOST, *, seconds: float = 20) -> None:
    """Waits until a server listens on the port."""
    await until(lambda: answers(port, host), f"a listener on {host}:{port}", seconds=seconds)
