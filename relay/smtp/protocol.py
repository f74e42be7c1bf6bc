"""The SMTP commands of one client connection: aiosmtpd's `SMTP` with a command loop and a DATA reader for the relay.

`relay.smtp.listener` creates a `RelaySMTP` for each connection. It reads commands with `relay.smtp.connection` and
passes them to `relay.smtp.session`.

aiosmtpd's loop inspects its own class for each connection, reads content line by line, parses addresses as header
fields, refuses long lines and cancels its handler when the client leaves. This loop cuts content from the buffer at
once, and a message goes on after its final dot without the client. NOOP and HELP are aiosmtpd's.
"""

from __future__ import annotations

import asyncio
import functools
import re
from typing import TYPE_CHECKING, Any, ClassVar

from aiosmtpd.smtp import syntax

from relay.core import reply as replies
from relay.core.content import Content
from relay.core.login import LoginOutcome
from relay.core.reply import Reply
from relay.smtp.auth import LONGEST_RESPONSE, ExchangeFailed, read_credentials
from relay.smtp.connection import Connection
from relay.smtp.path import parse_path
from relay.smtp.reader import ClientGone, ContentTooLarge, LineTooLong, NoMemory, TimedOut

if TYPE_CHECKING:
    from relay.smtp.session_table import SessionTable

_CHUNK = re.compile(rb"([0-9]{1,18})(?: +LAST)?", re.IGNORECASE)
"""The arguments of BDAT (RFC 3030 section 2)."""


class RelaySMTP(Connection):
    """A connection and its commands."""

    def __init__(self, table: SessionTable, peer: str) -> None:
        super().__init__(table, peer)
        # The attributes that aiosmtpd's NOOP and HELP read.
        self._handle_hooks = {}
        self._auth_required = False

    async def _execute(self, verb: str, argument: bytes) -> Reply | None:
        commands = self._commands_for(self._table.dependencies.authenticator is not None, self._table.tls is not None)
        self._smtp_methods = commands  # HELP reads it
        reply: Reply | None = await commands.get(verb, RelaySMTP._unknown)(self, argument)
        return reply

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

    @syntax("STARTTLS")
    async def smtp_STARTTLS(self, argument: bytes) -> Reply | None:  # noqa: N802
        """RFC 3207."""
        refusal = replies.BAD_SYNTAX if argument else self._relay_session.before_tls()
        if refusal is None:
            await self._start_tls()
        return refusal

    @syntax("AUTH <mechanism> [initial-response]")
    async def smtp_AUTH(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 4954."""
        session = self._relay_session
        refusal = session.before_auth(argument)
        if refusal is not None:
            return refusal
        try:
            return await session.log_in(await read_credentials(argument, self._ask))
        except ExchangeFailed as failure:
            return await session.login.fail("", failure.reply, failure.outcome)

    async def _ask(self, challenge: bytes) -> bytes:
        """Sends a challenge of AUTH and returns the response."""
        await self._send(Reply(334, (challenge,)))
        try:
            return await self._input.line(LONGEST_RESPONSE)
        except LineTooLong:
            raise ExchangeFailed(replies.LOGIN_LINE_TOO_LONG, LoginOutcome.MALFORMED) from None

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
        memory = await session.reserve_memory()
        if memory is None:
            return replies.NO_MEMORY
        with memory:
            await self._send(replies.START_INPUT)
            try:
                content = Content(await self._input.content(session.content_limit, memory.grow))
            except ContentTooLarge as error:
                return await session.refuse_content(replies.TOO_LARGE, error.size)
            except NoMemory as error:
                return await session.refuse_content(replies.NO_MEMORY, error.size)
            except (ClientGone, TimedOut, asyncio.CancelledError):
                session.aborted()
                raise
            if not session.takes_line_ends(content):
                return await session.refuse_content(replies.BARE_LINE_END, len(content))
            reply = await session.data(content, memory)
        if reply.positive:
            self._count.message_accepted()
        return reply

    async def smtp_BDAT(self, argument: bytes) -> Reply:  # noqa: N802
        """RFC 3030 section 2. CHUNKING is not offered: the chunk is dropped, and never executed as commands."""
        chunk = _CHUNK.fullmatch(argument)
        if not chunk:
            return replies.BDAT_UNREADABLE
        await self._input.skip(int(chunk[1]))
        return replies.NOT_IMPLEMENTED

    async def smtp_XFORWARD(self, argument: bytes) -> Reply:  # noqa: N802
        """Postfix's XFORWARD_README. For clients that may send without a login."""
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
        "STARTTLS": smtp_STARTTLS,
        "AUTH": smtp_AUTH,
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

    @classmethod
    @functools.cache
    def _commands_for(cls, logins: bool, tls: bool) -> dict[str, Any]:
        """Returns the commands without those that the relay does not offer."""
        missing = {"AUTH": not logins, "STARTTLS": not tls}
        return {verb: command for verb, command in cls._commands.items() if not missing.get(verb)}
