"""The page as a whole: its parts, its routes, and the header fields of its answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from aiohttp import web

from relay.logins.limits import LoginLimits
from relay.page import live, overview, settings_page, static_files
from relay.page.guard import LOGIN, Guard
from relay.page.login import LoginPages
from relay.page.rendering import Renderer
from relay.page.sessions import Sessions
from relay.page.tokens import FormTokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.logins.users import FileAuthenticator
    from relay.page.access import Access
    from relay.page.guard import Handler
    from relay.page.sources import Sources

_PAGES = (overview, live, settings_page, static_files)
"""Modules with a function `routes(site)`."""


class Site:
    """The page of one relay.

    `users` verifies logins; None if there are none, and the page is for this machine only. `live_every` is in seconds.
    """

    def __init__(
        self,
        sources: Sources,
        access: Access,
        users: FileAuthenticator | None = None,
        live_every: float = live.EVERY,
    ) -> None:
        self.sources = sources
        self.live = live.Live(self, live_every)
        self._users = users
        tokens = FormTokens()
        sessions = Sessions(sources.clock)
        self.renderer = Renderer(tokens, sources.host, needs_login=users is not None)
        self.guard = Guard(access, users, sessions, tokens, self.renderer)
        self._logins = (
            LoginPages(users, sessions, LoginLimits(sources.clock), self.renderer, sources.metrics.page_login)
            if users
            else None
        )

    def routes(self) -> Iterable[web.RouteDef]:
        """Returns all routes, each behind the guard."""
        yield from itertools.chain.from_iterable(module.routes(self) for module in _PAGES)
        if self._logins:
            yield web.get(LOGIN, self.guard.admit(self._logins.get_form))
            yield web.post(LOGIN, self.guard.admit(self._logins.post_form))
            yield web.post("/logout", self.guard.protect(self._logins.post_logout))

    def protect(self, handler: Handler) -> Handler:
        """Returns a handler that only visitors of the page reach."""
        return self.guard.protect(handler)

    def close(self) -> None:
        """Ends the streams of events, and the threads of logins."""
        self.live.close()
        if self._users:
            self._users.close()
