"""Free TCP ports on the loopback address."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

from parts.waiting import until

HOST = "127.0.0.1"
# Below the range of the kernel for outgoing connections, so that a server that restarts finds its port free. A process
# uses no port twice.
_FIRST, _COUNT = 20000, 12000
_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Returns a port that no server listens on and that no other test process has taken.

    The process keeps the port until it ends, also while no server of it listens there.
    """
    for number in itertools.islice(_numbers, _COUNT):
        index = number % _COUNT
        if _take(index) and _is_free(_FIRST + index):
            return _FIRST + index
    raise RuntimeError("no free port left on the loopback address")


@cache
def _taken_ports() -> IO[bytes]:
    """Returns the file with one byte for each port; the process that has locked a byte has the port.

    The file is never closed: that would give up every lock of the process (POSIX, fcntl).
    """
    return (Path(tempfile.gettempdir()) / f"smtp-dedup-relay-test-ports-{os.getuid()}").open("ab")


def _take(index: int) -> bool:
    """Takes a port for this process until it ends; returns whether no other process has it."""
    try:
        fcntl.lockf(_taken_ports(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


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
