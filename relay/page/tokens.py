"""The tokens in forms, which a page of another site cannot know."""

from __future__ import annotations

import hashlib
import hmac
import secrets


class FormTokens:
    """Makes and checks the token of a session. Visitors without a session share one of this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def token(self, session: str) -> str:
        """Returns the token of a session, or with an empty id that of visitors without one."""
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def is_valid(self, token: object, session: str) -> bool:
        """Returns whether a form was made for this session."""
        return isinstance(token, str) and token.isascii() and hmac.compare_digest(token, self.token(session))
