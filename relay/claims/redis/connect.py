"""How Redis servers are reached: URLs that name one or several, and what it means when one is not."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


class Address(NamedTuple):
    """Where a server listens; IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ConnectionFactory:
    """How the servers of a URL are reached: user, password, database, TLS. Raises `UNUSABLE`, as the library does."""

    def __init__(self, url: str, timeout: float) -> None:
        # The library's own retries are off: it would send a whole pipeline again, up to ten times.
        # RESP 2 needs no greeting, and there is nothing in RESP 3 that we use. The pool is only used to read the URL.
        self._pool = ConnectionPool.from_url(
            url, socket_connect_timeout=timeout, socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self.connection()

    def connection(self, address: Address | None = None) -> AbstractConnection:
        """Give a connection, not opened yet, to this server, or to the one that the URL names."""
        given = address._asdict() if address else {}
        return self._pool.connection_class(**self._pool.connection_kwargs | given)


UNUSABLE = (ValueError, TypeError, RedisError)


class MultiHostUrl(NamedTuple):
    """A URL that names several servers, taken apart. The settings have looked at it: it is well written."""

    addresses: list[Address]
    service: str
    url: str
    """One that says how each of them is reached, but not where."""
    options: str
    """What stands after the "?"."""


def several(url: str, default_port: int) -> MultiHostUrl:
    """Take apart `SCHEME://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]…[/SERVICE][?OPTIONS]`."""
    rest, _, options = url.partition("://")[2].partition("?")
    where, _, service = rest.partition("/")
    login, at, hosts = where.rpartition("@")
    addresses: list[Address] = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        addresses.append(Address(parts.hostname or "", parts.port or default_port))
    return MultiHostUrl(addresses, unquote(service), f"redis://{login}{at}localhost?{options}", options)


def words(error: Exception) -> str:
    """Say what went wrong. The library's words hold the address again, and often a number that has a name."""
    text = str(error)
    # As in: Error 1 connecting to HOST:PORT. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: … (_ssl.c:9).
    if tls := re.search(r"\[SSL: \w+\] (.*?)(?: \(_ssl|$)", text):
        return tls[1]
    numbers = set(re.findall(r"\b(?:Error|Errno) (\d+)", text))
    if len(numbers) == 1:
        return os.strerror(int(numbers.pop())).lower()
    # As in: Error -2 connecting to HOST:PORT. Name or service not known.
    return re.sub(r"^Error \S+ connecting to \S+ (.*?)\.?$", r"\1", text)
