"""`/metrics`, `/livez` and `/readyz`; and for the commands about records the way to claims that are kept in memory."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING

from aiohttp import web

from relay.records.selection import Selection, count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.core.store import Store
    from relay.monitor.metrics import Metrics

_SERVER = "smtp-dedup-relay"
"""By this name in the `Server` field another process knows that a relay holds the address."""
_LAST_ANSWERS = 1.0
"""Seconds that a scrape may take to finish when the relay ends."""
COMMAND = "X-Relay-Command"
"""Names what is asked for. No web page can send it from another site without asking first, and nobody says yes."""
_PORT = re.compile(r":[0-9]*\Z")
_LARGEST_QUESTION = 16 * 1024 * 1024
"""Bytes."""


class HttpServer:
    """Answers scrapers and health checks. `state` gives whether mail can flow, and the state of each part.

    `memory` is the store that no other process can reach, where it is of that kind.
    """

    def __init__(
        self,
        metrics: Metrics,
        state: Callable[[], tuple[bool, Mapping[str, object]]],
        memory: Store | None = None,
    ) -> None:
        self._metrics = metrics
        self._state = state
        app = web.Application(client_max_size=_LARGEST_QUESTION)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/livez", self._get_livez)
        app.router.add_get("/readyz", self._get_readyz)
        if memory is not None:
            desk = _MemoryStoreApi(memory)
            app.router.add_get("/records", desk.get_records)
            app.router.add_post("/forget", desk.post_forget)
            app.router.add_post("/forget/preview", desk.post_preview)
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


class _MemoryStoreApi:
    """Serves the commands of this host: its records, and what it shall forget. A store in memory never waits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get_records(self, request: web.Request) -> web.Response:
        """Give the records that are not older than `age` seconds, newest first, one a line."""
        _admit(request, "records")
        try:
            age = float(request.query["age"])
        except (KeyError, ValueError):
            age = math.nan
        if not age >= 0:
            raise web.HTTPBadRequest(text="age: a number of seconds is missing\n")
        lines = [line + "\n" async for line in self._store.records(age)]
        return web.Response(text="".join(lines), content_type="application/x-ndjson")

    async def post_forget(self, request: web.Request) -> web.Response:
        """Free what a selection means, and give how many that were."""
        return web.json_response({"freed": await self._store.forget(await _selection(request))})

    async def post_preview(self, request: web.Request) -> web.Response:
        """Give how many acceptances a selection means."""
        return web.json_response({"found": await count(await _selection(request), self._store)})


async def _selection(request: web.Request) -> Selection:
    _admit(request, "forget")
    try:
        return Selection.decode(await request.read())
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None


def _admit(request: web.Request, command: str) -> None:
    """Let in who is on this host and no web page: those cannot send our field, nor a host name that is none of ours."""
    host = _PORT.sub("", request.headers.get("Host", "")).strip("[]")
    proxied = "Forwarded" in request.headers or "X-Forwarded-For" in request.headers
    if proxied or not (_loopback(request.remote or "") and (host == "localhost" or _loopback(host))):
        raise web.HTTPForbidden(text="only from this host, over a loopback address\n")
    if request.headers.get(COMMAND) != command:
        raise web.HTTPForbidden(text=f"the field {COMMAND}: {command} is missing\n")


def _loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Server"] = _SERVER
