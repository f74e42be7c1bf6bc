"""SMTP clients for tests: `RawClient` sends what the test says, `send` sends a whole message."""

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
    from pathlib import Path

_NAME = b"client.example.test"


class Answer(NamedTuple):
    """A reply: its code, and the text of each line."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def text(self) -> bytes:
        return b"\n".join(self.lines)


GONE = Answer(0, (b"connection closed",))
"""Takes the place of a reply if the connection ended."""


def stuff(content: bytes) -> bytes:
    """Returns the content as it is sent: dots doubled at line starts, CRLF at its end, and the final dot."""
    wire = re.sub(rb"(\A|\r\n)\.", rb"\1..", content)
    return wire + (b"" if not wire or wire.endswith(b"\r\n") else b"\r\n") + b".\r\n"


class RawClient:
    """A connection that sends what a test says, valid or not. Every read has a time limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.greeting = GONE

    @classmethod
    async def open(
        cls, port: int, host: str = HOST, *, tls: ssl.SSLContext | None = None, greeted: bool = True
    ) -> Self:
        """Connects, and reads the greeting unless `greeted` is False."""
        name = "localhost" if tls else None
        client = cls(*await asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=1 << 20))
        if greeted:
            client.greeting = await client.read_reply()
        return client

    @classmethod
    async def open_unix(cls, path: Path) -> Self:
        """Connects to a Unix socket, and reads the greeting."""
        client = cls(*await asyncio.open_unix_connection(path, limit=1 << 20))
        client.greeting = await client.read_reply()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def command(self, line: bytes, *, seconds: float = LONGEST) -> Answer:
        """Sends a line and returns the reply."""
        await self.send_raw(line + b"\r\n")
        return await self.read_reply(seconds=seconds)

    async def send_raw(self, octets: bytes) -> None:
        """Sends octets unchanged. If the connection has ended, the next read returns `GONE`."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(octets)
            await self._writer.drain()

    async def read_reply(self, *, seconds: float = LONGEST) -> Answer:
        """Returns one reply, or `GONE` if the connection ends first. Raises `TimeoutError`."""
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
        """Sends STARTTLS and begins TLS if the reply is 220."""
        answer = await self.command(b"STARTTLS")
        if answer.code == 220:
            await self.handshake(context)
        return answer

    async def handshake(self, context: ssl.SSLContext) -> None:
        """Begins TLS. Raises `OSError` if the handshake fails."""
        await self._writer.start_tls(context, server_hostname="localhost")

    @property
    def server_certificate(self) -> bytes:
        """The certificate of the server, in DER."""
        certificate: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate

    async def begin(self, sender: bytes, *recipients: bytes) -> list[Answer]:
        """Sends EHLO, MAIL and each RCPT, one after the other. Returns the replies to RCPT."""
        await self.command(b"EHLO " + _NAME)
        await self.command(b"MAIL FROM:<%b>" % sender)
        return [await self.command(b"RCPT TO:<%b>" % recipient) for recipient in recipients]

    async def content(self, content: bytes, *, seconds: float = LONGEST) -> Answer:
        """Sends DATA, the content and the final dot. Returns the last reply, or the reply to DATA if it is not 354."""
        answer = await self.command(b"DATA", seconds=seconds)
        if answer.code != 354:
            return answer
        await self.send_raw(stuff(content))
        return await self.read_reply(seconds=seconds)

    async def half_close(self) -> None:
        """Sends FIN. The client can still read."""
        self._writer.write_eof()

    async def reset(self) -> None:
        """Ends the connection with RST."""
        break_off(self._writer)
        await self._gone()

    async def close(self) -> None:
        """Closes the connection without QUIT."""
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
    """The replies that a client received."""

    mail: Answer
    rcpt: tuple[Answer, ...]
    """In the order of the recipients; empty if MAIL was refused."""
    final: Answer
    """The reply to the final dot, or the one that ended the transaction before it."""
    ok: bool = field(init=False)
    """Whether PHPMailer would report success: only for 250."""

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
    """Sends a message on a new connection as PHPMailer does: each command after the reply to the one before.

    If `pipelined`, MAIL, RCPT and DATA are sent at once. Refused recipients do not stop the others.
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
