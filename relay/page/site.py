"""The page as a whole: its parts, its routes, and the header fields of its answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from relay.logins.limits import LoginLimits
from relay.page import compare, feedback, live, message, messages, overview, rules, settings_page, static_files
from relay.page.access import Refused
from relay.page.guard import LOGIN, Guard
from relay.page.login import LoginPages
from relay.page.rendering import Renderer
from relay.page.sessions import Sessions
from relay.page.tokens import FormTokens
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from relay.logins.users import FileAuthenticator
    from relay.page.access import Access
    from relay.page.guard import Handler
    from relay.page.sources import Sources

_PAGES = (overview, live, messages, message, feedback, compare, rules, settings_page, static_files)
"""Modules with a function `routes(site)`."""
LONGEST_WORK = 10.0
"""Seconds for a job outside the event loop, the wait for the jobs before it included."""
T = TypeVar("T")


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
        self._thread = Executor("page", 2, LONGEST_WORK)
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

    async def work(self, job: Callable[[], T]) -> T:
        """Runs a job outside the event loop, two at a time. Raises `Refused` if it takes too long."""
        try:
            return await self._thread.run(job)
        except TimeoutError:
            raise Refused(
                f"This takes longer than {LONGEST_WORK:g} s.", "Use the command on the relay's host.", status=503
            ) from None

    def close(self) -> None:
        """Ends the streams of events, and the threads."""
        self.live.close()
        self._thread.close()
        if self._users:
            self._users.close()
