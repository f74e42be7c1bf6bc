"""Opens a connection on which a transaction can begin: name look-up, TCP, greeting, TLS, EHLO, AUTH."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import aiosmtplib
from aiohappyeyeballs import start_connection

from relay.core.errors import LoginRefused, UpstreamDown
from relay.upstream.connect_failure import explain
from relay.upstream.connection import Connection
from relay.upstream.wire import Wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from aiohappyeyeballs import AddrInfoType

    from relay.core.login import Credentials
    from relay.upstream.token import AccessToken

_NEXT_ADDRESS_AFTER = 0.25
"""Seconds after which the next address of a host is tried as well (RFC 8305 section 5)."""
_UNSUITABLE = frozenset({502, 504, 534})
"""Codes by which a server refuses a login mechanism, not the password (RFC 4954 sections 4 and 6)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect. `implicit_tls` and `starttls` are never both set. Times in seconds."""

    host: str
    port: int
    starttls: bool = False
    implicit_tls: bool = False
    user: str = ""
    password: str | bytes = field(default="", repr=False)
    token: AccessToken | None = field(default=None, repr=False)
    """The source of access tokens for XOAUTH2. If it is set, `password` is not used."""
    tls: ssl.SSLContext | None = None
    helo_name: str = ""
    """The name in EHLO. If empty, the local address of the connection (RFC 5321 section 4.1.4)."""
    limit: float = 10.0
    """For all steps up to the first MAIL, except for the greeting."""
    greeting_limit: float = 60.0
    """For the greeting, and with `implicit_tls` the TLS handshake before it."""

    def __str__(self) -> str:
        """Returns `host:port`, for logs: without user and password."""
        return f"{self.host}:{self.port}"

    def with_login(self, credentials: Credentials) -> Target:
        """Returns the target with a client's name and password."""
        return replace(self, user=credentials.name, password=credentials.password, token=None)


class _Attempt:
    """One attempt to connect, with its time limit and the address that it tries."""

    def __init__(
        self,
        target: Target,
        addresses: Sequence[AddrInfoType],
        observe: Callable[[str, float], None],
        limit: asyncio.Timeout,
    ) -> None:
        self.target = target
        self.greeted = False
        self.longest = target.limit
        """The limit of the current step in seconds."""
        self._observe = observe
        self._limit = limit
        self._addresses = addresses

    async def connect(self) -> Connection:
        """Connects to the address that answers first. If it turns out to be down, tries the others."""
        while True:
            sock = await self._connect_socket()
            client = self._client(sock)
            try:
                await self._begin(client)
                return _take_over(client)
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                client.close()
                failure = explain(self.target, error, greeted=self.greeted)
                if not (self._addresses and isinstance(failure, UpstreamDown)):
                    raise
            except BaseException:
                client.close()
                raise

    async def _connect_socket(self) -> socket.socket:
        with self._step("connect"):
            sock = await start_connection(self._addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, interleave=1)
        address = sock.getpeername()
        self._addresses = [info for info in self._addresses if info[4][:2] != address[:2]]
        return sock

    def _client(self, sock: socket.socket) -> aiosmtplib.SMTP:
        target = self.target
        return aiosmtplib.SMTP(
            hostname=target.host,
            port=None,
            sock=sock,
            local_hostname=target.helo_name or _address_literal(sock),
            timeout=target.limit,
            use_tls=target.implicit_tls,
            start_tls=False,
            tls_context=target.tls,
        )

    async def _begin(self, client: aiosmtplib.SMTP) -> None:
        self.greeted = False
        with self._step("greeting"), self._own_limit(self.target.greeting_limit):
            await client.connect(timeout=self.target.greeting_limit)
        self.greeted = True
        if self.target.starttls:
            with self._step("tls"):
                await _say_hello(client)
                await client.starttls()
        with self._step("ehlo"):
            await _say_hello(client)
        if self.target.user:
            with self._step("login"):
                await _login(client, self.target)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Reports how long a step took, whatever its end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._observe(name, loop.time() - began)

    @contextmanager
    def _own_limit(self, seconds: float) -> Iterator[None]:
        """Gives a step its own time limit, which does not count towards the limit of the others."""
        loop = asyncio.get_running_loop()
        began, due = loop.time(), self._limit.when() or 0.0
        self._limit.reschedule(began + seconds)
        self.longest = seconds
        try:
            yield
        finally:
            if not self._limit.expired():
                self._limit.reschedule(due + loop.time() - began)
                self.longest = self.target.limit


async def look_up(target: Target) -> Sequence[AddrInfoType]:
    """Returns the addresses of the host. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)


async def connect(
    target: Target,
    observe: Callable[[str, float], None] = lambda step, seconds: None,  # noqa: ARG005
    look_up: Callable[[Target], Awaitable[Sequence[AddrInfoType]]] = look_up,
) -> Connection:
    """Opens a connection, sends EHLO and logs in. `observe` receives the name of each step and its seconds.

    If the upstream refuses an access token, another one is tried, once. Raises `UpstreamDown` or `UpstreamRefused`.
    """
    if target.token is None:
        return await _connect(target, observe, look_up)
    token = await target.token.get()
    try:
        return await _connect(replace(target, password=token), observe, look_up)
    except LoginRefused:
        another = await target.token.get(instead_of=token)
        if another == token:
            raise
        return await _connect(replace(target, password=another), observe, look_up)


async def _connect(
    target: Target,
    observe: Callable[[str, float], None],
    look_up: Callable[[Target], Awaitable[Sequence[AddrInfoType]]],
) -> Connection:
    attempt: _Attempt | None = None
    try:
        async with asyncio.timeout(target.limit) as limit:
            attempt = _Attempt(target, await look_up(target), observe, limit)
            return await attempt.connect()
    except (aiosmtplib.SMTPException, OSError, ValueError, RuntimeError) as error:  # uvloop raises RuntimeError
        if limit.expired() or isinstance(error, TimeoutError):
            longest = attempt.longest if attempt else target.limit
            raise UpstreamDown(f"{target} was not ready for mail within {longest:g} s") from error
        raise explain(target, error, greeted=attempt is not None and attempt.greeted) from error


def _take_over(client: aiosmtplib.SMTP) -> Connection:
    """Returns the connection without its client. Raises `SMTPServerDisconnected` if it has ended meanwhile."""
    if client.transport is None:
        raise aiosmtplib.SMTPServerDisconnected("closed by the upstream")
    wire = Wire(cast("asyncio.Transport", client.transport))
    return Connection(wire, dict(client.esmtp_extensions), asyncio.get_running_loop().time())


async def _say_hello(client: aiosmtplib.SMTP) -> None:
    """Sends EHLO unless that is done, and HELO if the server does not know EHLO."""
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as refusal:
        if refusal.code // 100 != 5:  # noqa: PLR2004 - only 5yz means that the server does not know EHLO
            raise
        await client.helo()


async def _login(client: aiosmtplib.SMTP, target: Target) -> None:
    """Logs in with the first mechanism that the server does not refuse as such.

    aiosmtplib's `login` tries the same wrong password with each mechanism. Providers count that as several failures.
    """
    if target.token is not None:
        if "xoauth2" not in client.server_auth_methods:
            raise aiosmtplib.SMTPException("XOAUTH2 (AUTH) is missing")
        await client.auth_xoauth2(target.user, target.password)
        return
    mechanisms = {"cram-md5": client.auth_crammd5, "plain": client.auth_plain, "login": client.auth_login}
    offered = [mechanism for mechanism in client.supported_auth_methods if mechanism in mechanisms]
    if not offered:
        await client.login(target.user, "")  # raises the exception that names what is missing
    for mechanism in offered:
        try:
            await mechanisms[mechanism](target.user, target.password)
        except aiosmtplib.SMTPAuthenticationError as refusal:
            if refusal.code not in _UNSUITABLE or mechanism == offered[-1]:
                raise
        else:
            return


def _address_literal(sock: socket.socket) -> str:
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if sock.family == socket.AF_INET6 else f"[{address}]"
