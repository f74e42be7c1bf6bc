"""A host name with two addresses, of which only the second accepts connections."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from parts.ports import HOST
from parts.waiting import until

from faults.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "two.example.test"
_SECOND = "127.0.0.2"
_BIND_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


class TwoAddresses(Wire):
    """A proxy to `server_port` at the second address of a name. The first address refuses connections.

    Only processes that `prefix` starts can resolve the name: it gives them a mount namespace with another /etc/hosts.
    """

    def __init__(self, server_port: int, hosts: Path) -> None:
        super().__init__(server_port, _SECOND)
        self.url = f"smtp://{NAME}:{self.port}"
        hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()}\n{HOST} {NAME}\n{_SECOND} {NAME}\n")
        self.prefix = ("unshare", "--mount", "sh", "-c", _BIND_HOSTS, str(hosts))

    @contextlib.asynccontextmanager
    async def unanswered(self) -> AsyncIterator[None]:
        """Makes the first address a dead host while the block runs: it does not answer SYN."""
        # The kernel drops SYNs for a listener whose queue of connections that wait for accept() is full.
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self.port))
            listener.listen(0)
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((HOST, self.port))
            await until(lambda: not _connects(self.port), "a listener whose queue is full")
            yield


def _connects(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.1)
        return client.connect_ex((HOST, port)) == 0
