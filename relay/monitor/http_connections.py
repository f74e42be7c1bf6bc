"""Bounds on the HTTP server's connections: what they take is never what mail needs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

from aiohttp import web

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

MOST_CONNECTIONS = 100
"""Connections that are served at once, and so file descriptors. Further ones hear 503."""
REQUEST_EVERY = 30.0
"""Seconds within which a connection must complete the header of a request: its first, and each one after another. So
the limit holds for a header, a body, the reading of a response and for idleness."""
_BACKLOG = 128

_TEXT = b"too many connections\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class HttpConnections:
    """The connections of an aiohttp server: at most `most`, each with a request every `request_every` seconds."""

    def __init__(self, most: int = MOST_CONNECTIONS, request_every: float = REQUEST_EVERY) -> None:
        self._most = most
        self._request_every = request_every
        self._connections: dict[asyncio.BaseTransport, _Connection] = {}
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, make_handler: Callable[[], asyncio.Protocol]) -> int:
        """Listens, and returns the port. `make_handler` makes aiohttp's protocols. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(partial(self._accept, make_handler), host, port, backlog=_BACKLOG)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def adopt(self, listening: socket.socket, make_handler: Callable[[], asyncio.Protocol]) -> None:
        """Accepts connections on a socket that the service manager holds."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(partial(self._accept, make_handler), sock=listening))

    def close(self) -> None:
        """Stops listening."""
        for server in self._servers:
            server.close()

    def _accept(self, make_handler: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        if len(self._connections) < self._most:
            return _Connection(make_handler(), self._connections, self._most, self._request_every)
        return _Refused()

    @web.middleware
    async def note_request(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Notes that the header of a request is complete."""
        self.allow(request, self._request_every)
        return await handler(request)

    def allow(self, request: web.Request, seconds: float) -> None:
        """Gives the connection of a request so much time until the next request."""
        if request.transport in self._connections:
            self._connections[request.transport].restart_limit(seconds)


class _Connection(asyncio.Protocol):
    """A connection that is served: passes all events to aiohttp's protocol, and ends at the time limit."""

    def __init__(
        self,
        handler: asyncio.Protocol,
        connections: dict[asyncio.BaseTransport, _Connection],
        most: int,
        request_every: float,
    ) -> None:
        self._handler = handler
        self._connections = connections
        self._most = most
        self._request_every = request_every
        # What needs no bound here goes to aiohttp directly.
        self.data_received = handler.data_received  # type: ignore[method-assign]
        self.eof_received = handler.eof_received  # type: ignore[method-assign]
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time limit."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._connections) >= self._most:  # asyncio accepts many before the first one is counted
            refused = _Refused()
            self._transport.set_protocol(refused)
            refused.connection_made(transport)
            return
        self._connections[transport] = self
        self._limit = self._start_limit(self._request_every)
        self._handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Gives the place back."""
        self._limit.cancel()
        del self._connections[self._transport]
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
