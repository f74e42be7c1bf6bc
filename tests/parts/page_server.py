"""The page of a relay that exists only as far as the page asks it, on a real HTTP server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from parts.listed_traces import ListedTraces
from parts.ports import HOST
from relay.logins.passwords import hash_password
from relay.logins.users import FileAuthenticator
from relay.monitor.http import HttpServer
from relay.monitor.metrics import Metrics
from relay.monitor.recent_lines import RecentLines
from relay.page.access import Access
from relay.page.site import Site
from relay.page.sources import Sources
from relay.records.pseudonyms import Pseudonyms
from relay.settings.rules import build_judge
from relay.settings.sources import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from relay.page.commands import Commands

NOW = 1_790_000_000.0
"""The time of the page: 2026-09-21 14:13:20 UTC."""
PASSWORD = "correct horse battery staple"
_HASH = hash_password(PASSWORD.encode())


@dataclass
class PageServer:
    """A page and a client that keeps cookies. Tests change `ready`, `parts` and `now`."""

    traces: ListedTraces = field(default_factory=ListedTraces)
    metrics: Metrics = field(default_factory=Metrics)
    warnings: RecentLines = field(default_factory=lambda: RecentLines(addresses=True))
    pseudonyms: Pseudonyms = field(default_factory=lambda: Pseudonyms(b"secret", plain=False))
    commands: Commands | None = None
    ready: bool = True
    parts: dict[str, object] = field(default_factory=lambda: {"listener": "listening", "upstream": "up", "store": "up"})
    now: float = NOW
    longest_query: float = 5.0
    port: int = 0
    client: aiohttp.ClientSession = None  # type: ignore[assignment]
    site: Site = None  # type: ignore[assignment]
    users: FileAuthenticator | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def sources(self, flags: Mapping[str, str], environ: Mapping[str, str], settings: Path | None = None) -> Sources:
        loaded = load(settings, flags, environ, user_id=0)
        judge = build_judge(loaded.settings)
        return Sources(
            loaded=lambda: loaded,
            judge=lambda: judge,
            state=lambda: (self.ready, self.parts),
            listening=lambda: "127.0.0.1:2525",
            load=lambda: {
                "sessions": 3,
                "upstream_connections": 1,
                "claims": 1,
                "waiting_twins": 2,
                "memory_bytes": 1024**2,
                "memory_limit_bytes": 256 * 1024**2,
            },
            metrics=self.metrics,
            warnings=self.warnings,
            traces=self.traces,
            pseudonyms=lambda: self.pseudonyms,
            commands=lambda: self.commands,
            host="relay.example.com",
            now=lambda: self.now,
            clock=lambda: self.now,
            longest_query=self.longest_query,
        )

    async def get(self, path: str, **options: Any) -> tuple[int, str]:
        """The status and text of a page."""
        async with self.client.get(self.url + path, allow_redirects=False, **options) as response:
            return response.status, await response.text()

    async def post(self, path: str, form: Mapping[str, str], **options: Any) -> tuple[int, str]:
        async with self.client.post(self.url + path, data=form, allow_redirects=False, **options) as response:
            return response.status, response.headers.get("Location", "") or await response.text()


@asynccontextmanager
async def page_server(
    users_file: Path | None = None,
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    open_paths: tuple[str, ...] = ("/metrics", "/livez", "/readyz"),
    live_every: float = 3600,
    settings_file: Path | None = None,
    traces: ListedTraces | None = None,
    longest_query: float = 5.0,
    **access: Any,
) -> AsyncIterator[PageServer]:
    """Starts a page. `users_file` gets the user `ada` with `PASSWORD`."""
    page = PageServer(traces=traces or ListedTraces(), longest_query=longest_query)
    page.users = users = _authenticator(users_file) if users_file else None
    access_rules = Access(users is not None, **access)
    page.site = site = Site(page.sources(flags or {}, environ or {}, settings_file), access_rules, users, live_every)
    server = HttpServer(page.metrics, lambda: (page.ready, page.parts), page=site, open_paths=open_paths)
    page.port = await server.start(HOST, 0)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as page.client:
            yield page
    finally:
        await server.close()


def _authenticator(users_file: Path) -> FileAuthenticator:
    users_file.write_text(f"ada:{_HASH}\n")
    return FileAuthenticator(users_file)
