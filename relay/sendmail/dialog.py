"""Connects a program's stdin and stdout to the relay (`-bs`): the program speaks SMTP itself."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.sendmail.handover import RelayAddress

_CHUNK = 64 * 1024


def run_dialog(address: RelayAddress, stdin: int, stdout: int) -> None:
    """Copies in both directions until the relay closes the connection. Raises `RelayAway` if there is none.

    The end of stdin half-closes the connection: the program still receives the replies to what it has sent.
    """
    with address.connect() as connection:
        connection.settimeout(None)
        # A thread, because stdin may be a file, which no selector accepts. It ends with the process.
        threading.Thread(target=_send, args=(stdin, connection), daemon=True).start()
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(_CHUNK):
                _write(stdout, data)


def _send(stdin: int, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(stdin, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _write(stdout: int, data: bytes) -> None:
    while data:
        data = data[os.write(stdout, data) :]
