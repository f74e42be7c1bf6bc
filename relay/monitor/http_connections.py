"""Bounds on the HTTP server's connections: what they take is never what mail needs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

from aiohttp import web

from relay.runtime.tasks import Tasks
from relay.runtime.tcp_sockets import listen_on

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable

MOST_CONNECTIONS = 100
"""Connections that are served at once, and so file descriptors. Further ones hear 503."""
REQUEST_EVERY = 30.0
"""Seconds within which a connection must complete the header of a request: its first, and each one after another. So
the limit holds for a header, a body, the reading of a response and for idleness."""
_HANDSHAKE = 10.0
"""Seconds."""
_ACCEPT_AGAIN = 1.0
"""Seconds until further clients are accepted if there was no file descriptor for one."""
_BACKLOG = 128

_TEXT = b"too many connections\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class HttpConnections:
    """The connections of an aiohttp server: at most `most`, each with a request every `request_every` seconds.

    `tls` returns the context for the next connection; None if clients speak no TLS.
    """

    def __init__(
        self,
        most: int = MOST_CONNECTIONS,
        request_every: float = REQUEST_EVERY,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.most = most
        self.request_every = request_every
        self.tls = tls
        self.open: dict[asyncio.BaseProtocol, _Connection] = {}
        """By aiohttp's protocol."""
        self.handshakes = Tasks()
        self._tls_sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, make_handler: Callable[[], asyncio.Protocol]) -> int:
        """Listens, and returns the port. `make_handler` makes aiohttp's protocols. Raises `OSError`."""
        sockets = await listen_on(host, port, _BACKLOG, reuse_port=False)
        for listening in sockets:
            await self.adopt(listening, make_handler)
        bound: int = sockets[0].getsockname()[1]
        return bound

    async def adopt(self, listening: socket.socket, make_handler: Callable[[], asyncio.Protocol]) -> None:
        """Accepts connections on a socket that listens."""
        loop = asyncio.get_running_loop()
        if self.tls is None:
            self._servers.append(await loop.create_server(partial(self._make_protocol, make_handler), sock=listening))
        else:
            listening.setblocking(False)
            self._tls_sockets.append(listening)
            self._await_clients(listening, make_handler)

    def close(self) -> None:
        """Stops listening."""
        for server in self._servers:
            server.close()
        for listening in self._tls_sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    def _make_protocol(self, make_handler: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        return _Connection(make_handler(), self) if len(self.open) < self.most else _Refused()

    # asyncio's server would count clients that begin with TLS only after their handshake, so that silent ones had no
    # bound.

    def _await_clients(self, listening: socket.socket, make_handler: Callable[[], asyncio.Protocol]) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening, make_handler)

    def _accept(self, listening: socket.socket, make_handler: Callable[[], asyncio.Protocol]) -> None:
        try:
            client, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:  # no descriptor is left
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(_ACCEPT_AGAIN, self._await_clients, listening, make_handler)
            return
        if len(self.open) >= self.most or self.tls is None:
            client.close()
            return
        client.setblocking(False)
        connection = _Connection(make_handler(), self)
        connection.take_place()
        self.handshakes.start(self._begin_tls(client, connection, self.tls()), "TLS handshake of an HTTP client")

    async def _begin_tls(self, client: socket.socket, connection: _Connection, context: ssl.SSLContext) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, client, ssl=context, ssl_handshake_timeout=_HANDSHAKE
            )
        except OSError:  # the client has left, or speaks no TLS
            connection.give_place_back()
        except BaseException:
            connection.give_place_back()
            raise

    @web.middleware
    async def note_request(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Notes that the header of a request is complete."""
        self.allow(request, self.request_every)
        return await handler(request)

    def allow(self, request: web.Request, seconds: float) -> None:
        """Gives the connection of a request so much time until the next request."""
        if request.protocol in self.open:
            self.open[request.protocol].restart_limit(seconds)


class _Connection(asyncio.Protocol):
    """A connection that is served: passes all events to aiohttp's protocol, and ends at the time limit."""

    def __init__(self, handler: asyncio.Protocol, connections: HttpConnections) -> None:
        self._handler = handler
        self._connections = connections
        # What needs no bound here goes to aiohttp directly.
        self.data_received = handler.data_received  # type: ignore[method-assign]
        self.eof_received = handler.eof_received  # type: ignore[method-assign]
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]

    def take_place(self) -> None:
        """Counts the connection."""
        self._connections.open[self._handler] = self

    def give_place_back(self) -> None:
        """Counts the connection no longer."""
        self._connections.open.pop(self._handler, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time limit."""
        self._transport = cast("asyncio.Transport", transport)
        connections = self._connections
        has_place = self._handler in connections.open
        if not has_place and len(connections.open) >= connections.most:  # asyncio accepts many before one is counted
            refused = _Refused()
            self._transport.set_protocol(refused)
            refused.connection_made(transport)
            return
        self.take_place()
        self._limit = self._start_limit(connections.request_every)
        self._handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Gives the place back."""
        self._limit.cancel()
        self.give_place_back()
        self._handler.connection_lost(error)

    def restart_limit(self, seconds: float) -> None:
        """Starts the time limit anew."""
        self._limit.cancel()
        self._limit = self._start_limit(seconds)

    def _start_limit(self, seconds: float) -> asyncio.TimerHandle:
        # Not `close`, which would wait for a client that does not read.
        return asyncio.get_running_loop().call_later(seconds, self._transport.abort)


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers before the request is read, and closes."""
        transport = cast("asyncio.Transport", transport)
        transport.write(_REFUSAL)
        transport.close()
