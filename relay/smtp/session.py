"""What a session means: which transaction is open, what may be said now, and to whom we listen at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from relay.core import reply as replies
from relay.core.envelope import Envelope
from relay.core.reply import Reply
from relay.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from relay.core.content import Content
    from relay.runtime.tasks import Tasks
    from relay.transaction import Dependencies


@dataclass(frozen=True)
class SessionLimits:
    """What a client may do."""

    networks: Sequence[IPv4Network | IPv6Network]
    message_size: int
    """Bytes."""
    sessions: int
    session_idle: float
    """Seconds."""


class SessionOwner(Protocol):
    """The listener, as its sessions see it."""

    limits: SessionLimits
    draining: bool
    handlers: Tasks
    """The command loops."""
    messages: Tasks
    """What happens after the final dots."""

    def enter(self, session: Session) -> bool:
        """Take the session in; False when there are too many."""

    def leave(self, session: Session) -> None:
        """Forget it."""

    def settled(self) -> None:
        """Hear that a session has no transaction any more."""


class Session:
    """One client connection: at most one transaction at a time."""

    def __init__(self, house: SessionOwner, dependencies: Dependencies) -> None:
        self.helo = b""
        self.limits = house.limits
        self.handlers = house.handlers
        self.turned_away = False
        """Whether the greeting was a refusal."""
        self._house = house
        self._relay = dependencies
        self._peer = ""
        self._transaction: Transaction | None = None
        self._delivering = False
        self._line: ClientConnection | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether a message has begun and its reply has not been given."""
        return self._transaction is not None or self._delivering

    def connected(self, line: ClientConnection, peer: str) -> None:
        """Note who is calling, and on which line."""
        self._peer = peer
        self._line = line

    def disconnected(self) -> None:
        """Note that the call has ended."""
        self._line = None
        self._house.leave(self)

    def hang_up(self, reply: Reply) -> None:
        """End the call."""
        if self._line is not None:
            self._line.hang_up(reply)

    def greeting(self, hostname: str) -> Reply:
        """Give the first reply (RFC 5321 section 3.1), which may be a refusal."""
        if not self._is_ours():
            self.turned_away = True
            return replies.NETWORK_NOT_ALLOWED
        if self._house.draining:
            return replies.DRAINING
        if not self._house.enter(self):
            return replies.TOO_MANY_SESSIONS
        return Reply.of(220, f"{hostname} ESMTP smtp-dedup-relay")

    def _is_ours(self) -> bool:
        if not self._peer:
            # It left before anybody could ask who it was.
            return False
        address = ip_address(self._peer.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.limits.networks)

    def offers(self) -> list[str]:
        """Give the extensions for EHLO: ours, and those that only the upstream can make true."""
        offers = ["PIPELINING", f"SIZE {self._size_limit()}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        return [*offers, "SMTPUTF8"] if self._relay.upstream.offers("SMTPUTF8") else offers

    def _size_limit(self) -> int:
        return min(self._relay.upstream.size_limit() or self.limits.message_size, self.limits.message_size)

    async def mail(self, reverse_path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Begin a transaction. The upstream hears of it at the first recipient."""
        if not self.helo or self._transaction is not None:
            return replies.BAD_SEQUENCE
        if self._house.draining:
            return replies.DRAINING
        passed_on = []
        for parameter in parameters:
            keyword, _, value = parameter.upper().partition(b"=")
            if keyword == b"SIZE" and value.isdigit():
                if int(value) > self._size_limit():
                    return replies.TOO_LARGE
            elif parameter.upper() in _KNOWN_PARAMETERS:
                passed_on.append(parameter)
            else:
                return replies.UNKNOWN_PARAMETER
        envelope = Envelope(reverse_path, tuple(passed_on))
        self._transaction = Transaction(self._relay, envelope, peer=self._peer, helo=self.helo)
        return replies.SENDER_OK

    async def rcpt(self, path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Pass a recipient on."""
        if self._transaction is None:
            return replies.BAD_SEQUENCE
        if parameters:
            return replies.UNKNOWN_PARAMETER
        return await self._transaction.rcpt(path)

    def before_data(self) -> Reply | None:
        """Say why content may not come now, or None."""
        if self._transaction is None:
            return replies.BAD_SEQUENCE
        return None if self._transaction.has_recipients else replies.NO_VALID_RECIPIENTS

    async def data(self, content: Content) -> Reply:
        """Hand the message over. From here on it no longer needs its client: the retry must be recognised."""
        transaction = self._take()
        task = self._house.messages.start(transaction.data(content), f"message {transaction.id}")
        self._delivering = True
        try:
            return await asyncio.shield(task)
        finally:
            self._delivering = False
            self._house.settled()

    async def too_large(self, size: int) -> Reply:
        """Refuse content over the limit."""
        reply = await self._take().refuse(replies.TOO_LARGE, size)
        self._house.settled()
        return reply

    async def abandon(self) -> None:
        """End the transaction, if there is one, before its dot."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.abandon()
            self._house.settled()

    def aborted(self) -> None:
        """Note that the client left in the middle of its content."""
        if self._transaction is not None:
            self._relay.reporter.aborted(self._transaction.id, self._peer)

    def fault(self, error: Exception) -> Reply:
        """Answer a fault of ours without telling what it was; the log tells, under the same id."""
        transaction_id = self._transaction.id if self._transaction else self._relay.new_id()
        self._relay.reporter.fault(transaction_id, "session", error)
        return Reply.of(451, replies.INTERNAL_FAULT.format(id=transaction_id))

    def _take(self) -> Transaction:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            raise RuntimeError("content without a transaction")
        return transaction


class ClientConnection(Protocol):
    """The connection, as the session sees it."""

    def hang_up(self, reply: Reply) -> None:
        """Write a reply and close."""


_KNOWN_PARAMETERS = frozenset({b"BODY=7BIT", b"BODY=8BITMIME", b"SMTPUTF8"})
