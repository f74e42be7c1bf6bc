"""A client's login: what it gave, what it may do afterwards, and who decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from relay.core.envelope import fold

if TYPE_CHECKING:
    from relay.core.reply import Reply


class LoginOutcome(StrEnum):
    """How a login ended: its label in the metrics and the log."""

    ACCEPTED = "accepted"
    CREDENTIALS = "credentials"
    """The name or the password is wrong."""
    UNAVAILABLE = "unavailable"
    """They could not be verified now."""
    TOO_MANY = "too_many"
    """Too many logins of one client at a time."""
    NOT_ENCRYPTED = "not_encrypted"
    MECHANISM = "mechanism"
    CANCELLED = "cancelled"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password. The password never appears in a repr, a log or a message."""

    name: str
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """A client that has logged in."""

    name: str
    senders: tuple[str, ...] = ()
    """The reverse-paths that it may use, folded: addresses, and domains such as `@example.org`. Empty: all."""
    identity: Credentials | None = None
    """The credentials with which the relay logs in at the upstream for this client; None: with its own, if any."""

    def may_send_from(self, reverse_path: bytes) -> bool:
        """Returns whether the client may use a reverse-path. The null reverse-path is always allowed.

        A notification must have it (RFC 5321 section 4.5.5), whatever address its author uses.
        """
        if not self.senders or not reverse_path:
            return True
        path = fold(reverse_path)
        return path in self.senders or f"@{path.rpartition('@')[2]}" in self.senders


class Authenticator(Protocol):
    """Verifies credentials."""

    @property
    def is_available(self) -> bool:
        """Whether it can verify a login, as far as is known. If not, AUTH is not offered."""

    async def log_in(self, credentials: Credentials, peer: str, *, trusted: bool) -> Login | Reply:
        """Returns the login, or the reply that refuses it: 4yz if the credentials could not be verified now.

        `peer` is the client's IP address; `trusted` clients do not wait for the logins of others.
        """


class AnyLogin:
    """Accepts whatever is offered. For clients that may send without a login and cannot do without one."""

    is_available = True

    async def log_in(self, credentials: Credentials, peer: str, *, trusted: bool) -> Login | Reply:
        """Returns the login."""
        del peer, trusted
        return Login(credentials.name)
