"""The header of the PROXY protocol, versions 1 and 2, with which a balancer names its client.

aiosmtpd parses the header. It is read from the socket before asyncio takes the socket over, and without a byte of what
follows: that may be a TLS handshake.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from aiosmtpd.proxy_protocol import AF, PROTO, V2_CMD, ProxyData, get_proxy

_LONGEST_LINE = 107
"""Bytes of a header of version 1."""
_LONGEST = 4096
"""Bytes of a header of version 2. Addresses take 52 at most; the rest are TLVs, which the relay does not use."""

# aiosmtpd logs every header that it refuses. The relay counts them, and logs one a minute.
logging.getLogger("mail.debug").setLevel(logging.CRITICAL)


class NoProxyHeader(Exception):  # noqa: N818 - a balancer's fault, answered by closing the connection
    """The header is missing, wrong, too long or late."""


class NothingSent(Exception):  # noqa: N818 - a health check that only connects
    """The connection ended without a byte."""


async def read_client(connection: socket.socket, limit: float) -> str | None:
    """Returns the IP address of the client, or None if the balancer connects for itself or knows no IP address.

    The header must arrive within `limit` seconds. Raises `NoProxyHeader` or `NothingSent`.
    """
    source = _HeaderSource(connection)
    try:
        async with asyncio.timeout(limit):
            header = await get_proxy(source)
    except TimeoutError:
        raise NoProxyHeader from None
    except (OSError, EOFError):
        raise (NoProxyHeader if source.received else NothingSent) from None
    return _client(header)


def _client(header: ProxyData) -> str | None:
    # The addresses of LOCAL are ignored, wrong ones too.
    if header.command == V2_CMD.LOCAL and header.whole_raw:
        return None
    if not header.valid:
        raise NoProxyHeader
    if header.family in {AF.UNSPEC, AF.UNIX}:
        return None
    if header.protocol != PROTO.STREAM:
        raise NoProxyHeader
    return str(header.src_addr)


class _HeaderSource:
    """What aiosmtpd reads a header from. Raises `EOFError` at the end, and `ValueError` beyond the limits."""

    def __init__(self, connection: socket.socket) -> None:
        self.received = 0
        """Bytes."""
        self._connection = connection

    async def read(self, size: int = 1) -> bytes:
        if self.received + size > _LONGEST:
            raise ValueError("header too long")
        data = await asyncio.get_running_loop().sock_recv(self._connection, size)
        if not data:
            raise EOFError
        self.received += len(data)
        return data

    async def readexactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.read(size - len(data))
        return data

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        data = await self.read()
        while not data.endswith(separator):
            if self.received >= _LONGEST_LINE:
                raise ValueError("header too long")
            data += await self.read(self._peek(separator))
        return data

    def _peek(self, separator: bytes) -> int:
        """Returns the number of bytes in the socket up to the separator or the limit, at least 1."""
        try:
            ahead = self._connection.recv(_LONGEST_LINE - self.received, socket.MSG_PEEK)
        except BlockingIOError:
            return 1
        return ahead.find(separator) + 1 or len(ahead) or 1
