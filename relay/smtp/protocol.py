"""aiosmtpd's SMTP with a command loop and a reading of DATA of our own.

aiosmtpd inspects itself for every connection, reads content line by line, parses addresses as header fields, refuses
long lines and cancels its handler when the client goes. Here a connection is a copy of one prepared instance, content
is cut from the buffer at once, and what happens after the final dot goes on without the client. NOOP and HELP are
aiosmtpd's.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, ClassVar, cast

from aiosmtpd.smtp import SMTP, syntax

from relay.core import reply as replies
from relay.core.content import Content
from relay.core.reply import Reply
from relay.smtp.reader import ClientGone, ContentTooLarge, Idle, LineTooLong, Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.smtp.session import Session

log = logging.getLogger("relay.smtp")

LONGEST_LINE = 4096
"""Bytes of a command line. RFC 5321 section 4.5.3.1.4 asks for 512, and every extension for some more."""
MOST_ERRORS = 20
"""Commands that a client may get wrong in one session."""

# RFC 5321 section 4.1.2: Path = "<" [ A-d-l ":" ] Mailbox ">". A source route is ignored (appendix C); a quoted
# local-part may hold anything. Without the brackets, as some clients write it, there can be no space.
_QUOTED = rb'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"'
_PATH = re.compile(
    rb"\s*(?:<(?:@[^:<>\s]*:)?(?P<path>(?:" + _QUOTED + rb"|[^<>\"\s\x00-\x1f\x7f])*)>"
    rb"|(?P<bare>[^<>\"\s\x00-\x1f\x7f]+))(?P<parameters>(?:[ \t]+[^\s\x00-\x1f\x7f]+)*)[ \t]*"
)
_LONGEST_PATH = 1000


class RelaySMTP(SMTP):
    """One connection. Make the first with `prepare`, all others with `connection`."""

    _commands: ClassVar[dict[bytes, Callable[[RelaySMTP, bytes], Awaitable[Reply | None]]]]
    _relay_session: Session
    _reader_of_input: Reader

    @classmethod
    def prepare(cls, hostname: str, ident: str) -> RelaySMTP:
        """Make the instance that every connection is a copy of."""
        loop = asyncio.get_running_loop()
        model = cls(object(), hostname=hostname, ident=ident, enable_SMTPUTF8=True, loop=loop, data_size_limit=None)
        model._smtp_methods.pop("AUTH")
        return model

    def connection(self, session: Session) -> RelaySMTP:
        """Make the protocol of a new connection."""
        fresh = RelaySMTP.__new__(RelaySMTP)
        fresh.__dict__.update(self.__dict__)
        asyncio.streams.FlowControlMixin.__init__(fresh, self.loop)
        fresh._relay_session = session  # noqa: SLF001 - a copy of ourselves
        return fresh

    _errors = 0

    # asyncio.Protocol, in place of aiosmtpd's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and take commands."""
        self.transport = transport
        channel = cast("asyncio.Transport", transport)
        self._channel = channel
        self._reader_of_input = Reader(
            channel.pause_reading, channel.resume_reading, self._relay_session.limits.session_idle
        )
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self.envelope = self._create_envelope()
        peer = self.session.peer
        self._relay_session.connected(self, peer[0] if isinstance(peer, tuple) else "")
        self._handler_coroutine = self._relay_session.handlers.start(self._handle_client(), "session")

    def data_received(self, data: bytes) -> None:
        """Feed the reader."""
        self._reader_of_input.feed(data)

    def eof_received(self) -> bool:
        """Keep the other direction open: whoever half-closes after the dot still hears the reply."""
        self._reader_of_input.end()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """End the command loop; a message whose dot was received goes on."""
        asyncio.streams.FlowControlMixin.connection_lost(self, error)
        self._reader_of_input.end()
        self._relay_session.disconnected()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        self.transport = None

    # The command loop

    async def _handle_client(self) -> None:
        session = self._relay_session
        try:
            await self._answer(session.greeting(self.hostname))
            while not self._channel.is_closing():
                await self._command()
        except ClientGone:
            pass
        except Idle:
            self._write(replies.IDLE)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            await session.abandon()
            self._channel.close()

    async def _command(self) -> None:
        try:
            line = await self._reader_of_input.line(LONGEST_LINE)
        except LineTooLong:
            await self._answer(replies.LINE_TOO_LONG)
            return
        verb, _, argument = line.partition(b" ")
        run = self._commands.get(verb.upper(), RelaySMTP._unknown)
        try:
            reply = await run(self, argument.strip())
        except (ConnectionError, ClientGone, Idle):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a session; the transaction has one of its own
            reply = self._relay_session.fault(error)
        if reply is not None:
            await self._answer(reply)

    async def _answer(self, reply: Reply) -> None:
        """Write a reply; hang up after one that says so, or after too many mistakes."""
        if reply in _MISTAKES:
            self._errors += 1
            if self._errors >= MOST_ERRORS:
                reply = Reply.of(421, "4.7.0 Too many errors")
        self._write(reply)
        if reply.closing or reply.code == replies.CLOSING.code or self._relay_session.turned_away:
            self._channel.close()
        elif self._paused:  # type: ignore[attr-defined]
            await self._wait_until_read()

    async def _wait_until_read(self) -> None:
        """Wait for a client that does not read its replies, as long as one may that does not send."""
        try:
            async with asyncio.timeout(self._relay_session.limits.session_idle):
                await self._drain_helper()  # type: ignore[attr-defined]
        except TimeoutError:
            self._channel.abort()
            raise ClientGone from None

    def _write(self, reply: Reply) -> None:
        if not self._channel.is_closing():
            self._channel.write(reply.encode())

    async def push(self, status: str | bytes) -> None:
        """Write a line for aiosmtpd's own commands."""
        octets = status.encode("ascii", "replace") if isinstance(status, str) else status
        await self._answer(Reply(int(octets[:3]), (octets[4:],)))

    def hang_up(self, reply: Reply) -> None:
        """Say goodbye now."""
        self._write(reply)
        self._channel.close()

    # The commands. Each gives its reply, or None when it has answered already.

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: bytes) -> Reply:  # noqa: N802 - aiosmtpd finds it by this name
        """RFC 5321 section 4.1.1.1."""
        return await self._hello(hostname, extended=False)

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.1, with what we and the upstream offer."""
        return await self._hello(hostname, extended=True)

    async def _hello(self, name: bytes, *, extended: bool) -> Reply:
        if not name:
            return replies.BAD_SYNTAX
        await self._relay_session.abandon()
        self._relay_session.helo = name
        assert self.session is not None  # noqa: S101 - for the type checker; set when the connection was made
        self.session.host_name = name.decode("ascii", "replace")
        self.session.extended_smtp = extended
        offers = self._relay_session.offers() if extended else []
        return Reply(250, tuple(text.encode() for text in (self.hostname, *offers)))

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.2."""
        path = _parse_path(argument, b"FROM:")
        if isinstance(path, Reply):
            return path
        return await self._relay_session.mail(*path)

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.3."""
        path = _parse_path(argument, b"TO:")
        if isinstance(path, Reply):
            return path
        if not path[0]:
            return replies.BAD_ADDRESS
        return await self._relay_session.rcpt(*path)

    @syntax("DATA")
    async def smtp_DATA(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.4."""
        session = self._relay_session
        refusal = replies.BAD_SYNTAX if argument else session.before_data()
        if refusal is not None:
            return refusal
        await self._answer(replies.START_INPUT)
        try:
            content = await self._reader_of_input.content(session.limits.message_size)
        except ContentTooLarge as error:
            return await session.too_large(error.size)
        except (ClientGone, Idle, asyncio.CancelledError):
            session.aborted()
            raise
        return await session.data(Content(content))

    @syntax("RSET")
    async def smtp_RSET(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.5."""
        if argument:
            return replies.BAD_SYNTAX
        await self._relay_session.abandon()
        return replies.OK

    @syntax("QUIT")
    async def smtp_QUIT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 4.1.1.10."""
        return replies.BAD_SYNTAX if argument else replies.CLOSING

    async def _unknown(self, argument: bytes) -> Reply:
        del argument
        return replies.UNKNOWN_COMMAND

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 5321 section 3.5.3: 252, for whoever asks must not learn who exists."""
        return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX

    async def _noop(self, argument: bytes) -> None:
        await self.smtp_NOOP(argument.decode("ascii", "replace"))

    async def _help(self, argument: bytes) -> None:
        await self.smtp_HELP(argument.decode("ascii", "replace"))


_MISTAKES = frozenset(
    {
        replies.UNKNOWN_COMMAND,
        replies.LINE_TOO_LONG,
        replies.BAD_SYNTAX,
        replies.BAD_SEQUENCE,
        replies.UNKNOWN_PARAMETER,
    }
)
"""What a client gets wrong by itself. Addresses are no mistakes of its: a list of recipients may hold many bad ones."""

RelaySMTP._commands = {  # noqa: SLF001 - the table needs the methods
    b"HELO": RelaySMTP.smtp_HELO,
    b"EHLO": RelaySMTP.smtp_EHLO,
    b"MAIL": RelaySMTP.smtp_MAIL,
    b"RCPT": RelaySMTP.smtp_RCPT,
    b"DATA": RelaySMTP.smtp_DATA,
    b"RSET": RelaySMTP.smtp_RSET,
    b"NOOP": RelaySMTP._noop,  # noqa: SLF001
    b"VRFY": RelaySMTP.smtp_VRFY,
    b"HELP": RelaySMTP._help,  # noqa: SLF001
    b"QUIT": RelaySMTP.smtp_QUIT,
}


def _parse_path(argument: bytes, keyword: bytes) -> tuple[bytes, list[bytes]] | Reply:
    """Give the path as the client wrote it, without the brackets, and the parameters; or the reply that refuses."""
    if argument[: len(keyword)].upper() != keyword:
        return replies.BAD_SYNTAX
    found = _PATH.fullmatch(argument[len(keyword) :])
    if not found:
        return replies.BAD_ADDRESS
    path = found["path"] if found["path"] is not None else found["bare"]
    if len(path) > _LONGEST_PATH:
        return replies.BAD_ADDRESS
    return path, found["parameters"].split()
