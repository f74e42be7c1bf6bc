"""Stands before every handler of the page: who asks, with which session, and whether a form is the page's own."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from aiohttp import web

from relay.core.errors import StoreError
from relay.monitor.http import LARGEST_REQUEST
from relay.page.access import VISITOR, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.logins.users import FileAuthenticator
    from relay.page.access import Access, Visitor
    from relay.page.rendering import Renderer
    from relay.page.sessions import Session, Sessions
    from relay.page.tokens import FormTokens

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_FORM = LARGEST_REQUEST
"""Bytes of the body of a request."""
LOGIN = "/login"
LONGEST_NEXT = 2000
"""Characters of the path to which a login leads. A web server in front takes a response header of 4 KiB (nginx)."""
TOKEN_FIELD = "token"  # noqa: S105 - the name of a field


class Guard:
    """Wraps handlers. A handler finds its visitor in `request[VISITOR]`, and in a POST the form is its own."""

    def __init__(
        self,
        access: Access,
        users: FileAuthenticator | None,
        sessions: Sessions,
        tokens: FormTokens,
        renderer: Renderer,
    ) -> None:
        self._access = access
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._renderer = renderer

    def protect(self, handler: Handler) -> Handler:
        """Returns a handler for visitors who have logged in, or need no login. Others see the login form."""

        async def protected(request: web.Request) -> web.StreamResponse:
            if request[VISITOR].session or self._users is None:
                return await handler(request)
            if request.method == "POST":
                raise _logged_out()
            path = quote(request.rel_url.raw_path_qs, safe="/")
            return see_other(f"{LOGIN}?next={path}" if len(path) <= LONGEST_NEXT else LOGIN)

        return self.admit(protected)

    def admit(self, handler: Handler) -> Handler:
        """Returns a handler for all who may see at least the login form. Answers refusals and problems with a page."""

        @functools.wraps(handler)
        async def admitted(request: web.Request) -> web.StreamResponse:
            try:
                visitor = self._access.visitor(request)
                request[VISITOR] = await self._with_session(request, visitor)
                if request.method == "POST":
                    await self._check_form(request)
                return await handler(request)
            except Refused as refused:
                problem, remedy, status = refused.reason, refused.remedy, refused.status
            except StoreError as error:
                problem, remedy, status = f"The trace cannot be read now: {error}", "Try again.", 503
            return self._renderer.page(request, "problem.html", status=status, problem=problem, remedy=remedy)

        return admitted

    async def _with_session(self, request: web.Request, visitor: Visitor) -> Visitor:
        session = self._sessions.find(request.cookies.get(cookie_name(visitor), "")) if self._users else None
        if session is None or not await self._is_current(session):
            return visitor
        return replace(visitor, user=session.user, session=session.id)

    async def _is_current(self, session: Session) -> bool:
        """Ends the session of a user who was removed, or who has another password now."""
        try:
            if self._users and await self._users.mark(session.user) == session.mark:
                return True
        except TimeoutError:
            raise Refused("The users file could not be read in time.", "Try again.", status=503) from None
        self._sessions.end(session.id)
        return False

    async def _check_form(self, request: web.Request) -> None:
        _check_origin(request)
        if request.content_length is None or request.content_length > LARGEST_FORM:
            raise Refused("The form is too large.", f"Send at most {LARGEST_FORM // 1024**2} MiB.", status=413)
        try:
            form = await request.post()
            for value in form.values():
                _ = isinstance(value, str) and value.encode()
        except (ValueError, LookupError):  # octets that are not in the charset that it names, or halves of characters
            raise Refused(
                "The form cannot be read.", "Open its page again, and send it from there.", status=400
            ) from None
        except OSError as error:  # files are put into a temporary one
            reason = error.strerror or str(error)
            raise Refused(
                f"The form cannot be taken: {reason}.", "Paste texts in place of files.", status=503
            ) from None
        if not self._tokens.is_valid(form.get(TOKEN_FIELD), request[VISITOR].session):
            if self._users and not request[VISITOR].session and request.path != LOGIN:
                raise _logged_out()
            raise Refused("The form is out of date.", "Open its page again, and send it from there.")


def _logged_out() -> Refused:
    return Refused(
        "You are not logged in, or not any more.", "Log in, open the page of the form, and send it from there."
    )


def see_other(path: str) -> web.Response:
    """Returns the answer to a form: a page to get next."""
    return web.Response(status=303, headers={"Location": path})


def cookie_name(visitor: Visitor) -> str:
    """Returns the name of the cookie with the session's id. With this prefix browsers take it from this host only."""
    return "__Host-relay" if visitor.encrypted else "relay"


def _check_origin(request: web.Request) -> None:
    """Refuses forms of other sites. Old browsers send neither field; the token protects them."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site is not None and site != "same-origin"
    if origin is not None:
        foreign |= origin.partition("://")[2].lower() != request.headers.get("Host", "").lower()
    if foreign:
        raise Refused(
            "The form came from another site.",
            "Open this page itself. If you did, let the proxy pass on the Host field (docs/page.md).",
        )
