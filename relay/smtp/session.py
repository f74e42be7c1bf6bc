"""What the commands of one client mean, and the table of all sessions.

`relay.smtp.protocol` calls a `Session` for each command. MAIL creates a `relay.transaction.Transaction`; RCPT and the
content after DATA go to it. The message goes on there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.envelope import Envelope
from relay.core.reply import Reply
from relay.runtime.tasks import Tasks
from relay.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from relay.core.content import Content
    from relay.runtime.memory import Reservation
    from relay.transaction import Dependencies

FIRST_BLOCK = 64 * 1024
"""Bytes that are reserved for a message whose client gave no SIZE. More is reserved as bytes arrive."""
_KNOWN_PARAMETERS = frozenset({b"BODY=7BIT", b"BODY=8BITMIME", b"SMTPUTF8"})


@dataclass(frozen=True)
class SessionLimits:
    """What a client may do."""

    networks: Sequence[IPv4Network | IPv6Network]
    """The networks of the clients that may send."""
    message_size: int
    """Bytes."""
    sessions: int
    session_idle: float
    """Seconds."""
    memory_wait: float = 5.0
    """Seconds that DATA waits for memory before it is refused."""


class SessionTable:
    """The open sessions of a listener, and the tasks that serve them."""

    def __init__(self, limits: SessionLimits) -> None:
        self.limits = limits
        self.draining = False
        self.drained = asyncio.Event()
        """Set when a drain has started and no session is in a transaction."""
        self.handlers = Tasks()
        """The command loops."""
        self.messages = Tasks()
        """The transactions after their final dots. They end without their sessions."""
        self._sessions: set[Session] = set()

    def __len__(self) -> int:
        """Returns the number of open sessions."""
        return len(self._sessions)

    def admit(self, session: Session) -> bool:
        """Adds a session. Returns False if there are too many."""
        if len(self._sessions) >= self.limits.sessions:
            return False
        self._sessions.add(session)
        return True

    def remove(self, session: Session) -> None:
        """Removes a session whose connection has ended."""
        self._sessions.discard(session)
        self.transaction_ended()

    def transaction_ended(self) -> None:
        """Notes the end of a transaction, which may end the drain."""
        if self.draining and not any(session.in_transaction for session in self._sessions):
            self.drained.set()

    def start_drain(self) -> None:
        """Closes the sessions that are not in a transaction. The others are refused a further one."""
        self.draining = True
        for session in list(self._sessions):
            if not session.in_transaction:
                session.close_with(replies.DRAINING)
        self.transaction_ended()

    def close_all(self) -> None:
        """Closes all sessions."""
        for session in list(self._sessions):
            session.close_with(replies.DRAINING)


class Session:
    """One client connection: at most one transaction at a time. `peer` is the client's IP address, empty if unknown.

    `close_with` writes a last reply and closes the connection.
    """

    def __init__(
        self, table: SessionTable, dependencies: Dependencies, peer: str, close_with: Callable[[Reply], None]
    ) -> None:
        self.close_with = close_with
        self.extended = False
        """Whether the client sent EHLO last, not HELO."""
        self._table = table
        self._relay = dependencies
        self._peer = peer
        self._client_name = b""
        self._transaction: Transaction | None = None
        self._declared_size = 0
        self._delivering = False

    @property
    def in_transaction(self) -> bool:
        """Whether a message has begun and its reply has not been sent."""
        return self._transaction is not None or self._delivering

    def greeting(self) -> Reply:
        """Returns the first reply (RFC 5321 section 3.1). If it is not positive, the client is refused."""
        if not self._network_allowed():
            return replies.NETWORK_NOT_ALLOWED
        if self._table.draining:
            return replies.DRAINING
        if not self._table.admit(self):
            return replies.TOO_MANY_SESSIONS
        return Reply.of(220, f"{self._relay.policy.hostname} ESMTP smtp-dedup-relay")

    def _network_allowed(self) -> bool:
        if not self._peer:  # The client left before the system could return its address.
            return False
        address = ip_address(self._peer.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._table.limits.networks)

    async def helo(self, name: bytes) -> Reply:
        """Notes the client's name and ends an open transaction (RFC 5321 section 4.1.4)."""
        await self.abandon()
        self._client_name = name
        self.extended = False
        return Reply(250, (self._relay.policy.hostname.encode(),))

    async def ehlo(self, name: bytes) -> Reply:
        """Does what `helo` does, and lists the extensions: the relay's, and SMTPUTF8 if the upstream offers it."""
        hostname = await self.helo(name)
        self.extended = True
        extensions = ["PIPELINING", f"SIZE {self._size_limit()}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self._relay.upstream.offers("SMTPUTF8"):
            extensions.append("SMTPUTF8")
        return Reply(250, (*hostname.lines, *(text.encode() for text in extensions)))

    def _size_limit(self) -> int:
        own_limit = self._table.limits.message_size
        return min(self._relay.upstream.size_limit() or own_limit, own_limit)

    async def mail(self, reverse_path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Begins a transaction. The upstream is not contacted before the first recipient."""
        if not self._client_name or self._transaction is not None:
            return replies.BAD_SEQUENCE
        if self._table.draining:
            return replies.DRAINING
        passed_on = []
        self._declared_size = 0
        for parameter in parameters:
            keyword, _, value = parameter.upper().partition(b"=")
            if keyword == b"SIZE" and value.isdigit():
                if int(value) > self._size_limit():
                    return replies.TOO_LARGE
                self._declared_size = int(value)
            elif parameter.upper() in _KNOWN_PARAMETERS:
                passed_on.append(parameter)
            else:
                return replies.UNKNOWN_PARAMETER
        envelope = Envelope(reverse_path, tuple(passed_on))
        self._transaction = Transaction(self._relay, envelope, peer=self._peer, helo=self._client_name)
        return replies.SENDER_OK

    async def rcpt(self, path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Passes a recipient to the transaction."""
        if self._transaction is None:
            return replies.BAD_SEQUENCE
        if parameters:
            return replies.UNKNOWN_PARAMETER
        return await self._transaction.rcpt(path)

    def before_data(self) -> Reply | None:
        """Returns the reply that refuses DATA, or None."""
        if self._transaction is None:
            return replies.BAD_SEQUENCE
        return None if self._transaction.has_recipients else replies.NO_VALID_RECIPIENTS

    async def reserve_memory(self) -> Reservation | None:
        """Returns memory for the content, after a short wait if necessary, or None if there is none.

        While it waits, the session holds no upstream connection: a message that has memory may need it.
        """
        size = self._declared_size or FIRST_BLOCK
        memory = self._relay.memory.reserve(size)
        if memory is None and self._transaction is not None:
            await self._transaction.pause()
            memory = await self._relay.memory.wait(size, self._table.limits.memory_wait)
            if memory is None:
                self._relay.reporter.memory_refused(self._transaction.id, self._peer, size)
        return memory

    async def data(self, content: Content, memory: Reservation) -> Reply:
        """Passes the content to the transaction. It goes on if the client leaves, so that a retry is recognised.

        Its memory is released when the transaction ends, not when the client leaves.
        """
        transaction = self._take_transaction()
        task = self._table.messages.start(transaction.data(content), f"message {transaction.id}")
        kept = memory.move()
        task.add_done_callback(lambda _: kept.release())
        self._delivering = True
        try:
            return await asyncio.shield(task)
        finally:
            self._delivering = False
            self._table.transaction_ended()

    async def refuse_content(self, reply: Reply, size: int) -> Reply:
        """Ends the transaction with a reply to content that was not kept. `size` in bytes."""
        transaction = self._take_transaction()
        if reply == replies.NO_MEMORY:
            self._relay.reporter.memory_refused(transaction.id, self._peer, size)
        reply = await transaction.refuse(reply, size)
        self._table.transaction_ended()
        return reply

    async def abandon(self) -> None:
        """Ends the transaction, if there is one, before its final dot."""
        if self._transaction is not None:
            await self._take_transaction().abandon()
            self._table.transaction_ended()

    def aborted(self) -> None:
        """Reports that the client left before its final dot."""
        if self._transaction is not None:
            self._relay.reporter.aborted(self._transaction.id, self._peer)

    def fault(self, error: Exception) -> Reply:
        """Reports an internal error. The reply contains only the id under which the log describes the error."""
        transaction_id = self._transaction.id if self._transaction else self._relay.new_id()
        self._relay.reporter.fault(transaction_id, "session", error)
        return Reply.of(451, replies.INTERNAL_FAULT.format(id=transaction_id))

    def _take_transaction(self) -> Transaction:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            raise RuntimeError("content without a transaction")
        return transaction
