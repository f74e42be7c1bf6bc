"""What may listen on an admin socket in place of a relay."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING

from relay.admin.protocol import API, API_FIELD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def answer_of(body: bytes, *, api: str = API, status: str = "200 OK", length: int | None = None) -> bytes:
    """Returns an answer with the header fields of a relay. `length` is that of a body which follows."""
    fields = f"{API_FIELD}: {api}\r\nRelay-Version: 9.9.9\r\nContent-Length: {len(body) if length is None else length}"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body


PROCESS = answer_of(json.dumps({"version": "9.9.9", "pid": 1, "user": "relay"}).encode())


@contextlib.contextmanager
def listening(
    path: Path, *answers: bytes, endless: bytes = b"", closes: bool = False, mode: int = 0o660
) -> Iterator[Path]:
    """Listens, and answers each request in turn, then sends `endless` until the client leaves. Without any it hangs."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(mode)
    server.listen(200)
    connections: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                threading.Thread(target=answer, args=[connection], daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for each in answers:
                connection.recv(65536)
                connection.sendall(each)
            while endless:
                connection.sendall(endless)
            if closes:
                connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield path
    finally:
        server.shutdown(socket.SHUT_RDWR)
        for each in (server, *connections):
            each.close()
        path.unlink()
