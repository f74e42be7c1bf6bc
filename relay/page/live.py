"""Keeps the overview up to date by server-sent events: the blocks that have changed, each as HTML."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

from relay.page.overview import BLOCKS, present_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from relay.page.site import Site

MOST_STREAMS = 20
EVERY = 3.0
"""Seconds between two looks at the present state. All streams share a look."""
LONGEST_STREAM = 25.0
"""Seconds; then the browser asks again. Less than `http_connections.REQUEST_EVERY`, which ends slow readers too."""
_ASK_AGAIN = 1000
"""Milliseconds."""
_COMMENT = b":\n\n"
"""Sent with every look. Apache finds out by a write only that the browser has left, and ends its connection then."""
_HEADER = {
    "Content-Type": "text/event-stream",
    # Otherwise a web server in front holds events back: nginx until a buffer is full, and Caddy 2.6 with `encode` until
    # a compressed block is. Caddy does not compress what names an encoding, even the one that changes nothing.
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the route of the stream."""
    yield web.get("/events", site.guard.protect(site.live.get))


class Live:
    """All streams."""

    def __init__(self, site: Site, every: float) -> None:
        self._site = site
        self._every = every
        self._streams = 0
        self._looking = asyncio.Lock()
        self._seen_at = float("-inf")
        self._blocks: Mapping[str, str] = {}
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends all streams soon."""
        self._closing.set()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Sends blocks until the time of a stream is over."""
        if self._streams >= MOST_STREAMS:
            return web.Response(status=503, text="too many pages are open; this one does not renew itself\n")
        self._streams += 1
        try:
            response = web.StreamResponse(headers=_HEADER)
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % _ASK_AGAIN)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(LONGEST_STREAM):
                    await self._send(request, response)
        finally:
            self._streams -= 1
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse) -> None:
        sent: dict[str, str] = {}
        while not self._closing.is_set() and request.transport is not None:
            for block, html in (await self._present_blocks()).items():
                if sent.get(block) != html:
                    sent[block] = html
                    data = json.dumps({"id": block, "html": html})
                    await response.write(f"event: block\ndata: {data}\n\n".encode())
            await response.write(_COMMENT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._closing.wait()

    async def _present_blocks(self) -> Mapping[str, str]:
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now - self._seen_at >= self._every / 2:
                values = await present_values(self._site.sources)
                self._blocks = {
                    block: self._site.renderer.fragment(f"overview/{block}.html", **values) for block in BLOCKS
                }
                self._seen_at = now
            return self._blocks
