"""What a server says on a port, without any protocol library: the evidence when a connection has failed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LIMIT = 3.0
"""Seconds for each of the steps: to connect, to hear the first line, to agree on TLS."""
_BEFORE_REQUEST = 0.3
"""Seconds to wait for a server that speaks first."""
_LONGEST_LINE = 500
"""Bytes."""


@dataclass(frozen=True, slots=True)
class PortAnswer:
    """What a server does on a port."""

    resolved: bool = True
    """Whether the host name has an address."""
    connected: bool = False
    """Whether it accepts TCP connections."""
    said: str = ""
    """Its first line without TLS."""
    tls: bool = False
    """Whether it answers to a TLS handshake, even if it refuses our versions and ciphers."""


async def ask_port(host: str, port: int, request: bytes = b"") -> PortAnswer:
    """Connects, sends `request` if there is one, and reads a line; if none arrives, tries TLS on a second connection.

    Takes at most 10 s. Never raises `OSError`.
    """
    try:
        async with _connection(host, port) as (reader, writer):
            said = await _first_line(reader, writer, request)
    except socket.gaierror:
        return PortAnswer(resolved=False)
    except OSError:
        return PortAnswer()
    # The answer of a TLS server to plain text is a binary alert.
    if said.isprintable() and said:
        return PortAnswer(connected=True, said=said)
    return PortAnswer(connected=True, tls=await _speaks_tls(host, port))


@contextlib.asynccontextmanager
async def _connection(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(_LIMIT):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _first_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    if request:
        # A server that refuses us says why and closes. A write to the closed connection could lose its words.
        if line := await _read_line(reader, _BEFORE_REQUEST):
            return line
        writer.write(request)
    return await _read_line(reader, _LIMIT)


async def _read_line(reader: asyncio.StreamReader, limit: float) -> str:
    line = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(limit):
            while b"\n" not in line and len(line) < _LONGEST_LINE and (more := await reader.read(_LONGEST_LINE)):
                line += more
    return line.partition(b"\n")[0].removesuffix(b"\r")[:_LONGEST_LINE].decode("latin-1")


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with _connection(host, port, context):
            return True
    except ssl.SSLError as error:
        return "ALERT" in error.reason or "PROTOCOL" in error.reason
    except OSError:
        return False
