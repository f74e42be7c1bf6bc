"""The style sheet, the script and the icon of the page."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from aiohttp import web

from relay.page.rendering import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.page.guard import Handler
    from relay.page.site import Site

_TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the routes of the files. They say nothing about this relay, so that the login form can use them."""
    for name, content_type in _TYPES.items():
        content = (FOLDER / "static" / name).read_bytes()
        yield web.get(f"/static/{name}", site.guard.admit(_handler(content, content_type)))


def _handler(content: bytes, content_type: str) -> Handler:
    etag = hashlib.sha256(content).hexdigest()[:16]

    async def get(request: web.Request) -> web.Response:
        # A web server that compresses may have added its method: "etag-gzip" (Apache).
        known = any(each.value.partition("-")[0] == etag for each in request.if_none_match or ())
        response = (
            web.Response(status=304)
            if known
            else web.Response(body=content, content_type=content_type, charset="utf-8")
        )
        response.etag = etag
        response.headers["Cache-Control"] = "no-cache"  # ask each time: a new version is seen at once
        return response

    return get
