"""The HTTP server: `/metrics`, `/livez`, `/readyz` and the page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.monitor.http_connections import HttpConnections

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from relay.monitor.metrics import Metrics

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("relay.http")
# aiohttp logs a traceback for each malformed request. Any client could fill the log with them.
_log.addFilter(lambda line: not (line.exc_info and isinstance(line.exc_info[1], HttpProcessingError)))

_SERVER = "smtp-dedup-relay"
"""The value of the `Server` field, by which `relay check` recognises a running relay."""
_LAST_ANSWERS = 1.0
"""Seconds for which shutdown waits for running requests."""
LARGEST_REQUEST = 4 * 1024 * 1024
"""Bytes of the body of a request: two messages of 1 MiB in a form, and the rest of it."""
OPEN_PATHS = ("/metrics", "/livez", "/readyz")
"""What everyone who reaches the server may read, by default."""
_HEADER = {
    "Server": _SERVER,
    # The browser loads nothing from elsewhere, and runs no script but the page's own file.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" browsers send "Origin: null" with a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Page(Protocol):
    """The web page, which `relay.page` implements."""

    def routes(self) -> Iterable[web.RouteDef]:
        """Returns the routes of the page."""

    def protect(self, handler: Handler) -> Handler:
        """Returns a handler that only those reach who may see the page."""

    def close(self) -> None:
        """Ends what answers go on without end."""


class HttpServer:
    """Serves metrics and health checks.

    `state` returns whether mail can flow, and the state of each part. Those of the paths that are not in `open_paths`
    need the rights of the page.
    """

    def __init__(
        self,
        metrics: Metrics,
        state: Callable[[], tuple[bool, Mapping[str, object]]],
        *,
        connections: HttpConnections | None = None,
        page: Page | None = None,
        open_paths: Collection[str] = OPEN_PATHS,
    ) -> None:
        self._metrics = metrics
        self._state = state
        self._connections = connections or HttpConnections()
        app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self._connections.note_request])
        self._page = page
        handlers = (self._get_metrics, self._get_livez, self._get_readyz)
        for path, handler in zip(OPEN_PATHS, handlers, strict=True):
            app.router.add_get(path, handler if path in open_paths or page is None else page.protect(handler))
        if page is None:
            app.router.add_get("/", _get_root)
        else:
            app.add_routes(page.routes())
        app.on_response_prepare.append(_complete_header)
        self._runner = web.AppRunner(
            app, access_log=None, logger=_log, handle_signals=False, shutdown_timeout=_LAST_ANSWERS
        )

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port. Raises `OSError`."""
        await self._runner.setup()
        make_handler = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        return await self._connections.listen(host, port, make_handler)

    async def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Serves requests on sockets that the service manager holds."""
        await self._runner.setup()
        make_handler = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        for listening in sockets:
            await self._connections.adopt(listening, make_handler)

    async def close(self) -> None:
        """Stops listening and closes all connections."""
        self._connections.close()
        if self._page:
            self._page.close()
        await self._runner.cleanup()
        await self._connections.handshakes.cancel()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_livez(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _get_readyz(self, request: web.Request) -> web.Response:
        del request
        ready, parts = self._state()
        return web.json_response({"ready": ready, **parts}, status=200 if ready else 503)


async def _get_root(request: web.Request) -> web.Response:
    del request
    raise web.HTTPNotFound(text="try /metrics, /livez or /readyz\n")


async def _complete_header(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(_HEADER)
    response.headers.setdefault("Cache-Control", "no-store")
