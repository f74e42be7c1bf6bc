"""SMTP clients for the tests: one that does exactly what it is told, and one that sends a whole message."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from parts.faults import break_off
from parts.ports import HOST
from parts.waiting import LONGEST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

_NAME = b"client.example.test"


class Answer(NamedTuple):
    """A reply as it came: its code, and the text of each line."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def text(self) -> bytes:
        return b"\n".join(self.lines)


GONE = Answer(0, (b"connection closed",))
"""Stands where a reply should have come and the connection ended."""


def stuff(content: bytes) -> bytes:
    """Give the content as it travels: dots doubled at line starts, CRLF at its end, the final dot."""
    wire = re.sub(rb"(\A|\r\n)\.", rb"\1..", content)
    return wire + (b"" if not wire or wire.endswith(b"\r\n") else b"\r\n") + b".\r\n"


class RawClient:
    """A connection that sends what a test wants sent, right or wrong. Every read has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.greeting = GONE

    @classmethod
    async def open(
        cls, port: int, host: str = HOST, *, tls: ssl.SSLContext | None = None, greeted: bool = True
    ) -> Self:
        """Connect, and unless told otherwise read the greeting."""
        name = "localhost" if tls else None
        client = cls(*await asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=1 << 20))
        if greeted:
            client.greeting = await client.read_reply()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def command(self, line: bytes, *, seconds: float = LONGEST) -> Answer:
        """Send a line and read its reply."""
        await self.send_raw(line + b"\r\n")
        return await self.read_reply(seconds=seconds)

    async def send_raw(self, octets: bytes) -> None:
        """Send octets just so. Where the connection has ended, the next read tells."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(octets)
            await self._writer.drain()

    async def read_reply(self, *, seconds: float = LONGEST) -> Answer:
        """Read one reply; `GONE` when the connection ends instead."""
        lines: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    line = (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")
                    lines.append(line[4:])
                    if line[3:4] != b"-":
                        return Answer(int(line[:3]), tuple(lines))
        except (asyncio.IncompleteReadError, ConnectionError):
            return GONE
        except TimeoutError:
            raise TimeoutError(f"no reply within {seconds:g} s") from None

    async def start_tls(self, context: ssl.SSLContext) -> Answer:
        """Say STARTTLS and, if that is welcome, speak TLS from here on."""
        answer = await self.command(b"STARTTLS")
        if answer.code == 220:
            await self._writer.start_tls(context, server_hostname="localhost")
        return answer

    async def begin(self, sender: bytes, *recipients: bytes) -> list[Answer]:
        """EHLO, MAIL and RCPTs, one after the other; give the replies of the RCPTs."""
        await self.command(b"EHLO " + _NAME)
        await self.command(b"MAIL FROM:<%b>" % sender)
        return [await self.command(b"RCPT TO:<%b>" % recipient) for recipient in recipients]

    async def content(self, content: bytes, *, seconds: float = LONGEST) -> Answer:
        """DATA, the content and its final dot; give the last reply, or DATA's own when that was not 354."""
        answer = await self.command(b"DATA", seconds=seconds)
        if answer.code != 354:
            return answer
        await self.send_raw(stuff(content))
        return await self.read_reply(seconds=seconds)

    async def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._writer.write_eof()

    async def reset(self) -> None:
        """Break the connection with RST."""
        break_off(self._writer)
        await self._gone()

    async def close(self) -> None:
        """Close without QUIT."""
        self._writer.close()
        await self._gone()

    async def _gone(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


@dataclass(frozen=True)
class Sent:
    """What a client heard."""

    mail: Answer
    rcpt: tuple[Answer, ...]
    """In the order of the recipients; empty when MAIL was refused."""
    final: Answer
    """After the final dot, or where the server stopped the transaction before."""
    ok: bool = field(init=False)
    """What PHPMailer takes for success of the message: exactly 250."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ok", self.final.code == 250)


async def send(
    port: int,
    sender: bytes,
    recipients: Iterable[bytes],
    content: bytes,
    *,
    parameters: bytes = b"",
    pipelined: bool = False,
    seconds: float = LONGEST,
) -> Sent:
    """Send a message on a connection of its own as PHPMailer does: each command after the reply to the one before.

    With `pipelined`, MAIL, RCPTs and DATA go out at once. Recipients that were refused do not stop the rest.
    """
    paths = tuple(recipients)
    envelope = [b"MAIL FROM:<%b>%b" % (sender, b" " + parameters if parameters else b"")]
    envelope += [b"RCPT TO:<%b>" % path for path in paths]
    async with await RawClient.open(port) as client:
        if client.greeting.code != 220:
            return Sent(client.greeting, (), client.greeting)
        await client.command(b"EHLO " + _NAME, seconds=seconds)
        if pipelined:
            await client.send_raw(b"".join(line + b"\r\n" for line in [*envelope, b"DATA"]))
            mail, *rcpt, data = [await client.read_reply(seconds=seconds) for _ in range(len(envelope) + 1)]
            if data.code == 354:
                await client.send_raw(stuff(content) if any(answer.code < 300 for answer in rcpt) else b".\r\n")
                data = await client.read_reply(seconds=seconds)
        else:
            mail = await client.command(envelope[0], seconds=seconds)
            if mail.code != 250:
                return Sent(mail, (), mail)
            rcpt = [await client.command(line, seconds=seconds) for line in envelope[1:]]
            data = next((answer for answer in rcpt if answer.code >= 300), GONE)
            if any(200 <= answer.code < 300 for answer in rcpt):
                data = await client.content(content, seconds=seconds)
        await client.send_raw(b"QUIT\r\n")
        return Sent(mail, tuple(rcpt), data)
