"""Free TCP ports on the loopback address."""

from __future__ import annotations

import itertools
import os
import socket

from parts.waiting import until

HOST = "127.0.0.1"
# Below the range out of which the kernel serves outgoing connections: a server that is down for a moment finds its
# port free again. No port is given twice by one process, and processes begin at different places.
_FIRST, _COUNT = 20000, 12000
_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Give a port that nobody listens on."""
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
    """Say whether somebody listens on the port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


async def wait_for_port(port: int, host: str = HOST, *, seconds: float = 20) -> None:
    """Wait until somebody listens on the port."""
    await until(lambda: answers(port, host), f"a listener on {host}:{port}", seconds=seconds)
