"""The test of an upstream: connects as the relay does, and sends MAIL, RCPT and RSET, never content."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiosmtplib

from relay.check import remedies
from relay.check.finding import Caution, Finding
from relay.check.port import PortAnswer, ask_port
from relay.core.errors import UpstreamError
from relay.runtime.tasks import Tasks
from relay.upstream.connect import connect
from relay.upstream.wire import ConnectionEnded

if TYPE_CHECKING:
    from relay.core.reply import Reply
    from relay.settings.urls import SmtpUrl
    from relay.upstream.connect import Target
    from relay.upstream.connection import Connection

_COMMAND_LIMIT = 30.0
"""Seconds for each reply. The relay itself waits for `upstream.reply_timeout`, too long for a person."""
_USUAL_GREETING = 4.0
"""Seconds after which a port without a greeting is asked whether it expects TLS."""
_LONGEST_QUOTE = 500
"""Characters of a reply that are shown."""
_IPV4 = 4
_LOGIN_NEEDED = re.compile(r"53[05] |55[0-9] 5\.7\.[01] ")
"""How a server refuses mail without a login: RFC 4954 section 6, and Postfix's restrictions."""
_LONGEST_SIZE = 20
"""Digits (RFC 1870 section 3)."""


@dataclass(frozen=True, slots=True)
class TrialAddresses:
    """The addresses that `--mail-from` and `--rcpt-to` give; None if an address is not given."""

    sender: str | None = None
    recipient: str | None = None

    def sender_for(self, target: Target) -> str:
        """Returns the reverse-path. By default the user of the login, if it is an address, else the null sender."""
        if self.sender is not None:
            return self.sender
        return target.user if "@" in target.user else ""

    def recipient_for(self, target: Target) -> str:
        """Returns the forward-path. By default the sender, else postmaster at the upstream."""
        if self.recipient is not None:
            return self.recipient
        return self.sender_for(target) or f"postmaster@{_domain(target)}"


def _domain(target: Target) -> str:
    """Returns the upstream's name; this host's if the URL has an IP address, or else an address literal.

    Not `postmaster` without a domain: Postfix accepts it without looking at its restrictions (RFC 5321 section 4.5.1).
    """
    try:
        address = ipaddress.ip_address(target.host)
    except ValueError:
        return target.host
    if "." in target.helo_name and not target.helo_name.startswith("["):
        return target.helo_name
    return f"[{address}]" if address.version == _IPV4 else f"[IPv6:{address}]"


class _TlsExpected(Exception):  # noqa: N818 - it describes the upstream
    """The port speaks TLS from the first byte, and the URL does not."""


@dataclass(frozen=True, slots=True)
class UpstreamTest:
    """The test of one upstream. `key` is the setting that contains its URL."""

    key: str
    url: SmtpUrl
    target: Target
    addresses: TrialAddresses
    reply_timeout: float
    """Seconds."""
    verifies_logins: bool = False
    """Whether it verifies the logins of clients (`auth.mode = "passthrough"`)."""

    async def run(self) -> list[Finding]:
        """Connects, sends the commands, and returns the finding."""
        try:
            connection = await self._connect()
        except UpstreamError as error:
            return [await self._unreachable(error)]
        except _TlsExpected:
            remedy = remedies.tls_expected(self.key, self.url)
            return [Finding(self.key, f"{self.url}: does not greet, but speaks TLS", remedy, "greeting")]
        try:
            refusal = await self._try_transaction(connection)
        finally:
            connection.wire.quit()
        if self.verifies_logins and "auth" not in connection.extensions:
            remedy = f"enable SASL there, write smtp+starttls:// in {self.key} if it needs TLS, or another auth.mode"
            text = f"{self.url}: no AUTH is offered, so it cannot verify the logins of clients"
            return [Finding("auth.mode", text, remedy, "EHLO")]
        if self.verifies_logins and refusal and re.match(_LOGIN_NEEDED, refusal.text.rpartition("refused: ")[2]):
            refusal = None  # it refuses mail without a login, as it should
        return [refusal or Finding(self.key, f"{self.url} answers{_size(connection)}")]

    async def _connect(self) -> Connection:
        """Connects. Raises `UpstreamError`, or `_TlsExpected` without waiting for a greeting that cannot come."""
        connecting = Tasks().start(self._connection_or_error(), "connect")
        try:
            await asyncio.wait([connecting], timeout=_USUAL_GREETING)
            if not connecting.done() and not self.target.implicit_tls:
                answer = await ask_port(self.target.host, self.target.port)
                if answer.tls and not connecting.done():
                    raise _TlsExpected
            result = await connecting
        finally:
            connecting.cancel()
        if isinstance(result, UpstreamError):
            raise result
        return result

    async def _connection_or_error(self) -> Connection | UpstreamError:
        # `Tasks` logs exceptions, and this one is reported as a finding.
        try:
            return await connect(self.target)
        except UpstreamError as error:
            return error

    async def _try_transaction(self, connection: Connection) -> Finding | None:
        """Sends MAIL, RCPT and RSET. Returns what the server refused; None if it accepted all."""
        addresses, limit = self.addresses, min(self.reply_timeout, _COMMAND_LIMIT)
        commands = [
            ("MAIL", f"MAIL FROM:<{addresses.sender_for(self.target)}>", addresses.sender is None),
            ("RCPT", f"RCPT TO:<{addresses.recipient_for(self.target)}>", addresses.recipient is None),
            ("RSET", "RSET", False),
        ]
        for step, command, guessed in commands:
            try:
                [reply] = await connection.run([command.encode("ascii") + b"\r\n"], limit)
            except ConnectionEnded as error:
                remedy = f"see the log of that server, or correct {self.key}"
                return Finding(self.key, f"{self.url}: the connection ended at {command}: {error}", remedy, step)
            if not reply.positive:
                connection.reset()
                return self._refused(step, command, reply, guessed=guessed)
        return None

    def _refused(self, step: str, command: str, reply: Reply, *, guessed: bool) -> Finding:
        words = f"{reply.code} {reply.text}"[:_LONGEST_QUOTE]
        text = f"{self.url}: {command} was refused: {words}"
        if remedy := remedies.reply_remedy(words, self.key):
            return Finding(self.key, text, remedy, step)
        if guessed and (step == "RCPT" or remedies.concerns_address(words)):
            remedy = "name addresses that your application uses with --mail-from and --rcpt-to, and test again"
            return Caution(self.key, text, remedy, step)
        return Finding(self.key, text, remedies.other_reply_remedy(reply), step)

    async def _unreachable(self, error: UpstreamError) -> Finding:
        causes = _causes(error)
        step = _failed_step(causes)
        answer = PortAnswer()
        # A server whose certificate is not trusted does speak TLS; there the port has nothing to add.
        if step in {"", "TLS"} and not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            answer = await ask_port(self.target.host, self.target.port)
            step = step or _silent_step(answer)
        words = str(error)[:_LONGEST_QUOTE]
        # A usual greeting explains something only where TLS was expected in its place.
        unusual = self.target.implicit_tls or not answer.said.startswith("220")
        quote = f" (it says: {answer.said})" if answer.said and unusual else ""
        remedy = remedies.connect_remedy(words, self.key, self.url, step, answer)
        return Finding(self.key, f"{self.url}: {words}{quote}", remedy, step)


def _size(connection: Connection) -> str:
    size = connection.extensions.get("size", "")
    known = size.isdecimal() and len(size) <= _LONGEST_SIZE and int(size)
    return f" and takes messages up to {int(size)} bytes" if known else ""


def _causes(error: BaseException) -> list[BaseException]:
    """Returns the error and what caused it, the innermost last."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


_STEPS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "name look-up"),
    (ssl.SSLError, "TLS"),
    (aiosmtplib.SMTPAuthenticationError, "login"),
    (aiosmtplib.SMTPHeloError, "EHLO"),
    (aiosmtplib.SMTPConnectResponseError, "greeting"),
)


def _failed_step(causes: list[BaseException]) -> str:
    """Returns the step by the kind of error; empty if only the port itself can show it."""
    for kind, step in _STEPS:
        if any(isinstance(cause, kind) for cause in causes):
            return step
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return ""
    text = " ".join(map(str, causes))
    # aiosmtplib's text about a missing AUTH names TLS, too.
    if "TLS" in text and "SMTP AUTH extension" not in text:
        return "TLS"
    if "auth" in text.lower():
        return "login"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "TCP connection"
    return ""


def _silent_step(answer: PortAnswer) -> str:
    """Returns the step at which a server hangs or hangs up, by what its port answers."""
    if not answer.resolved:
        return "name look-up"
    if not answer.connected:
        return "TCP connection"
    return "EHLO, TLS or login" if answer.said.startswith("220") else "greeting"
