"""What one client may do: whether it may send, log in and use a sender address. Part of `relay.smtp.session`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.client import client_of, is_loopback
from relay.core.login import LoginOutcome
from relay.core.reply import Reply
from relay.logins.limits import MOST_IN_SESSION

if TYPE_CHECKING:
    from relay.core.login import Authenticator, Credentials, Login
    from relay.core.report import Reporter
    from relay.smtp.rate_limits import RateLimit
    from relay.smtp.session_table import SessionTable


class ClientLogin:
    """The login of one session, and what it may send. `peer` is the client's IP address."""

    def __init__(self, table: SessionTable, peer: str) -> None:
        self.current: Login | None = None
        self.trusted = table.trusts(peer)
        """Whether the client may send without a login."""
        self._table = table
        self._limits = table.logins
        self._messages = table.messages_per_minute
        self._recipients = table.recipients_per_minute
        self._peer = peer
        self._failures = 0

    @property
    def _authenticator(self) -> Authenticator | None:
        return self._table.dependencies.authenticator

    @property
    def _reporter(self) -> Reporter:
        return self._table.dependencies.reporter

    def is_offered(self, *, encrypted: bool) -> bool:
        """Returns whether a password may be sent: over TLS, from a trusted network, or from this machine."""
        return self._authenticator is not None and (encrypted or self.trusted or is_loopback(self._peer))

    @property
    def is_available(self) -> bool:
        """Whether a login can succeed, as far as is known."""
        return self._authenticator is not None and self._authenticator.is_available

    def refusal(self, *, encrypted: bool) -> Reply | None:
        """Returns the reply that refuses a further login, or None."""
        if self.current is not None:
            return replies.BAD_SEQUENCE
        if not self.is_offered(encrypted=encrypted):
            self._reporter.login(self._peer, "", LoginOutcome.NOT_ENCRYPTED)
            return replies.ENCRYPTION_REQUIRED
        return None

    async def verify(self, credentials: Credentials, authenticator: Authenticator) -> Reply:
        """Verifies a client's credentials. Returns 235, or the refusal after a delay (`relay.logins.limits`)."""
        client = client_of(self._peer)
        if not self._limits.begin(client, trusted=self.trusted):
            self._reporter.login(self._peer, credentials.name, LoginOutcome.TOO_MANY)
            return replies.TOO_MANY_LOGINS
        try:
            login = await authenticator.log_in(credentials, self._peer, trusted=self.trusted)
            if isinstance(login, Reply):
                outcome = LoginOutcome.CREDENTIALS if login.permanent else LoginOutcome.UNAVAILABLE
                return await self.fail(credentials.name, login, outcome)
        finally:
            self._limits.end(client)
        self.current = login
        self._reporter.login(self._peer, login.name, LoginOutcome.ACCEPTED)
        return replies.LOGGED_IN

    async def fail(self, name: str, reply: Reply, outcome: LoginOutcome) -> Reply:
        """Reports a login that failed. Wrong credentials are answered after a delay; too many end the session."""
        self._reporter.login(self._peer, name, outcome)
        self._failures += 1
        if outcome is LoginOutcome.CREDENTIALS:
            await asyncio.sleep(self._limits.fail(client_of(self._peer)))
        return reply if self._failures < MOST_IN_SESSION else replies.TOO_MANY_FAILED_LOGINS

    def sender_refusal(self, reverse_path: bytes) -> Reply | None:
        """Returns the reply that refuses a sender at MAIL, or None."""
        login = self.current
        if login is None:
            if self.trusted:
                return None
            refusal = replies.LOGIN_REQUIRED if self._authenticator else replies.NETWORK_NOT_ALLOWED
        elif login.may_send_from(reverse_path):
            return None
        else:
            refusal = replies.SENDER_NOT_ALLOWED
        reason = "not_allowed" if login else "no_login"
        self._reporter.sender_refused(self._peer, login.name if login else "", reason)
        return refusal

    def message_refusal(self) -> Reply | None:
        """Counts a message. Returns the reply that refuses it because its client, or user, sends too many, or None."""
        if self._admits(self._messages):
            return None
        self._reporter.sender_refused(self._peer, self.current.name if self.current else "", "rate")
        return replies.TOO_MANY_MESSAGES_PER_MINUTE

    def recipient_refusal(self) -> Reply | None:
        """Counts a recipient. Returns the reply that refuses it because there are too many, or None."""
        return None if self._admits(self._recipients) else replies.TOO_MANY_RECIPIENTS_PER_MINUTE

    def _admits(self, rate: RateLimit) -> bool:
        if self.trusted:
            return True
        users = [f"user {self.current.name}"] if self.current else []
        return rate.admit([client_of(self._peer), *users])
