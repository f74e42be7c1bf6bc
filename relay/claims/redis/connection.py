"""One connection to a Redis server: its clock, its life, and pipelines, asked again where that may help."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import hiredis
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from relay.claims.redis.connect import Address, words
from relay.claims.redis.server_clock import ServerClock
from relay.core.claim import Unknown
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from relay.claims.redis.commands import Request

_TIME: Request = ("TIME",)
_WHO: Request = ("INFO", "server")


@dataclass(frozen=True, slots=True)
class Moved(Unknown):
    """Another node of the cluster is to be asked: from now on (MOVED), or `once`, and told that we know (ASK)."""

    address: Address
    once: bool


@dataclass(frozen=True, slots=True)
class ReadOnly(Unknown):
    """The server is a replica."""


@dataclass(frozen=True, slots=True)
class Unreachable(Unknown):
    """The node of the cluster that should know does not answer."""


class Connector(Protocol):
    """Finds a server and connects to it."""

    name: str
    """Of what is looked for, in errors."""
    at: str
    """Who answered last."""

    async def __call__(self) -> AbstractConnection:
        """Give a connection that is open. Raises `RedisError` or `OSError`."""


class DirectConnector:
    """Connects to the one server that there is; always by the same connection."""

    def __init__(self, place: str, connection: AbstractConnection) -> None:
        self.name, self.at = f"redis at {place}", place
        self._connection = connection

    async def __call__(self) -> AbstractConnection:
        """Give the connection, open."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        return self._connection


class ServerConnection:
    """One connection to one server at a time. Every method but `close` raises `StoreError`. One caller at a time."""

    def __init__(self, dial: Connector, clock: Callable[[], float]) -> None:
        self._dial = dial
        self._connection: AbstractConnection | None = None
        self._life = ("", "")
        self.clock = ServerClock(clock)
        self.restarts = 0
        """How often we found another server than before, or the same one in another life: either may know less."""

    @property
    def at(self) -> str:
        """Where the server is that answered last."""
        return self._dial.at

    async def open(self) -> None:
        """See that the server answers, and what time it has."""
        await self.exchange(list)

    async def exchange(self, requests: Callable[[], Sequence[Request]]) -> list[object]:
        """Send all, read all, once more where that may help. What the server refuses is an `Unknown`."""
        try:
            connection = await self._connected()
            try:
                right, replies = await self._look_and_ask(connection, requests())
            except (RedisConnectionError, OSError):
                # Dropped, perhaps long ago while we were idle: once more, for the commands are safe to repeat.
                connection = await self._connected()
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

    async def _connected(self) -> AbstractConnection:
        """Be connected, and know the server's clock, and whether it is the one that we know."""
        if self._connection is None or not self._connection.is_connected:
            self._connection = await self._dial()
            _, [told] = await self._look_and_ask(self._connection, [_WHO])
            # A user who may not ask for it hears of a restart only where another address comes with it.
            run = re.search(rb"^run_id:(\w+)", told, re.MULTILINE) if isinstance(told, bytes) else None
            life = (self._dial.at, run[1].decode() if run else "")
            self.restarts += self._life not in (("", ""), life)
            self._life = life
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
