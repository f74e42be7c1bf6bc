"""One client connection: the command loop, replies, and the end of the session.

`relay.smtp.protocol` adds the commands. Input comes from `relay.smtp.reader`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from aiosmtpd.smtp import SMTP

from relay.core import reply as replies
from relay.core.session_refusal import SessionRefusal
from relay.smtp.command_count import CommandCount
from relay.smtp.reader import ClientGone, LineTooLong, Reader, TimedOut
from relay.smtp.session import Session

if TYPE_CHECKING:
    import ssl

    from relay.core.reply import Reply
    from relay.smtp.session_table import SessionTable

LONGEST_LINE = 4096
"""Bytes of a command line. RFC 5321 section 4.5.3.1.4 requires 512, and each extension some more."""
_TLS_HANDSHAKE = b"\x16"
"""The first octet of a TLS client hello (RFC 8446 section 5.1). No command begins with it."""


class Connection(SMTP):
    """One connection, from the greeting to the close. It has its place in the table from the start."""

    def __init__(self, table: SessionTable, peer: str) -> None:
        # `SMTP.__init__` is not called: it inspects its class for each connection. Connections constructed per second
        # of CPU (Python 3.11): 6,400 with `SMTP.__init__`, 1,200,000 with this method, 360,000 by copying the
        # attributes of a prepared instance.
        self.loop = asyncio.get_running_loop()
        asyncio.streams.FlowControlMixin.__init__(self, self.loop)
        self._table = table
        self._relay_session = Session(table, peer, self.close_with)
        self._transport: asyncio.Transport | None = None
        self._heard = False
        self._in_handshake = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._count = CommandCount(table.limits.commands)
        table.add(self._relay_session)

    # asyncio.Protocol, in place of aiosmtpd's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the command loop."""
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("ssl_object") is not None:
            self._relay_session.encrypted()
        self._input = self._new_reader()
        self._command_loop = self._table.handlers.start(self._run_commands(), "session")

    def data_received(self, data: bytes) -> None:
        """Feeds the reader."""
        if not self._heard:
            self._heard = True
            if data.startswith(_TLS_HANDSHAKE):
                self._refuse(SessionRefusal.TLS)
                self._input.end()
                return
        self._input.feed(data)

    def eof_received(self) -> bool:
        """Keeps the other direction open: a client that half-closes after the final dot still receives the reply.

        TLS in asyncio has no half-closed connections.
        """
        self._input.end()
        return not self._relay_session.is_encrypted

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the command loop. A message whose final dot was received goes on."""
        asyncio.streams.FlowControlMixin.connection_lost(self, error)
        if self._in_handshake:
            self._in_handshake = False
            self.handshake_failed()
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
        except TimedOut as limit:
            self._refuse(limit.refusal)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            await self._relay_session.abandon()
            self._close()

    async def _run_command(self) -> None:
        self._input.until = self._relay_session.until
        try:
            line = await self._input.line(LONGEST_LINE)
        except LineTooLong:
            await self._send(replies.LINE_TOO_LONG)
            return
        self._relay_session.take_settings()
        octets, _, argument = line.partition(b" ")
        verb = octets.upper().decode("latin-1")
        if refusal := self._count.command(verb):
            self._refuse(refusal)
            return
        try:
            reply = await self._execute(verb, argument.strip())
        except (ConnectionError, ClientGone, TimedOut):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a session; a transaction has a second one
            reply = self._relay_session.fault(error)
        if reply is not None:
            await self._send(reply)

    @abstractmethod
    async def _execute(self, verb: str, argument: bytes) -> Reply | None:
        """Executes a command. Returns its reply, or None if the reply has been written."""

    async def _send(self, reply: Reply) -> None:
        """Writes a reply. Closes the connection after 221, 421 or too many client errors."""
        if refusal := self._count.reply(reply):
            self._refuse(refusal)
            return
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

    async def _start_tls(self) -> None:
        """Replies to STARTTLS and does the handshake. Input that arrived before it ends the connection."""
        if self._transport is None:
            raise ClientGone
        if not self._input.is_empty:
            self._refuse(SessionRefusal.INJECTION)
            return
        self._write(replies.START_TLS)
        limits = self._table.limits
        self._in_handshake = True
        # Bytes that the client sends right behind its handshake arrive before `start_tls` returns.
        self._input = self._new_reader()
        try:
            # Nothing is read from the socket until `start_tls` does: all further bytes belong to the handshake.
            transport = await self.loop.start_tls(
                self._transport,
                self,
                cast("ssl.SSLContext", self._table.tls),
                server_side=True,
                ssl_handshake_timeout=limits.handshake,
                ssl_shutdown_timeout=limits.closing,
            )
        except OSError as error:
            # asyncio does not report the end of a connection whose handshake fails; uvloop does if it takes too long.
            self.connection_lost(error)
            raise ClientGone from None
        finally:
            self._in_handshake = False
        if transport is None or self._transport is None:
            self.connection_lost(None)
            raise ClientGone
        self._transport = transport
        self._relay_session.encrypted()

    def _new_reader(self) -> Reader:
        limits = self._table.limits
        return Reader(self._pause_reading, self._resume_reading, limits.session_idle, limits.min_data_rate)

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._in_handshake:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    @property
    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _write(self, reply: Reply) -> None:
        if self._transport is not None and not (self._in_handshake or self._transport.is_closing()):
            self._transport.write(reply.encode())

    def _refuse(self, refusal: SessionRefusal) -> None:
        """Reports why the session ends, and ends it."""
        self._relay_session.refused(refusal)
        self.close_with(refusal.reply)

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

    def handshake_failed(self, refusal: SessionRefusal = SessionRefusal.HANDSHAKE) -> None:
        """Reports a connection that did not complete its handshake."""
        self._relay_session.refused(refusal)

    def connection_failed(self) -> None:
        """Frees the place of a connection that was accepted and never made."""
        self._table.remove(self._relay_session)
