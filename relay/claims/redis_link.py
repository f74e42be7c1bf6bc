"""One connection to a Redis server: how it is reached, its clock, and pipelines, asked again where that may help."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from relay.claims.clocks import ServerClock
from relay.core.claim import Unknown
from relay.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from relay.claims.redis_commands import Request

_TIME: Request = ("TIME",)


class Address(NamedTuple):
    """Where a server listens; IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Moved(Unknown):
    """Another node of the cluster is to be asked: from now on (MOVED), or `once`, and told that we know (ASK)."""

    address: Address
    once: bool


@dataclass(frozen=True, slots=True)
class ReadOnly(Unknown):
    """The server is a replica."""


@dataclass(frozen=True, slots=True)
class Away(Unknown):
    """The node of the cluster that should know does not answer."""


class Way:
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


class Several(NamedTuple):
    """A URL that names several servers, taken apart. The settings have looked at it: it is well written."""

    addresses: list[Address]
    service: str
    url: str
    """One that says how each of them is reached, but not where."""
    options: str
    """What stands after the "?"."""


def several(url: str, default_port: int) -> Several:
    """Take apart `SCHEME://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]…[/SERVICE][?OPTIONS]`."""
    rest, _, options = url.partition("://")[2].partition("?")
    where, _, service = rest.partition("/")
    login, at, hosts = where.rpartition("@")
    addresses: list[Address] = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        addresses.append(Address(parts.hostname or "", parts.port or default_port))
    return Several(addresses, unquote(service), f"redis://{login}{at}localhost?{options}", options)


class Dial(Protocol):
    """Finds a server and connects to it."""

    name: str
    """Of what is looked for, in errors."""
    at: str
    """Who answered last."""

    async def __call__(self) -> AbstractConnection:
        """Give a connection that is open. Raises `RedisError` or `OSError`."""


class Direct:
    """Connects to the one server that there is; always by the same connection."""

    def __init__(self, place: str, connection: AbstractConnection) -> None:
        self.name, self.at = f"redis at {place}", place
        self._connection = connection

    async def __call__(self) -> AbstractConnection:
        """Give the connection, open."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        return self._connection


class Link:
    """One connection to one server at a time. Every method but `close` raises `StoreError`. One caller at a time."""

    def __init__(self, dial: Dial, clock: Callable[[], float]) -> None:
        self._dial = dial
        self._connection: AbstractConnection | None = None
        self.clock = ServerClock(clock)

    @property
    def at(self) -> str:
        """Where the server is that answered last."""
        return self._dial.at

    async def open(self) -> None:
        """Connect and learn the server's clock, unless we are connected."""
        if self._connection and self._connection.is_connected:
            return
        try:
            self._connection = await self._dial()
            await self._look_and_ask(self._connection, [])
        except (RedisError, OSError) as error:
            raise self.error(words(error)) from error

    async def exchange(self, requests: Callable[[], Sequence[Request]]) -> list[object]:
        """Send all, read all, once more where that may help. What the server refuses is an `Unknown`."""
        connection = await self._same_server()
        try:
            try:
                right, replies = await self._look_and_ask(connection, requests())
            except (RedisConnectionError, OSError):
                # Dropped, perhaps long ago while we were idle: once more, for the commands are safe to repeat.
                connection = await self._same_server()
                right, replies = await self._look_and_ask(connection, requests())
            if not right:
                _, replies = await self._look_and_ask(connection, requests())
        except (RedisError, OSError) as error:
            raise self.error(words(error)) from error
        if ReadOnly in map(type, replies):
            await self.close()  # it was the master once; who is that now?
        return replies

    async def close(self) -> None:
        """Leave the server."""
        if self._connection:
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect()

    def error(self, reason: object) -> StoreError:
        """Name the server in an error."""
        return StoreError(f"{self._dial.name}: {reason}")

    async def _same_server(self) -> AbstractConnection:
        """Be connected. Another server than before may lack what that one knew: whoever asks us must hear of it."""
        before = self._dial.at
        await self.open()
        if before not in ("", self._dial.at):
            raise self.error(f"{self._dial.at} has taken over from {before}")
        assert self._connection is not None  # noqa: S101 - it is open
        return self._connection

    async def _look_and_ask(
        self, connection: AbstractConnection, requests: Sequence[Request]
    ) -> tuple[bool, list[object]]:
        """Give whether the server's clock is still what it was when the requests were made, and the replies to them."""
        asked_at = self.clock.clock()
        told, *replies = await round_trip(connection, [_TIME, *requests])
        match told:
            case [bytes(seconds), bytes(microseconds)]:
                return not self.clock.learn(asked_at, int(seconds) + int(microseconds) / 1e6), replies
        await self.close()
        raise self.error(told.reason if isinstance(told, Unknown) else f"it tells no time ({told})")


async def round_trip(connection: AbstractConnection, requests: Sequence[Request]) -> list[object]:
    """Send all and read all. Raises what the library raises."""
    # hiredis packs and reads in C. By redis-py's pipeline and packing, a batch of 50 costs three times the CPU.
    packed = b"".join(hiredis.pack_command(request) for request in requests)  # type: ignore[arg-type]
    # Broken off in the middle, by an error or a cancellation, the library disconnects. It must: answers are still on
    # their way, and the next batch would read them as its own.
    try:
        await connection.send_packed_command(packed)
    except RuntimeError as error:
        # uvloop's word for a transport that a reset has closed while nobody looked.
        raise RedisConnectionError(f"the connection was reset ({error})") from error
    replies: list[object] = []
    for _ in requests:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(_refused(error))
    return replies


def _refused(error: ResponseError) -> Unknown:
    match error:
        case AskError():  # also MOVED, which the library derives from it
            address = Address(error.host, error.port)
            return Moved(f"moved to {address}", address, once=not isinstance(error, MovedError))
        case ReadOnlyError():
            return ReadOnly(str(error))
    return Unknown(str(error))


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
