"""Connections to Redis servers, and the reasons why they fail."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from relay.claims.redis.servers import Address, RedisServers


def new_connection(servers: RedisServers, timeout: float, address: Address | None = None) -> AbstractConnection:
    """Returns a connection, not open yet, to `address` or else to the first server. `timeout` (s) limits connecting."""
    options: dict[str, Any] = {
        "db": servers.database,
        "username": servers.user or None,
        "password": servers.password or None,
        "socket_connect_timeout": timeout,
        "socket_timeout": None,
        # The library would send a whole pipeline again, up to ten times.
        "retry": Retry(NoBackoff(), 0),
        # RESP 2 needs no greeting, and the store uses no feature of RESP 3.
        "protocol": 2,
    }
    if servers.socket:
        return UnixDomainSocketConnection(path=servers.socket, **options)
    host, port = address or servers.addresses[0]
    if servers.tls is None:
        return Connection(host=host, port=port, **options)
    return SSLConnection(host=host, port=port, **options, **servers.tls)  # type: ignore[arg-type]


def reason(error: Exception) -> str:
    """Returns why a request failed, without the address and error numbers that the library's text repeats."""
    if isinstance(error, InvalidResponse):
        return "answers, but not as Redis does"  # it speaks another protocol, such as SMTP
    text = str(error)
    # As in: Error 1 connecting to HOST:PORT. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: … (_ssl.c:9).
    if tls := re.search(r"\[SSL: \w+\] (.*?)(?: \(_ssl|$)", text):
        return tls[1]
    numbers = set(re.findall(r"\b(?:Error|Errno) (\d+)", text))
    if len(numbers) == 1:
        return os.strerror(int(numbers.pop())).lower()
    # As in: Error -2 connecting to HOST:PORT. Name or service not known.
    return re.sub(r"^Error \S+ connecting to \S+ (.*?)\.?$", r"\1", text)
