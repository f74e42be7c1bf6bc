"""`/metrics`, `/livez` and `/readyz`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.monitor.metrics import Metrics

_SERVER = "smtp-dedup-relay"
"""By this name in the `Server` field another process knows that a relay holds the address."""
_LAST_ANSWERS = 1.0
"""Seconds that a scrape may take to finish when the relay ends."""


class HttpServer:
    """Answers scrapers and health checks. `state` gives whether mail can flow, and the state of each part."""

    def __init__(self, metrics: Metrics, state: Callable[[], tuple[bool, Mapping[str, object]]]) -> None:
        self._metrics = metrics
        self._state = state
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/livez", self._get_livez)
        app.router.add_get("/readyz", self._get_readyz)
        app.on_response_prepare.append(_sign)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_LAST_ANSWERS)

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port. Raises `OSError`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

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


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Server"] = _SERVER
