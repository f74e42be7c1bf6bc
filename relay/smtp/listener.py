"""The listening sockets, the admission of clients and the drain. `relay.service` starts and ends the `Listener`.

A message begins here: each admitted connection gets a `relay.smtp.protocol.RelaySMTP`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from relay.core.client import LOCAL, names_itself
from relay.core.session_refusal import SessionRefusal
from relay.runtime import tcp_sockets, unix_socket
from relay.smtp.certificate import handshake_refusal
from relay.smtp.protocol import RelaySMTP
from relay.smtp.proxy_header import NoProxyHeader, NothingSent, read_client
from relay.smtp.session_table import SessionLimits, SessionTable

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from relay.dependencies import Dependencies

_BACKLOG = 512
_ACCEPTS_IN_A_ROW = 16
"""Connections that are accepted before the event loop serves the others."""
_ACCEPT_AGAIN = 0.1
"""Seconds for which the relay accepts no connection when the system has no more room. Clients wait in the backlog."""
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_GONE = {errno.EAGAIN, errno.EINTR, errno.ECONNABORTED}
_GRACE = 3.0
"""Seconds in which the clients that connected before a restart may send their mail and say QUIT."""
_FINAL_REPLIES = 1.0
"""Seconds at the end of a drain in which messages that wait for claims of others receive their 451."""


class Listener:
    """Accepts clients on one address, and on a second one that begins with TLS.

    It accepts connections itself: the event loops close connections without a word when file descriptors run out
    (uvloop), or accept hundreds of them before the first is counted.
    """

    def __init__(self, dependencies: Dependencies, limits: SessionLimits, tls: ssl.SSLContext | None = None) -> None:
        self.table = SessionTable(limits, dependencies, tls)
        self._sockets: list[socket.socket] = []
        self._tls_sockets: set[socket.socket] = set()
        self._unix_sockets: dict[Path, int] = {}
        """The inode numbers of the Unix sockets, which are removed at the end."""
        self._shared: list[socket.socket] = []
        """Those on which another process will go on: clients wait there, or connect to it."""
        self._spare = -1
        """A file descriptor to give up for a connection that is refused when no other one is left."""

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listens and returns the port. Raises `OSError`."""
        return self._begin(await tcp_sockets.listen_on(host, port, _BACKLOG, reuse_port=reuse_port), reuse_port)

    async def start_tls(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listens for clients that begin with TLS, and returns the port. Raises `OSError`."""
        sockets = await tcp_sockets.listen_on(host, port, _BACKLOG, reuse_port=reuse_port)
        self._tls_sockets.update(sockets)
        return self._begin(sockets, reuse_port)

    def adopt(self, sockets: list[socket.socket]) -> None:
        """Accepts clients on sockets that the service manager holds: clients wait there while no process runs."""
        for listening in sockets:
            tcp_sockets.send_at_once(listening)
        self._begin(sockets, True)

    def adopt_tls(self, sockets: list[socket.socket]) -> None:
        """Does what `adopt` does, for clients that begin with TLS."""
        self._tls_sockets.update(sockets)
        self.adopt(sockets)

    def start_unix(self, path: Path, mode: int, group: str) -> None:
        """Listens on a Unix socket with these permissions. Raises `OSError`."""
        listening = unix_socket.listen_on(path, mode, group, _BACKLOG)
        self._unix_sockets[path] = path.lstat().st_ino
        self._begin([listening], False)

    def _begin(self, sockets: list[socket.socket], is_shared: bool) -> int:
        """Accepts connections. Returns the port of the first socket; 0 for a Unix socket."""
        self._sockets += sockets
        self._shared += sockets if is_shared else []
        if self._spare < 0:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        for listening in sockets:
            listening.setblocking(False)
            self._resume(listening)
        name = sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def sessions(self) -> int:
        """The number of connected clients."""
        return len(self.table)

    @property
    def needs_certificate(self) -> bool:
        """Whether clients that begin with TLS connect to one of the sockets."""
        return bool(self._tls_sockets)

    @property
    def draining(self) -> bool:
        """Whether new sessions and transactions are refused."""
        return self.table.draining

    async def drain(self, limit: float) -> bool:
        """Refuses new sessions and transactions with 421, and waits until those in progress have ended.

        Returns False if that takes longer than `limit` seconds.
        """
        grace = min(_GRACE, limit / 2) if self._shared else 0.0
        while self._shared:
            self._leave(self._shared.pop())
        self.table.start_drain(grace)
        final_replies = min(_FINAL_REPLIES, limit / 4)
        if await self._transactions_end(limit - final_replies):
            return True
        self.table.dependencies.claims.end_waits()
        return await self._transactions_end(final_replies)

    async def close(self) -> None:
        """Stops listening and ends all sessions."""
        for path, inode in self._unix_sockets.items():
            unix_socket.remove(path, inode)
        self._unix_sockets.clear()
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._sockets.clear()
        self._tls_sockets.clear()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        self.table.close_all()
        await self.table.handlers.cancel()
        await self.table.messages.cancel()

    async def _transactions_end(self, limit: float) -> bool:
        try:
            async with asyncio.timeout(limit):
                await self.table.drained.wait()
                await self.table.messages.finished()
        except TimeoutError:
            return False
        return True

    def _leave(self, listening: socket.socket) -> None:
        """Accepts no further client, so that none is refused: another process serves the socket now or soon."""
        asyncio.get_running_loop().remove_reader(listening)
        # With SO_REUSEPORT the queue is this process's own, and closing resets the connections in it.
        if listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            for _ in range(_BACKLOG // _ACCEPTS_IN_A_ROW):
                self._accept(listening)
        self._sockets.remove(listening)
        listening.close()

    # Accepting connections

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                connection, address = listening.accept()
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._refuse_without_descriptor(listening)
                if error.errno not in _GONE:
                    self._pause(listening)
                return
            peer = _peer(listening, address)
            if self.table.expects_proxy_header(peer):
                self._await_header(listening, connection, peer)
            else:
                self._admit(listening, connection, peer, self.table.refusal(peer))

    def _admit(
        self, listening: socket.socket, connection: socket.socket, peer: str, refusal: SessionRefusal | None
    ) -> None:
        if refusal is None:
            tls = self.table.tls if listening in self._tls_sockets else None
            protocol = RelaySMTP(self.table, peer)
            self.table.handlers.start(self._serve(connection, protocol, tls), "accept")
        else:
            self._refuse(listening, connection, peer, refusal)

    def _await_header(self, listening: socket.socket, connection: socket.socket, balancer: str) -> None:
        refusal = self.table.refusal_for_want_of_places()
        if refusal is None:
            self.table.headers_awaited += 1
            connection.setblocking(False)
            self.table.handlers.start(self._begin_with_header(listening, connection, balancer), "PROXY header")
        else:
            self._refuse(listening, connection, balancer, refusal)

    async def _begin_with_header(self, listening: socket.socket, connection: socket.socket, balancer: str) -> None:
        try:
            await self._read_header(listening, connection, balancer)
        finally:
            self.table.transaction_ended()  # a drain waits for clients that connected before it

    async def _read_header(self, listening: socket.socket, connection: socket.socket, balancer: str) -> None:
        try:
            client = await read_client(connection, self.table.limits.handshake)
        except NoProxyHeader:
            self._refuse(listening, connection, balancer, SessionRefusal.PROXY)
            return
        except BaseException as error:
            connection.close()
            if isinstance(error, NothingSent):
                return
            raise
        finally:
            self.table.headers_awaited -= 1
        # The balancer itself may test the relay from any network. HAProxy's tests name its own address in version 1.
        if client is None or names_itself(balancer, client):
            self._admit(listening, connection, balancer, self.table.refusal_for_want_of_places(balancer))
        else:
            self._admit(listening, connection, client, self.table.refusal(client))

    async def _serve(self, connection: socket.socket, protocol: RelaySMTP, tls: ssl.SSLContext | None) -> None:
        try:
            limits = self.table.limits
            times = {"ssl_handshake_timeout": limits.handshake, "ssl_shutdown_timeout": limits.closing} if tls else {}
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection, ssl=tls, **times)
        except OSError as error:  # the client has left already, or the handshake failed
            if tls is not None and (refusal := handshake_refusal(error)):
                protocol.handshake_failed(refusal)
            protocol.connection_failed()
        except BaseException:
            protocol.connection_failed()
            raise

    def _refuse(self, listening: socket.socket, connection: socket.socket, peer: str, refusal: SessionRefusal) -> None:
        """Writes the refusal and closes the connection. A new connection has room for so few octets.

        A client that begins with TLS could not read it before a handshake, which a flood must not cost.
        """
        self.table.dependencies.reporter.session_refused(peer, refusal)
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            if listening not in self._tls_sockets:
                connection.send(refusal.reply.encode())

    def _refuse_without_descriptor(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            os.close(self._spare)
            self._spare = -1
            connection, address = listening.accept()
            self._refuse(listening, connection, _peer(listening, address), SessionRefusal.DESCRIPTORS)
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(_ACCEPT_AGAIN, self._resume, listening)


def _peer(listening: socket.socket, address: object) -> str:
    """Returns a client's IP address, `LOCAL` on a Unix socket, or an empty string if it has left before it is known."""
    if isinstance(address, tuple):
        return str(address[0])
    return LOCAL if listening.family is socket.AF_UNIX else ""
