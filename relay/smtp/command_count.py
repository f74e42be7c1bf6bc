"""How much of a session may pass without an accepted message. Part of `relay.smtp.connection`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.session_refusal import SessionRefusal

if TYPE_CHECKING:
    from relay.core.reply import Reply

MOST_ERRORS = 20
"""Client errors; the last ends the session (`smtpd_hard_error_limit` in Postfix)."""
_CLIENT_ERRORS = frozenset(
    {
        replies.UNKNOWN_COMMAND,
        replies.LINE_TOO_LONG,
        replies.NOT_IMPLEMENTED,
        replies.BAD_SYNTAX,
        replies.BAD_SEQUENCE,
        replies.UNKNOWN_PARAMETER,
        replies.LOGIN_REQUIRED,
        replies.ENCRYPTION_REQUIRED,
    }
)
"""Replies that count as client errors. A bad address does not: a list of recipients may contain many of them."""


class CommandCount:
    """The commands and client errors of a session since its last accepted message. 0 for `commands` means any number.

    RCPT is not counted: `limits.recipients` bounds the recipients, and further ones are refused slowly.
    """

    def __init__(self, commands: int) -> None:
        self._most_commands = commands
        self._commands = 0
        self._errors = 0

    def command(self, verb: str) -> SessionRefusal | None:
        """Counts a command. Returns why the session ends instead of executing it, or None."""
        self._commands += verb != "RCPT"
        return SessionRefusal.COMMANDS if 0 < self._most_commands < self._commands else None

    def reply(self, reply: Reply) -> SessionRefusal | None:
        """Counts a reply if it reports a client error. Returns why the session ends with another reply, or None."""
        self._errors += reply in _CLIENT_ERRORS
        return SessionRefusal.ERRORS if self._errors >= MOST_ERRORS else None

    def message_accepted(self) -> None:
        """Forgets what was counted."""
        self._commands = self._errors = 0
