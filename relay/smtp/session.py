"""What the commands of one client mean.

`relay.smtp.protocol` calls a `Session` for each command. MAIL creates a `relay.transaction.Transaction`; RCPT and the
content after DATA go to it. The message goes on there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.envelope import Envelope, fold
from relay.core.reply import Reply
from relay.core.session_refusal import SessionRefusal
from relay.smtp.auth import MECHANISMS
from relay.smtp.client_login import ClientLogin
from relay.smtp.parameters import (
    FORWARDED_ATTRIBUTES,
    declared_size,
    parse_forwarded,
    parse_mail_parameters,
    parse_rcpt_parameters,
)
from relay.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.login import Credentials, Login
    from relay.runtime.memory import Reservation
    from relay.smtp.session_table import SessionTable

_OF_THE_UPSTREAM = ("8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "SMTPUTF8")
"""The extensions that work only if the upstream offers them too. It writes most replies, so also their status codes."""
FIRST_BLOCK = 64 * 1024
"""Bytes that are reserved for a message whose client gave no SIZE. More is reserved as bytes arrive."""
_MOST_REFUSALS = 1000
"""Refused recipients of one transaction, or `limits.recipients` if that is more. Further recipients receive 452, and so
do those of a transaction that names more than both together, for example one recipient again and again."""


class Session:
    """One client connection: at most one transaction at a time. `peer` is the client's IP address, empty if unknown.

    `close_with` writes a last reply and closes the connection.
    """

    def __init__(self, table: SessionTable, peer: str, close_with: Callable[[Reply], None]) -> None:
        self.close_with = close_with
        self.extended = False
        """Whether the client sent EHLO last, not HELO."""
        self.peer = peer
        self.is_encrypted = False
        """Whether the connection uses TLS."""
        self.login = ClientLogin(table, peer)
        self._table = table
        self._client_name = b""
        self._offered: frozenset[str] = frozenset()
        """The extensions of the upstream that the last EHLO offered."""
        self._forwarded: Mapping[bytes, bytes] = {}
        """What XFORWARD says about the original client of the next message."""
        self._envelope = Envelope(b"")
        self._transaction: Transaction | None = None
        self.take_settings()
        self._refusals = 0
        """The refused recipients of the transaction."""
        self._named = 0
        """The recipients of the transaction, those included that were refused or named before."""
        self._declared_size = 0
        self._delivering = False
        self._clock = asyncio.get_running_loop().time
        self._session_until = self._transaction_until = self._clock() + table.limits.session_time

    def take_settings(self) -> None:
        """Uses the settings in force now. A transaction goes on with those with which it began."""
        if self._transaction is None:
            self._relay, self._limits = self._table.dependencies, self._table.limits
            self._memory_size = self._relay.memory.size

    @property
    def in_transaction(self) -> bool:
        """Whether a message has begun and its reply has not been sent."""
        return self._transaction is not None or self._delivering

    @property
    def until(self) -> float:
        """When the session, or the transaction in it, must have ended, by the event loop's clock."""
        return self._transaction_until if self._transaction is not None else self._session_until

    def greeting(self) -> Reply:
        """Returns the first reply (RFC 5321 section 3.1). If it is not positive, the session ends."""
        if not self._table.may_begin:
            return replies.DRAINING
        return Reply.of(220, f"{self._relay.policy.hostname} ESMTP smtp-dedup-relay")

    def refused(self, refusal: SessionRefusal) -> None:
        """Reports that the session is refused."""
        self._relay.reporter.session_refused(self.peer, refusal)

    async def helo(self, name: bytes) -> Reply:
        """Notes the client's name and ends an open transaction (RFC 5321 section 4.1.4)."""
        await self.abandon()
        self._client_name = name
        self._forwarded = {}
        self._offered = frozenset()
        self.extended = False
        return Reply(250, (self._relay.policy.hostname.encode(),))

    async def ehlo(self, name: bytes) -> Reply:
        """Does what `helo` does, and lists the extensions: the relay's, and those that the upstream offers too."""
        hostname = await self.helo(name)
        self.extended = True
        self._offered = frozenset(name for name in _OF_THE_UPSTREAM if self._relay.upstream.offers(name))
        extensions = ["PIPELINING", f"SIZE {self._size_limit()}"]
        extensions += [name for name in ("8BITMIME", "DSN", "ENHANCEDSTATUSCODES") if name in self._offered]
        if self._table.tls is not None and not self.is_encrypted:
            extensions.append("STARTTLS")
        if self.login.trusted:
            extensions.append(f"XFORWARD {FORWARDED_ATTRIBUTES}")
        if "SMTPUTF8" in self._offered:
            extensions.append("SMTPUTF8")
        if self.login.is_offered(encrypted=self.is_encrypted) and self.login.is_available:
            extensions.append(f"AUTH {MECHANISMS}")
        return Reply(250, (*hostname.lines, *(text.encode() for text in extensions)))

    def before_tls(self) -> Reply | None:
        """Returns the reply that refuses STARTTLS, or None."""
        return replies.BAD_SEQUENCE if self.is_encrypted or self._transaction is not None else None

    def encrypted(self) -> None:
        """Notes that the connection now uses TLS, and forgets what the client said before it (RFC 3207 section 4.2)."""
        self.is_encrypted = True
        self.extended = False
        self.login.current = None
        self._client_name = b""
        self._offered = frozenset()
        self._forwarded = {}

    def before_auth(self, argument: bytes) -> Reply | None:
        """Returns the reply that refuses AUTH, or None. `argument` is that of the command."""
        if not self._client_name or self._transaction is not None:
            return replies.BAD_SEQUENCE
        return self.login.refusal(encrypted=self.is_encrypted) if argument else replies.BAD_SYNTAX

    async def log_in(self, credentials: Credentials) -> Reply:
        """Verifies the credentials of an AUTH command that `before_auth` has let through. Returns its reply."""
        if self._relay.authenticator is None:
            return replies.UNKNOWN_COMMAND
        return await self.login.verify(credentials, self._relay.authenticator)

    @property
    def content_limit(self) -> int:
        """The largest content that is read, in bytes."""
        memory = self._memory_size
        return min(self._limits.message_size or self._size_limit() or memory, memory)

    def _size_limit(self) -> int:
        """Returns the largest size that is offered, in bytes; 0 means that no limit is known (RFC 1870 section 3)."""
        limits = (self._limits.message_size, self._relay.upstream.size_limit() or 0)
        return min(min((size for size in limits if size), default=0), self._memory_size)

    def forward(self, argument: bytes) -> Reply:
        """Notes what a trusted client says about the original client of the next message (XFORWARD)."""
        if self._transaction is not None:
            return replies.BAD_SEQUENCE
        if not self.login.trusted:
            return replies.UNKNOWN_COMMAND
        attributes = parse_forwarded(argument)
        if isinstance(attributes, Reply):
            return attributes
        self._forwarded = {**self._forwarded, **attributes}
        return replies.OK

    async def mail(self, reverse_path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Begins a transaction. The upstream is not contacted before the first recipient."""
        if (refusal := self._sender_refusal(reverse_path)) is not None:
            return refusal
        passed_on = parse_mail_parameters(parameters, self._size_limit() or self._memory_size)
        if isinstance(passed_on, Reply):
            return passed_on
        if (refusal := self.login.message_refusal()) is not None:
            return refusal
        self._declared_size = declared_size(parameters)
        self._transaction_until = self._clock() + self._limits.session_time
        self._envelope = Envelope(reverse_path, passed_on, offered=self._offered)
        self._refusals = self._named = 0
        self._transaction = Transaction(
            self._relay,
            self._envelope,
            peer=self._forwarded.get(b"ADDR", b"").decode("ascii") or self.peer,
            helo=self._forwarded.get(b"HELO") or self._client_name,
            login=self._login_for_upstream(),
            protocol=f"ESMTP{'S' * self.is_encrypted}{'A' * (self.login.current is not None)}",
        )
        return replies.SENDER_OK

    def _login_for_upstream(self) -> Login | None:
        """Returns the client's login, without its credentials if a reload has ended `auth.mode = "passthrough"`.

        The upstream in use may be another host, which must not receive them, and would refuse them.
        """
        login, verifier = self.login.current, self._relay.authenticator
        upstream: object = self._relay.upstream
        return replace(login, identity=None) if login and verifier is not upstream else login

    def _sender_refusal(self, reverse_path: bytes) -> Reply | None:
        """Returns the reply that refuses MAIL with this reverse-path, or None."""
        if not self._client_name or self._transaction is not None:
            return replies.BAD_SEQUENCE
        if not self._table.may_begin:
            return replies.DRAINING
        if self._clock() >= self._session_until:
            self.refused(SessionRefusal.SESSION_TIME)
            return SessionRefusal.SESSION_TIME.reply
        return self.login.sender_refusal(reverse_path)

    async def rcpt(self, path: bytes, parameters: Sequence[bytes]) -> Reply:
        """Passes a recipient to the transaction."""
        if self._transaction is None:
            return replies.BAD_SEQUENCE
        passed_on = parse_rcpt_parameters(parameters)
        if isinstance(passed_on, Reply):
            return passed_on
        reply = self._recipient_refusal()
        if reply is not None:
            self._transaction.refuse_recipient(fold(path), reply)
        else:
            if passed_on and len(self._envelope.recipient_parameters) < self._relay.policy.recipients + _MOST_REFUSALS:
                self._envelope.recipient_parameters.setdefault(path, passed_on)
            reply = await self._transaction.rcpt(path)
        return reply if reply.positive else await self.refuse_recipient(reply)

    def _recipient_refusal(self) -> Reply | None:
        """Returns the reply that refuses a further recipient, or None."""
        self._named += 1
        most = self._relay.policy.recipients
        most_refusals = max(_MOST_REFUSALS, most)
        if self._refusals >= most_refusals or self._named > most + most_refusals:
            return replies.TOO_MANY_RECIPIENTS
        return self.login.recipient_refusal()

    async def refuse_recipient(self, reply: Reply) -> Reply:
        """Counts a refused recipient. Returns the reply, after a pause if the transaction has had many."""
        if self._transaction is not None:
            self._refusals += 1
            if self._refusals > self._limits.refusals:
                await asyncio.sleep(self._limits.refusal_delay)
        return reply

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
            memory = await self._relay.memory.wait(size, self._limits.memory_wait)
            if memory is None:
                self._relay.reporter.memory_refused(self._transaction.id, self.peer, size)
        return memory

    def takes_line_ends(self, content: Content) -> bool:
        """Returns whether the line ends of the content are accepted (ADR 33)."""
        return self._limits.bare_line_ends or not content.has_bare_line_end

    async def data(self, content: Content, memory: Reservation) -> Reply:
        """Passes the content to the transaction. It goes on if the client leaves, so that a retry is recognised.

        Its memory is released when the transaction ends, not when the client leaves.
        """
        self._envelope.note_content(content)
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
            self._relay.reporter.memory_refused(transaction.id, self.peer, size)
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
            self._relay.reporter.aborted(self._transaction.id, self.peer)

    def fault(self, error: Exception) -> Reply:
        """Reports an internal error. The reply contains only the id under which the log describes the error."""
        transaction_id = self._transaction.id if self._transaction else self._relay.new_id()
        self._relay.reporter.fault(transaction_id, "session", error)
        return Reply.of(451, replies.INTERNAL_FAULT.format(id=transaction_id))

    def _take_transaction(self) -> Transaction:
        transaction, self._transaction, self._forwarded = self._transaction, None, {}
        if transaction is None:
            raise RuntimeError("content without a transaction")
        return transaction
