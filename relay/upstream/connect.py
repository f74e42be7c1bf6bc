"""From a URL to a connection on which a transaction can begin: TCP, TLS, EHLO, AUTH."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import aiosmtplib

from relay.core.errors import UpstreamDown, UpstreamRefused
from relay.upstream.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.reply import Reply

# Postfix takes RSETs between accepted messages for junk (limit 100, then each command costs a second) and counts every
# refusal, 4yz or 5yz, as an error (from 10 on each further command costs a second, at 20 it closes). A connection that
# carried so many would make later, innocent transactions pay.
MOST_MESSAGES = 100
MOST_RESETS = 50
MOST_REFUSALS = 5
LONGEST_LIFE = 300.0
"""Seconds."""

# OpenSSL's verification errors for certificates without what RFC 5280 requires. Python checks this from 3.13 on
# (VERIFY_X509_STRICT).
_ERRORS_RFC_5280 = range(80, 94)
_REMEDY_RFC_5280 = (
    "; Python 3.13 and newer require the extensions of RFC 5280: issue the CA's certificate again with "
    "basicConstraints=critical,CA:TRUE and keyUsage=critical,keyCertSign,cRLSign, and all with key identifiers"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect. `implicit_tls` and `starttls` are never both set."""

    host: str
    port: int
    starttls: bool = False
    implicit_tls: bool = False
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    helo_name: str = "localhost"
    limit: float = 10.0
    """Seconds for all steps up to the first MAIL."""

    def __str__(self) -> str:
        """Name it for logs: without user and password."""
        return f"{self.host}:{self.port}"


class Connection:
    """A connection that is ready for MAIL, and what it has been through."""

    def __init__(self, wire: Wire, extensions: Mapping[str, str], born: float) -> None:
        self.wire = wire
        self.extensions = extensions
        self.born = born
        self.rank = 0
        """Of its upstream in the order of preference, from 0."""
        self.messages = 0
        self.resets = 0
        self.refusals = 0
        self._reset_owed = False

    @property
    def tired(self) -> bool:
        """Another command would be answered slowly, or counted against a later message."""
        return self.refusals >= MOST_REFUSALS or self.resets >= MOST_RESETS

    def reusable(self, now: float) -> bool:
        """Say whether another transaction may use it."""
        return not (self.wire.ended or self.tired or self.messages >= MOST_MESSAGES or now - self.born > LONGEST_LIFE)

    def accepted(self) -> None:
        """Count a message that the upstream took; it forgets our refusals and RSETs with it."""
        self.messages += 1
        self.resets = self.refusals = 0

    async def run(self, commands: Sequence[bytes], limit: float) -> list[Reply]:
        """Send commands, all at once where the upstream offers PIPELINING, and count what it will hold against us."""
        if self._pipelining:
            replies = await self.wire.ask(commands, limit)
        else:
            await self._pay_reset(limit)
            replies = [reply for command in commands for reply in await self.wire.ask([command], limit)]
        self.refusals += sum(reply.permanent or reply.transient for reply in replies)
        return replies

    def reset(self) -> None:
        """Leave the transaction; without PIPELINING only when the connection is used again."""
        self.resets += 1
        if self._pipelining:
            self.wire.reset()
        else:
            self._reset_owed = True

    @property
    def _pipelining(self) -> bool:
        return "pipelining" in self.extensions

    async def _pay_reset(self, limit: float) -> None:
        if self._reset_owed:
            self._reset_owed = False
            [reply] = await self.wire.ask([b"RSET\r\n"], limit)
            if not reply.positive:
                raise self.wire.end(f"refused RSET: {reply.code} {reply.text}")


async def connect(target: Target) -> Connection:
    """Open a connection and introduce ourselves. Raises `UpstreamDown` or `UpstreamRefused`, saying why."""
    client = aiosmtplib.SMTP(
        hostname=target.host,
        port=target.port,
        local_hostname=target.helo_name,
        timeout=target.limit,
        use_tls=target.implicit_tls,
        start_tls=target.starttls,
        tls_context=target.tls,
        username=target.user or None,
        password=target.password or None,
    )
    try:
        async with asyncio.timeout(target.limit) as limit:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await _introduce(client)
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        client.close()
        if limit.expired() or isinstance(error, TimeoutError):
            raise UpstreamDown(f"{target} was not ready for mail within {target.limit:g} s") from error
        raise _explain(target, error) from error
    except BaseException:
        client.close()
        raise
    transport = cast("asyncio.Transport", client.transport)
    return Connection(Wire(transport), dict(client.esmtp_extensions), asyncio.get_running_loop().time())


async def _introduce(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as refusal:
        if refusal.code // 100 != 5:  # noqa: PLR2004 - only a server that does not know EHLO deserves HELO
            raise
        await client.helo()


def _explain(target: Target, error: BaseException) -> UpstreamDown | UpstreamRefused:
    certificate = error
    while certificate and not isinstance(certificate, ssl.SSLError):
        certificate = certificate.__cause__  # type: ignore[assignment]
    if isinstance(certificate, ssl.SSLCertVerificationError):
        remedy = _REMEDY_RFC_5280 if certificate.verify_code in _ERRORS_RFC_5280 else ""
        return UpstreamRefused(f"the certificate of {target} is not trusted: {certificate.verify_message}{remedy}")
    if isinstance(certificate, ssl.SSLError):
        return UpstreamRefused(f"TLS with {target} failed: {certificate.reason or certificate}")
    if isinstance(error, aiosmtplib.SMTPResponseException) and not 200 <= error.code < 600:  # noqa: PLR2004 - RFC 5321 4.2
        return UpstreamDown(f"{target} does not answer as an SMTP server does: {error.message}")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        text = f"{target} answered {error.code} {error.message}"
        return UpstreamDown(text) if error.code // 100 == 4 else UpstreamRefused(text)  # noqa: PLR2004 - 4yz: later
    if isinstance(error, aiosmtplib.SMTPException) and not isinstance(error, OSError):
        # STARTTLS or AUTH, of which the library gives no class of their own; its losses and timeouts are OSErrors.
        return UpstreamRefused(f"{target} does not offer what the settings ask for: {str(error).rstrip('.')}")
    return UpstreamDown(f"no connection to {target}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """Give the innermost cause: "Connection refused" rather than what three libraries made of it."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # those of the resolver are below
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
