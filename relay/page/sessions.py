"""The sessions of users who have logged in, in memory: a restart ends them all."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SESSIONS = 100
"""Then the one that was not used for the longest time ends."""
LONGEST_SESSION = 12 * 3600.0
LONGEST_PAUSE = 3600.0
"""Seconds."""


@dataclass(slots=True)
class Session:
    """A user who has logged in."""

    id: str
    user: str
    mark: str
    """Changes with the user's password (`FileAuthenticator.mark`)."""
    began: float
    used: float


class Sessions:
    """The sessions by id. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], most: int = MOST_SESSIONS) -> None:
        self._clock = clock
        self._most = most
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        """The one used last comes last."""

    def begin(self, user: str, mark: str) -> Session:
        """Begins a session with a new random id."""
        now = self._clock()
        session = Session(secrets.token_urlsafe(32), user, mark, now, now)
        self._sessions[session.id] = session
        while len(self._sessions) > self._most:
            self._sessions.popitem(last=False)
        return session

    def find(self, session_id: str) -> Session | None:
        """Returns a session that has not ended, and notes its use."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        now = self._clock()
        if now - session.began > LONGEST_SESSION or now - session.used > LONGEST_PAUSE:
            self.end(session_id)
            return None
        session.used = now
        self._sessions.move_to_end(session_id)
        return session

    def end(self, session_id: str) -> None:
        """Ends a session, if it exists."""
        self._sessions.pop(session_id, None)
