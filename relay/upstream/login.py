"""Keeps logins that an upstream refuses rare. Providers lock accounts and ban addresses after a few of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.errors import LoginRefused, UpstreamError
from relay.events.upstream import UPSTREAM_LOGIN_REFUSED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.upstream.connection import Connection

FIRST_LOGIN_PAUSE = 60.0
LONGEST_LOGIN_PAUSE = 600.0
"""Seconds without a login after a refused one; the pause doubles with each refusal in a row."""


class LoginGuard:
    """Guards the logins to one upstream. Until one succeeds, only one is tried at a time; the others share its end."""

    def __init__(self) -> None:
        self._accepted = False
        self._refusal: LoginRefused | None = None
        self._pause = 0.0
        self._retry_at = 0.0
        self._trial: asyncio.Future[UpstreamError | None] | None = None

    async def run(self, connect: Callable[[], Awaitable[Connection]], clock: Callable[[], float]) -> Connection:
        """Connects and logs in. `clock` gives monotonic seconds.

        Raises `UpstreamError`: after a refused login the same one, without another login, until the pause ends.
        """
        while not self._accepted and self._trial is not None:
            error = await asyncio.shield(self._trial)
            if error is not None:
                raise type(error)(*error.args)
        if self._refusal is not None and clock() < self._retry_at:
            raise LoginRefused(*self._refusal.args)
        return await self._try(connect, clock)

    async def _try(self, connect: Callable[[], Awaitable[Connection]], clock: Callable[[], float]) -> Connection:
        trial = None
        if not self._accepted:
            trial = self._trial = asyncio.get_running_loop().create_future()
        end: UpstreamError | None = None  # also if its client left: then another one tries
        try:
            connection = await connect()
            end = self._refusal = None
            self._accepted, self._pause = True, 0.0
        except UpstreamError as error:
            end = error
            if isinstance(error, LoginRefused):
                if str(error) != str(self._refusal):
                    UPSTREAM_LOGIN_REFUSED.log(error=error)
                self._accepted, self._refusal = False, error
                if clock() >= self._retry_at:  # logins that were refused together count once
                    self._pause = min(self._pause * 2, LONGEST_LOGIN_PAUSE) or FIRST_LOGIN_PAUSE
                    self._retry_at = clock() + self._pause
            raise
        finally:
            if trial is not None:
                self._trial = None
                trial.set_result(end)
        return connection
