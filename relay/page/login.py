"""The login form of the page, and logout."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.client import client_of
from relay.core.login import Credentials, Login, LoginOutcome
from relay.events.mail import PAGE_LOGIN_REFUSED
from relay.page.access import VISITOR
from relay.page.guard import LOGIN, LONGEST_NEXT, cookie_name, see_other

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from relay.logins.limits import LoginLimits
    from relay.logins.users import FileAuthenticator
    from relay.page.access import Visitor
    from relay.page.rendering import Renderer
    from relay.page.sessions import Session, Sessions

_LONGEST = 4096
"""Characters of a name and of a password."""
_WORDS = {
    LoginOutcome.CREDENTIALS: "Name or password is wrong.",
    LoginOutcome.UNAVAILABLE: "The password could not be verified in time. Try again.",
    LoginOutcome.TOO_MANY: "Too many logins are in progress. Try again.",
}


class LoginPages:
    """The login form, and what it sends."""

    def __init__(
        self,
        users: FileAuthenticator,
        sessions: Sessions,
        limits: LoginLimits,
        renderer: Renderer,
        report: Callable[[LoginOutcome], None],
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._limits = limits
        self._renderer = renderer
        self._report = report

    async def get_form(self, request: web.Request) -> web.Response:
        """Shows the form."""
        return self._renderer.page(request, "login.html", next=_own_path(request.query.get("next", "")), problem="")

    async def post_form(self, request: web.Request) -> web.StreamResponse:
        """Begins a session, or shows the form again after a delay."""
        form = await request.post()
        path = _own_path(str(form.get("next", "")))
        name, password = (str(form.get(field, ""))[:_LONGEST] for field in ("name", "password"))
        visitor = request[VISITOR]
        outcome, session = await self._log_in(visitor, Credentials(name, password.encode("utf-8", "surrogatepass")))
        self._report(outcome)
        if session is None:
            PAGE_LOGIN_REFUSED.log(peer=visitor.client, reason=outcome.value)
            return self._renderer.page(request, "login.html", status=403, next=path, problem=_WORDS[outcome])
        self._sessions.end(visitor.session)
        response = see_other(path)
        response.set_cookie(
            cookie_name(visitor), session.id, httponly=True, samesite="Strict", secure=visitor.encrypted, path="/"
        )
        return response

    async def post_logout(self, request: web.Request) -> web.StreamResponse:
        """Ends the session."""
        visitor = request[VISITOR]
        self._sessions.end(visitor.session)
        response = see_other(LOGIN)
        response.del_cookie(cookie_name(visitor), httponly=True, samesite="Strict", secure=visitor.encrypted, path="/")
        return response

    async def _log_in(self, visitor: Visitor, credentials: Credentials) -> tuple[LoginOutcome, Session | None]:
        client = client_of(visitor.client)
        if not self._limits.begin(client, trusted=False):
            return LoginOutcome.TOO_MANY, None
        try:
            login = await self._users.log_in(credentials, visitor.client, trusted=visitor.trusted)
            if isinstance(login, Login):
                return LoginOutcome.ACCEPTED, self._sessions.begin(login.name, await self._users.mark(login.name))
            if not login.permanent:
                return LoginOutcome.UNAVAILABLE, None
            await asyncio.sleep(self._limits.fail(client))
            return LoginOutcome.CREDENTIALS, None
        finally:
            self._limits.end(client)


def _own_path(path: str) -> str:
    """Returns a path of this page, and not the address of another site."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and path != LOGIN
    return path if is_own and len(path) <= LONGEST_NEXT else "/"
