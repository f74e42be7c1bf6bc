"""One client connection: aiosmtpd's `SMTP` with a command loop and a DATA reader written for the relay.

`relay.smtp.listener` creates a `RelaySMTP` for each connection. It reads commands with `relay.smtp.reader` and passes
them to `relay.smtp.session`.

aiosmtpd's loop inspects its own class for each connection, reads content line by line, parses addresses as header
fields, refuses long lines and cancels its handler when the client leaves. This loop cuts content from the buffer at
once, and a message goes on after its final dot without the client. NOOP and HELP are aiosmtpd's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aiosmtpd.smtp import SMTP, syntax

from relay.core import reply as replies
from relay.core.content import Content
from relay.core.reply import Reply
from relay.core.session_refusal import SessionRefusal
from relay.smtp.path import parse_path
from relay.smtp.reader import ClientGone, ContentTooLarge, Idle, LineTooLong, Reader
from relay.smtp.session import Session

if TYPE_CHECKING:
    from relay.smtp.session_table import SessionTable
    from relay.transaction import Dependencies

LONGEST_LINE = 4096
"""Bytes of a command line. RFC 5321 section 4.5.3.1.4 requires 512, and each extension some more."""
MOST_ERRORS = 20
"""Client errors since the last accepted message; the last ends the session (`smtpd_hard_error_limit` in Postfix)."""
_TLS_HANDSHAKE = b"\x16"
"""The first octet of a TLS client hello (RFC 8446 section 5.1). No command begins with it."""
_CHUNK = re.compile(rb"([0-9]{1,18})(?: +LAST)?", re.IGNORECASE)
"""The arguments of BDAT (RFC 3030 section 2)."""
_CLIENT_ERRORS = frozenset(
    {
        replies.UNKNOWN_COMMAND,
        replies.LINE_TOO_LONG,
        replies.NOT_IMPLEMENTED,
        replies.BAD_SYNTAX,
        replies.BAD_SEQUENCE,
        replies.UNKNOWN_PARAMETER,
    }
)
"""Replies that count as client errors. A bad address does not: a list of recipients may contain many of them."""


class RelaySMTP(SMTP):
    """One connection, from the greeting to the close. It has its place in the table from the start."""

    def __init__(self, table: SessionTable, dependencies: Dependencies, peer: str) -> None:
        # `SMTP.__init__` is not called: it inspects its class for each connection. Connections constructed per second
        # of CPU (Python 3.11): 6,400 with `SMTP.__init__`, 1,200,000 with this method, 360,000 by copying the
        # attributes of a prepared instance.
        self.loop = asyncio.get_running_loop()
        asyncio.streams.FlowControlMixin.__init__(self, self.loop)
        self._table = table
        self._relay_session = Session(table, dependencies, peer, self.close_with)
        self._transport: asyncio.Transport | None = None
        self._heard = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._errors = 0
        # The attributes that aiosmtpd's NOOP and HELP read.
        self._handle_hooks = {}
        self._auth_required = False
        self._smtp_methods = self._commands
        table.add(self._relay_session)

    # asyncio.Protocol, in place of aiosmtpd's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the command loop."""
        self._transport = connection = cast("asyncio.Transport", transport)
        self._input = Reader(connection.pause_reading, connection.resume_reading, self._table.limits.session_idle)
        self._command_loop = self._table.handlers.start(self._run_commands(), "session")

    def data_received(self, data: bytes) -> None:
        """Feeds the reader."""
        if not self._heard:
            self._heard = True
            if data.startswith(_TLS_HANDSHAKE):
                self._relay_session.refused(SessionRefusal.TLS)
                self.close_with(SessionRefusal.TLS.reply)
                self._input.end()
                return
        self._input.feed(data)

    def eof_received(self) -> bool:
        """Keeps the other direction open: a client that half-closes after the final dot still receives the reply."""
        self._input.end()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the command loop. A message whose final dot was received goes on."""
        asyncio.streams.FlowControlMixin.connection_lost(self, error)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._transport = None
        self._input.end()
        self._table.remove(self._relay_session)
        self._command_loop.cancel()

    # The command loop

    async def _run_commands(self) -> None:
        try:
            greeting = self._relay_session.greeting()
            await self._send(greeting)
            if not greeting.positive:
                return
            while not self._closing:
                await self._run_command()
        except Idle:
            self._write(replies.IDLE)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            await self._relay_session.abandon()
            self._close()

    async def _run_command(self) -> None:
        try:
            line = await self._input.line(LONGEST_LINE)
        except LineTooLong:
            await self._send(replies.LINE_TOO_LONG)
            return
        verb, _, argument = line.partition(b" ")
        command = self._commands.get(verb.upper().decode("latin-1"), RelaySMTP._unknown)
        try:
            reply = await command(self, argument.strip())
        except (ConnectionError, ClientGone, Idle):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a session; a transaction has a second one
            reply = self._relay_session.fault(error)
        if reply is not None:
            await self._send(reply)

    async def _send(self, reply: Reply) -> None:
        """Writes a reply. Closes the connection after 221, 421 or too many client errors."""
        if reply in _CLIENT_ERRORS:
            self._errors += 1
            if self._errors >= MOST_ERRORS:
                reply = replies.TOO_MANY_ERRORS
        self._write(reply)
        if reply.closing or reply.code == replies.CLOSING.code:
            self._close()
        elif self._paused:  # type: ignore[attr-defined]
            await self._wait_until_read()

    async def _wait_until_read(self) -> None:
        """Waits for a client that does not read its replies, for as long as a client may be idle."""
        try:
            async with asyncio.timeout(self._table.limits.session_idle):
                await self._drain_helper()  # type: ignore[attr-defined]
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise ClientGone from None

    @property
    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _write(self, reply: Reply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply.encode())

    def close_with(self, reply: Reply) -> None:
        """Writes a last reply and closes the connection. Does nothing before the greeting."""
        self._write(reply)
        self._close()

    def _close(self) -> None:
        """Closes the connection. A client that does not read its last replies loses it after a grace period."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size():
            limits = self._table.limits
            self._abort_timer = self.loop.call_later(min(limits.closing, limits.session_idle), self._transport.abort)
        self._transport.close()

    def connection_failed(self) -> None:
        """Frees the place of a connection that was accepted and never made."""
        self._table.remove(self._relay_session)

    async def push(self, status: str | bytes) -> None:
        """Writes the reply of one of aiosmtpd's own commands."""
        octets = status.encode("ascii", "replace") if isinstance(status, str) else status
        await self._send(Reply(int(octets[:3]), (octets[4:],)))

    # The commands. Each returns its reply, or None if the reply has been written.

    @syntax("HELO hostname")
    async def smtp_HELO(self, name: bytes) -> Reply:  # noqa: N802 - aiosmtpd's name
        """RFC 5321 section 4.1.1.1."""
        return await self._relay_session.helo(name) if name else replies.BAD_SYNTAX

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, name: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.1."""
        return await self._relay_session.ehlo(name) if name else replies.BAD_SYNTAX

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.2."""
        path = parse_path(argument, b"FROM:")
        return path if isinstance(path, Reply) else await self._relay_session.mail(*path)

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.3."""
        path = parse_path(argument, b"TO:")
        if isinstance(path, Reply):
            return await self._relay_session.refuse_recipient(path)
        return await self._relay_session.rcpt(*path) if path[0] else replies.BAD_ADDRESS

    @syntax("DATA")
    async def smtp_DATA(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.4."""
        session = self._relay_session
        refusal = replies.BAD_SYNTAX if argument else session.before_data()
        if refusal is not None:
            return refusal
        await self._send(replies.START_INPUT)
        try:
            content = await self._input.content(session.content_limit)
        except ContentTooLarge as error:
            return await session.too_large(error.size)
        except (ClientGone, Idle, asyncio.CancelledError):
            session.aborted()
            raise
        reply = await session.data(Content(content))
        if reply.positive:
            self._errors = 0
        return reply

    async def smtp_BDAT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 3030 section 2. CHUNKING is not offered: the chunk is dropped, and never executed as commands."""
        chunk = _CHUNK.fullmatch(argument)
        if not chunk:
            return replies.BDAT_UNREADABLE
        await self._input.skip(int(chunk[1]))
        return replies.NOT_IMPLEMENTED

    async def smtp_XFORWARD(self, argument: bytes) -> Reply:  # noqa: N802
        """Postfix's XFORWARD_README. All clients that are admitted are trusted."""
        return self._relay_session.forward(argument)

    @syntax("RSET")
    async def smtp_RSET(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.5."""
        if argument:
            return replies.BAD_SYNTAX
        await self._relay_session.abandon()
        return replies.OK

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 3.5.3: 252, because a client must not learn which mailboxes exist."""
        return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX

    @syntax("NOOP [ignored]")
    async def smtp_NOOP(self, argument: bytes) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.9."""
        await super().smtp_NOOP(argument.decode("ascii", "replace"))

    @syntax("HELP [command]")
    async def smtp_HELP(self, argument: bytes) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.8."""
        self.session = self._create_session()
        self.session.extended_smtp = self._relay_session.extended
        await super().smtp_HELP(argument.decode("ascii", "replace"))

    @syntax("QUIT")
    async def smtp_QUIT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.10."""
        return replies.BAD_SYNTAX if argument else replies.CLOSING

    async def _unknown(self, argument: bytes) -> Reply:
        del argument
        return replies.UNKNOWN_COMMAND

    _commands: ClassVar[dict[str, Any]] = {
        "HELO": smtp_HELO,
        "EHLO": smtp_EHLO,
        "MAIL": smtp_MAIL,
        "RCPT": smtp_RCPT,
        "DATA": smtp_DATA,
        "BDAT": smtp_BDAT,
        "XFORWARD": smtp_XFORWARD,
        "RSET": smtp_RSET,
        "VRFY": smtp_VRFY,
        "NOOP": smtp_NOOP,
        "HELP": smtp_HELP,
        "QUIT": smtp_QUIT,
    }
