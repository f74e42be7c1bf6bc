"""One session of the scripted peer: the server's side of SMTP (RFC 5321)."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parts.faults import HangUpError, Step

if TYPE_CHECKING:
    import asyncio

    from parts.peer import ScriptedPeer

EXTENSIONS = (b"PIPELINING", b"SIZE 10240000", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")
"""The relevant extensions of Postfix. The peer adds STARTTLS if it has a certificate and AUTH if it has credentials."""

_EXTENSION = {b"BODY": b"8BITMIME", b"RET": b"DSN", b"ENVID": b"DSN"}
"""The extension that a parameter of MAIL needs, if it has another name."""
_MAIL = re.compile(rb"MAIL FROM:\s*<(.*?)>((?:\s+\S+)*)\s*", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO:\s*<(.+?)>((?:\s+\S+)*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Message:
    """A message as it arrived. `recipients` are the accepted ones."""

    session: int
    reverse_path: bytes
    parameters: tuple[bytes, ...]
    recipients: tuple[bytes, ...]
    content: bytes
    at: float
    """Monotonic seconds."""


class Session:
    """A client's connection. `commands` holds each line as it arrived, except the answers to AUTH, and content."""

    def __init__(
        self, peer: ScriptedPeer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self.number = number
        self.reader = reader
        self.writer = writer
        self.open = True
        self.commands: list[bytes] = []
        self.ahead = 0
        """The number of commands that were followed by others before their reply, which only PIPELINING allows."""
        self.encrypted = peer.tls is not None
        self.authenticated = False
        self.user = b""
        """The name with which the client has logged in."""
        self._forget()

    def count(self, verb: bytes) -> int:
        """Returns the number of commands that begin with the verb."""
        return sum(command.upper().startswith(verb.upper()) for command in self.commands)

    async def run(self) -> None:
        """Replies to commands until one side ends the session."""
        await self._answer(Step.GREETING, b"220 peer.example.test ESMTP")
        while True:
            line = await self.reader.readuntil(b"\r\n")
            command = line[:-2]
            self.commands.append(command)
            self.ahead += bool(self.reader._buffer)  # type: ignore[attr-defined]
            verb = command.split(maxsplit=1)[0].upper().decode("latin-1") if command.strip() else ""
            handler = getattr(self, f"_do_{verb.lower()}", None)
            if handler is None:
                await self._send(b"500 5.5.2 Error: command not recognized")
            else:
                await handler(command)

    async def _answer(self, step: Step, usual: bytes, subject: bytes = b"") -> bytes:
        """Sends the reply of a fault at this step, or the usual reply. Returns the reply sent."""
        reply = await self.peer.visit(step, self, subject)
        reply = usual if reply is None else reply
        await self._send(reply)
        return reply

    async def _send(self, reply: bytes) -> None:
        self.writer.write(reply + b"\r\n")
        await self.writer.drain()

    def _forget(self) -> None:
        self._reverse_path: bytes | None = None
        self._parameters: tuple[bytes, ...] = ()
        self._recipients: list[bytes] = []

    async def _do_ehlo(self, command: bytes) -> None:
        self._forget()
        lines = [b"peer.example.test", *self.peer.extensions]
        if self.peer.starttls and not self.encrypted:
            lines.append(b"STARTTLS")
        if self.peer.credentials or self.peer.users:
            lines.append(b"AUTH PLAIN LOGIN")
        if self.peer.tokens:
            lines.append(b"AUTH XOAUTH2")
        marks = [b"-"] * (len(lines) - 1) + [b" "]
        await self._answer(
            Step.EHLO, b"\r\n".join(b"250" + mark + text for mark, text in zip(marks, lines, strict=True)), command
        )

    async def _do_helo(self, command: bytes) -> None:
        self._forget()
        await self._answer(Step.EHLO, b"250 peer.example.test", command)

    async def _do_starttls(self, command: bytes) -> None:
        if not self.peer.starttls or self.encrypted:
            await self._send(b"503 5.5.1 TLS is not available")
            return
        reply = await self._answer(Step.STARTTLS, b"220 2.0.0 Ready to start TLS", command)
        if reply.startswith(b"2"):
            await self.writer.start_tls(self.peer.starttls)
            self.encrypted = True
            self._forget()

    async def _do_auth(self, command: bytes) -> None:
        _, mechanism, *initial = command.split()
        if mechanism.upper() == b"XOAUTH2":
            await self._do_xoauth2(initial[0])
            return
        if mechanism.upper() == b"PLAIN":
            raw = initial[0] if initial else await self._ask(b"")
            given = tuple(base64.b64decode(raw).split(b"\0")[1:])
        else:
            name = initial[0] if initial else await self._ask(b"Username:")
            given = (base64.b64decode(name), base64.b64decode(await self._ask(b"Password:")))
        is_right = given == self.peer.credentials or given in self.peer.users.items()
        usual = b"235 2.7.0 Authenticated" if is_right else b"535 5.7.8 Wrong name or password"
        await self._end_auth(mechanism, usual, given[0])

    async def _do_xoauth2(self, initial: bytes) -> None:
        """Google's and Microsoft's XOAUTH2: after a wrong token the client must send an empty line."""
        match = re.fullmatch(rb"user=([^\x01]+)\x01auth=Bearer ([!-~]+)\x01\x01", base64.b64decode(initial))
        usual = b"235 2.7.0 Accepted"
        if not match or self.peer.tokens.get(match[1]) != match[2]:
            await self._send(b"334 " + base64.b64encode(b'{"status":"400","schemes":"Bearer"}'))
            assert await self.reader.readuntil(b"\r\n") == b"\r\n"
            usual = b"535 5.7.8 Username and Password not accepted"
        await self._end_auth(b"XOAUTH2", usual, match[1] if match else b"")

    async def _end_auth(self, mechanism: bytes, usual: bytes, user: bytes) -> None:
        reply = await self._answer(Step.AUTH, usual, mechanism)
        self.authenticated = reply.startswith(b"2")
        self.user = user if self.authenticated else b""

    async def _ask(self, prompt: bytes) -> bytes:
        await self._send(b"334 " + base64.b64encode(prompt))
        return (await self.reader.readuntil(b"\r\n")).strip()

    async def _do_mail(self, command: bytes) -> None:
        match = _MAIL.fullmatch(command)
        usual = self._mail_reply(match[2].split()) if match else b"501 5.5.4 Syntax: MAIL FROM:<address>"
        reply = await self._answer(Step.MAIL, usual, command)
        if match and reply.startswith(b"2"):
            self._reverse_path, self._parameters = match[1], tuple(match[2].split())

    def _mail_reply(self, parameters: list[bytes]) -> bytes:
        if (self.peer.credentials or self.peer.tokens) and not self.authenticated:
            return b"530 5.7.0 Authentication required"
        if self._reverse_path is not None:
            return b"503 5.5.1 Error: nested MAIL command"
        offered = {name.upper(): value for name, _, value in (e.partition(b" ") for e in self.peer.extensions)}
        for parameter in parameters:
            name, _, value = parameter.upper().partition(b"=")
            if _EXTENSION.get(name, name) not in offered:
                return b"555 5.5.4 Unsupported option: " + parameter
            if name == b"SIZE" and offered[name] and int(value) > int(offered[name]):
                return b"552 5.3.4 Message size exceeds fixed limit"
        return b"250 2.1.0 Ok"

    async def _do_rcpt(self, command: bytes) -> None:
        match = _RCPT.fullmatch(command)
        usual = b"250 2.1.5 Ok"
        parameters = match[2].split() if match else []
        if not match:
            usual = b"501 5.5.4 Syntax: RCPT TO:<address>"
        elif self._reverse_path is None:
            usual = b"503 5.5.1 Error: need MAIL command"
        elif parameters and b"DSN" not in self.peer.extensions:
            usual = b"555 5.5.4 Unsupported option: " + parameters[0]
        reply = await self._answer(Step.RCPT, usual, command)
        if match and reply.startswith(b"2"):
            self._recipients.append(match[1])

    async def _do_data(self, command: bytes) -> None:
        usual = b"354 End data with <CR><LF>.<CR><LF>" if self._recipients else b"554 5.5.1 Error: no valid recipients"
        reply = await self._answer(Step.DATA, usual, command)
        if reply.startswith(b"3"):
            await self._receive(await self._read_content())

    async def _read_content(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self.reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        self.commands.append(b".")
        return b"".join(lines)

    async def _receive(self, content: bytes) -> None:
        message = Message(
            self.number,
            self._reverse_path or b"",
            self._parameters,
            tuple(self._recipients),
            content,
            time.monotonic(),
        )
        self._forget()
        self.peer.received.append(message)
        usual = b"250 2.0.0 Ok: queued as %dX%d" % (self.number, len(self.peer.received))
        if not message.recipients:
            usual = b"554 5.5.1 Error: no valid recipients"
        reply = await self.peer.visit(Step.DOT, self, content)
        reply = usual if reply is None else reply
        if reply.startswith(b"2"):
            self.peer.accepted.append(message)
            await self.peer.tell()
            await self._answer(Step.REPLY, reply, content)
        else:
            await self._send(reply)

    async def _do_rset(self, command: bytes) -> None:
        self._forget()
        await self._answer(Step.RSET, b"250 2.0.0 Ok", command)

    async def _do_noop(self, command: bytes) -> None:
        await self._answer(Step.NOOP, b"250 2.0.0 Ok", command)

    async def _do_quit(self, command: bytes) -> None:
        await self._answer(Step.QUIT, b"221 2.0.0 Bye", command)
        raise HangUpError
