"""Verifies logins against a users file, in threads, and reads the file again when it has changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from relay.core.login import Login
from relay.core.reply import LOGIN_REFUSED, LOGIN_UNAVAILABLE
from relay.events.service import USERS_NOT_READ, USERS_READ
from relay.logins.passwords import NO_USER, matches
from relay.logins.users_file import read_users
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from relay.core.login import Credentials
    from relay.core.reply import Reply
    from relay.logins.users_file import User

LONGEST_WAIT = 20.0
"""Seconds that a login waits for its turn and its hash. AVideo waits for 300 s."""
_TRUSTED_THREADS, _OTHER_THREADS = 2, 1
"""Hashes at a time, each with 19 MiB by default. Clients that the settings trust do not queue behind the others."""


class FileAuthenticator:
    """Implements `relay.core.login.Authenticator`. Accepted logins are not cached: a cache would hold passwords."""

    is_available = True

    def __init__(self, path: Path, longest_wait: float = LONGEST_WAIT) -> None:
        """Reads the file. `longest_wait` in seconds. Raises `OSError` or `ValueError`."""
        self._path = path
        self._version = self._stat()
        self._users: Mapping[str, User] = read_users(path)
        self._problem = ""
        self._trusted = Executor("trusted logins", _TRUSTED_THREADS, longest_wait)
        self._others = Executor("logins", _OTHER_THREADS, longest_wait)

    async def log_in(self, credentials: Credentials, peer: str, *, trusted: bool) -> Login | Reply:
        """Returns the login, 535 if name or password is wrong, or 454 if the threads had no time for it."""
        del peer
        try:
            return await (self._trusted if trusted else self._others).run(lambda: self._verify(credentials))
        except TimeoutError:
            return LOGIN_UNAVAILABLE

    async def mark(self, name: str) -> str:
        """Returns a text that changes with a user's password, and is empty if there is no such user now.

        Raises `TimeoutError` if the threads had no time for it.
        """
        return await self._trusted.run(lambda: self._mark(name))

    def _mark(self, name: str) -> str:
        user = self._current_users().get(name)
        return hashlib.sha256(user.hashed.encode()).hexdigest() if user else ""

    def close(self) -> None:
        """Ends the threads."""
        self._trusted.close()
        self._others.close()

    def _verify(self, credentials: Credentials) -> Login | Reply:
        users = self._current_users()
        user = users.get(credentials.name)
        # A name that is not in the file costs as much time as one that is.
        stand_in = next(iter(users.values())).hashed if users else NO_USER
        if not matches(user.hashed if user else stand_in, credentials.password) or user is None:
            return LOGIN_REFUSED
        return Login(user.name, user.folded_senders)

    def _current_users(self) -> Mapping[str, User]:
        """Returns the users in the file; those before, while it cannot be read."""
        try:
            version = self._stat()
            if version != self._version:
                self._users = read_users(self._path)
                self._version = version
                USERS_READ.log(users=len(self._users))
            self._problem = ""
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                USERS_NOT_READ.log(path=str(self._path), error=error)
        return self._users

    def _stat(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
